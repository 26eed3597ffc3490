//! TLS over a socket, as server and as client (RFC 8446, RFC 5246).
//!
//! rustls' unbuffered sessions decrypt and encrypt in buffers of ours, and those belong to the worker, not to the
//! connection: one read takes what the socket has, up to 64 KiB, a write becomes records (one for each 16 KiB) that go
//! out in one call, and only what is left over is kept: the beginning of a record that has not come whole, plaintext
//! that the reader had no room for, records that the socket did not take. An idle connection owns none of these.

mod handshake;
mod records;
mod session;

use std::cell::RefCell;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, Waker, ready};

use rustls::CommonState;
use tokio::io::AsyncWrite;

pub use self::handshake::{HandshakeError, connect, read_hello};
use self::records::Records;
use self::session::Session;
use super::raw::{Raw, Watch};

/// What one read takes off the socket at most.
const READ_SIZE: usize = 64 * 1024;
/// What may be kept of records that are not whole: a handshake message of 64 KiB (more than any that is meant well),
/// and the record it ends in. rustls itself sets no limit here.
const HELD_LIMIT: usize = 96 * 1024;
/// Reads of records without content (new tickets, new keys, or malice) before it is the turn of others.
const READS_IN_A_ROW: usize = 4;
/// What one write takes at most: 64 KiB, and what HTTP/2 puts around so much.
pub const WRITE_SIZE: usize = 72 * 1024;

/// More than the headers and tags of the records of one write.
const OVERHEAD: usize = 1024;

thread_local! {
    static INCOMING: RefCell<Box<[u8]>> = RefCell::new(vec![0; HELD_LIMIT + READ_SIZE].into_boxed_slice());
    static OUTGOING: RefCell<Records> = RefCell::new(Records::with_room(WRITE_SIZE + OVERHEAD));
}

/// A connection whose handshake is over.
#[derive(Debug)]
pub struct Tls {
    session: Session,
    raw: Raw,
    /// Bytes of records that are not whole.
    held: Vec<u8>,
    /// Plaintext that was read, and how much of it was asked for.
    plain: Vec<u8>,
    given: usize,
    /// Records that the socket did not take.
    unsent: Records,
    /// The peer sends nothing more.
    ended: bool,
    /// Our `close_notify` is out, and nothing may follow it.
    closed: bool,
    /// The session is not to be used any more.
    failed: bool,
}

impl Tls {
    fn new(session: Session, raw: Raw) -> Self {
        let (held, plain, unsent) = (Vec::new(), Vec::new(), Records::default());
        Self { session, raw, held, plain, given: 0, unsent, ended: false, closed: false, failed: false }
    }

    /// The socket below.
    pub fn raw(&self) -> &Raw {
        &self.raw
    }

    /// What was agreed on.
    pub fn common(&self) -> &CommonState {
        self.session.common()
    }

    /// Reads plaintext into `buffer`; 0 is the end that the peer has told. An end that it has not is an error.
    pub fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        buffer: &mut [u8],
        mut watch: Option<&mut Watch>,
    ) -> Poll<io::Result<usize>> {
        self.flush_beside(cx);
        if !self.plain.is_empty() {
            return Poll::Ready(Ok(self.give(buffer)));
        }
        for _ in 0..READS_IN_A_ROW {
            if self.failed {
                return Poll::Ready(Err(io::ErrorKind::InvalidData.into()));
            }
            if self.ended {
                return Poll::Ready(Ok(0));
            }
            let filled = ready!(self.poll_receive(cx, buffer, watch.as_deref_mut()))?;
            self.flush_beside(cx);
            if filled > 0 {
                return Poll::Ready(Ok(filled));
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    /// Of the plaintext that was read, what there is room for.
    fn give(&mut self, buffer: &mut [u8]) -> usize {
        let rest = &self.plain[self.given..];
        let count = rest.len().min(buffer.len());
        buffer[..count].copy_from_slice(&rest[..count]);
        self.given += count;
        if self.given == self.plain.len() {
            (self.plain, self.given) = (Vec::new(), 0);
        }
        count
    }

    /// What a handshake or a renewal of keys has left to say must not wait for our next write. If it cannot be said,
    /// the peer takes nothing more; what it has said before is still to be read.
    fn flush_beside(&mut self, cx: &mut Context<'_>) {
        if let Poll::Ready(Err(_)) = self.poll_flush(cx) {
            self.unsent = Records::default();
            self.closed = true;
        }
    }

    /// Reads once from the socket. Returns the bytes of plaintext in `buffer`; what does not fit is in `self.plain`.
    fn poll_receive(
        &mut self,
        cx: &mut Context<'_>,
        buffer: &mut [u8],
        watch: Option<&mut Watch>,
    ) -> Poll<io::Result<usize>> {
        INCOMING.with_borrow_mut(|scratch| {
            let held = self.held.len();
            if held > HELD_LIMIT {
                return Poll::Ready(Err(invalid("a message of the handshake is too long")));
            }
            scratch[..held].copy_from_slice(&self.held);
            let read = ready!(self.poll_raw(cx, &mut scratch[held..held + READ_SIZE], watch))?;
            if read == 0 {
                return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
            }
            Poll::Ready(self.take(&mut scratch[..held + read], buffer))
        })
    }

    fn poll_raw(
        &mut self,
        cx: &mut Context<'_>,
        buffer: &mut [u8],
        watch: Option<&mut Watch>,
    ) -> Poll<io::Result<usize>> {
        match watch {
            Some(watch) => self.raw.poll_read_watched(cx, buffer, watch),
            None => self.raw.poll_recv(cx, buffer),
        }
    }

    /// Decrypts `incoming`, which begins with what was held.
    fn take(&mut self, incoming: &mut [u8], buffer: &mut [u8]) -> io::Result<usize> {
        let (mut filled, rest) = (0, &mut self.plain);
        let plain = |bytes: &[u8]| {
            let taken = if rest.is_empty() { bytes.len().min(buffer.len() - filled) } else { 0 };
            buffer[filled..filled + taken].copy_from_slice(&bytes[..taken]);
            filled += taken;
            rest.extend_from_slice(&bytes[taken..]);
        };
        let received = self.session.receive(incoming, plain, &mut self.unsent);
        let progress = match received {
            Ok(progress) => progress,
            // What came whole before the error counts; the next read tells of it.
            Err(error) => {
                let error = self.fail(error);
                return if filled > 0 { Ok(filled) } else { Err(error) };
            }
        };
        self.ended |= progress.ended;
        if !self.held.is_empty() || progress.used < incoming.len() {
            self.held = incoming[progress.used..].to_vec();
        }
        Ok(filled)
    }

    /// Nothing goes on after an error; the alert gets one chance to be sent.
    fn fail(&mut self, error: rustls::Error) -> io::Error {
        self.failed = true;
        let _ = self.poll_flush(&mut Context::from_waker(Waker::noop()));
        invalid(error)
    }

    /// Takes `bytes`, up to [`WRITE_SIZE`] of them; what the socket does not take now goes out with the next flush.
    pub fn poll_write(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        ready!(self.poll_flush(cx))?;
        let bytes = &bytes[..bytes.len().min(WRITE_SIZE)];
        if bytes.is_empty() {
            return Poll::Ready(Ok(0));
        }
        if self.closed || self.failed {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        OUTGOING.with_borrow_mut(|records| {
            records.clear();
            self.session.send(&mut self.held, bytes, records).map_err(|error| self.fail(error))?;
            self.send(cx, records)
        })?;
        Poll::Ready(Ok(bytes.len()))
    }

    /// Writes `records` as far as the socket takes them and keeps the rest.
    fn send(&mut self, cx: &mut Context<'_>, records: &mut Records) -> io::Result<()> {
        match push(cx, &mut self.raw, records) {
            Poll::Ready(pushed) => pushed,
            Poll::Pending => {
                self.unsent.extend(records.rest());
                Ok(())
            }
        }
    }

    /// Sends what is left to send.
    pub fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.unsent.is_empty() {
            return Poll::Ready(Ok(()));
        }
        ready!(push(cx, &mut self.raw, &mut self.unsent))?;
        self.unsent = Records::default();
        Poll::Ready(Ok(()))
    }

    /// Tells the peer that nothing more comes: `close_notify`, and FIN.
    pub fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.closed && !self.failed {
            self.closed = true;
            self.session.close(&mut self.held, &mut self.unsent).map_err(|error| self.fail(error))?;
        }
        ready!(self.poll_flush(cx))?;
        Pin::new(&mut self.raw).poll_shutdown(cx)
    }
}

fn push(cx: &mut Context<'_>, raw: &mut Raw, records: &mut Records) -> Poll<io::Result<()>> {
    while !records.is_empty() {
        match ready!(Pin::new(&mut *raw).poll_write(cx, records.rest()))? {
            0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
            written => records.advance(written),
        }
    }
    Poll::Ready(Ok(()))
}

fn invalid(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

#[cfg(test)]
pub mod tests;
