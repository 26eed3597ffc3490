//! `Sec-WebSocket-Key` and the answer to it (RFC 6455 §4.1, §4.2.2).

use aws_lc_rs::digest::{Context, SHA1_FOR_LEGACY_USE_ONLY};

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
const SUFFIX: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// The key for a handshake of ours. `random` must be fresh and unpredictable.
pub fn fresh_key(random: [u8; 16]) -> [u8; 24] {
    let mut key = [b'='; 24];
    encode(&random, &mut key);
    key
}

/// What a server answers to `key` in `Sec-WebSocket-Accept`.
pub fn accept_key(key: &[u8]) -> [u8; 28] {
    let mut accept = [b'='; 28];
    encode(&sha1(&[key, SUFFIX]), &mut accept);
    accept
}

/// A key that is base64 of 16 bytes. The four unused bits of its last digit may be anything: nobody decodes it, and
/// some clients write text at random.
pub(super) fn parse_key(value: &[u8]) -> Option<[u8; 24]> {
    let key: [u8; 24] = value.trim_ascii().try_into().ok()?;
    let digits = key.strip_suffix(b"==")?;
    digits.iter().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/')).then_some(key)
}

fn sha1(parts: &[&[u8]]) -> [u8; 20] {
    let mut context = Context::new(&SHA1_FOR_LEGACY_USE_ONLY);
    parts.iter().for_each(|part| context.update(part));
    let mut hash = [0; 20];
    hash.copy_from_slice(context.finish().as_ref());
    hash
}

/// Writes `bytes` in base64 over the start of `out`, which is filled with padding.
fn encode(bytes: &[u8], out: &mut [u8]) {
    for (group, digits) in bytes.chunks(3).zip(out.chunks_mut(4)) {
        let mut word = [0; 4];
        word[1..=group.len()].copy_from_slice(group);
        let word = u32::from_be_bytes(word);
        for (index, digit) in digits.iter_mut().take(group.len() + 1).enumerate() {
            *digit = ALPHABET[(word >> (18 - 6 * index)) as usize & 63];
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_answers() {
        assert_eq!(&accept_key(b"dfQAy9mlQ0EjD5MmvvsZaQ=="), b"+mKC4huknIfMGJFOzclP9fO058g=");
        assert_eq!(&accept_key(b"dGhlIHNhbXBsZSBub25jZQ=="), b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }

    #[test]
    fn keys_are_base64() {
        assert_eq!(&fresh_key(*b"the sample nonce"), b"dGhlIHNhbXBsZSBub25jZQ==");
        assert_eq!(&fresh_key([0xff; 16]), b"/////////////////////w==");
        assert_eq!(parse_key(&fresh_key([0xfb; 16])), Some(fresh_key([0xfb; 16])));
    }

    #[test]
    fn keys_of_another_shape_are_refused() {
        for bad in [
            "",
            "dGhlIHNhbXBsZSBub25jZQ=",
            "dGhlIHNhbXBsZSBub25jZQ",
            "dGhlIHNhbXBsZSBub25jZQ===",
            "SGVsbG8sIHdvcmxkIQ==",
        ] {
            assert_eq!(parse_key(bad.as_bytes()), None, "{bad}");
        }
        assert_eq!(parse_key(b"dGhlIHNhbXBsZSBub25j,Q=="), None);
        assert_eq!(parse_key(b"dGhlIHNhbXBsZSBub25=ZQ=="), None);
    }
}
