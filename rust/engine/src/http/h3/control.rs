//! Streams of one direction that the other side opens (RFC 9114 §6.2): its control stream and those of QPACK.
//!
//! Nobody pushes and we keep no dynamic table, so all that it can say here is what it takes, and that it goes. Of each
//! kind there is one, and it must not end.

use super::code::Code;
use super::frame::{FrameHead, Kind};
use super::varint;

pub const MAX_FIELD_SECTION_SIZE: u64 = 0x6;
pub const ENABLE_CONNECT_PROTOCOL: u64 = 0x8;

/// Settings of HTTP/2 that have no meaning here (RFC 9114 §7.2.4.1).
const RESERVED: [u64; 4] = [0x2, 0x3, 0x4, 0x5];

/// The most bytes that a frame on a control stream may have.
const LARGEST: u64 = 16 * 1024;

/// Who the other side is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Speaker {
    Client,
    Server,
}

/// What a stream of one direction is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StreamKind {
    Control,
    QpackEncoder,
    QpackDecoder,
    Unknown,
}

impl StreamKind {
    /// By the number at its beginning.
    pub fn new(kind: u64, speaker: Speaker) -> Result<Self, Code> {
        match (kind, speaker) {
            (0x0, _) => Ok(Self::Control),
            // Only servers push (§6.2.2), and only as often as they were told that they may: never (§4.6).
            (0x1, Speaker::Client) => Err(Code::STREAM_CREATION_ERROR),
            (0x1, Speaker::Server) => Err(Code::ID_ERROR),
            (0x2, _) => Ok(Self::QpackEncoder),
            (0x3, _) => Ok(Self::QpackDecoder),
            _ => Ok(Self::Unknown),
        }
    }
}

/// What the other side takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// Extended CONNECT (RFC 9220 §3).
    pub connect_protocol: bool,
}

/// Reads what the other side says on a stream of its own. Errors are the connection's.
#[derive(Debug)]
pub enum StreamReader {
    Control(ControlReader),
    /// Instructions to the table that we do not have.
    QpackEncoder,
    /// Acknowledgements of entries that we never made.
    QpackDecoder {
        /// In a number that goes on.
        in_number: bool,
    },
}

impl StreamReader {
    /// None for a kind that means nothing to us.
    pub fn new(kind: StreamKind, speaker: Speaker) -> Option<Self> {
        match kind {
            StreamKind::Control => Some(Self::Control(ControlReader::new(speaker))),
            StreamKind::QpackEncoder => Some(Self::QpackEncoder),
            StreamKind::QpackDecoder => Some(Self::QpackDecoder { in_number: false }),
            StreamKind::Unknown => None,
        }
    }

    pub fn take(&mut self, bytes: &[u8]) -> Result<(), Code> {
        match self {
            Self::Control(reader) => reader.take(bytes),
            // All but "the capacity is 0" (RFC 9204 §4.3.1) needs a table.
            Self::QpackEncoder => match bytes.iter().all(|byte| *byte == 0x20) {
                true => Ok(()),
                false => Err(Code::ENCODER_STREAM_ERROR),
            },
            Self::QpackDecoder { in_number } => bytes.iter().try_for_each(|byte| {
                *in_number = match (*in_number, byte >> 6) {
                    (true, _) => byte & 0x80 != 0,
                    // A cancelled stream (RFC 9204 §4.4.2), the only thing that can be said.
                    (false, 0b01) => byte & 0x3f == 0x3f,
                    (false, _) => return Err(Code::DECODER_STREAM_ERROR),
                };
                Ok(())
            }),
        }
    }
}

/// Reads the control stream.
#[derive(Debug)]
pub struct ControlReader {
    speaker: Speaker,
    head: FrameHead,
    frame: Option<(Kind, u64)>,
    payload: Vec<u8>,
    has_settings: bool,
    settings: Option<Settings>,
    max_push: Option<u64>,
    goaway: Option<u64>,
}

impl ControlReader {
    fn new(speaker: Speaker) -> Self {
        Self {
            speaker,
            head: FrameHead::default(),
            frame: None,
            payload: Vec::new(),
            has_settings: false,
            settings: None,
            max_push: None,
            goaway: None,
        }
    }

    /// Once they have come.
    pub fn settings(&self) -> Option<Settings> {
        self.settings
    }

    /// What the last GOAWAY named: a server serves no request from this stream on.
    pub fn goaway(&self) -> Option<u64> {
        self.goaway
    }

    fn take(&mut self, mut bytes: &[u8]) -> Result<(), Code> {
        while !bytes.is_empty() {
            let Some((kind, length)) = self.frame else {
                let (some, rest) = bytes.split_at(self.head.wanted().min(bytes.len()));
                bytes = rest;
                self.frame = self.head.take(some)?;
                if let Some((kind, length)) = self.frame {
                    self.begin(kind, length)?;
                }
                continue;
            };
            let (some, rest) = bytes.split_at(bytes.len().min(usize::try_from(length).unwrap_or(usize::MAX)));
            bytes = rest;
            if kind != Kind::Unknown {
                self.payload.extend_from_slice(some);
            }
            self.go_on(kind, length - some.len() as u64)?;
        }
        Ok(())
    }

    fn begin(&mut self, kind: Kind, length: u64) -> Result<(), Code> {
        match kind {
            Kind::Settings if self.has_settings => return Err(Code::FRAME_UNEXPECTED),
            Kind::Settings => self.has_settings = true,
            _ if !self.has_settings => return Err(Code::MISSING_SETTINGS),
            Kind::Data | Kind::Headers | Kind::PushPromise => return Err(Code::FRAME_UNEXPECTED),
            // Only who takes pushes says how many (§7.2.7).
            Kind::MaxPushId if self.speaker == Speaker::Server => return Err(Code::FRAME_UNEXPECTED),
            Kind::CancelPush | Kind::Goaway | Kind::MaxPushId | Kind::Unknown => {}
        }
        if kind != Kind::Unknown && length > LARGEST {
            return Err(Code::EXCESSIVE_LOAD);
        }
        self.go_on(kind, length)
    }

    fn go_on(&mut self, kind: Kind, left: u64) -> Result<(), Code> {
        self.frame = Some((kind, left));
        if left > 0 {
            return Ok(());
        }
        self.frame = None;
        let payload = std::mem::take(&mut self.payload);
        match kind {
            Kind::Settings => {
                self.settings = Some(read_settings(&payload)?);
                Ok(())
            }
            Kind::Goaway => {
                let id = number(&payload)?;
                // A server names a stream that a request may come on, a client a push (§5.2).
                let fits = self.speaker == Speaker::Client || id % 4 == 0;
                let falls = self.goaway.is_none_or(|before| id <= before);
                self.goaway = Some(id);
                if fits && falls { Ok(()) } else { Err(Code::ID_ERROR) }
            }
            Kind::MaxPushId => {
                let id = number(&payload)?;
                let rises = self.max_push.is_none_or(|before| id >= before);
                self.max_push = Some(id);
                if rises { Ok(()) } else { Err(Code::ID_ERROR) }
            }
            // Nothing was ever promised (§7.2.3).
            Kind::CancelPush => number(&payload).and(Err(Code::ID_ERROR)),
            _ => Ok(()),
        }
    }
}

fn number(payload: &[u8]) -> Result<u64, Code> {
    match varint::read(payload) {
        Some((number, [])) => Ok(number),
        _ => Err(Code::FRAME_ERROR),
    }
}

/// We hold ourselves to less than most of them could ask for, so those need only be well-formed.
fn read_settings(mut payload: &[u8]) -> Result<Settings, Code> {
    let (mut seen, mut settings) = (Vec::new(), Settings::default());
    while !payload.is_empty() {
        let (name, rest) = varint::read(payload).ok_or(Code::FRAME_ERROR)?;
        let (value, rest) = varint::read(rest).ok_or(Code::FRAME_ERROR)?;
        payload = rest;
        if RESERVED.contains(&name) || (name == ENABLE_CONNECT_PROTOCOL && value > 1) {
            return Err(Code::SETTINGS_ERROR);
        }
        settings.connect_protocol |= name == ENABLE_CONNECT_PROTOCOL && value == 1;
        // Looked for only among the first: what a client repeats behind them is of no use to it either.
        if seen.len() < 64 {
            if seen.contains(&name) {
                return Err(Code::SETTINGS_ERROR);
            }
            seen.push(name);
        }
    }
    Ok(settings)
}

#[cfg(test)]
mod tests {
    use super::super::frame::{write_goaway, write_settings};
    use super::*;

    fn take(kind: u64, bytes: &[u8]) -> Result<(), Code> {
        take_from(Speaker::Client, kind, bytes)
    }

    fn take_from(speaker: Speaker, kind: u64, bytes: &[u8]) -> Result<(), Code> {
        let new = || StreamReader::new(StreamKind::new(kind, speaker).unwrap(), speaker).unwrap();
        let (mut whole, mut split) = (new(), new());
        let result = whole.take(bytes);
        assert_eq!(bytes.iter().try_for_each(|byte| split.take(&[*byte])), result);
        result
    }

    fn settings() -> Vec<u8> {
        let mut bytes = Vec::new();
        write_settings(&mut bytes, 1 << 16, true);
        bytes
    }

    #[test]
    fn what_a_client_says() {
        let mut bytes = settings();
        write_goaway(&mut bytes, 8);
        write_goaway(&mut bytes, 4);
        bytes.extend_from_slice(&[0xd, 1, 5, 0xd, 1, 5, 0x21, 3, 1, 2, 3]);
        assert_eq!(take(0, &bytes), Ok(()));
    }

    #[test]
    fn what_it_must_not_say() {
        let after = |more: &[u8]| take(0, &[&settings(), more].concat());
        assert_eq!(take(0, &[0x7, 1, 0]), Err(Code::MISSING_SETTINGS));
        assert_eq!(after(&settings()), Err(Code::FRAME_UNEXPECTED));
        assert_eq!(after(&[0x0, 0]), Err(Code::FRAME_UNEXPECTED));
        assert_eq!(after(&[0x7, 1, 4, 0x7, 1, 8]), Err(Code::ID_ERROR));
        assert_eq!(after(&[0xd, 1, 4, 0xd, 1, 3]), Err(Code::ID_ERROR));
        assert_eq!(after(&[0x3, 1, 0]), Err(Code::ID_ERROR));
        assert_eq!(after(&[0x7, 2, 0, 0]), Err(Code::FRAME_ERROR));
        assert_eq!(take(0, &[0x4, 2, 0x2, 0]), Err(Code::SETTINGS_ERROR));
        assert_eq!(take(0, &[0x4, 2, 0x8, 2]), Err(Code::SETTINGS_ERROR));
        assert_eq!(take(0, &[0x4, 4, 0x6, 1, 0x6, 1]), Err(Code::SETTINGS_ERROR));
        assert_eq!(take(0, &[0x4, 1, 0x6]), Err(Code::FRAME_ERROR));
        assert_eq!(take(0, &[0x4, 0x80, 1, 0, 0]), Err(Code::EXCESSIVE_LOAD));
        assert_eq!(StreamKind::new(1, Speaker::Client), Err(Code::STREAM_CREATION_ERROR));
    }

    #[test]
    fn what_a_server_says() {
        let after = |bytes: &[u8]| take_from(Speaker::Server, 0, &[&settings()[..], bytes].concat());
        assert_eq!(after(&[0x7, 1, 8, 0x7, 1, 4]), Ok(()));
        assert_eq!(after(&[0x7, 1, 5]), Err(Code::ID_ERROR));
        assert_eq!(after(&[0xd, 1, 5]), Err(Code::FRAME_UNEXPECTED));
        assert_eq!(StreamKind::new(1, Speaker::Server), Err(Code::ID_ERROR));
        let mut reader = ControlReader::new(Speaker::Server);
        assert_eq!(reader.settings(), None);
        reader.take(&settings()).unwrap();
        assert_eq!((reader.settings(), reader.goaway()), (Some(Settings { connect_protocol: true }), None));
        reader.take(&[0x7, 1, 4]).unwrap();
        assert_eq!(reader.goaway(), Some(4));
    }

    #[test]
    fn a_table_that_is_not_there() {
        assert_eq!(take(2, &[0x20, 0x20]), Ok(()));
        assert_eq!(take(2, &[0x3f, 0x01]), Err(Code::ENCODER_STREAM_ERROR));
        assert_eq!(take(3, &[0x44, 0x7f, 0x80, 0x01, 0x41]), Ok(()));
        assert_eq!(take(3, &[0x80]), Err(Code::DECODER_STREAM_ERROR));
        assert_eq!(take(3, &[0x01]), Err(Code::DECODER_STREAM_ERROR));
    }
}
