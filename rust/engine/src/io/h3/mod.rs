//! Bytes over HTTP/3 (RFC 9114): the two directions of a request's stream, and both together as a byte stream.
//!
//! RFC 9220 says what a stream means to a WebSocket: its end is the orderly end of a direction, as FIN is, and a reset
//! with H3_REQUEST_CANCELLED is what a reset is. QUIC gives each stream its own flow control, and what is not read here
//! is not taken from it.

mod control;
mod quic;
mod receive;
mod send;

use std::any::Any;
use std::fmt;
use std::io;
use std::task::{Context, Poll};
use std::time::Duration;

use quinn::{IdleTimeout, TransportConfig};

pub use self::control::{Control, Peer, Watch, read};
pub use self::quic::Quic;
pub use self::receive::{Receive, Section};
pub use self::send::{Send, Undelivered};
use crate::http::h3::code::Code;
use crate::snapshot::Http2;

/// Streams of one direction that a peer may have open: three have a meaning, others are stopped at once.
const ONE_WAY: u32 = 8;

/// A peer that is silent for so long is gone. We ask more often than that, as TCP keepalive does, so that quiet
/// WebSockets stay and the mappings of routers on the way do too.
const SILENCE: Duration = Duration::from_secs(60);
const PROBE: Duration = Duration::from_secs(15);

/// Sent and not acknowledged, over all streams of a connection.
const SEND_WINDOW: u64 = 8 << 20;

/// What a connection of QUIC may take; `streams` is how many the other side may have open.
pub fn transport(http2: &Http2, streams: u32) -> TransportConfig {
    let mut transport = TransportConfig::default();
    transport
        .max_concurrent_bidi_streams(streams.into())
        .max_concurrent_uni_streams(ONE_WAY.into())
        .stream_receive_window(http2.window.into())
        .receive_window(http2.connection_window.into())
        .send_window(SEND_WINDOW)
        .max_idle_timeout(IdleTimeout::try_from(SILENCE).ok())
        .keep_alive_interval(Some(PROBE))
        .datagram_receive_buffer_size(None);
    transport
}

/// One stream of a connection, behind its heads.
pub struct H3 {
    send: Send,
    receive: Receive,
    /// Lives as long as the stream.
    _companion: Option<Box<dyn Any>>,
}

impl H3 {
    /// A message whose body is still to come.
    pub fn new(send: Send, receive: Receive) -> Self {
        Self { send, receive, _companion: None }
    }

    /// What a CONNECT has opened: there is data alone from now on.
    pub fn tunnel(send: Send, mut receive: Receive) -> Self {
        receive.open_tunnel();
        Self::new(send, receive)
    }

    /// Drops `companion` when the stream is dropped.
    pub fn with(self, companion: impl Any) -> Self {
        Self { _companion: Some(Box::new(companion)), ..self }
    }

    /// Its halves, for who has read and written nothing.
    pub fn halves(&mut self) -> (&mut Send, &mut Receive) {
        (&mut self.send, &mut self.receive)
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
