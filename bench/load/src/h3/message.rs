//! Frames and heads of HTTP/3 (RFC 9114 §7, RFC 9204 §4.5), as far as a client of ours needs them.

use crate::upgrade::Place;

pub const DATA: u64 = 0;
pub const HEADERS: u64 = 1;
pub const SETTINGS: u64 = 4;
/// The type of a control stream.
pub const CONTROL: u8 = 0;
/// A setting (RFC 9220 §3).
pub const ENABLE_CONNECT_PROTOCOL: u64 = 8;

/// Nothing of the dynamic table is used.
const PREFIX: [u8; 2] = [0, 0];
/// Fields of the static table, as they are named in a head.
const CONNECT: u8 = 0xc0 | 15;
const GET: u8 = 0xc0 | 17;
const HTTPS: u8 = 0xc0 | 23;
const OK: u8 = 0xc0 | 25;
/// Values of our own for names of the static table.
const AUTHORITY: u8 = 0x50;
const PATH: u8 = 0x50 | 1;

/// The HEADERS frame of a GET.
pub fn get(place: &Place) -> Vec<u8> {
    let mut block = [PREFIX.as_slice(), &[GET, HTTPS]].concat();
    place_fields(&mut block, place);
    literal(&mut block, "accept", "*/*");
    literal(&mut block, "user-agent", "tidegate-load");
    framed(HEADERS, &block)
}

/// The HEADERS frame of an extended CONNECT for a WebSocket (RFC 9220).
pub fn connect(place: &Place) -> Vec<u8> {
    let mut block = [PREFIX.as_slice(), &[CONNECT, HTTPS]].concat();
    literal(&mut block, ":protocol", "websocket");
    place_fields(&mut block, place);
    literal(&mut block, "sec-websocket-version", "13");
    framed(HEADERS, &block)
}

/// Whether the head of an answer begins with status 200, which every encoder takes from the static table.
pub fn is_ok(block: &[u8]) -> bool {
    block.starts_with(&[0, 0, OK])
}

fn place_fields(block: &mut Vec<u8>, place: &Place) {
    for (name, value) in [(AUTHORITY, &place.host), (PATH, &place.path)] {
        block.push(name);
        length(block, 0, 7, value.len());
        block.extend_from_slice(value.as_bytes());
    }
}

fn literal(block: &mut Vec<u8>, name: &str, value: &str) {
    length(block, 0x20, 3, name.len());
    block.extend_from_slice(name.as_bytes());
    length(block, 0, 7, value.len());
    block.extend_from_slice(value.as_bytes());
}

/// An integer behind the first bits of a byte (RFC 7541 §5.1); ours are short.
fn length(block: &mut Vec<u8>, first: u8, bits: u32, length: usize) {
    let most = (1 << bits) - 1;
    if length < most {
        block.push(first | length as u8);
    } else {
        debug_assert!(length - most < 128);
        block.extend_from_slice(&[first | most as u8, (length - most) as u8]);
    }
}

/// A whole frame.
pub fn framed(kind: u64, payload: &[u8]) -> Vec<u8> {
    let mut frame = Vec::with_capacity(payload.len() + 9);
    write_number(&mut frame, kind);
    write_number(&mut frame, payload.len() as u64);
    frame.extend_from_slice(payload);
    frame
}

/// A variable-length integer (RFC 9000 §16).
pub fn write_number(out: &mut Vec<u8>, number: u64) {
    match number {
        0..0x40 => out.push(number as u8),
        0x40..0x4000 => out.extend_from_slice(&(number as u16 | 0x4000).to_be_bytes()),
        _ => out.extend_from_slice(&(number as u32 | 0x8000_0000).to_be_bytes()),
    }
}

/// The number at the front and the bytes it takes; None until it is whole.
pub fn read_number(bytes: &[u8]) -> Option<(u64, usize)> {
    let first = *bytes.first()?;
    let length = 1 << (first >> 6);
    let rest = bytes.get(1..length)?;
    Some((rest.iter().fold(u64::from(first & 0x3f), |number, byte| number << 8 | u64::from(*byte)), length))
}

/// The type of the frame at the front, and how long its header and its payload are; None until the header is whole.
pub fn read_header(bytes: &[u8]) -> Option<(u64, usize, usize)> {
    let (kind, first) = read_number(bytes)?;
    let (length, second) = read_number(&bytes[first..])?;
    Some((kind, first + second, length as usize))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_every_length_come_back() {
        for number in [0, 63, 64, 16_383, 16_384, 1 << 20] {
            let mut bytes = Vec::new();
            write_number(&mut bytes, number);
            assert_eq!(read_number(&bytes), Some((number, bytes.len())));
            assert_eq!(read_number(&bytes[..bytes.len() - 1]), None);
        }
    }

    #[test]
    fn a_frame_comes_back() {
        let frame = framed(DATA, &[7; 100]);
        assert_eq!(read_header(&frame), Some((DATA, 3, 100)));
        assert_eq!(read_header(&frame[..2]), None);
    }

    #[test]
    fn long_names_have_long_lengths() {
        let mut block = Vec::new();
        literal(&mut block, "user-agent", "x");
        assert_eq!(block[..2], [0x27, 3]);
        assert!(is_ok(&[0, 0, 0xd9, 1]) && !is_ok(&[0, 0, 0xdb]));
    }
}
