//! How fast things may come, told by one number that all workers share (GCRA, ITU-T I.371 annex A): the moment up to
//! which what has come so far has used the rate up. One that comes moves it on by `per / count`; it may run ahead of now
//! by a second's worth. A rate that changes finds what has come under the old one in it.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::snapshot::Rate;

/// Milliseconds, on any clock that only goes forward.
type Millis = u64;

/// How far a run may be ahead of its rate, in nanoseconds.
const BURST: u64 = 1_000_000_000;

/// What has come so far.
#[derive(Debug, Default)]
pub struct Meter {
    /// In nanoseconds.
    used_up: AtomicU64,
}

impl Meter {
    /// Takes one now; false, and nothing has happened, where that is one too many.
    pub fn take(&self, rate: &Rate, now: Millis) -> bool {
        let now = now.saturating_mul(1_000_000);
        let gap = (u64::from(rate.per) * 1_000_000 / u64::from(rate.count).max(1)).max(1);
        // A slow rate has no whole one in a second, and still lets one through.
        let ahead = now + BURST.max(gap);
        let take = |used_up: u64| Some(used_up.max(now) + gap).filter(|next| *next <= ahead);
        self.used_up.fetch_update(Relaxed, Relaxed, take).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(meter: &Meter, rate: &Rate, now: Millis, asked: u32) -> u32 {
        (0..asked).filter(|_| meter.take(rate, now)).count() as u32
    }

    #[test]
    fn a_second_s_worth_may_come_at_once() {
        let (meter, rate) = (Meter::default(), Rate { count: 100, per: 1_000 });
        assert_eq!(taken(&meter, &rate, 5_000, 500), 100);
        assert_eq!(taken(&meter, &rate, 5_000, 1), 0);
    }

    #[test]
    fn then_they_come_at_the_rate() {
        let (meter, rate) = (Meter::default(), Rate { count: 600, per: 60_000 });
        assert_eq!(taken(&meter, &rate, 1_000, 500), 10);
        let later: u32 = (1_001..=61_000).map(|now| taken(&meter, &rate, now, 3)).sum();
        assert_eq!(later, 600);
    }

    #[test]
    fn what_was_not_used_is_not_saved_up() {
        let (meter, rate) = (Meter::default(), Rate { count: 10, per: 1_000 });
        assert_eq!(taken(&meter, &rate, 1_000, 20), 10);
        assert_eq!(taken(&meter, &rate, 100_000, 20), 10);
    }

    #[test]
    fn a_slow_rate_lets_one_through_at_a_time() {
        let (meter, rate) = (Meter::default(), Rate { count: 1, per: 3_600_000 });
        assert_eq!(taken(&meter, &rate, 10, 5), 1);
        assert_eq!(taken(&meter, &rate, 3_600_009, 5), 0);
        assert_eq!(taken(&meter, &rate, 3_600_010, 5), 1);
    }

    #[test]
    fn a_rate_of_millions_is_not_rounded_away() {
        let (meter, rate) = (Meter::default(), Rate { count: 5_000_000, per: 1_000 });
        assert_eq!(taken(&meter, &rate, 1, 6_000_000), 5_000_000);
    }
}
