//! How endpoints stand when one is chosen, and when all of them are better than few.
//!
//! * *Slow start*: an endpoint that has just come, or come back, takes part in a part of the choices only, from
//!   [`FIRST`] up to all of them, and its turns in the others go to the rest. So its share grows in a straight line to
//!   what its weight and the policy give it, whatever the policy is: also by `least_connections`, where one without any
//!   load would else get everything at once. Chance decides for each exchange; for a hash the key does, so that a key that
//!   has come over stays.
//! * *Panic*: where too few are usable, they would fall under the load of all; then all are used as if nothing was known.

/// How an endpoint stands, the best first. One is chosen among those of the best standing that there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Standing {
    Good,
    /// It starts slowly, and this choice is none of those that it takes part in.
    Held,
    /// Another zone or priority serves, and so many are nearer.
    Elsewhere(u16),
    /// It has failed too often.
    Ejected,
    /// Its health checks fail: it is never chosen.
    Out,
}

impl Standing {
    /// Whether there is nothing against it.
    pub fn is_usable(self) -> bool {
        self < Self::Ejected
    }
}

/// The part of the choices, one in so many, that a slow start begins with.
const FIRST: u128 = 10;

/// Whether an endpoint that came this long ago, and takes so long to start, is held back. `coin` is even.
pub fn is_held(coin: u64, since: u64, lasts: u64) -> bool {
    if since >= lasts {
        return false;
    }
    let whole = 1_u128 << 64;
    let first = whole / FIRST;
    u128::from(coin) >= first + (whole - first) * u128::from(since) / u128::from(lasts)
}

/// Whether so few are usable, of all, that all are used again.
pub fn panics(usable: usize, all: usize, percent: u8) -> bool {
    usable as u64 * 100 < all as u64 * u64::from(percent)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slow_start_is_a_straight_line() {
        let held = |since| (0..1000_u64).filter(|part| is_held(part * (u64::MAX / 1000), since, 30_000)).count();
        let shares: Vec<usize> = [0, 10_000, 15_000, 20_000, 29_999].map(|since| 1000 - held(since)).into();
        assert!(
            shares.iter().zip([100, 400, 550, 700, 1000]).all(|(found, part)| found.abs_diff(part) <= 2),
            "{shares:?}"
        );
        assert_eq!(held(30_000), 0);
        assert!(!is_held(u64::MAX, 0, 0) && is_held(u64::MAX, u64::MAX - 1, u64::MAX));
    }

    #[test]
    fn panic_is_below_the_share() {
        let panics = |usable, all| panics(usable, all, 50);
        assert_eq!(
            [panics(1, 2), panics(1, 3), panics(2, 3), panics(0, 1), panics(0, 0)],
            [false, true, false, true, false]
        );
        assert!(!super::panics(0, 9, 0) && super::panics(8, 9, 100) && !super::panics(9, 9, 100));
    }
}
