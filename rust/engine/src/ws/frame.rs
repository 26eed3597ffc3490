//! Frame headers (RFC 6455 §5.2), and the few frames we write ourselves.
//!
//! ```text
//!  byte 0: FIN, RSV1, RSV2, RSV3, opcode (4 bits)      byte 1: MASK, length (7 bits)
//!  then 2 bytes of length when the 7 bits say 126, 8 when they say 127; then 4 bytes of masking key when MASK is set
//! ```

use super::close;

/// Bytes of the longest header: 2, a 64-bit length and a masking key.
pub const LONGEST_HEADER: usize = 14;

/// Bytes of the longest payload of a control frame (RFC 6455 §5.5).
pub const LONGEST_CONTROL: usize = 125;

const FIN: u8 = 0x80;
const RSV1: u8 = 0x40;
const RSV2_RSV3: u8 = 0x30;
const MASK: u8 = 0x80;
const LENGTH_16: u8 = 126;
const LENGTH_64: u8 = 127;

/// What a frame is (RFC 6455 §11.8).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Opcode {
    Continuation = 0,
    Text = 1,
    Binary = 2,
    Close = 8,
    Ping = 9,
    Pong = 10,
}

impl Opcode {
    /// The opcode with this number; the others are reserved.
    pub fn from_bits(bits: u8) -> Option<Self> {
        Some(match bits {
            0 => Self::Continuation,
            1 => Self::Text,
            2 => Self::Binary,
            8 => Self::Close,
            9 => Self::Ping,
            10 => Self::Pong,
            _ => return None,
        })
    }

    /// Whether frames of this kind may come between the fragments of a message.
    pub fn is_control(self) -> bool {
        self as u8 & 8 != 0
    }
}

/// The header of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Whether this is the last frame of its message.
    pub fin: bool,
    /// Set on the first frame of a message that permessage-deflate compressed.
    pub rsv1: bool,
    pub opcode: Opcode,
    pub mask: Option<[u8; 4]>,
    /// Bytes of payload.
    pub length: u64,
}

/// What no header may say, whatever came before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Malformed {
    /// RSV2 or RSV3: no extension that we let through uses them.
    ReservedBits,
    ReservedOpcode,
    /// A length that fits a shorter form, or has its top bit set.
    Length,
}

impl Header {
    /// Reads the header at the start of `input`; `None` while it is incomplete.
    #[inline]
    pub fn decode(input: &[u8]) -> Result<Option<Self>, Malformed> {
        let [first, second, rest @ ..] = input else { return Ok(None) };
        let code = second & !MASK;
        let Some((length, rest)) = read_length(code, rest) else { return Ok(None) };
        let mask = if second & MASK == 0 { None } else { rest.first_chunk::<4>().copied() };
        if mask.is_none() && second & MASK != 0 {
            return Ok(None);
        }
        if first & RSV2_RSV3 != 0 {
            return Err(Malformed::ReservedBits);
        }
        let opcode = Opcode::from_bits(first & 0x0f).ok_or(Malformed::ReservedOpcode)?;
        if !is_shortest(code, length) {
            return Err(Malformed::Length);
        }
        Ok(Some(Self { fin: first & FIN != 0, rsv1: first & RSV1 != 0, opcode, mask, length }))
    }

    /// Bytes that the header itself takes.
    #[inline]
    pub fn size(&self) -> usize {
        let length = match self.length {
            0..=125 => 0,
            126..=0xffff => 2,
            _ => 8,
        };
        2 + length + if self.mask.is_some() { 4 } else { 0 }
    }
}

/// Appends a header.
pub fn write_header(out: &mut Vec<u8>, header: &Header) {
    let mask = if header.mask.is_some() { MASK } else { 0 };
    out.push(if header.fin { FIN } else { 0 } | if header.rsv1 { RSV1 } else { 0 } | header.opcode as u8);
    match header.length {
        length @ 0..=125 => out.push(mask | length as u8),
        length @ 126..=0xffff => {
            out.push(mask | LENGTH_16);
            out.extend_from_slice(&(length as u16).to_be_bytes());
        }
        length => {
            out.push(mask | LENGTH_64);
            out.extend_from_slice(&length.to_be_bytes());
        }
    }
    out.extend_from_slice(header.mask.as_ref().map_or(&[], |key| &key[..]));
}

/// Appends a Close frame. `mask` is a fresh random key towards a server, `None` towards a client; a reason longer than
/// [`close::LONGEST_REASON`] is cut.
pub fn write_close(out: &mut Vec<u8>, mask: Option<[u8; 4]>, code: u16, reason: &str) {
    write_control(out, mask, Opcode::Close, &[&code.to_be_bytes(), close::cut(reason).as_bytes()]);
}

/// Appends a Close frame without a code.
pub fn write_empty_close(out: &mut Vec<u8>, mask: Option<[u8; 4]>) {
    write_control(out, mask, Opcode::Close, &[]);
}

/// Appends a Ping. Only the first [`LONGEST_CONTROL`] bytes of `payload` are taken.
pub fn write_ping(out: &mut Vec<u8>, mask: Option<[u8; 4]>, payload: &[u8]) {
    write_control(out, mask, Opcode::Ping, &[cut(payload)]);
}

/// Appends a Pong. Only the first [`LONGEST_CONTROL`] bytes of `payload` are taken.
pub fn write_pong(out: &mut Vec<u8>, mask: Option<[u8; 4]>, payload: &[u8]) {
    write_control(out, mask, Opcode::Pong, &[cut(payload)]);
}

/// Masks or unmasks `payload` in place; its first byte is byte `offset` of the frame's payload (RFC 6455 §5.3).
pub fn mask_in_place(payload: &mut [u8], mut key: [u8; 4], offset: usize) {
    key.rotate_left(offset % 4);
    let [a, b, c, d] = key;
    let wide = u64::from_ne_bytes([a, b, c, d, a, b, c, d]);
    let (words, rest) = payload.as_chunks_mut::<8>();
    for word in words {
        *word = (u64::from_ne_bytes(*word) ^ wide).to_ne_bytes();
    }
    for (byte, key) in rest.iter_mut().zip(key.iter().cycle()) {
        *byte ^= key;
    }
}

#[inline]
fn read_length(code: u8, rest: &[u8]) -> Option<(u64, &[u8])> {
    match code {
        LENGTH_16 => rest.split_first_chunk().map(|(bytes, rest)| (u64::from(u16::from_be_bytes(*bytes)), rest)),
        LENGTH_64 => rest.split_first_chunk().map(|(bytes, rest)| (u64::from_be_bytes(*bytes), rest)),
        _ => Some((u64::from(code), rest)),
    }
}

/// Whether `length` was written in the shortest of the three forms, as RFC 6455 §5.2 asks, and below 2^63.
#[inline]
fn is_shortest(code: u8, length: u64) -> bool {
    match code {
        LENGTH_16 => length > 125,
        LENGTH_64 => (0x1_0000..1 << 63).contains(&length),
        _ => true,
    }
}

fn cut(payload: &[u8]) -> &[u8] {
    &payload[..payload.len().min(LONGEST_CONTROL)]
}

fn write_control(out: &mut Vec<u8>, mask: Option<[u8; 4]>, opcode: Opcode, parts: &[&[u8]]) {
    let length = parts.iter().map(|part| part.len() as u64).sum();
    write_header(out, &Header { fin: true, rsv1: false, opcode, mask, length });
    let start = out.len();
    parts.iter().for_each(|part| out.extend_from_slice(part));
    if let Some(key) = mask {
        mask_in_place(&mut out[start..], key, 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(length: u64, mask: Option<[u8; 4]>) -> Header {
        Header { fin: true, rsv1: false, opcode: Opcode::Text, mask, length }
    }

    #[test]
    fn a_written_header_reads_back_and_never_early() {
        for length in [0, 1, 125, 126, 127, 65535, 65536, (1 << 63) - 1] {
            for mask in [None, Some([1, 2, 3, 4])] {
                let (mut bytes, header) = (Vec::new(), header(length, mask));
                write_header(&mut bytes, &header);
                assert_eq!(bytes.len(), header.size());
                assert!(bytes.len() <= LONGEST_HEADER);
                assert_eq!(Header::decode(&bytes), Ok(Some(header)));
                for end in 0..bytes.len() {
                    assert_eq!(Header::decode(&bytes[..end]), Ok(None));
                }
            }
        }
    }

    #[test]
    fn the_examples_of_the_rfc() {
        let hello = Header::decode(b"\x81\x05Hello").unwrap().unwrap();
        assert_eq!(hello, header(5, None));
        let masked = Header::decode(&[0x81, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58]).unwrap();
        assert_eq!(masked, Some(header(5, Some([0x37, 0xfa, 0x21, 0x3d]))));
        let first = Header::decode(b"\x01\x03Hel").unwrap().unwrap();
        assert_eq!(first, Header { fin: false, ..header(3, None) });
    }

    #[test]
    fn malformed_headers() {
        for (bytes, malformed) in [
            (&b"\xa1\x00"[..], Malformed::ReservedBits),
            (b"\x91\x00", Malformed::ReservedBits),
            (b"\x83\x00", Malformed::ReservedOpcode),
            (b"\x8f\x00", Malformed::ReservedOpcode),
            (b"\x82\x7e\x00\x7d", Malformed::Length),
            (b"\x82\x7f\x00\x00\x00\x00\x00\x00\xff\xff", Malformed::Length),
            (b"\x82\x7f\x80\x00\x00\x00\x00\x00\x00\x00", Malformed::Length),
        ] {
            assert_eq!(Header::decode(bytes), Err(malformed), "{bytes:02x?}");
        }
    }

    #[test]
    fn opcodes_match_their_numbers() {
        let known: Vec<u8> =
            (0..16).filter(|bits| Opcode::from_bits(*bits).is_some_and(|o| o as u8 == *bits)).collect();
        assert_eq!(known, [0, 1, 2, 8, 9, 10]);
        let control: Vec<u8> =
            (0..16).filter(|bits| Opcode::from_bits(*bits).is_some_and(Opcode::is_control)).collect();
        assert_eq!(control, [8, 9, 10]);
    }

    #[test]
    fn control_frames_of_ours() {
        let mut out = Vec::new();
        write_close(&mut out, None, 1012, "gw: drain");
        assert_eq!(out, b"\x88\x0b\x03\xf4gw: drain");
        out.clear();
        write_ping(&mut out, None, b"tg");
        write_pong(&mut out, None, b"");
        assert_eq!(out, b"\x89\x02tg\x8a\x00");
        out.clear();
        write_close(&mut out, Some([1, 2, 3, 4]), 1000, "abc");
        assert_eq!(out, [0x88, 0x85, 1, 2, 3, 4, 0x03 ^ 1, 0xe8 ^ 2, b'a' ^ 3, b'b' ^ 4, b'c' ^ 1]);
    }

    #[test]
    fn what_is_too_long_for_a_control_frame_is_cut() {
        let mut out = Vec::new();
        write_close(&mut out, None, 1000, &"é".repeat(100));
        assert_eq!((out[1], out.len()), (124, 126));
        out.clear();
        write_pong(&mut out, None, &[7; 300]);
        assert_eq!((out[1], out.len()), (125, 127));
    }

    #[test]
    fn masking_in_pieces_equals_masking_at_once() {
        let key = [0x37, 0xfa, 0x21, 0x3d];
        let plain: Vec<u8> = (0..=99).collect();
        let naive: Vec<u8> = plain.iter().enumerate().map(|(index, byte)| byte ^ key[index % 4]).collect();
        for cut in 0..=plain.len() {
            let mut pieces = plain.clone();
            let (head, tail) = pieces.split_at_mut(cut);
            mask_in_place(head, key, 0);
            mask_in_place(tail, key, cut);
            assert_eq!(pieces, naive);
        }
    }
}
