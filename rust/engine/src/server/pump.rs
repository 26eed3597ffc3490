//! Streams one body from one connection to another, without holding more than one read of it.
//!
//! A body comes from a byte stream, where HTTP/1.1 frames it, or from a stream of HTTP/2 or HTTP/3, where DATA frames
//! do. It goes to any of the three. Trailers go along, where the way out has a place for them.

use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h2::{RecvStream, SendStream};

use crate::http::chunked::{CHUNK_TAIL, write_chunk_head, write_last_chunk};
use crate::http::grpc_web::Translation;
use crate::http::h3::head::write_trailers;
use crate::http::{BodyLength, BodyReader, BodyStep, Fields, from_map, to_map};
use crate::io::h3::{Receive, Send};
use crate::io::turns::Turn;
use crate::io::{Stream, with_scratch};

/// So many reads in a row, then it is the turn of others.
const READS: usize = 4;

/// The most that trailers may have when they are unpacked.
const TRAILERS: usize = 64 * 1024;

/// Why a body did not get through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stuck {
    /// The sender went before the body was complete.
    Source,
    /// The sender's framing is broken.
    Malformed,
    /// The receiver takes no more.
    Sink,
    /// It has more content than may be passed on.
    TooLarge,
}

/// Where a body comes from.
#[derive(Debug)]
pub enum Source<'s> {
    Stream(&'s mut Stream),
    H2(&'s mut RecvStream),
    H3(&'s mut Receive),
}

/// Where a body goes.
#[derive(Debug)]
pub enum Sink<'s> {
    Stream(&'s mut Stream),
    H2(&'s mut SendStream<Bytes>),
    H3(&'s mut Send),
    /// Nothing goes there any more.
    Gone,
}

impl<'s> Source<'s> {
    /// A stream that an answer comes over.
    pub fn of(stream: &'s mut Stream) -> Self {
        match stream {
            Stream::H2(h2) => Self::H2(h2.halves().1),
            Stream::H3(h3) => Self::H3(h3.halves().1),
            stream => Self::Stream(stream),
        }
    }
}

impl<'s> Sink<'s> {
    /// A stream that a request's body goes over.
    pub fn of(stream: &'s mut Stream) -> Self {
        match stream {
            Stream::H2(h2) => Self::H2(h2.halves().0),
            Stream::H3(h3) => Self::H3(h3.halves().0),
            stream => Self::Stream(stream),
        }
    }
}

/// How a body goes out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// As it is: its length was announced, or the end of the connection is its end.
    Plain,
    /// In chunks (RFC 9112 §7.1).
    Chunked,
    /// In DATA frames (RFC 9113 §6.1, RFC 9114 §7.2.1), and then the stream ends. A body that is empty has ended with
    /// its head.
    Data,
}

/// One body under way.
#[derive(Debug)]
pub struct Pump {
    reader: BodyReader,
    framing: Framing,
    /// Bytes for the receiver that it has not taken yet.
    out: Vec<u8>,
    sent: usize,
    /// What goes out in DATA frames, behind nothing that is in `out`.
    frames: Bytes,
    /// Bytes of DATA frames of the sender that it may send again when the receiver has taken them.
    taken: usize,
    trailers: Fields,
    /// END_STREAM has gone out.
    ended: bool,
    /// Bytes of the sender that were read already; what is left when the body is complete belongs to what follows.
    pub input: Vec<u8>,
    /// Bytes of content that were read.
    pub content: u64,
    /// The most that `content` may be.
    limit: u64,
    /// What the content goes through, if anything.
    translation: Option<Box<Translation>>,
    /// Bytes that came from the sender, and that the receiver has taken, framing included.
    read: u64,
    written: u64,
    complete: bool,
    turn: Turn,
}

impl Pump {
    /// A body of `length`, of which `input` was read already, behind a head that is still to be sent. Over HTTP/2 heads
    /// are not bytes of the stream: `head` is empty there, and goes before.
    pub fn new(length: BodyLength, framing: Framing, head: Vec<u8>, input: Vec<u8>) -> Self {
        let (complete, read) = (length.is_empty(), input.len() as u64);
        Self {
            reader: BodyReader::new(length),
            framing,
            out: head,
            sent: 0,
            frames: Bytes::new(),
            taken: 0,
            trailers: Fields::new(),
            ended: complete,
            input,
            content: 0,
            limit: u64::MAX,
            translation: None,
            read,
            written: 0,
            complete,
            turn: Turn::default(),
        }
    }

    /// A body that is there whole.
    pub fn whole(length: BodyLength, framing: Framing, body: Vec<u8>) -> Self {
        let content = body.len() as u64;
        Self { content, complete: true, ..Self::new(length, framing, body, Vec::new()) }
    }

    /// Passes on at most `limit` bytes of content.
    pub fn limited(self, limit: Option<u64>) -> Self {
        Self { limit: limit.unwrap_or(u64::MAX), ..self }
    }

    /// Passes its content on through `translation`.
    pub fn translated(self, translation: Option<Translation>) -> Self {
        Self { translation: translation.map(Box::new), ..self }
    }

    fn has_unsent(&self) -> bool {
        self.sent < self.out.len() || !self.frames.is_empty()
    }

    /// Whether it waits for its sender, not for its receiver.
    pub fn wants_more(&self) -> bool {
        !self.complete && !self.has_unsent()
    }

    /// Whether anything of the body has come.
    pub fn has_begun(&self) -> bool {
        self.read > 0
    }

    /// Bytes that the receiver has taken.
    pub fn written(&self) -> u64 {
        self.written
    }

    /// Grows with every byte that moves on either side.
    pub fn moved(&self) -> u64 {
        self.read + self.written
    }

    /// Whether the receiver has taken all of it. Only then may its connection carry anything else.
    pub fn is_done(&self) -> bool {
        self.complete && !self.has_unsent() && (self.ended || self.framing != Framing::Data)
    }

    /// Moves the body on; ready when the receiver has taken all of it.
    pub fn poll(&mut self, cx: &mut Context<'_>, from: Source<'_>, to: Sink<'_>) -> Poll<Result<(), Stuck>> {
        ready!(self.turn.poll(cx));
        match (from, to) {
            (Source::Stream(from), Sink::Stream(to)) => self.poll_streams(cx, from, to),
            (from, to) => self.poll_any(cx, from, to),
        }
    }

    /// From HTTP/1.1 to HTTP/1.1.
    fn poll_streams(&mut self, cx: &mut Context<'_>, from: &mut Stream, to: &mut Stream) -> Poll<Result<(), Stuck>> {
        self.take_input(cx, &mut Sink::Stream(to))?;
        for _ in 0..READS {
            ready!(self.poll_send(cx, to))?;
            if self.complete {
                return to.poll_flush(cx).map_err(|_| Stuck::Sink);
            }
            // What a TLS session still holds must not wait until the sender has more to say.
            if let Poll::Ready(Err(_)) = to.poll_flush(cx) {
                return Poll::Ready(Err(Stuck::Sink));
            }
            ready!(self.poll_read(cx, from, &mut Sink::Stream(to)))?;
        }
        self.turn.give_way(cx);
        Poll::Pending
    }

    fn poll_any(&mut self, cx: &mut Context<'_>, mut from: Source<'_>, mut to: Sink<'_>) -> Poll<Result<(), Stuck>> {
        self.take_input(cx, &mut to)?;
        for _ in 0..READS {
            let out = self.poll_out(cx, &mut to)?;
            if self.complete {
                return out.map(Ok);
            }
            if out.is_pending() {
                return self.take_in(cx, &mut from, &mut to);
            }
            self.release(&mut from);
            match &mut from {
                Source::Stream(from) => ready!(self.poll_read(cx, from, &mut to))?,
                Source::H2(from) => ready!(self.poll_data(cx, from, &mut to))?,
                Source::H3(from) => ready!(self.poll_content(cx, from, &mut to))?,
            }
        }
        self.turn.give_way(cx);
        Poll::Pending
    }

    /// Sends what is there, of a body that comes from nowhere or has come whole.
    pub fn poll_out(&mut self, cx: &mut Context<'_>, to: &mut Sink<'_>) -> Poll<Result<(), Stuck>> {
        match to {
            Sink::Stream(to) => {
                ready!(self.poll_send(cx, to))?;
                to.poll_flush(cx).map_err(|_| Stuck::Sink)
            }
            Sink::H2(to) => self.poll_send_frames(cx, to),
            Sink::H3(to) => self.poll_send_h3(cx, to),
            Sink::Gone if self.is_done() => Poll::Ready(Ok(())),
            Sink::Gone => Poll::Ready(Err(Stuck::Sink)),
        }
    }

    fn poll_send(&mut self, cx: &mut Context<'_>, to: &mut Stream) -> Poll<Result<(), Stuck>> {
        while self.sent < self.out.len() {
            match ready!(to.poll_write(cx, &self.out[self.sent..])) {
                Ok(written @ 1..) => {
                    self.sent += written;
                    self.written += written as u64;
                }
                Ok(0) | Err(_) => return Poll::Ready(Err(Stuck::Sink)),
            }
        }
        self.out.clear();
        self.sent = 0;
        Poll::Ready(Ok(()))
    }

    fn poll_send_frames(&mut self, cx: &mut Context<'_>, to: &mut SendStream<Bytes>) -> Poll<Result<(), Stuck>> {
        while self.has_unsent() {
            if self.frames.is_empty() {
                self.frames = std::mem::take(&mut self.out).into();
            }
            to.reserve_capacity(self.frames.len());
            let room = to.capacity().min(self.frames.len());
            if room == 0 {
                match ready!(to.poll_capacity(cx)) {
                    Some(Ok(_)) => continue,
                    Some(Err(_)) | None => return Poll::Ready(Err(Stuck::Sink)),
                }
            }
            let is_last = self.complete && room == self.frames.len() && self.out.is_empty() && self.trailers.is_empty();
            to.send_data(self.frames.split_to(room), is_last).map_err(|_| Stuck::Sink)?;
            self.written += room as u64;
            self.ended |= is_last;
        }
        if self.complete && !self.ended {
            self.ended = true;
            let ended = match self.trailers.is_empty() {
                true => to.send_data(Bytes::new(), true),
                false => to.send_trailers(to_map(&self.trailers)),
            };
            ended.map_err(|_| Stuck::Sink)?;
        }
        Poll::Ready(Ok(()))
    }

    /// For a receiver that takes nothing now: takes in what the sender's window lets come. Left inside `h2`, small
    /// frames that wait cost more than their bytes and count against all streams of the connection: it would end for
    /// too many of them.
    fn take_in(&mut self, cx: &mut Context<'_>, from: &mut Source<'_>, to: &mut Sink<'_>) -> Poll<Result<(), Stuck>> {
        if let Source::H2(from) = from {
            while !self.complete {
                match ready!(self.poll_data(cx, from, to)) {
                    // What came before it goes on first; the next read fails again.
                    Err(Stuck::Source) => break,
                    taken => taken?,
                }
            }
        }
        Poll::Pending
    }

    fn poll_send_h3(&mut self, cx: &mut Context<'_>, to: &mut Send) -> Poll<Result<(), Stuck>> {
        while self.sent < self.out.len() {
            let written = ready!(to.poll_write(cx, &self.out[self.sent..])).map_err(|_| Stuck::Sink)?;
            self.sent += written;
            self.written += written as u64;
        }
        self.out.clear();
        self.sent = 0;
        if self.complete && !self.ended && !self.trailers.is_empty() {
            to.send_section(&write_trailers(&self.trailers)).map_err(|_| Stuck::Sink)?;
        }
        self.ended |= self.complete;
        let sent = if self.complete { to.poll_finish(cx) } else { to.poll_flush(cx) };
        sent.map_err(|_| Stuck::Sink)
    }

    /// Lets the sender of DATA frames send again what has gone on.
    fn release(&mut self, from: &mut Source<'_>) {
        if let (Source::H2(from), 1..) = (from, self.taken) {
            // Refused only where the stream is gone, and then the window is nobody's.
            let _ = from.flow_control().release_capacity(std::mem::take(&mut self.taken));
        }
    }

    fn poll_read(&mut self, cx: &mut Context<'_>, from: &mut Stream, to: &mut Sink<'_>) -> Poll<Result<(), Stuck>> {
        with_scratch(|scratch| {
            let read = ready!(from.poll_read(cx, scratch)).map_err(|_| Stuck::Source)?;
            self.read += read as u64;
            Poll::Ready(match read {
                0 => self.source_ended(),
                read => self.take(cx, &scratch[..read], to),
            })
        })
    }

    /// One DATA frame, or the end. The length that a head announces is for `h2` to watch: it resets the stream.
    fn poll_data(&mut self, cx: &mut Context<'_>, from: &mut RecvStream, to: &mut Sink<'_>) -> Poll<Result<(), Stuck>> {
        match ready!(from.poll_data(cx)) {
            Some(Ok(bytes)) => {
                self.read += bytes.len() as u64;
                self.taken += bytes.len();
                self.count(bytes.len())?;
                match to {
                    to if self.translation.is_some() => self.pass(cx, &bytes, to)?,
                    Sink::H2(_) if !self.has_unsent() => self.frames = bytes,
                    Sink::H2(_) => self.out.extend_from_slice(&bytes),
                    // An empty chunk would end the body.
                    _ if bytes.is_empty() => {}
                    to => self.pass(cx, &bytes, to)?,
                }
                Poll::Ready(Ok(()))
            }
            Some(Err(_)) => Poll::Ready(Err(Stuck::Source)),
            None => {
                let trailers = ready!(from.poll_trailers(cx)).map_err(|_| Stuck::Source)?;
                if let Some(trailers) = trailers {
                    self.trailers = crate::http::passable_trailers(from_map(&trailers));
                }
                Poll::Ready(self.finish())
            }
        }
    }

    /// Content of a stream of HTTP/3, or its end.
    fn poll_content(&mut self, cx: &mut Context<'_>, from: &mut Receive, to: &mut Sink<'_>) -> Poll<Result<(), Stuck>> {
        with_scratch(|scratch| {
            let read = ready!(from.poll_read(cx, scratch)).map_err(|_| Stuck::Source)?;
            if read > 0 {
                self.read += read as u64;
                self.count(read)?;
                return Poll::Ready(self.pass(cx, &scratch[..read], to));
            }
            if let Some(trailers) = from.take_trailers(TRAILERS).map_err(|_| Stuck::Malformed)? {
                self.trailers = crate::http::passable_trailers(trailers);
            }
            Poll::Ready(self.finish())
        })
    }

    fn source_ended(&mut self) -> Result<(), Stuck> {
        self.reader.end().map_err(|_| Stuck::Source)?;
        self.finish()
    }

    fn finish(&mut self) -> Result<(), Stuck> {
        self.complete = true;
        if let Some(translation) = &mut self.translation {
            let last = translation.end(&mut self.trailers).map_err(|_| Stuck::Malformed)?;
            self.append(&last);
        }
        if self.framing == Framing::Chunked {
            write_last_chunk(&mut self.out, (!self.trailers.is_empty()).then_some(&self.trailers));
        }
        Ok(())
    }

    fn take_input(&mut self, cx: &mut Context<'_>, to: &mut Sink<'_>) -> Result<(), Stuck> {
        if self.input.is_empty() || self.complete {
            return Ok(());
        }
        let input = std::mem::take(&mut self.input);
        self.take(cx, &input, to)
    }

    fn take(&mut self, cx: &mut Context<'_>, bytes: &[u8], to: &mut Sink<'_>) -> Result<(), Stuck> {
        let mut rest = bytes;
        loop {
            match self.reader.next(rest).map_err(|_| Stuck::Malformed)? {
                BodyStep::Data(range) => {
                    self.count(range.len())?;
                    self.pass(cx, &rest[range.clone()], to)?;
                    rest = &rest[range.end..];
                }
                BodyStep::More => return Ok(()),
                BodyStep::Done { consumed } => {
                    self.input = rest[consumed..].to_vec();
                    self.trailers = self.reader.take_trailers();
                    return self.finish();
                }
            }
        }
    }

    fn count(&mut self, content: usize) -> Result<(), Stuck> {
        self.content += content as u64;
        if self.content > self.limit { Err(Stuck::TooLarge) } else { Ok(()) }
    }

    /// Writes at once what can be; a chunk goes with its frame, and a head with the first of the body.
    fn pass(&mut self, cx: &mut Context<'_>, content: &[u8], to: &mut Sink<'_>) -> Result<(), Stuck> {
        if let Some(translation) = &mut self.translation {
            let translated = translation.piece(content).map_err(|_| Stuck::Malformed)?;
            self.append(&translated);
            return Ok(());
        }
        if self.framing == Framing::Chunked {
            self.append(content);
            return Ok(());
        }
        let mut rest = content;
        if let (Sink::Stream(to), true) = (to, self.out.is_empty()) {
            match to.poll_write(cx, content) {
                Poll::Ready(Ok(written)) => {
                    self.written += written as u64;
                    rest = &content[written..];
                }
                Poll::Ready(Err(_)) => return Err(Stuck::Sink),
                Poll::Pending => {}
            }
        }
        self.out.extend_from_slice(rest);
        Ok(())
    }

    /// Puts content behind what is to be sent. An empty chunk would end the body.
    fn append(&mut self, content: &[u8]) {
        if self.framing != Framing::Chunked {
            self.out.extend_from_slice(content);
        } else if !content.is_empty() {
            write_chunk_head(&mut self.out, content.len());
            self.out.extend_from_slice(content);
            self.out.extend_from_slice(CHUNK_TAIL);
        }
    }
}
