//! Passive ejection: who failed too often in a row gets nothing for a while.
//!
//! ```text
//!             failure, fewer than `failures` in a row
//!             ┌──┐
//!             ▼  │          failure                        time is over
//!   good ──▶ suspected ───────────────────▶ ejected ─────────────────────▶ on probation
//!    ▲            │   `failures` in a row     ▲                             │        │
//!    │            │                           └──── failure: for longer ────┘        │
//!    └────────────┴──────────────────── any answer ──────────────────────────────────┘
//! ```
//!
//! The count of failures in a row goes on over an ejection, as only an answer ends the row. So one failure of an
//! endpoint on probation is enough to eject it again, for twice as long each time, up to [`LONGEST`] times `for`: a
//! server that stays dead costs one exchange now and then. Time alone brings it back: nothing is sent to find out.
//!
//! One per endpoint, shared by the workers and by the configurations that come and go. Nobody takes a lock for it; an
//! answer costs one load as long as all is well.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};

use crate::snapshot::Eject;

/// How many times `for` an ejection may become.
const LONGEST: u64 = 8;

/// How an endpoint did, as its exchanges tell.
#[derive(Debug, Default)]
pub struct Health {
    /// Failures since the last answer.
    failures: AtomicU32,
    /// Ejections since the last answer.
    streak: AtomicU32,
    /// When the last ejection ends, or ended.
    until: AtomicU64,
    ejections: AtomicU64,
}

impl Health {
    /// Whether it gets nothing at `now`, in milliseconds.
    pub fn is_ejected(&self, now: u64) -> bool {
        self.until.load(Relaxed) > now
    }

    /// Failures since the last answer.
    pub fn failures(&self) -> u32 {
        self.failures.load(Relaxed)
    }

    /// How often it was ejected.
    pub fn ejections(&self) -> u64 {
        self.ejections.load(Relaxed)
    }

    /// It has answered.
    pub fn answered(&self) {
        if self.failures.load(Relaxed) != 0 {
            self.failures.store(0, Relaxed);
            self.streak.store(0, Relaxed);
        }
    }

    /// It has failed at `now`: whether it should be ejected. It is still for [`Health::eject`] to do so, if the others
    /// can do without it.
    pub fn failed(&self, rules: &Eject, now: u64) -> bool {
        let failures = self.failures.fetch_add(1, Relaxed).saturating_add(1);
        failures >= rules.failures && !self.is_ejected(now)
    }

    /// Ejects it: for how long; `None` where another worker has just done it.
    pub fn eject(&self, rules: &Eject, now: u64) -> Option<u64> {
        let until = self.until.load(Relaxed);
        let streak = self.streak.load(Relaxed).min(LONGEST.ilog2());
        let lasts = rules.lasts.saturating_mul(1 << streak);
        if until > now || self.until.compare_exchange(until, now.saturating_add(lasts), Relaxed, Relaxed).is_err() {
            return None;
        }
        self.streak.store(streak + 1, Relaxed);
        self.ejections.fetch_add(1, Relaxed);
        Some(lasts)
    }
}

/// How many of `endpoints` may be ejected at once.
pub fn most(rules: &Eject, endpoints: usize) -> usize {
    (endpoints as u64 * u64::from(rules.at_most) / 100) as usize
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use super::*;

    const RULES: Eject = Eject { failures: 3, lasts: 100, at_most: 50 };

    fn fail(health: &Health, now: u64) -> Option<u64> {
        if health.failed(&RULES, now) { health.eject(&RULES, now) } else { None }
    }

    #[test]
    fn failures_in_a_row_eject_and_time_brings_back() {
        let health = Health::default();
        assert_eq!([fail(&health, 10), fail(&health, 11), fail(&health, 12)], [None, None, Some(100)]);
        assert!(!health.is_ejected(112) && health.is_ejected(111) && health.is_ejected(12));
        assert_eq!((health.failures(), health.ejections()), (3, 1));
    }

    #[test]
    fn an_answer_ends_the_row() {
        let health = Health::default();
        for now in 0..50 {
            assert_eq!(fail(&health, now), None);
            assert_eq!(fail(&health, now), None);
            health.answered();
        }
        assert_eq!(health.ejections(), 0);
    }

    #[test]
    fn on_probation_one_failure_is_enough_and_it_lasts_longer_each_time() {
        let health = Health::default();
        let mut now = 0;
        let mut lasted = Vec::new();
        fail(&health, now);
        fail(&health, now);
        for _ in 0..6 {
            let lasts = fail(&health, now).unwrap();
            assert_eq!(fail(&health, now + lasts - 1), None, "it is ejected, and late failures change nothing");
            lasted.push(lasts);
            now += lasts;
        }
        assert_eq!(lasted, [100, 200, 400, 800, 800, 800]);
        health.answered();
        assert_eq!([fail(&health, now), fail(&health, now), fail(&health, now)], [None, None, Some(100)]);
    }

    #[test]
    fn others_may_need_it() {
        let health = Health::default();
        let should = [0; 4].map(|now| health.failed(&RULES, now));
        assert_eq!(should, [false, false, true, true]);
        assert!(!health.is_ejected(0), "nobody did it");
        assert_eq!(fail(&health, 1), Some(100), "at once, when they do without");
    }

    #[test]
    fn one_of_many_workers_ejects() {
        let (health, ejected) = (Health::default(), AtomicUsize::new(0));
        let work = || {
            for _ in 0..1000 {
                ejected.fetch_add(usize::from(fail(&health, 7).is_some()), Relaxed);
            }
        };
        std::thread::scope(|scope| (0..4).for_each(|_| drop(scope.spawn(work))));
        assert_eq!((ejected.into_inner(), health.ejections(), health.failures()), (1, 1, 4000));
    }

    #[test]
    fn the_most_is_rounded_down() {
        let most = |at_most, endpoints| most(&Eject { at_most, ..RULES }, endpoints);
        assert_eq!([most(50, 1), most(50, 2), most(50, 3), most(34, 3), most(33, 3)], [0, 1, 1, 1, 0]);
        assert_eq!([most(100, 3), most(1, 1000), most(100, 0)], [3, 10, 0]);
    }
}
