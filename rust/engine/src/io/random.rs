//! Randomness for keys, masks and choices.

use std::cell::{Cell, RefCell};

/// Bytes that are fetched at once: the generator has much to do for each call, and little for each byte.
const STOCK: usize = 512;

thread_local! {
    /// Unused bytes, and how many of them.
    static UNUSED: RefCell<([u8; STOCK], usize)> = const { RefCell::new(([0; STOCK], 0)) };
    static STATE: Cell<u64> = Cell::new(u64::from_ne_bytes(bytes()));
}

/// `N` bytes that nobody can guess.
pub fn bytes<const N: usize>() -> [u8; N] {
    const { assert!(N <= STOCK) };
    UNUSED.with_borrow_mut(|(stock, left)| {
        if *left < N {
            // The generator of AWS-LC is seeded before main and cannot fail afterwards; zeros are still a valid mask.
            let _ = aws_lc_rs::rand::fill(stock);
            *left = STOCK;
        }
        *left -= N;
        let mut bytes = [0; N];
        bytes.copy_from_slice(&stock[*left..*left + N]);
        // Nobody gets them twice, and nobody finds them here.
        stock[*left..*left + N].fill(0);
        bytes
    })
}

/// A number for choices and ids: well spread, but whoever sees enough of them may guess the next (SplitMix64).
pub fn number() -> u64 {
    let state = STATE.get().wrapping_add(0x9e37_79b9_7f4a_7c15);
    STATE.set(state);
    let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn numbers_and_bytes_differ() {
        let numbers: HashSet<u64> = (0..1000).map(|_| number()).collect();
        let keys: HashSet<[u8; 16]> = (0..1000).map(|_| bytes()).collect();
        assert_eq!((numbers.len(), keys.len()), (1000, 1000));
    }
}
