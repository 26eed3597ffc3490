//! A [`Stream`] as what the `h2` crate wants to stand on.

use std::cell::RefCell;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::io::{SCRATCH_SIZE, Stream, with_scratch};

/// The bytes of a connection.
#[derive(Debug)]
pub struct Transport {
    stream: Stream,
    /// Read before it became a connection of HTTP/2.
    early: Vec<u8>,
    heir: Option<Rc<RefCell<Stream>>>,
}

impl Transport {
    /// A connection of which `early` was read already.
    pub fn new(stream: Stream, early: Vec<u8>) -> Self {
        Self { stream, early, heir: None }
    }

    /// Leaves its stream to `heir` when it is dropped, for who wants to end it with care.
    pub fn leaving_to(mut self, heir: &Rc<RefCell<Stream>>) -> Self {
        self.heir = Some(heir.clone());
        self
    }
}

impl Drop for Transport {
    fn drop(&mut self) {
        if let Some(heir) = &self.heir {
            heir.replace(std::mem::replace(&mut self.stream, Stream::Closed));
        }
    }
}

impl AsyncRead for Transport {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if !this.early.is_empty() {
            let taken = this.early.len().min(buffer.remaining());
            buffer.put_slice(&this.early[..taken]);
            this.early.drain(..taken);
            this.early.shrink_to_fit();
            return Poll::Ready(Ok(()));
        }
        match &mut this.stream {
            // The others need memory that was written before.
            Stream::Raw(raw) => Pin::new(raw).poll_read(cx, buffer),
            stream => stream.poll_read(cx, buffer.initialize_unfilled()).map_ok(|read| buffer.advance(read)),
        }
    }
}

impl AsyncWrite for Transport {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.get_mut().stream.poll_write(cx, bytes)
    }

    /// Gathers what belongs together: over TLS the head of a frame would become a record of its own.
    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let stream = &mut self.get_mut().stream;
        match (stream, slices) {
            (stream, [one]) => stream.poll_write(cx, one),
            (Stream::Raw(raw), _) => Pin::new(raw).poll_write_vectored(cx, slices),
            (stream, _) => with_scratch(|scratch| stream.poll_write(cx, gather(slices, scratch))),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().stream.poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().stream.poll_shutdown(cx)
    }
}

fn gather<'s>(slices: &[IoSlice<'_>], scratch: &'s mut [u8]) -> &'s [u8] {
    let mut filled = 0;
    for slice in slices {
        let taken = slice.len().min(SCRATCH_SIZE - filled);
        scratch[filled..filled + taken].copy_from_slice(&slice[..taken]);
        filled += taken;
    }
    &scratch[..filled]
}
