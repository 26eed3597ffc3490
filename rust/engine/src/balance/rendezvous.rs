//! Consistent hashing: who stands first for a key.
//!
//! Each key has an order of its own of all endpoints, and its exchanges go to the first that can be used. An endpoint's
//! place in the order of a key is a function of the key, the endpoint's address and its weight, and of nothing else
//! (rendezvous hashing, Thaler and Ravishankar 1998). So it is the same on every worker, in every process, on every
//! machine and after every reload; keys move only to an endpoint that is new, or away from one that has gone; and those
//! of one that has gone spread over all others by weight, instead of falling on one neighbour. A ring of points does
//! that only roughly: weights are as exact as it has points, and other weights reshuffle it. Each choice looks at each
//! endpoint, some nanoseconds long.
//!
//! A weight is respected exactly, too: `-ln(u)` of an even `u` between 0 and 1 is exponentially distributed, and of
//! several such numbers, each divided by its weight, each is the smallest in proportion to its weight.

use super::draw::mix;

/// A number that stands for `bytes`: FNV-1a, and a mixer behind it so that every bit depends on every byte. It is part
/// of what must never change: gateways of different versions stand side by side while one is rolled out.
pub fn hash(bytes: &[u8]) -> u64 {
    const OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
    const PRIME: u64 = 0x0000_0100_0000_01b3;
    mix(bytes.iter().fold(OFFSET, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(PRIME)))
}

/// The first in the order of `key` of those that are open and have a weight. `seeds` are the hashes of their addresses.
pub(super) fn first(weights: &[u32], seeds: &[u64], key: u64, is_open: impl Fn(usize) -> bool) -> Option<usize> {
    let may = |(index, weight): &(usize, &u32)| **weight > 0 && is_open(*index);
    let distance = |(index, weight): (usize, &u32)| (depth(mix(key ^ seeds[index])) / f64::from(*weight), index);
    let candidates = weights.iter().enumerate().filter(may).map(distance);
    candidates.min_by(|one, two| one.0.total_cmp(&two.0)).map(|(_, index)| index)
}

/// `-ln(number / 2^64)`, to about eleven digits. The system's `ln` may differ between machines in its last bit; these
/// sums and products are the same everywhere (IEEE 754).
fn depth(number: u64) -> f64 {
    use std::f64::consts::LN_2;
    let number = number | 1;
    let zeros = number.leading_zeros();
    // The part behind the leading one, as a number from 1 up to 2.
    let mantissa = 1.0 + ((number << zeros) << 1) as f64 / 18_446_744_073_709_551_616.0;
    f64::from(zeros + 1) * LN_2 - ln(mantissa)
}

/// `ln` between 1 and 2, by the series of `2 atanh((x - 1) / (x + 1))`, whose terms shrink at least ninefold.
fn ln(number: f64) -> f64 {
    const TERMS: u32 = 11;
    let ratio = (number - 1.0) / (number + 1.0);
    let square = ratio * ratio;
    let sum = (0..TERMS).rev().fold(0.0, |sum, term| sum * square + 1.0 / f64::from(2 * term + 1));
    2.0 * ratio * sum
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn depth_is_the_logarithm() {
        for number in [1, 2, 3, 0xffff, 1 << 40, 0x8000_0000_0000_0000, 0xdead_beef_dead_beef, u64::MAX] {
            let expected = -((number | 1) as f64 / 18_446_744_073_709_551_616.0).ln();
            assert!((depth(number) - expected).abs() < 1e-10, "{number}: {} is not {expected}", depth(number));
        }
    }

    /// Gateways of other versions must choose alike: these figures are a contract.
    #[test]
    fn hashes_stay() {
        assert_eq!([hash(b""), hash(b"alice")], [0xf52a_15e9_a9b5_e89b, 0xc5d1_556d_6677_4a5c]);
    }
}
