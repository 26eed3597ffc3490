//! Streams one body from one connection to another, without holding more than one read of it.

use std::task::{Context, Poll, ready};

use crate::http::chunked::{CHUNK_TAIL, write_chunk_head, write_last_chunk};
use crate::http::{BodyLength, BodyReader, BodyStep};
use crate::io::{Stream, with_scratch};

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

/// One body under way.
#[derive(Debug)]
pub struct Pump {
    reader: BodyReader,
    /// Whether it goes out in chunks.
    chunked: bool,
    /// Bytes for the receiver that it has not taken yet.
    out: Vec<u8>,
    sent: usize,
    /// Bytes of the sender that were read already; what is left when the body is complete belongs to what follows.
    pub input: Vec<u8>,
    /// Bytes of content that were read.
    pub content: u64,
    /// The most that `content` may be.
    limit: u64,
    /// Bytes that came from the sender, and that the receiver has taken, framing included.
    read: u64,
    written: u64,
    complete: bool,
}

impl Pump {
    /// A body of `length`, of which `input` was read already, behind a head that is still to be sent.
    pub fn new(length: BodyLength, chunked: bool, head: Vec<u8>, input: Vec<u8>) -> Self {
        let reader = BodyReader::new(length);
        let (complete, read) = (length.is_empty(), input.len() as u64);
        Self { reader, chunked, out: head, sent: 0, input, content: 0, limit: u64::MAX, read, written: 0, complete }
    }

    /// Passes on at most `limit` bytes of content.
    pub fn limited(self, limit: Option<u64>) -> Self {
        Self { limit: limit.unwrap_or(u64::MAX), ..self }
    }

    /// Whether it waits for its sender, not for its receiver.
    pub fn wants_more(&self) -> bool {
        !self.complete && self.sent == self.out.len()
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
        self.complete && self.sent == self.out.len()
    }

    /// Moves the body on; ready when the receiver has taken all of it.
    pub fn poll(&mut self, cx: &mut Context<'_>, from: &mut Stream, to: &mut Stream) -> Poll<Result<(), Stuck>> {
        if !self.input.is_empty() && !self.complete {
            let input = std::mem::take(&mut self.input);
            self.take(cx, &input, to)?;
        }
        loop {
            ready!(self.poll_send(cx, to))?;
            if self.complete {
                return to.poll_flush(cx).map_err(|_| Stuck::Sink);
            }
            // What a TLS session still holds must not wait until the sender has more to say.
            if let Poll::Ready(Err(_)) = to.poll_flush(cx) {
                return Poll::Ready(Err(Stuck::Sink));
            }
            let read = with_scratch(|scratch| {
                let read = ready!(from.poll_read(cx, scratch)).map_err(|_| Stuck::Source)?;
                self.read += read as u64;
                Poll::Ready(match read {
                    0 => self.source_ended(),
                    read => self.take(cx, &scratch[..read], to),
                })
            });
            ready!(read)?;
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

    fn source_ended(&mut self) -> Result<(), Stuck> {
        self.reader.end().map_err(|_| Stuck::Source)?;
        self.finish();
        Ok(())
    }

    fn finish(&mut self) {
        self.complete = true;
        if self.chunked {
            let trailers = self.reader.trailers();
            write_last_chunk(&mut self.out, (!trailers.is_empty()).then_some(trailers));
        }
    }

    fn take(&mut self, cx: &mut Context<'_>, bytes: &[u8], to: &mut Stream) -> Result<(), Stuck> {
        let mut rest = bytes;
        loop {
            match self.reader.next(rest).map_err(|_| Stuck::Malformed)? {
                BodyStep::Data(range) => {
                    self.content += range.len() as u64;
                    if self.content > self.limit {
                        return Err(Stuck::TooLarge);
                    }
                    self.pass(cx, &rest[range.clone()], to)?;
                    rest = &rest[range.end..];
                }
                BodyStep::More => return Ok(()),
                BodyStep::Done { consumed } => {
                    self.input = rest[consumed..].to_vec();
                    self.finish();
                    return Ok(());
                }
            }
        }
    }

    /// Writes at once what can be; a chunk goes with its frame, and a head with the first of the body.
    fn pass(&mut self, cx: &mut Context<'_>, content: &[u8], to: &mut Stream) -> Result<(), Stuck> {
        if self.chunked {
            write_chunk_head(&mut self.out, content.len());
            self.out.extend_from_slice(content);
            self.out.extend_from_slice(CHUNK_TAIL);
            return Ok(());
        }
        let mut rest = content;
        if self.out.is_empty() {
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
}
