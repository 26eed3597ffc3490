//! Bytes over HTTP/3 (RFC 9114): the two directions of a request's stream, and both together as a byte stream.
//!
//! RFC 9220 says what a stream means to a WebSocket: its end is the orderly end of a direction, as FIN is, and a reset
//! with H3_REQUEST_CANCELLED is what a reset is. QUIC gives each stream its own flow control, and what is not read here
//! is not taken from it.

mod receive;
mod send;

use std::fmt;
use std::io;
use std::task::{Context, Poll};

pub use self::receive::{Receive, Section};
pub use self::send::{Send, Undelivered};
use crate::http::h3::code::Code;

/// One stream of a connection, behind its heads.
pub struct H3 {
    send: Send,
    receive: Receive,
}

impl H3 {
    pub fn new(send: Send, mut receive: Receive) -> Self {
        receive.open_tunnel();
        Self { send, receive }
    }

    /// Reads into `buffer`; 0 is the peer's end.
    pub fn poll_read(&mut self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        self.receive.poll_read(cx, buffer)
    }

    /// Writes some of `bytes`.
    pub fn poll_write(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.send.poll_write(cx, bytes)
    }

    /// Pushes out what is framed already.
    pub fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.send.poll_flush(cx)
    }

    /// Ends our sending, behind what was written.
    pub fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.send.poll_finish(cx)
    }

    /// Ends the stream at once in both directions: what is not sent is thrown away.
    pub fn reset(&mut self, code: Code) {
        self.send.reset(code);
        self.receive.dismiss(code);
    }
}

impl fmt::Debug for H3 {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "H3({:?})", self.send)
    }
}

/// The code as QUIC has it.
pub fn varint(code: Code) -> quinn::VarInt {
    // All of them are small.
    quinn::VarInt::from_u64(code.0).unwrap_or(quinn::VarInt::MAX)
}

fn lost(error: impl std::error::Error + std::marker::Send + Sync + 'static) -> io::Error {
    io::Error::new(io::ErrorKind::ConnectionReset, error)
}
