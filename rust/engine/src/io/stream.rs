//! One `Stream` over everything that carries bytes.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use h2::Reason;
use tokio::io::AsyncWrite;

use super::h2::H2;
use super::h3::H3;
use super::raw::{Raw, Watch};
use super::tls::Tls;
use crate::http::h3::code::Code;
use crate::snapshot::Liveness;

/// How long the end of a connection may take.
#[derive(Clone, Copy, Debug)]
pub struct Linger {
    /// Without a byte from the peer.
    pub quiet: Duration,
    pub total: Duration,
}

/// A connection's byte stream.
#[derive(Debug)]
pub enum Stream {
    Raw(Raw),
    Tls(Box<Tls>),
    /// One stream of a connection of HTTP/2.
    H2(Box<H2>),
    /// One stream of a connection of HTTP/3.
    H3(Box<H3>),
    /// Nothing is left of it: it has ended, and takes nothing.
    Closed,
}

impl Stream {
    /// Reads into `buffer`; 0 is the end of the stream.
    pub fn poll_read(&mut self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        match self {
            Self::Raw(raw) => raw.poll_recv(cx, buffer),
            Self::Tls(tls) => tls.poll_read(cx, buffer, None),
            Self::H2(h2) => h2.poll_read(cx, buffer),
            Self::H3(h3) => h3.poll_read(cx, buffer),
            Self::Closed => Poll::Ready(Ok(0)),
        }
    }

    /// Like [`Stream::poll_read`], for the one task that reads this stream from now on and keeps `watch` for it. It
    /// does not count against the task's budget: the caller bounds how much it reads in one turn.
    #[inline]
    pub fn poll_read_watched(
        &mut self,
        cx: &mut Context<'_>,
        buffer: &mut [u8],
        watch: &mut Watch,
    ) -> Poll<io::Result<usize>> {
        match self {
            Self::Raw(raw) => raw.poll_read_watched(cx, buffer, watch),
            Self::Tls(tls) => tls.poll_read(cx, buffer, Some(watch)),
            Self::H2(h2) => h2.poll_read(cx, buffer),
            Self::H3(h3) => h3.poll_read(cx, buffer),
            Self::Closed => Poll::Ready(Ok(0)),
        }
    }

    /// Writes some of `bytes`.
    #[inline]
    pub fn poll_write(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self {
            Self::Raw(raw) => Pin::new(raw).poll_write(cx, bytes),
            Self::Tls(tls) => tls.poll_write(cx, bytes),
            Self::H2(h2) => h2.poll_write(cx, bytes),
            Self::H3(h3) => h3.poll_write(cx, bytes),
            Self::Closed => Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
        }
    }

    /// Pushes out what a TLS session or a stream of HTTP/3 still holds; nothing to do for the others.
    pub fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Raw(_) | Self::H2(_) | Self::Closed => Poll::Ready(Ok(())),
            Self::Tls(tls) => tls.poll_flush(cx),
            Self::H3(h3) => h3.poll_flush(cx),
        }
    }

    /// Whether it is a connection of its own, in clear text or TLS, and not a part of one.
    pub fn is_socket(&self) -> bool {
        matches!(self, Self::Raw(_) | Self::Tls(_))
    }

    /// Whether it may hold bytes that were written, until it is flushed.
    #[inline]
    pub fn holds_back(&self) -> bool {
        matches!(self, Self::Tls(_) | Self::H3(_))
    }

    /// For a reader that cannot read now: lets what comes meanwhile wait where it is no burden to others. Nothing to do
    /// where the kernel keeps it.
    #[inline]
    pub fn take_in(&mut self, cx: &mut Context<'_>) {
        if let Self::H2(h2) = self {
            h2.take_in(cx);
        }
    }

    /// Our end's address; none over a unix socket, and of a stream of HTTP/2 or HTTP/3.
    pub fn local_address(&self) -> Option<SocketAddr> {
        match self {
            Self::Raw(raw) => raw.local_address(),
            Self::Tls(tls) => tls.raw().local_address(),
            Self::H2(_) | Self::H3(_) | Self::Closed => None,
        }
    }

    /// Says how the kernel finds out that its peer has gone; nothing is to be said of a part of a connection. Where it
    /// fails, the connection has gone already.
    pub fn set_liveness(&self, liveness: &Liveness) {
        let socket = match self {
            Self::Raw(raw) => raw,
            Self::Tls(tls) => tls.raw(),
            Self::H2(_) | Self::H3(_) | Self::Closed => return,
        };
        if let Raw::Tcp(tcp) = socket {
            let _ = super::set_liveness(tcp, liveness);
        }
    }

    /// Whether its peer has not ended it, whatever it has said. Only over sockets, where nobody reads meanwhile.
    pub fn is_open(&self) -> bool {
        match self {
            Self::Raw(raw) => raw.is_open(),
            Self::Tls(tls) => tls.raw().is_open(),
            Self::H2(_) | Self::H3(_) | Self::Closed => false,
        }
    }

    /// Makes the connection end with a reset, for a peer that would take a FIN for the good end of what it reads. TLS
    /// needs none of this: without a `close_notify` the peer knows. Nor do HTTP/2 and HTTP/3: a stream that is dropped
    /// before its end is reset.
    pub fn reset_when_dropped(&self) {
        if let Self::Raw(raw) = self {
            raw.reset_when_dropped();
        }
    }

    /// Ends the connection at once, so that the peer does not take a part for the whole. A stream of HTTP/2 or HTTP/3
    /// is a tunnel then, and says that the connection at its other end was lost (RFC 9113 §8.5, RFC 9114 §4.4).
    pub fn abort(&mut self) {
        match self {
            Self::Raw(raw) => raw.reset_when_dropped(),
            Self::H2(h2) => h2.reset(Reason::CONNECT_ERROR),
            Self::H3(h3) => h3.reset(Code::CONNECT_ERROR),
            Self::Tls(_) | Self::Closed => {}
        }
        *self = Self::Closed;
    }

    /// Ends our sending: FIN, after `close_notify` over TLS; END_STREAM over HTTP/2, the stream's end over HTTP/3.
    pub fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Raw(raw) => Pin::new(raw).poll_shutdown(cx),
            Self::Tls(tls) => tls.poll_shutdown(cx),
            Self::H2(h2) => h2.poll_shutdown(),
            Self::H3(h3) => h3.poll_shutdown(cx),
            Self::Closed => Poll::Ready(Ok(())),
        }
    }

    /// Ends our sending on a stream whose other direction has ended: that is its end. Closing a socket says FIN too,
    /// and saves a system call.
    pub fn poll_close(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Tls(tls) => std::task::ready!(tls.poll_shutdown(cx))?,
            Self::H2(h2) => std::task::ready!(h2.poll_shutdown())?,
            Self::H3(h3) => std::task::ready!(h3.poll_shutdown(cx))?,
            Self::Raw(_) | Self::Closed => {}
        }
        *self = Self::Closed;
        Poll::Ready(Ok(()))
    }
}

impl Stream {
    /// Reads once and appends what came to `buffer`; 0 is the end of the stream.
    pub async fn read_more(&mut self, buffer: &mut Vec<u8>) -> io::Result<usize> {
        std::future::poll_fn(|cx| self.poll_read_more(cx, buffer)).await
    }

    /// Like [`Stream::read_more`].
    pub fn poll_read_more(&mut self, cx: &mut Context<'_>, buffer: &mut Vec<u8>) -> Poll<io::Result<usize>> {
        super::with_scratch(|scratch| {
            self.poll_read(cx, scratch).map_ok(|read| {
                buffer.extend_from_slice(&scratch[..read]);
                read
            })
        })
    }

    /// Writes all of `bytes` and flushes.
    pub async fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        let mut rest = bytes;
        while !rest.is_empty() {
            match std::future::poll_fn(|cx| self.poll_write(cx, rest)).await? {
                0 => return Err(io::ErrorKind::WriteZero.into()),
                written => rest = &rest[written..],
            }
        }
        std::future::poll_fn(|cx| self.poll_flush(cx)).await
    }

    /// Ends our sending and waits for the peer's end: closing with unread bytes would reset the connection, and the
    /// peer might lose our last words.
    pub async fn linger(mut self, patience: Linger) {
        let ended = async {
            std::future::poll_fn(|cx| self.poll_shutdown(cx)).await?;
            loop {
                let discard = |cx: &mut Context<'_>| super::with_scratch(|scratch| self.poll_read(cx, scratch));
                match tokio::time::timeout(patience.quiet, std::future::poll_fn(discard)).await {
                    Ok(Ok(1..)) => {}
                    Ok(_) | Err(_) => return io::Result::Ok(()),
                }
            }
        };
        let _ = tokio::time::timeout(patience.total, ended).await;
    }

    /// Resolves when the peer has reset the connection, which reading does not tell once the stream has been read to
    /// its end. An error over TLS, where the end of one direction is taken for the end of both, and over HTTP/2 and
    /// HTTP/3.
    pub fn reset(&self) -> io::Result<impl Future<Output = ()> + use<>> {
        match self {
            Self::Raw(raw) => raw.reset(),
            Self::Tls(_) | Self::H2(_) | Self::H3(_) | Self::Closed => Err(io::ErrorKind::NotConnected.into()),
        }
    }
}
