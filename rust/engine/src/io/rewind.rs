//! A stream some of whose bytes were read already.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::raw::Raw;

/// Gives back `early` first: a PROXY header is read before TLS begins, and bytes of the ClientHello may come with it.
#[derive(Debug)]
pub struct Rewind {
    early: Vec<u8>,
    raw: Raw,
}

impl Rewind {
    pub fn new(raw: Raw, early: Vec<u8>) -> Self {
        Self { early, raw }
    }
}

impl AsyncRead for Rewind {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.early.is_empty() {
            return Pin::new(&mut self.raw).poll_read(cx, buffer);
        }
        let taken = self.early.len().min(buffer.remaining());
        buffer.put_slice(&self.early[..taken]);
        self.early.drain(..taken);
        self.early.shrink_to_fit();
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Rewind {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.raw).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.raw).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.raw).poll_shutdown(cx)
    }
}
