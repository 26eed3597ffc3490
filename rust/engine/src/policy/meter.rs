//! How fast things may come, told by one number that all workers share (GCRA, ITU-T I.371 annex A): the moment up to
//! which what has come so far has used the rate up. One that comes moves it on by `per / count`; it may run ahead of
//! now by as many of these as the burst has. A rate that changes finds what has come under the old one in it.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::io::clock::Millis;
use crate::snapshot::Rate;

const NANOSECONDS: u64 = 1_000_000;

/// What has come so far.
#[derive(Debug, Default)]
pub struct Meter {
    /// In nanoseconds.
    used_up: AtomicU64,
}

impl Meter {
    /// Takes one now.
    ///
    /// # Errors
    /// How long until there will be one, where that is one too many; nothing has happened then.
    pub fn take(&self, rate: &Rate, now: Millis) -> Result<(), Millis> {
        let now = now.saturating_mul(NANOSECONDS);
        let gap = (rate.per.saturating_mul(NANOSECONDS) / rate.count.max(1)).max(1);
        let ahead = now.saturating_add(gap.saturating_mul(rate.burst.max(1)));
        let next = |used_up: u64| used_up.max(now).saturating_add(gap);
        let take = |used_up: u64| Some(next(used_up)).filter(|next| *next <= ahead);
        let taken = self.used_up.fetch_update(Relaxed, Relaxed, take);
        taken.map(drop).map_err(|used_up| (next(used_up) - ahead).div_ceil(NANOSECONDS))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(meter: &Meter, rate: &Rate, now: Millis, asked: u32) -> u32 {
        (0..asked).filter(|_| meter.take(rate, now).is_ok()).count() as u32
    }

    #[test]
    fn a_burst_may_come_at_once() {
        let (meter, rate) = (Meter::default(), Rate { count: 100, per: 1_000, burst: 30 });
        assert_eq!(taken(&meter, &rate, 5_000, 500), 30);
        assert_eq!(meter.take(&rate, 5_000), Err(10));
        assert_eq!(meter.take(&rate, 5_009), Err(1));
        assert_eq!(meter.take(&rate, 5_010), Ok(()));
    }

    #[test]
    fn then_they_come_at_the_rate() {
        let (meter, rate) = (Meter::default(), Rate { count: 600, per: 60_000, burst: 10 });
        assert_eq!(taken(&meter, &rate, 1_000, 500), 10);
        let later: u32 = (1_001..=61_000).map(|now| taken(&meter, &rate, now, 3)).sum();
        assert_eq!(later, 600);
    }

    #[test]
    fn what_was_not_used_is_not_saved_up() {
        let (meter, rate) = (Meter::default(), Rate { count: 10, per: 1_000, burst: 10 });
        assert_eq!(taken(&meter, &rate, 1_000, 20), 10);
        assert_eq!(taken(&meter, &rate, 100_000, 20), 10);
    }

    #[test]
    fn a_slow_rate_lets_one_through_at_a_time() {
        let (meter, rate) = (Meter::default(), Rate { count: 1, per: 3_600_000, burst: 1 });
        assert_eq!(taken(&meter, &rate, 10, 5), 1);
        assert_eq!(taken(&meter, &rate, 3_600_009, 5), 0);
        assert_eq!(taken(&meter, &rate, 3_600_010, 5), 1);
    }

    #[test]
    fn a_rate_of_millions_is_not_rounded_away() {
        let (meter, rate) = (Meter::default(), Rate { count: 5_000_000, per: 1_000, burst: 5_000_000 });
        assert_eq!(taken(&meter, &rate, 1, 6_000_000), 5_000_000);
    }
}
