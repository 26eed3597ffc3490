//! Streams that the kernel gave us, and the short way to their bytes.

use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::retry_on_intr;
use rustix::net::{RecvFlags, SendFlags, recv, send};
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio::task::coop;

/// A stream that the kernel gave us.
#[derive(Debug)]
pub enum Raw {
    Tcp(TcpStream),
    Unix(UnixStream),
}

/// A stream between two runtimes.
#[derive(Debug)]
pub enum Loose {
    Tcp(std::net::TcpStream),
    Unix(std::os::unix::net::UnixStream),
}

impl Raw {
    /// Takes the stream off this thread's runtime.
    pub fn detach(self) -> io::Result<Loose> {
        match self {
            Self::Tcp(tcp) => tcp.into_std().map(Loose::Tcp),
            Self::Unix(unix) => unix.into_std().map(Loose::Unix),
        }
    }

    /// Our end's address; none over a unix socket.
    pub fn local_address(&self) -> Option<SocketAddr> {
        match self {
            Self::Tcp(tcp) => tcp.local_addr().ok().map(|ours| SocketAddr::new(ours.ip().to_canonical(), ours.port())),
            Self::Unix(_) => None,
        }
    }

    /// See [`super::Stream::is_open`].
    pub(super) fn is_open(&self) -> bool {
        let mut asked = [PollFd::new(self, PollFlags::RDHUP)];
        // No wait: the kernel says what it knows.
        let ended = retry_on_intr(|| poll(&mut asked, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })));
        ended == Ok(0)
    }

    /// See [`super::Stream::reset_when_dropped`].
    pub fn reset_when_dropped(&self) {
        if let Self::Tcp(tcp) = self {
            // Where it fails, a FIN is all that can be said.
            let _ = SockRef::from(tcp).set_linger(Some(Duration::ZERO));
        }
    }
}

impl AsFd for Raw {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Tcp(tcp) => tcp.as_fd(),
            Self::Unix(unix) => unix.as_fd(),
        }
    }
}

impl Loose {
    /// Puts the stream on this thread's runtime.
    pub fn attach(self) -> io::Result<Raw> {
        match self {
            Self::Tcp(tcp) => TcpStream::from_std(tcp).map(Raw::Tcp),
            Self::Unix(unix) => UnixStream::from_std(unix).map(Raw::Unix),
        }
    }
}

/// Whether the task that reads a stream will be woken when bytes come.
///
/// A wake-up says that one of a task's streams is ready and not which one. With this the others cost one look at
/// memory, and not a lock and a new registration.
#[derive(Debug, Default)]
pub struct Watch {
    is_set: bool,
}

/// What came of an attempt.
enum Tried {
    /// The socket was asked.
    Done(io::Result<usize>),
    /// The socket was asked and would have blocked.
    WouldBlock,
    /// The socket was not asked: nothing has happened on it since it last blocked.
    Unready,
}

impl Raw {
    #[inline]
    fn try_io(&self, interest: Interest, call: impl FnOnce() -> io::Result<()>) {
        // What there is to know, `call` has written down.
        let _ = match self {
            Self::Tcp(tcp) => tcp.try_io(interest, call),
            Self::Unix(unix) => unix.try_io(interest, call),
        };
    }

    /// Calls if the socket may be ready. Fewer bytes than `wanted` say what `WouldBlock` would say if it were asked
    /// once more: that there are no more now (and so its readiness is cleared, as edge-triggered epoll needs it).
    #[inline]
    fn attempt(&self, interest: Interest, wanted: usize, call: impl FnOnce() -> rustix::io::Result<usize>) -> Tried {
        let mut tried = Tried::Unready;
        self.try_io(interest, || {
            let blocked = || Err(io::ErrorKind::WouldBlock.into());
            match call() {
                Ok(count) => {
                    tried = Tried::Done(Ok(count));
                    // 0 is an end, and ends stay.
                    if (1..wanted).contains(&count) { blocked() } else { Ok(()) }
                }
                Err(rustix::io::Errno::AGAIN) => {
                    tried = Tried::WouldBlock;
                    blocked()
                }
                Err(error) => {
                    tried = Tried::Done(Err(error.into()));
                    Ok(())
                }
            }
        });
        tried
    }

    fn poll_write_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Tcp(tcp) => tcp.poll_write_ready(cx),
            Self::Unix(unix) => unix.poll_write_ready(cx),
        }
    }

    fn poll_read_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Tcp(tcp) => tcp.poll_read_ready(cx),
            Self::Unix(unix) => unix.poll_read_ready(cx),
        }
    }

    /// Goes through tokio's `poll_read` and not `try_read`: only there does a short read mark the socket as drained,
    /// which saves a second system call for every message.
    pub(super) fn poll_recv(&mut self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        let mut buffer = ReadBuf::new(buffer);
        Pin::new(self).poll_read(cx, &mut buffer).map_ok(|()| buffer.filled().len())
    }

    /// See [`super::Stream::reset`]. Watches through a second handle, because the first one's readiness has been
    /// final in all that it tells since the peer's FIN.
    pub(super) fn reset(&self) -> io::Result<impl Future<Output = ()> + use<>> {
        let handle = self.as_fd().try_clone_to_owned()?;
        let second = match self {
            Self::Tcp(_) => Loose::Tcp(handle.into()).attach()?,
            Self::Unix(_) => Loose::Unix(handle.into()).attach()?,
        };
        Ok(async move {
            let _ = match second {
                Self::Tcp(tcp) => tcp.ready(Interest::ERROR).await,
                Self::Unix(unix) => unix.ready(Interest::ERROR).await,
            };
        })
    }

    /// See [`super::Stream::poll_read_watched`].
    #[inline]
    pub(super) fn poll_read_watched(
        &self,
        cx: &mut Context<'_>,
        buffer: &mut [u8],
        watch: &mut Watch,
    ) -> Poll<io::Result<usize>> {
        let wanted = buffer.len();
        loop {
            let read = || retry_on_intr(|| recv(self, &mut *buffer, RecvFlags::empty())).map(|(count, _)| count);
            match self.attempt(Interest::READABLE, wanted, read) {
                Tried::Unready if watch.is_set => return Poll::Pending,
                // The event that let us ask has taken the registration with it.
                Tried::Done(done) => {
                    watch.is_set = false;
                    return Poll::Ready(done);
                }
                Tried::Unready | Tried::WouldBlock => watch.is_set = false,
            }
            if self.poll_read_ready(cx)?.is_pending() {
                // Without budget there is no registration: the task was told to come back.
                watch.is_set = coop::has_budget_remaining();
                return Poll::Pending;
            }
        }
    }

    #[inline]
    fn poll_send(&self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        loop {
            let write = || retry_on_intr(|| send(self, bytes, SendFlags::NOSIGNAL));
            if let Tried::Done(done) = self.attempt(Interest::WRITABLE, bytes.len(), write) {
                return Poll::Ready(done);
            }
            ready!(self.poll_write_ready(cx))?;
        }
    }
}

impl AsyncRead for Raw {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(tcp) => Pin::new(tcp).poll_read(cx, buffer),
            Self::Unix(unix) => Pin::new(unix).poll_read(cx, buffer),
        }
    }
}

impl AsyncWrite for Raw {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_send(cx, bytes)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(tcp) => Pin::new(tcp).poll_write_vectored(cx, slices),
            Self::Unix(unix) => Pin::new(unix).poll_write_vectored(cx, slices),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(tcp) => Pin::new(tcp).poll_shutdown(cx),
            Self::Unix(unix) => Pin::new(unix).poll_shutdown(cx),
        }
    }
}
