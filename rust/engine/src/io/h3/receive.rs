//! What the other side sends on the stream of a request: a client its request, a server the answers.

use std::fmt;
use std::io;
use std::task::{Context, Poll, ready};

use quinn::RecvStream;

use super::{Quic, lost, varint};
use crate::http::Fields;
use crate::http::h3::code::Code;
use crate::http::h3::control::Speaker;
use crate::http::h3::head::read_trailers;
use crate::http::h3::message::{Event, MessageReader};

/// How much of a head is read at once.
const PIECE: usize = 1024;

/// The direction from the other side.
pub struct Receive {
    stream: RecvStream,
    quic: Quic,
    reader: MessageReader,
    /// Content that is still to come, where the head has announced it.
    announced: Option<u64>,
    trailers: Option<Vec<u8>>,
    ended: bool,
    /// The other side has reset it, or broken the rules.
    failed: bool,
    /// Told to who is read no further.
    parting: Code,
}

/// The field section of a head.
#[derive(Debug)]
pub enum Section {
    Fields(Vec<u8>),
    TooLarge,
}

/// What a turn of reading has brought.
enum Read {
    Event(Event, usize),
    End,
}

impl Receive {
    /// `limit` is the most bytes that a field section may have.
    pub fn new(quic: Quic, stream: RecvStream, speaker: Speaker, limit: usize) -> Self {
        let reader = MessageReader::new(speaker, limit);
        let parting = Code::REQUEST_CANCELLED;
        Self { stream, quic, reader, announced: None, trailers: None, ended: false, failed: false, parting }
    }

    /// The next head.
    pub fn poll_head(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Section>> {
        loop {
            match ready!(self.poll_next(cx, &mut []))? {
                Read::Event(Event::Head(section), _) => return Poll::Ready(Ok(Section::Fields(section))),
                Read::Event(Event::HeadTooLarge, _) => return Poll::Ready(Ok(Section::TooLarge)),
                Read::Event(Event::Data | Event::Trailers(_), _) => {}
                Read::End => return Poll::Ready(Err(self.fail(Code::REQUEST_INCOMPLETE))),
            }
        }
    }

    /// The head that came was that of an interim answer: another one follows.
    pub fn expect_head(&mut self) {
        self.reader.expect_head();
    }

    /// Whether it is known by now that no body follows: the end mostly comes with the head.
    pub fn poll_ended(&mut self, cx: &mut Context<'_>) -> bool {
        while !self.ended && !self.reader.is_in_data() {
            match self.poll_next(cx, &mut []) {
                Poll::Ready(Ok(Read::Event(Event::Trailers(section), _))) => self.trailers = Some(section),
                Poll::Ready(Ok(_)) => {}
                Poll::Ready(Err(_)) | Poll::Pending => return false,
            }
        }
        self.ended && self.trailers.is_none()
    }

    /// The content that must come: more or less is malformed (RFC 9114 §4.1.2).
    pub fn expect(&mut self, length: Option<u64>) {
        self.announced = length;
    }

    /// From now on there is data alone.
    pub fn open_tunnel(&mut self) {
        self.reader.open_tunnel();
    }

    /// Reads content into `buffer`, which is not empty; 0 is the end.
    pub fn poll_read(&mut self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        loop {
            match ready!(self.poll_next(cx, buffer))? {
                Read::Event(Event::Data, read) => {
                    let left = self.announced.map(|left| left.checked_sub(read as u64).ok_or(Code::MESSAGE_ERROR));
                    self.announced = left.transpose().map_err(|code| self.fail(code))?;
                    return Poll::Ready(Ok(read));
                }
                Read::Event(Event::Trailers(section), _) => self.trailers = Some(section),
                Read::Event(Event::Head(_) | Event::HeadTooLarge, _) => {}
                Read::End if self.announced.is_some_and(|left| left > 0) => {
                    return Poll::Ready(Err(self.fail(Code::MESSAGE_ERROR)));
                }
                Read::End => return Poll::Ready(Ok(0)),
            }
        }
    }

    /// What was behind the content, once that has ended, of at most `limit` bytes.
    pub fn take_trailers(&mut self, limit: usize) -> io::Result<Option<Fields>> {
        let section = self.trailers.take();
        section.map(|section| read_trailers(&section, limit)).transpose().map_err(|code| self.fail(code))
    }

    /// Takes the bytes of one part of a frame. Data goes to `buffer`; with an empty one it is not to come yet.
    fn poll_next(&mut self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<Read>> {
        let mut piece = [0; PIECE];
        loop {
            if self.ended {
                return Poll::Ready(Ok(Read::End));
            }
            if self.reader.is_in_data() && buffer.is_empty() {
                return Poll::Pending;
            }
            let wanted = self.reader.wanted();
            let space = if self.reader.is_in_data() { &mut *buffer } else { &mut piece };
            let size = space.len().min(wanted);
            let read = ready!(self.stream.poll_read(cx, &mut space[..size]));
            self.failed |= read.is_err();
            let read = read.map_err(lost)?;
            if read == 0 {
                self.reader.end().map_err(|code| self.fail(code))?;
                self.ended = true;
                continue;
            }
            if let Some(event) = self.reader.take(&space[..read]).map_err(|code| self.fail(code))? {
                return Poll::Ready(Ok(Read::Event(event, read)));
            }
        }
    }

    /// Ends what must not go on: a message that is malformed alone, or the connection.
    fn fail(&mut self, code: Code) -> io::Error {
        self.failed = true;
        match code {
            Code::REQUEST_INCOMPLETE | Code::MESSAGE_ERROR => self.dismiss(code),
            code => self.quic.end_for(code),
        }
        io::Error::new(io::ErrorKind::InvalidData, code)
    }

    /// Whether the other side has reset it, or broken the rules.
    pub fn has_failed(&self) -> bool {
        self.failed
    }

    /// The connection must not go on.
    pub fn end_connection(&mut self, code: Code) {
        self.fail(code);
    }

    /// What to say to who goes on sending, when this is dropped.
    pub fn dismiss(&mut self, code: Code) {
        self.parting = code;
    }
}

impl Drop for Receive {
    fn drop(&mut self) {
        if !self.ended {
            // Refused where the other side has ended or reset it meanwhile.
            let _ = self.stream.stop(varint(self.parting));
        }
    }
}

impl fmt::Debug for Receive {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Receive({})", self.stream.id())
    }
}
