//! A message on its stream (RFC 9114 §4.1): a head, data, perhaps trailers, and unknown frames anywhere between. In
//! front of an answer's head there may be heads of interim ones: [`MessageReader::expect_head`].
//!
//! ```text
//! Head ─HEADERS─▶ Body ─HEADERS─▶ Ended
//!                 └ DATA ┘
//! ```
//!
//! After a CONNECT that was accepted there is data alone (§4.4): [`MessageReader::open_tunnel`].

use super::code::Code;
use super::control::Speaker;
use super::frame::{FrameHead, Kind};

/// Reads a message from bytes.
#[derive(Debug)]
pub struct MessageReader {
    speaker: Speaker,
    stage: Stage,
    part: Part,
    head: FrameHead,
    section: Vec<u8>,
    /// The most bytes that a head or trailers may have.
    limit: usize,
    /// Frames in a row that brought nothing.
    vain: u32,
}

/// How many frames in a row may bring nothing: empty ones, and unknown ones. Each costs us more than the two bytes that
/// it costs who sends it (§10.5).
const VAIN: u32 = 1_000;

/// What has come.
#[derive(Debug, PartialEq, Eq)]
pub enum Event {
    /// The field section of the head.
    Head(Vec<u8>),
    /// The head is larger than the limit, and is skipped.
    HeadTooLarge,
    /// The bytes that were given are data.
    Data,
    /// The field section of the trailers.
    Trailers(Vec<u8>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Head,
    Body,
    Tunnel,
    Ended,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    FrameHead,
    Section(u64),
    Data(u64),
    Skipped(u64),
}

impl MessageReader {
    pub fn new(speaker: Speaker, limit: usize) -> Self {
        let (stage, part, head) = (Stage::Head, Part::FrameHead, FrameHead::default());
        Self { speaker, stage, part, head, section: Vec::new(), limit, vain: 0 }
    }

    /// The head that came was that of an interim answer: the next one is a head too.
    pub fn expect_head(&mut self) {
        self.stage = Stage::Head;
    }

    /// From now on there is data alone.
    pub fn open_tunnel(&mut self) {
        self.stage = Stage::Tunnel;
    }

    /// How many bytes may be given next, at most; never 0.
    pub fn wanted(&self) -> usize {
        match self.part {
            Part::FrameHead => self.head.wanted(),
            Part::Section(left) | Part::Data(left) | Part::Skipped(left) => usize::try_from(left).unwrap_or(usize::MAX),
        }
    }

    /// Whether the next bytes are data.
    pub fn is_in_data(&self) -> bool {
        matches!(self.part, Part::Data(_))
    }

    /// Takes at least one byte, at most [`MessageReader::wanted`]. An error is the connection's.
    pub fn take(&mut self, bytes: &[u8]) -> Result<Option<Event>, Code> {
        let taken = bytes.len() as u64;
        match self.part {
            Part::FrameHead => match self.head.take(bytes)? {
                Some((kind, length)) => self.begin(kind, length),
                None => Ok(None),
            },
            Part::Section(left) => {
                self.section.extend_from_slice(bytes);
                self.part = Part::Section(left - taken);
                Ok(if left == taken { Some(self.end_section()) } else { None })
            }
            Part::Data(left) => {
                self.vain = 0;
                self.part = if left == taken { Part::FrameHead } else { Part::Data(left - taken) };
                Ok(Some(Event::Data))
            }
            Part::Skipped(left) => {
                self.part = if left == taken { Part::FrameHead } else { Part::Skipped(left - taken) };
                Ok(None)
            }
        }
    }

    fn begin(&mut self, kind: Kind, length: u64) -> Result<Option<Event>, Code> {
        self.vain += u32::from(length == 0 || kind == Kind::Unknown);
        if self.vain > VAIN {
            return Err(Code::EXCESSIVE_LOAD);
        }
        match (kind, self.stage) {
            (Kind::Headers, Stage::Head | Stage::Body) if length > self.limit as u64 => {
                self.skip(length);
                match self.stage {
                    Stage::Head => {
                        self.stage = Stage::Body;
                        Ok(Some(Event::HeadTooLarge))
                    }
                    _ => Err(Code::EXCESSIVE_LOAD),
                }
            }
            (Kind::Headers, Stage::Head | Stage::Body) if length == 0 => Ok(Some(self.end_section())),
            (Kind::Headers, Stage::Head | Stage::Body) => {
                self.part = Part::Section(length);
                Ok(None)
            }
            (Kind::Data, Stage::Body | Stage::Tunnel) => {
                self.part = if length == 0 { Part::FrameHead } else { Part::Data(length) };
                Ok(None)
            }
            (Kind::Unknown, _) => {
                self.skip(length);
                Ok(None)
            }
            // A server may push beside its answer, as often as it was told that it may: never (§4.6, §7.2.5).
            (Kind::PushPromise, Stage::Head | Stage::Body | Stage::Ended) if self.speaker == Speaker::Server => {
                Err(if length == 0 { Code::FRAME_ERROR } else { Code::ID_ERROR })
            }
            _ => Err(Code::FRAME_UNEXPECTED),
        }
    }

    fn skip(&mut self, length: u64) {
        self.part = if length == 0 { Part::FrameHead } else { Part::Skipped(length) };
    }

    fn end_section(&mut self) -> Event {
        self.part = Part::FrameHead;
        let section = std::mem::take(&mut self.section);
        if self.stage == Stage::Head {
            self.stage = Stage::Body;
            return Event::Head(section);
        }
        self.stage = Stage::Ended;
        Event::Trailers(section)
    }

    /// The stream has ended. A frame that is cut is the connection's fault (§7.1), a head that is missing the stream's.
    pub fn end(&self) -> Result<(), Code> {
        match () {
            () if self.part != Part::FrameHead || !self.head.is_empty() => Err(Code::FRAME_ERROR),
            () if self.stage == Stage::Head => Err(Code::REQUEST_INCOMPLETE),
            () => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::frame::{write_data_head, write_headers};
    use super::*;

    fn message() -> Vec<u8> {
        let mut bytes = vec![0x21, 3, 1, 2, 3];
        write_headers(&mut bytes, b"head");
        write_data_head(&mut bytes, 0);
        write_data_head(&mut bytes, 100);
        bytes.extend_from_slice(&[7; 100]);
        bytes.extend_from_slice(&[0x21, 0]);
        write_headers(&mut bytes, b"end");
        bytes
    }

    /// Feeds at most `step` bytes at a time.
    fn read(bytes: &[u8], step: usize) -> Result<(Vec<Event>, usize), Code> {
        let mut reader = MessageReader::new(Speaker::Client, 50);
        let (mut events, mut data, mut rest) = (Vec::new(), 0, bytes);
        while !rest.is_empty() {
            let (some, others) = rest.split_at(reader.wanted().min(step).min(rest.len()));
            rest = others;
            match reader.take(some)? {
                Some(Event::Data) => data += some.len(),
                Some(event) => events.push(event),
                None => {}
            }
        }
        reader.end().map(|()| (events, data))
    }

    #[test]
    fn however_it_is_split() {
        let whole = (vec![Event::Head(b"head".to_vec()), Event::Trailers(b"end".to_vec())], 100);
        for step in 1..120 {
            assert_eq!(read(&message(), step).as_ref(), Ok(&whole), "{step}");
        }
    }

    #[test]
    fn where_it_may_end() {
        let bytes = message();
        // Behind the unknown frame, the head, each DATA frame, the other unknown frame, the trailers.
        let ends: Vec<usize> =
            (0..=bytes.len()).filter(|end| read(&bytes[..*end], 9) != Err(Code::FRAME_ERROR)).collect();
        assert_eq!(ends, [0, 5, 11, 13, 116, 118, 123]);
        assert_eq!(read(&bytes[..5], 9), Err(Code::REQUEST_INCOMPLETE));
    }

    #[test]
    fn heads_of_interim_answers() {
        let mut bytes = Vec::new();
        write_headers(&mut bytes, b"1");
        write_headers(&mut bytes, b"2");
        let mut reader = MessageReader::new(Speaker::Client, 50);
        let mut heads = Vec::new();
        for byte in bytes {
            if let Some(Event::Head(section)) = reader.take(&[byte]).unwrap() {
                heads.push(section);
                reader.expect_head();
            }
        }
        assert_eq!(heads, [b"1", b"2"]);
        assert_eq!(reader.end(), Err(Code::REQUEST_INCOMPLETE));
    }

    #[test]
    fn frames_that_bring_nothing() {
        for vain in [&[0x0, 0][..], &[0x21, 1, 0]] {
            let mut bytes = Vec::new();
            write_headers(&mut bytes, b"head");
            for _ in 0..3 {
                bytes.extend(vain.repeat(900));
                bytes.extend_from_slice(&[0x0, 1, 7]);
            }
            assert!(read(&bytes, 9).is_ok());
            bytes.extend(vain.repeat(1_001));
            assert_eq!(read(&bytes, 9), Err(Code::EXCESSIVE_LOAD));
        }
    }

    #[test]
    fn frames_in_wrong_places() {
        for bytes in [&[0x0, 0][..], &[0x4, 0], &[0x1, 0, 0x5, 0], &[0x1, 0, 0x1, 0, 0x0, 0], &[0x1, 0, 0x7, 0]] {
            assert_eq!(read(bytes, 1), Err(Code::FRAME_UNEXPECTED), "{bytes:?}");
        }
    }

    #[test]
    fn a_push_of_a_server() {
        for before in 0..3 {
            let mut reader = MessageReader::new(Speaker::Server, 50);
            for _ in 0..before {
                reader.take(&[0x1, 0]).unwrap();
            }
            assert_eq!(reader.take(&[0x5, 1]), Err(Code::ID_ERROR), "{before}");
        }
        let mut reader = MessageReader::new(Speaker::Server, 50);
        assert_eq!(reader.take(&[0x5, 0]), Err(Code::FRAME_ERROR));
        let mut tunnel = MessageReader::new(Speaker::Server, 50);
        tunnel.take(&[0x1, 0]).unwrap();
        tunnel.open_tunnel();
        assert_eq!(tunnel.take(&[0x5, 1]), Err(Code::FRAME_UNEXPECTED));
    }

    #[test]
    fn a_head_that_is_too_large() {
        let mut bytes = Vec::new();
        write_headers(&mut bytes, &[0; 51]);
        assert_eq!(read(&bytes, 10), Ok((vec![Event::HeadTooLarge], 0)));
        write_headers(&mut bytes, &[0; 51]);
        assert_eq!(read(&bytes, 10), Err(Code::EXCESSIVE_LOAD));
    }
}
