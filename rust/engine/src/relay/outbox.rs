//! What a side has not taken yet.
//!
//! Bounded by construction: a direction is read only while the receiver's outbox is empty, so it holds at most what
//! one read left over (64 KiB) and a few frames of our own. An empty outbox owns no memory.

use std::io;
use std::task::{Context, Poll};

use crate::io::Stream;

/// Bytes waiting for a slow receiver, in order.
#[derive(Debug, Default)]
pub struct Outbox {
    bytes: Vec<u8>,
    sent: usize,
}

impl Outbox {
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// The buffer to append to.
    pub fn tail(&mut self) -> &mut Vec<u8> {
        &mut self.bytes
    }

    /// Keeps bytes behind those that are there. The first ones choose the size of the buffer, a power of two: leftovers
    /// of any length would each take another kind of block from the allocator, which keeps a stock of every kind.
    pub fn push(&mut self, bytes: &[u8]) {
        if self.bytes.capacity() == 0 {
            self.bytes.reserve_exact(bytes.len().next_power_of_two());
        }
        self.bytes.extend_from_slice(bytes);
    }

    /// Forgets what is left; returns how many bytes that were.
    pub fn discard(&mut self) -> usize {
        let left = self.bytes.len() - self.sent;
        *self = Self::default();
        left
    }

    /// Writes until nothing is left or the socket refuses.
    pub fn poll_flush(&mut self, cx: &mut Context<'_>, stream: &mut Stream) -> Poll<io::Result<()>> {
        while self.sent < self.bytes.len() {
            match stream.poll_write(cx, &self.bytes[self.sent..]) {
                Poll::Ready(Ok(0)) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Poll::Ready(Ok(written)) => self.sent += written,
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => return Poll::Pending,
            }
        }
        if !self.bytes.is_empty() {
            *self = Self::default();
        }
        Poll::Ready(Ok(()))
    }
}
