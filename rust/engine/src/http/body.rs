//! Bodies as they stream by (RFC 9112 §6), without copying them.
//!
//! A [`BodyReader`] is fed whatever has arrived and answers with the part of it that is content:
//!
//! ```text
//! next(input) -> Data(range)     input[range] is content, everything up to range.end is dealt with
//!             -> More            all of input is dealt with, feed the next bytes
//!             -> Done{consumed}  the body ended; input[consumed..] belongs to the next message
//! ```
//!
//! A body that was cut off never ends in `Done`; [`BodyReader::end`] tells whether the connection may close here.

use std::fmt;
use std::ops::Range;

use super::chunked::{Chunks, take};
use super::fault::BadHead;
use super::fields::Fields;
use super::framing::BodyLength;
use super::trailers::Trailers;

/// Why a body was refused. What follows it on the connection cannot be told apart: close.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadBody {
    /// A stable identifier in snake case.
    pub reason: &'static str,
    /// One sentence for people.
    pub text: &'static str,
}

impl fmt::Display for BadBody {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} ({})", self.text, self.reason)
    }
}

impl std::error::Error for BadBody {}

impl From<BadHead> for BadBody {
    fn from(fault: BadHead) -> Self {
        Self { reason: fault.reason, text: fault.text }
    }
}

const TRUNCATED: BadBody = BadBody { reason: "body_truncated", text: "The connection closed before the body ended." };

/// What [`BodyReader::next`] found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BodyStep {
    /// This part of the input is content and never empty. Go on with what follows it.
    Data(Range<usize>),
    /// All input is used up; go on with the next bytes.
    More,
    /// The body is complete.
    Done {
        /// How much of the input belonged to it.
        consumed: usize,
    },
}

/// Walks over one body.
#[derive(Clone, Debug)]
pub struct BodyReader {
    state: State,
    trailers: Fields,
}

#[derive(Clone, Debug)]
enum State {
    Length(u64),
    UntilClose,
    Chunks(Chunks),
    Trailers(Trailers),
    Done,
}

impl BodyReader {
    /// A reader at the beginning of a body.
    pub fn new(length: BodyLength) -> Self {
        let state = match length {
            BodyLength::None | BodyLength::Length(0) => State::Done,
            BodyLength::Length(left) => State::Length(left),
            BodyLength::Chunked => State::Chunks(Chunks::new()),
            BodyLength::UntilClose => State::UntilClose,
        };
        Self { state, trailers: Fields::new() }
    }

    /// Takes the next step over `input`, which begins where the last step ended. After an error the reader is of no
    /// more use.
    pub fn next(&mut self, input: &[u8]) -> Result<BodyStep, BadBody> {
        let mut at = 0;
        loop {
            let rest = &input[at..];
            if self.is_done() {
                return Ok(BodyStep::Done { consumed: at });
            }
            if rest.is_empty() {
                return Ok(BodyStep::More);
            }
            if let Some(length) = self.take_content(rest.len()) {
                return Ok(BodyStep::Data(at..at + length));
            }
            at += self.take_framing(rest)?;
        }
    }

    /// The connection ended. Ends a body that lasts until then; an error when the body is cut off.
    pub fn end(&mut self) -> Result<(), BadBody> {
        match self.state {
            State::Done | State::UntilClose => {
                self.state = State::Done;
                Ok(())
            }
            _ => Err(TRUNCATED),
        }
    }

    /// Whether the body is complete. True as soon as the last byte of a body with a length was returned.
    pub fn is_done(&self) -> bool {
        matches!(self.state, State::Done)
    }

    /// The trailer fields of a complete chunked body that may be passed on.
    pub fn trailers(&self) -> &Fields {
        &self.trailers
    }

    /// Takes them out.
    pub fn take_trailers(&mut self) -> Fields {
        std::mem::take(&mut self.trailers)
    }

    /// How many of the next `available` bytes are content; none while framing is due.
    fn take_content(&mut self, available: usize) -> Option<usize> {
        match &mut self.state {
            State::UntilClose => Some(available),
            State::Length(left) => {
                let taken = take(left, available);
                if *left == 0 {
                    self.state = State::Done;
                }
                Some(taken)
            }
            State::Chunks(chunks) => chunks.take_data(available),
            State::Trailers(_) | State::Done => None,
        }
    }

    /// Takes framing off the start of `rest` and says how much.
    fn take_framing(&mut self, rest: &[u8]) -> Result<usize, BadBody> {
        match &mut self.state {
            State::Chunks(chunks) => {
                if chunks.step(rest[0])? {
                    self.state = State::Trailers(Trailers::new());
                }
                Ok(1)
            }
            State::Trailers(trailers) => {
                let Some((fields, consumed)) = trailers.read(rest)? else { return Ok(rest.len()) };
                self.trailers = fields;
                self.state = State::Done;
                Ok(consumed)
            }
            State::Length(_) | State::UntilClose | State::Done => Ok(0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::chunked::{CHUNK_TAIL, write_chunk_head, write_last_chunk};
    use super::*;

    type Read = Result<(Vec<u8>, usize, Fields), &'static str>;

    /// Feeds `input` in pieces of `size` bytes until the body is done.
    fn read(length: BodyLength, input: &[u8], size: usize) -> Read {
        let mut reader = BodyReader::new(length);
        let (mut content, mut consumed) = (Vec::new(), 0);
        for piece in input.chunks(size) {
            let mut at = 0;
            loop {
                match reader.next(&piece[at..]).map_err(|fault| fault.reason)? {
                    BodyStep::Data(range) => {
                        content.extend_from_slice(&piece[at..][range.clone()]);
                        at += range.end;
                    }
                    BodyStep::More => break,
                    BodyStep::Done { consumed: last } => return Ok((content, consumed + at + last, reader.trailers)),
                }
            }
            consumed += piece.len();
        }
        reader.end().map_err(|fault| fault.reason)?;
        Ok((content, consumed, reader.trailers))
    }

    #[test]
    fn plain_lengths() {
        for size in 1..8 {
            let (content, consumed, _) = read(BodyLength::Length(5), b"helloNEXT", size).unwrap();
            assert_eq!((&content[..], consumed), (&b"hello"[..], 5));
            assert_eq!(read(BodyLength::Length(6), b"hello", size).unwrap_err(), "body_truncated");
            assert_eq!(read(BodyLength::None, b"NEXT", size).unwrap().1, 0);
            assert_eq!(read(BodyLength::UntilClose, b"hello", size).unwrap().0, b"hello");
        }
    }

    #[test]
    fn a_length_is_done_with_its_last_byte() {
        let mut reader = BodyReader::new(BodyLength::Length(2));
        assert_eq!(reader.next(b"").unwrap(), BodyStep::More);
        assert_eq!(reader.next(b"abc").unwrap(), BodyStep::Data(0..2));
        assert!(reader.is_done());
        assert_eq!(reader.next(b"c").unwrap(), BodyStep::Done { consumed: 0 });
        assert!(BodyReader::new(BodyLength::Length(0)).is_done());
    }

    #[test]
    fn a_cut_body_is_not_complete() {
        let input = b"5;a\r\nhello\r\n0\r\nA: b\r\n\r\n";
        for end in 0..input.len() {
            for size in [1, input.len()] {
                assert_eq!(read(BodyLength::Chunked, &input[..end], size).unwrap_err(), "body_truncated", "{end}");
            }
        }
        assert_eq!(read(BodyLength::Chunked, input, 1).unwrap().0, b"hello");
    }

    #[test]
    fn reads_what_is_written() {
        for length in [1, 15, 16, 256, 65536] {
            let data = vec![b'a'; length];
            let mut out = Vec::new();
            write_chunk_head(&mut out, length);
            out.extend_from_slice(&data);
            out.extend_from_slice(CHUNK_TAIL);
            let mut trailers = Fields::new();
            trailers.push(b"A", b"b");
            write_last_chunk(&mut out, Some(&trailers));
            out.extend_from_slice(b"NEXT");
            let (content, consumed, read) = read(BodyLength::Chunked, &out, 1000).unwrap();
            assert_eq!((content, consumed, read.first("a")), (data, out.len() - 4, Some(&b"b"[..])));
        }
    }
}
