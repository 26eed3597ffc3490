//! WebSocket frames, as far as an echo needs them (RFC 6455 §5.2).

use crate::Outcome;

pub const BINARY: u8 = 2;
pub const CLOSE: u8 = 8;
pub const PING: u8 = 9;
pub const PONG: u8 = 10;
const FIN: u8 = 0x80;
const MASKED: u8 = 0x80;
const LONGEST: u64 = 64 << 20;

/// Where a frame's parts are.
pub struct Header {
    /// FIN, the reserved bits and the opcode, as they came.
    pub first: u8,
    pub mask: Option<[u8; 4]>,
    /// Bytes before the payload.
    pub length: usize,
    pub payload: usize,
}

impl Header {
    pub fn opcode(&self) -> u8 {
        self.first & 15
    }

    /// `None` until the header is whole. The payload may be missing still.
    pub fn read(bytes: &[u8]) -> Outcome<Option<Self>> {
        let [first, second, rest @ ..] = bytes else { return Ok(None) };
        let extended = match second & 127 {
            126 => 2,
            127 => 8,
            _ => 0,
        };
        let masked = second & MASKED != 0;
        let length = 2 + extended + if masked { 4 } else { 0 };
        if bytes.len() < length {
            return Ok(None);
        }
        let payload = payload_length(second & 127, &rest[..extended])?;
        let mask = masked.then(|| std::array::from_fn(|index| rest[extended + index]));
        Ok(Some(Self { first: *first, mask, length, payload }))
    }
}

fn payload_length(short: u8, extended: &[u8]) -> Outcome<usize> {
    let long = extended.iter().fold(0u64, |length, byte| length << 8 | u64::from(*byte));
    match if extended.is_empty() { u64::from(short) } else { long } {
        length if length > LONGEST => Err(format!("a frame of {length} bytes is too long").into()),
        length => Ok(length as usize),
    }
}

/// Appends a whole frame; `first` is as in [`Header`].
pub fn write(out: &mut Vec<u8>, first: u8, mask: Option<[u8; 4]>, payload: &[u8]) {
    out.push(first);
    write_length(out, if mask.is_some() { MASKED } else { 0 }, payload.len());
    out.extend_from_slice(mask.as_ref().map_or(&[], |mask| mask));
    let start = out.len();
    out.extend_from_slice(payload);
    if let Some(mask) = mask {
        apply_mask(&mut out[start..], mask);
    }
}

/// As [`write`], for a frame that is the whole message.
pub fn write_whole(out: &mut Vec<u8>, opcode: u8, mask: Option<[u8; 4]>, payload: &[u8]) {
    write(out, FIN | opcode, mask, payload);
}

fn write_length(out: &mut Vec<u8>, masked: u8, length: usize) {
    match length {
        0..126 => out.push(masked | length as u8),
        126..65536 => {
            out.push(masked | 126);
            out.extend_from_slice(&(length as u16).to_be_bytes());
        }
        _ => {
            out.push(masked | 127);
            out.extend_from_slice(&(length as u64).to_be_bytes());
        }
    }
}

/// Masks and unmasks (RFC 6455 §5.3), four bytes at a time so that the compiler can do many at once.
pub fn apply_mask(payload: &mut [u8], mask: [u8; 4]) {
    let mut groups = payload.chunks_exact_mut(4);
    for group in &mut groups {
        for (byte, key) in group.iter_mut().zip(mask) {
            *byte ^= key;
        }
    }
    for (byte, key) in groups.into_remainder().iter_mut().zip(mask) {
        *byte ^= key;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_of_every_length_form_come_back() {
        for size in [0, 1, 125, 126, 65535, 65536] {
            for mask in [None, Some([1, 2, 3, 4])] {
                let payload: Vec<u8> = (0..size).map(|index| index as u8).collect();
                let mut bytes = Vec::new();
                write_whole(&mut bytes, BINARY, mask, &payload);
                let header = Header::read(&bytes).unwrap().unwrap();
                assert_eq!((header.opcode(), header.payload, header.mask), (BINARY, size, mask));
                let body = &mut bytes[header.length..];
                apply_mask(body, mask.unwrap_or_default());
                assert_eq!(body, payload);
            }
        }
    }

    #[test]
    fn a_header_in_pieces_is_awaited() {
        let mut bytes = Vec::new();
        write_whole(&mut bytes, BINARY, Some([9; 4]), &[0; 70000]);
        assert!((0..14).all(|end| Header::read(&bytes[..end]).unwrap().is_none()));
        assert_eq!(Header::read(&bytes[..14]).unwrap().unwrap().payload, 70000);
    }

    #[test]
    fn an_absurd_length_is_refused() {
        assert!(Header::read(&[0x82, 127, 255, 255, 255, 255, 255, 255, 255, 255]).is_err());
    }
}
