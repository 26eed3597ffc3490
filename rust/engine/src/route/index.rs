//! A map from bytes to numbers, built once, that touches little memory.
//!
//! A table of many thousand routes does not fit into the nearest caches, so a lookup costs as much as it touches cache
//! lines: here one slot and the key's text, which stands beside its neighbours. Slots are probed one after the other,
//! and at least a third of them is free.
//!
//! Only the configuration puts keys into these maps, so nobody outside can make them collide, and a hash that resists
//! that would cost more than the lookup. This one multiplies eight bytes at a time and folds the product.

use std::num::NonZeroU32;

#[derive(Debug)]
pub(super) struct ByteIndex {
    /// As many as a power of two.
    slots: Box<[Option<Slot>]>,
    /// All keys, one behind the other.
    texts: Box<[u8]>,
}

/// Offsets have 32 bits, as the texts of a configuration come nowhere near 4 GiB.
#[derive(Clone, Copy, Debug)]
struct Slot {
    /// Never 0, which leaves room for the mark of a free slot.
    hash: NonZeroU32,
    start: u32,
    length: u32,
    number: u32,
}

impl ByteIndex {
    /// A map of `pairs`, whose keys are different.
    pub(super) fn new<K: AsRef<[u8]>>(pairs: &[(K, u32)]) -> Self {
        let mut slots = vec![None; (pairs.len() * 3 / 2 + 1).next_power_of_two()];
        let mut texts = Vec::new();
        for (key, number) in pairs {
            let key = key.as_ref();
            let hash = hash(key);
            let slot = Slot { hash, start: texts.len() as u32, length: key.len() as u32, number: *number };
            texts.extend_from_slice(key);
            let free = probes(hash, slots.len()).find(|at| slots[*at].is_none());
            if let Some(free) = free {
                slots[free] = Some(slot);
            }
        }
        Self { slots: slots.into(), texts: texts.into() }
    }

    pub(super) fn get(&self, key: &[u8]) -> Option<u32> {
        let hash = hash(key);
        for at in probes(hash, self.slots.len()) {
            let slot = self.slots[at].as_ref()?;
            if slot.hash == hash && self.text(slot) == key {
                return Some(slot.number);
            }
        }
        None
    }

    fn text(&self, slot: &Slot) -> &[u8] {
        let start = slot.start as usize;
        &self.texts[start..start + slot.length as usize]
    }
}

/// All places of a table, from the one for `hash`.
fn probes(hash: NonZeroU32, places: usize) -> impl Iterator<Item = usize> {
    (0..places).map(move |step| (hash.get() as usize + step) & (places - 1))
}

fn hash(bytes: &[u8]) -> NonZeroU32 {
    let mut state = mix(bytes.len() as u64, 0x8bb8_4b93_962e_acc9);
    let (words, rest) = bytes.as_chunks::<8>();
    for word in words {
        state = mix(state, u64::from_le_bytes(*word));
    }
    if !rest.is_empty() {
        // The last eight bytes overlap those before, which is quicker than to copy the rest.
        let short = || rest.iter().fold(0, |word, byte| word << 8 | u64::from(*byte));
        state = mix(state, bytes.last_chunk().map_or_else(short, |word| u64::from_le_bytes(*word)));
    }
    NonZeroU32::new(state as u32).unwrap_or(NonZeroU32::MIN)
}

fn mix(state: u64, word: u64) -> u64 {
    let product = u128::from(state ^ word) * 0x2d35_8dcc_aa6c_78a5;
    product as u64 ^ (product >> 64) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_what_was_put_in() {
        for count in [0, 1, 2, 3, 10, 1000] {
            let key = |number: u32| format!("{}-{number}", "x".repeat(number as usize % 19));
            let pairs: Vec<_> = (0..count).map(|number| (key(number), number)).collect();
            let index = ByteIndex::new(&pairs);
            for (key, number) in &pairs {
                assert_eq!(index.get(key.as_bytes()), Some(*number));
                assert_eq!(index.get(format!("{key}!").as_bytes()), None);
            }
            assert_eq!(index.get(b""), None);
        }
        assert_eq!(ByteIndex::new(&[("", 7)]).get(b""), Some(7));
    }

    #[test]
    fn spreads_keys_that_differ_in_one_place() {
        let hashes = |text: fn(u32) -> String| {
            let mut found: Vec<_> = (0..4096).map(|number| hash(text(number).as_bytes()).get() % 4096).collect();
            found.sort_unstable();
            found.dedup();
            found.len()
        };
        // Chance fills 1 - 1/e of the places.
        for text in [|n| format!("{n}"), |n| format!("/service-{n}"), |n: u32| format!("tenant-{n}.example.com")] {
            assert!(hashes(text) > 2400, "{}", hashes(text));
        }
    }
}
