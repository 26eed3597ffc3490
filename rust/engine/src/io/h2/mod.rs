//! Bytes over HTTP/2 (RFC 9113): a stream of a connection as a byte stream, and a connection's own bytes over a
//! [`Stream`].
//!
//! RFC 8441 §5 says what a stream means to a WebSocket: END_STREAM is the orderly end of a direction, as FIN is, and
//! RST_STREAM is what a reset is. So a stream that is dropped before its end is reset with CANCEL, and a peer's reset,
//! a GOAWAY that takes the stream with it, and a connection that is lost are errors to the reader, never an end.
//!
//! Flow control is the backpressure. The peer may send again only what was taken out of here, and no more is written
//! than its windows and the connection's send buffer have room for.

mod transport;

use std::any::Any;
use std::fmt;
use std::io;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes, BytesMut};
use h2::{Reason, RecvStream, SendStream};

pub use self::transport::Transport;
#[cfg(doc)]
use super::Stream;

/// What one write takes at most.
const WRITE_SIZE: usize = 64 * 1024;

/// One stream of a connection, behind its heads.
pub struct H2 {
    send: SendStream<Bytes>,
    receive: RecvStream,
    /// Received and not taken; the peer's window is still smaller by it.
    unread: Bytes,
    /// Behind `unread`: what was taken in while nobody could read it.
    held: BytesMut,
    /// The peer sends nothing more.
    ended: bool,
    /// END_STREAM is on its way.
    closed: bool,
    /// Lives as long as the stream.
    _companion: Option<Box<dyn Any>>,
}

impl H2 {
    pub fn new(send: SendStream<Bytes>, receive: RecvStream) -> Self {
        let (unread, held) = (Bytes::new(), BytesMut::new());
        Self { send, receive, unread, held, ended: false, closed: false, _companion: None }
    }

    /// Drops `companion` when the stream is dropped.
    pub fn with(self, companion: impl Any) -> Self {
        Self { _companion: Some(Box::new(companion)), ..self }
    }

    /// Its halves, for who has read and written nothing.
    pub fn halves(&mut self) -> (&mut SendStream<Bytes>, &mut RecvStream) {
        (&mut self.send, &mut self.receive)
    }

    /// Reads into `buffer`, as many frames as have come and have room; 0 is the peer's END_STREAM.
    pub fn poll_read(&mut self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        let mut filled = 0;
        while filled < buffer.len() {
            match self.poll_unread(cx) {
                Poll::Ready(Ok(true)) => filled += self.take(&mut buffer[filled..]),
                // What came before it counts; the next read tells of it.
                Poll::Ready(Ok(false) | Err(_)) | Poll::Pending if filled > 0 => break,
                Poll::Ready(Ok(false)) => break,
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending => return Poll::Pending,
            }
        }
        Poll::Ready(Ok(filled))
    }

    /// Waits until `unread` has bytes; false at the end.
    fn poll_unread(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<bool>> {
        while self.unread.is_empty() {
            if !self.held.is_empty() {
                self.unread = std::mem::take(&mut self.held).freeze();
            } else if self.ended {
                return Poll::Ready(Ok(false));
            } else {
                match ready!(self.receive.poll_data(cx)) {
                    Some(Ok(bytes)) => self.unread = bytes,
                    Some(Err(error)) => return Poll::Ready(Err(explain(error))),
                    None => self.ended = true,
                }
            }
        }
        Poll::Ready(Ok(true))
    }

    fn take(&mut self, buffer: &mut [u8]) -> usize {
        let taken = self.unread.len().min(buffer.len());
        self.unread.copy_to_slice(&mut buffer[..taken]);
        // Refused only where the stream is gone, and then the window is nobody's.
        let _ = self.receive.flow_control().release_capacity(taken);
        taken
    }

    /// Takes in what has come although nobody can read it now, at most the stream's window of it. Left inside `h2`,
    /// small frames that wait cost more than their bytes and count against all streams of the connection: it would end
    /// for too many of them.
    pub fn take_in(&mut self, cx: &mut Context<'_>) {
        while !self.ended {
            match self.receive.poll_data(cx) {
                Poll::Ready(Some(Ok(bytes))) => self.held.extend_from_slice(&bytes),
                Poll::Ready(None) => self.ended = true,
                // It fails again when it is read.
                Poll::Ready(Some(Err(_))) | Poll::Pending => return,
            }
        }
    }

    /// Writes as much of `bytes` as the windows and the send buffer have room for.
    pub fn poll_write(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let wanted = bytes.len().min(WRITE_SIZE);
        if wanted == 0 {
            return Poll::Ready(Ok(0));
        }
        self.send.reserve_capacity(wanted);
        loop {
            let room = self.send.capacity().min(wanted);
            if room > 0 {
                let sent = self.send.send_data(Bytes::copy_from_slice(&bytes[..room]), false);
                return Poll::Ready(sent.map(|()| room).map_err(|_| io::ErrorKind::BrokenPipe.into()));
            }
            match ready!(self.send.poll_capacity(cx)) {
                Some(Ok(_)) => {}
                Some(Err(error)) => return Poll::Ready(Err(explain(error))),
                None => return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
            }
        }
    }

    /// Ends our sending: END_STREAM, behind what was written. What the peer still sends can be read.
    pub fn poll_shutdown(&mut self) -> Poll<io::Result<()>> {
        if !self.closed {
            self.closed = true;
            self.send.send_data(Bytes::new(), true).map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))?;
        }
        Poll::Ready(Ok(()))
    }

    /// Ends the stream at once in both directions: what is not sent is thrown away.
    pub fn reset(&mut self, reason: Reason) {
        self.send.send_reset(reason);
    }

    /// Ready when the peer has reset the stream or the connection is lost, and nothing else tells it: our sending waits
    /// for nothing.
    pub fn poll_reset(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.send.poll_reset(cx).map(|_| ())
    }
}

impl fmt::Debug for H2 {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "H2({})", self.send.stream_id().as_u32())
    }
}

/// The reason of the peer's stays to be found in the error: see [`reason`].
pub fn explain(error: h2::Error) -> io::Error {
    match error.get_io().map(io::Error::kind) {
        // An end that nobody announced.
        Some(kind) => io::Error::new(kind, error),
        None => io::Error::new(io::ErrorKind::ConnectionReset, error),
    }
}

/// Why the peer ended a stream, where it said so in a frame.
pub fn reason(error: &io::Error) -> Option<Reason> {
    let error = error.get_ref()?.downcast_ref::<h2::Error>()?;
    error.reason().filter(|_| error.is_remote())
}

#[cfg(test)]
mod tests;
