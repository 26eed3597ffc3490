//! Randomness for keys, masks and choices.

/// `N` bytes that nobody can guess.
pub fn bytes<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    // The generator of AWS-LC is seeded before main and cannot fail afterwards; a mask of zeros is still a valid mask.
    let _ = aws_lc_rs::rand::fill(&mut bytes);
    bytes
}

/// A number for a choice.
pub fn number() -> u64 {
    u64::from_ne_bytes(bytes())
}
