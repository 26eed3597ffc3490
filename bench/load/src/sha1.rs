//! SHA-1 and base64, as far as `Sec-WebSocket-Accept` needs them (RFC 6455 §4.2.2, RFC 3174, RFC 4648 §4).

const GUID: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// The proof that the server read this key.
pub fn accept_key(key: &str) -> String {
    base64(&digest(format!("{key}{GUID}").as_bytes()))
}

pub fn base64(bytes: &[u8]) -> String {
    bytes.chunks(3).flat_map(base64_group).collect()
}

fn base64_group(group: &[u8]) -> [char; 4] {
    let bits = (0..3).fold(0u32, |bits, index| bits << 8 | u32::from(group.get(index).copied().unwrap_or(0)));
    std::array::from_fn(|index| match index <= group.len() {
        true => ALPHABET[(bits >> (18 - 6 * index) & 63) as usize] as char,
        false => '=',
    })
}

fn digest(message: &[u8]) -> [u8; 20] {
    let mut padded = message.to_vec();
    padded.push(0x80);
    padded.resize((message.len() + 9).next_multiple_of(64) - 8, 0);
    padded.extend_from_slice(&(message.len() as u64 * 8).to_be_bytes());
    let start = [0x6745_2301, 0xefcd_ab89, 0x98ba_dcfe, 0x1032_5476, 0xc3d2_e1f0];
    let state = padded.chunks_exact(64).fold(start, compress);
    std::array::from_fn(|index| state[index / 4].to_be_bytes()[index % 4])
}

fn compress(state: [u32; 5], block: &[u8]) -> [u32; 5] {
    let words = schedule(block);
    let mut next = state;
    for (index, word) in words.into_iter().enumerate() {
        next = round(next, index, word);
    }
    std::array::from_fn(|index| state[index].wrapping_add(next[index]))
}

fn schedule(block: &[u8]) -> [u32; 80] {
    let mut words = [0u32; 80];
    for (word, bytes) in words.iter_mut().zip(block.chunks_exact(4)) {
        *word = bytes.iter().fold(0, |word, byte| word << 8 | u32::from(*byte));
    }
    for index in 16..80 {
        let mixed = words[index - 3] ^ words[index - 8] ^ words[index - 14] ^ words[index - 16];
        words[index] = mixed.rotate_left(1);
    }
    words
}

fn round([a, b, c, d, e]: [u32; 5], index: usize, word: u32) -> [u32; 5] {
    let (mixed, constant) = match index {
        0..20 => (b & c | !b & d, 0x5a82_7999),
        20..40 => (b ^ c ^ d, 0x6ed9_eba1),
        40..60 => (b & c | b & d | c & d, 0x8f1b_bcdc),
        _ => (b ^ c ^ d, 0xca62_c1d6),
    };
    let first = [a.rotate_left(5), mixed, e, word, constant].into_iter().fold(0, u32::wrapping_add);
    [first, a, b.rotate_left(30), c, d]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accept_key_matches_the_vectors() {
        assert_eq!(accept_key("dGhlIHNhbXBsZSBub25jZQ=="), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        assert_eq!(accept_key("dfQAy9mlQ0EjD5MmvvsZaQ=="), "+mKC4huknIfMGJFOzclP9fO058g=");
    }

    #[test]
    fn digest_matches_rfc_3174() {
        let text = "abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq"; // longer than one block with its padding
        assert_eq!(base64(&digest(b"abc")), "qZk+NkcGgWq6PiVxeFDCbJzQ2J0=");
        assert_eq!(base64(&digest(text.as_bytes())), "hJg+RBw70m66rkqh+VEp5eVGcPE=");
    }

    #[test]
    fn base64_pads() {
        let encoded: Vec<String> = ["", "f", "fo", "foo", "foob"].map(|text| base64(text.as_bytes())).into();
        assert_eq!(encoded, ["", "Zg==", "Zm8=", "Zm9v", "Zm9vYg=="]);
    }
}
