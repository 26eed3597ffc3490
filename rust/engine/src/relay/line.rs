//! One stream of a relay, and what it has not taken yet.

use std::io;
use std::task::{Context, Poll};

use super::outbox::Outbox;
use crate::io::{Stream, Watch};

#[derive(Debug)]
pub struct Line {
    pub stream: Stream,
    pub watch: Watch,
    pub outbox: Outbox,
    /// Nothing can be written any more.
    pub broken: bool,
    /// The stream may hold bytes that were written.
    unflushed: bool,
}

impl Line {
    pub fn new(stream: Stream) -> Self {
        // Over HTTP/3 the head of the answer may still wait for room in the window of the connection.
        let unflushed = stream.holds_back();
        Self { stream, watch: Watch::default(), outbox: Outbox::default(), broken: false, unflushed }
    }

    /// Writes `bytes` at once as far as the socket takes them, and keeps the rest.
    #[inline]
    pub fn send(&mut self, cx: &mut Context<'_>, bytes: &[u8]) {
        if self.broken || bytes.is_empty() {
            return;
        }
        let mut rest = bytes;
        if self.outbox.is_empty() {
            match self.stream.poll_write(cx, bytes) {
                Poll::Ready(Ok(written)) => rest = &bytes[written..],
                Poll::Ready(Err(_)) => {
                    self.fail();
                    return;
                }
                Poll::Pending => {}
            }
            self.unflushed = self.stream.holds_back();
        }
        if !rest.is_empty() {
            self.outbox.push(rest);
        }
    }

    /// Pushes out what is kept. True when nothing is left, so that more may be read for this side.
    #[inline]
    pub fn flush(&mut self, cx: &mut Context<'_>) -> bool {
        if !self.has_unsent() {
            return true;
        }
        let had = !self.outbox.is_empty();
        match self.poll_flush(cx, had) {
            Poll::Ready(Ok(())) => true,
            Poll::Ready(Err(_)) => {
                self.fail();
                true
            }
            Poll::Pending => false,
        }
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>, had: bool) -> Poll<io::Result<()>> {
        if had {
            std::task::ready!(self.outbox.poll_flush(cx, &mut self.stream))?;
            self.unflushed = self.stream.holds_back();
        }
        if self.unflushed {
            std::task::ready!(self.stream.poll_flush(cx))?;
            self.unflushed = false;
        }
        Poll::Ready(Ok(()))
    }

    /// Nothing can be written to it any more. What it said before may still be there to be read, a Close perhaps.
    /// Returns how many bytes are lost with it.
    pub fn fail(&mut self) -> usize {
        self.broken = true;
        self.outbox.discard()
    }

    /// Whether bytes are still on their way to it.
    pub fn has_unsent(&self) -> bool {
        !self.broken && (!self.outbox.is_empty() || self.unflushed)
    }
}
