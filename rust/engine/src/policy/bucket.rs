//! A token bucket: so many in a time on average, and so many at once.
//!
//! The level is counted in parts of a token, as many as the rate's time has milliseconds. So one millisecond brings
//! `count` parts, one token costs `per` of them, and nothing is ever rounded.

use crate::io::clock::Millis;
use crate::snapshot::Rate;

/// How much may still come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bucket {
    /// Below zero where more was taken than was there.
    level: i64,
    at: Millis,
}

impl Bucket {
    /// A full one.
    pub fn full(rate: &Rate, now: Millis) -> Self {
        Self { level: size(rate), at: now }
    }

    /// Adds what has come since the last look.
    #[inline]
    pub fn refill(&mut self, rate: &Rate, now: Millis) {
        let passed = now.saturating_sub(self.at);
        if passed > 0 {
            let parts = i64::try_from(passed.saturating_mul(rate.count)).unwrap_or(i64::MAX);
            self.level = self.level.saturating_add(parts).min(size(rate));
            self.at = now;
        }
    }

    /// Takes so many tokens if all of them are there.
    #[inline]
    pub fn take(&mut self, rate: &Rate, amount: u64) -> bool {
        let parts = cost(rate, amount);
        let is_there = parts <= self.level;
        if is_there {
            self.level -= parts;
        }
        is_there
    }

    /// Takes so many tokens, also those that are not there yet.
    #[inline]
    pub fn owe(&mut self, rate: &Rate, amount: u64) {
        self.level = self.level.saturating_sub(cost(rate, amount));
    }

    /// Whether so many tokens are there.
    #[inline]
    pub fn has(&self, rate: &Rate, amount: u64) -> bool {
        cost(rate, amount) <= self.level
    }

    /// How long until so many tokens are there, if nobody takes any; at most those of a full bucket ever are.
    pub fn wait(&self, rate: &Rate, amount: u64) -> Millis {
        let missing = cost(rate, amount).min(size(rate)).saturating_sub(self.level);
        u64::try_from(missing).map_or(0, |missing| missing.div_ceil(rate.count.max(1)))
    }

    /// How full it is, for those of the same rate.
    pub(super) fn level(&self) -> i64 {
        self.level
    }
}

fn size(rate: &Rate) -> i64 {
    cost(rate, rate.burst)
}

#[inline]
fn cost(rate: &Rate, amount: u64) -> i64 {
    i64::try_from(amount.saturating_mul(rate.per)).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const RATE: Rate = Rate { count: 10, per: 1000, burst: 3 };

    #[test]
    fn a_burst_and_then_the_rate() {
        let mut bucket = Bucket::full(&RATE, 5_000);
        assert!((0..3).all(|_| bucket.take(&RATE, 1)) && !bucket.take(&RATE, 1));
        assert_eq!(bucket.wait(&RATE, 1), 100);
        bucket.refill(&RATE, 5_099);
        assert!(!bucket.take(&RATE, 1));
        bucket.refill(&RATE, 5_100);
        assert!(bucket.take(&RATE, 1) && !bucket.take(&RATE, 1));
        bucket.refill(&RATE, u64::MAX);
        assert!((0..3).all(|_| bucket.take(&RATE, 1)) && !bucket.take(&RATE, 1));
    }

    #[test]
    fn what_is_owed_comes_first() {
        let mut bucket = Bucket::full(&RATE, 0);
        bucket.owe(&RATE, 5);
        assert_eq!((bucket.wait(&RATE, 0), bucket.wait(&RATE, 1), bucket.wait(&RATE, 99)), (200, 300, 500));
        bucket.refill(&RATE, 200);
        assert!(bucket.has(&RATE, 0) && !bucket.has(&RATE, 1));
    }

    proptest! {
        /// However it is asked, no more passes than the burst and what the time has brought.
        #[test]
        fn never_more_than_the_rate(
            count in 1..1000u64,
            per in prop_oneof![Just(1_000u64), Just(60_000), Just(3_600_000)],
            burst in 1..100u64,
            asks in proptest::collection::vec((0..500u64, 1..5u64), 1..200),
        ) {
            let rate = Rate { count, per, burst };
            let (mut bucket, mut now, mut taken) = (Bucket::full(&rate, 0), 0, 0);
            for (pause, amount) in asks {
                now += pause;
                bucket.refill(&rate, now);
                if bucket.take(&rate, amount) {
                    taken += amount;
                } else {
                    let wait = bucket.wait(&rate, amount);
                    let mut later = bucket;
                    later.refill(&rate, now + wait);
                    prop_assert!(amount > burst || later.has(&rate, amount));
                }
                prop_assert!(taken * per <= burst * per + now * count);
            }
        }
    }
}
