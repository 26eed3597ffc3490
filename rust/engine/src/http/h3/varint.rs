//! Integers of QUIC (RFC 9000 §16): the first two bits say how many bytes there are.

/// The largest there is.
pub const MAX: u64 = (1 << 62) - 1;

/// How many bytes an integer has that begins with `first`.
pub fn length(first: u8) -> usize {
    1 << (first >> 6)
}

/// Reads one from the front of `bytes`, and returns what follows. None when it is not there whole.
pub fn read(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let (bytes, rest) = bytes.split_at_checked(length(*bytes.first()?))?;
    let first = u64::from(bytes[0] & 0x3f);
    Some((bytes[1..].iter().fold(first, |value, byte| value << 8 | u64::from(*byte)), rest))
}

/// Appends `value`, which is at most [`MAX`], in as few bytes as there can be.
pub fn write(out: &mut Vec<u8>, value: u64) {
    debug_assert!(value <= MAX);
    match value {
        0..0x40 => out.push(value as u8),
        0x40..0x4000 => out.extend_from_slice(&(value as u16 | 0x4000).to_be_bytes()),
        0x4000..0x4000_0000 => out.extend_from_slice(&(value as u32 | 0x8000_0000).to_be_bytes()),
        _ => out.extend_from_slice(&(value | 0xc000_0000_0000_0000).to_be_bytes()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 9000 §A.1.
    #[test]
    fn the_examples_of_the_rfc() {
        let examples: [(&[u8], u64); 5] = [
            (&[0xc2, 0x19, 0x7c, 0x5e, 0xff, 0x14, 0xe8, 0x8c], 151_288_809_941_952_652),
            (&[0x9d, 0x7f, 0x3e, 0x7d], 494_878_333),
            (&[0x7b, 0xbd], 15_293),
            (&[0x25], 37),
            (&[0x40, 0x25], 37),
        ];
        for (bytes, value) in examples {
            assert_eq!(read(bytes), Some((value, &[][..])));
            assert_eq!(read(&bytes[..bytes.len() - 1]), None);
        }
    }

    #[test]
    fn there_and_back() {
        for value in [0, 63, 64, 16_383, 16_384, (1 << 30) - 1, 1 << 30, MAX] {
            let mut bytes = Vec::new();
            write(&mut bytes, value);
            assert_eq!(bytes.len(), length(bytes[0]));
            assert_eq!(read(&bytes), Some((value, &[][..])));
        }
    }
}
