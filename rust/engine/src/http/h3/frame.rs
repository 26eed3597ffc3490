//! Frames (RFC 9114 §7): a type, a length, a payload.

use super::code::Code;
use super::varint;

/// What a frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Data,
    Headers,
    CancelPush,
    Settings,
    PushPromise,
    Goaway,
    MaxPushId,
    /// One that means nothing to us, and may come anywhere (§9).
    Unknown,
}

impl Kind {
    fn new(kind: u64) -> Result<Self, Code> {
        Ok(match kind {
            0x0 => Self::Data,
            0x1 => Self::Headers,
            0x3 => Self::CancelPush,
            0x4 => Self::Settings,
            0x5 => Self::PushPromise,
            0x7 => Self::Goaway,
            0xd => Self::MaxPushId,
            // Frames of HTTP/2 that have no meaning here (§7.2.8).
            0x2 | 0x6 | 0x8 | 0x9 => return Err(Code::FRAME_UNEXPECTED),
            _ => Self::Unknown,
        })
    }
}

/// The bytes in front of a frame's payload, as they come.
#[derive(Debug, Default)]
pub struct FrameHead {
    bytes: [u8; 16],
    filled: usize,
}

impl FrameHead {
    /// How many bytes it needs at least before it can be read.
    pub fn wanted(&self) -> usize {
        match self.bytes[..self.filled] {
            [] => 2,
            [first, ..] => {
                let kind = varint::length(first);
                match self.bytes[..self.filled].get(kind) {
                    None => kind + 1 - self.filled,
                    Some(length) => kind + varint::length(*length) - self.filled,
                }
            }
        }
    }

    /// Takes at most [`FrameHead::wanted`] bytes; type and length once they are there.
    pub fn take(&mut self, bytes: &[u8]) -> Result<Option<(Kind, u64)>, Code> {
        self.bytes[self.filled..self.filled + bytes.len()].copy_from_slice(bytes);
        self.filled += bytes.len();
        let read =
            varint::read(&self.bytes[..self.filled]).and_then(|(kind, rest)| Some((kind, varint::read(rest)?.0)));
        let Some((kind, length)) = read else { return Ok(None) };
        self.filled = 0;
        Ok(Some((Kind::new(kind)?, length)))
    }

    /// Whether nothing of a frame has come.
    pub fn is_empty(&self) -> bool {
        self.filled == 0
    }
}

/// What goes in front of a DATA frame's payload.
pub fn write_data_head(out: &mut Vec<u8>, length: usize) {
    write_head(out, 0x0, length as u64);
}

/// A HEADERS frame.
pub fn write_headers(out: &mut Vec<u8>, section: &[u8]) {
    write_head(out, 0x1, section.len() as u64);
    out.extend_from_slice(section);
}

/// A SETTINGS frame (§7.2.4.1, RFC 9204 §5, RFC 9220 §3). The table of QPACK stays at its default, which is none.
pub fn write_settings(out: &mut Vec<u8>, field_section: u64, connect_protocol: bool) {
    let mut payload = Vec::new();
    varint::write(&mut payload, super::control::MAX_FIELD_SECTION_SIZE);
    varint::write(&mut payload, field_section);
    if connect_protocol {
        varint::write(&mut payload, super::control::ENABLE_CONNECT_PROTOCOL);
        varint::write(&mut payload, 1);
    }
    write_head(out, 0x4, payload.len() as u64);
    out.extend_from_slice(&payload);
}

/// A GOAWAY frame (§5.2): requests from stream `id` on are not served.
pub fn write_goaway(out: &mut Vec<u8>, id: u64) {
    let mut payload = Vec::new();
    varint::write(&mut payload, id);
    write_head(out, 0x7, payload.len() as u64);
    out.extend_from_slice(&payload);
}

fn write_head(out: &mut Vec<u8>, kind: u64, length: u64) {
    varint::write(out, kind);
    varint::write(out, length);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_byte_by_byte() {
        let mut bytes = Vec::new();
        write_head(&mut bytes, 0x21, 70_000);
        let mut head = FrameHead::default();
        let (last, others) = bytes.split_last().unwrap();
        for byte in others {
            assert!(head.wanted() > 0);
            assert_eq!(head.take(&[*byte]), Ok(None));
        }
        assert_eq!(head.wanted(), 1);
        assert_eq!(head.take(&[*last]), Ok(Some((Kind::Unknown, 70_000))));
        assert!(head.is_empty());
    }

    #[test]
    fn it_never_wants_more_than_its_own() {
        for (kind, length) in [(0_u64, 0_u64), (0, 64), (64, 0), (1 << 40, 1 << 40), (1, varint::MAX)] {
            let mut bytes = Vec::new();
            write_head(&mut bytes, kind, length);
            let (mut head, mut rest) = (FrameHead::default(), &bytes[..]);
            loop {
                let (some, others) = rest.split_at(head.wanted());
                rest = others;
                if let Some((_, read)) = head.take(some).unwrap() {
                    assert_eq!((read, rest.len()), (length, 0));
                    break;
                }
            }
        }
    }

    #[test]
    fn frames_of_http_2_are_no_frames() {
        assert_eq!(FrameHead::default().take(&[0x6, 0]), Err(Code::FRAME_UNEXPECTED));
    }
}
