//! Choices by weight: a point on a line that the weights share.

/// Draws with one random number.
pub(super) struct Draw<'w> {
    weights: &'w [u32],
    random: u64,
}

impl<'w> Draw<'w> {
    pub(super) fn new(weights: &'w [u32], random: u64) -> Self {
        Self { weights, random }
    }

    /// One of those that are open, by weight.
    pub(super) fn one(&self, is_open: impl Fn(usize) -> bool) -> Option<usize> {
        draw(self.weights, is_open, mix(self.random))
    }

    /// A second choice, which does not depend on the first.
    pub(super) fn another(&self, is_open: impl Fn(usize) -> bool) -> Option<usize> {
        draw(self.weights, is_open, mix(self.random.wrapping_add(0x9e37_79b9_7f4a_7c15)))
    }
}

/// The one whose part of the line `turn` falls on, as turns go round and round the line.
pub(super) fn at(weights: &[u32], is_open: impl Fn(usize) -> bool, turn: u64) -> Option<usize> {
    let total = total(weights, &is_open);
    if total == 0 { None } else { point(weights, is_open, turn % total) }
}

fn draw(weights: &[u32], is_open: impl Fn(usize) -> bool, random: u64) -> Option<usize> {
    let total = total(weights, &is_open);
    let scaled = (u128::from(random) * u128::from(total)) >> 64;
    point(weights, is_open, scaled as u64)
}

fn total(weights: &[u32], is_open: impl Fn(usize) -> bool) -> u64 {
    weights.iter().enumerate().filter(|(index, _)| is_open(*index)).map(|(_, weight)| u64::from(*weight)).sum()
}

fn point(weights: &[u32], is_open: impl Fn(usize) -> bool, mut point: u64) -> Option<usize> {
    for (index, weight) in weights.iter().enumerate().filter(|(index, _)| is_open(*index)) {
        let weight = u64::from(*weight);
        if point < weight {
            return Some(index);
        }
        point -= weight;
    }
    None
}

/// SplitMix64: neighbouring numbers come out unrelated.
pub(super) fn mix(number: u64) -> u64 {
    let mut mixed = number;
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}
