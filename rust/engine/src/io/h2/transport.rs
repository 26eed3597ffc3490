//! A [`Stream`] as what the `h2` crate wants to stand on.
//!
//! `h2` writes and flushes after every DATA frame that is not small. Over TLS each of these writes would be a record or
//! two, and a system call: of a body of 64 KiB, and of as many messages as have come at once for the streams of a
//! connection, four times what is needed. So once its handshake is over, whoever drives the connection may ask to
//! [`defer`](Transport::defer): then writes are gathered, and go out when the driver has let `h2` do all that there is
//! to do and calls [`poll_send`](Transport::poll_send). Over a plain socket the kernel gathers as well as we do.

use std::cell::RefCell;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::io::{SCRATCH_SIZE, Stream, with_scratch};

/// What is gathered at most: what a TLS session takes at once, four frames of 16 KiB with their heads among it.
const BATCH: usize = crate::io::tls::WRITE_SIZE;

thread_local! {
    /// Room for the next batch. Few connections have one at the same time: an idle one holds none.
    static ROOM: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// The bytes of a connection. Clones are the same connection: one is for `h2`, another one for who drives it.
#[derive(Clone, Debug)]
pub struct Transport(Rc<RefCell<Line>>);

#[derive(Debug)]
struct Line {
    stream: Stream,
    /// Read before it became a connection of HTTP/2.
    early: Vec<u8>,
    deferring: bool,
    /// Written by `h2`, and up to `sent` taken by the stream.
    batch: Vec<u8>,
    sent: usize,
    /// The stream takes nothing any more.
    broken: bool,
}

impl Transport {
    /// A connection of which `early` was read already.
    pub fn new(stream: Stream, early: Vec<u8>) -> Self {
        let line = Line { stream, early, deferring: false, batch: Vec::new(), sent: 0, broken: false };
        Self(Rc::new(RefCell::new(line)))
    }

    /// From now on what is written waits for [`Transport::poll_send`].
    pub fn defer(&self) {
        let mut line = self.0.borrow_mut();
        line.deferring = matches!(line.stream, Stream::Tls(_));
    }

    /// Sends what waits, as much as the stream takes. The driver is woken when it takes more.
    pub fn poll_send(&self, cx: &mut Context<'_>) {
        let mut line = self.0.borrow_mut();
        if let Poll::Ready(Err(_)) = line.poll_send(cx) {
            line.broken = true;
            // `h2` is told when it writes next.
            cx.waker().wake_by_ref();
        }
    }

    /// The stream, for who wants to end it with care; nothing is left of the connection then.
    pub fn take_stream(&self) -> Stream {
        let mut line = self.0.borrow_mut();
        // The last words; what is not taken now is lost with the connection.
        let _ = line.poll_send(&mut Context::from_waker(Waker::noop()));
        std::mem::replace(&mut line.stream, Stream::Closed)
    }
}

impl Line {
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.sent < self.batch.len() {
            match ready!(self.stream.poll_write(cx, &self.batch[self.sent..]))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                written => self.sent += written,
            }
        }
        if self.sent > 0 {
            self.sent = 0;
            self.batch.clear();
            ROOM.with_borrow_mut(|room| *room = std::mem::take(&mut self.batch));
        }
        // What a TLS session holds still.
        self.stream.poll_flush(cx)
    }

    /// Takes what there is room for.
    fn poll_gather(&mut self, cx: &mut Context<'_>, slices: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        if self.broken {
            return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into()));
        }
        if self.batch.len() == BATCH {
            ready!(self.poll_send(cx))?;
        }
        if self.batch.capacity() == 0 {
            self.batch = ROOM.take();
        }
        let before = self.batch.len();
        for slice in slices {
            let taken = slice.len().min(BATCH - self.batch.len());
            self.batch.extend_from_slice(&slice[..taken]);
        }
        Poll::Ready(Ok(self.batch.len() - before))
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, slices: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        match (&mut self.stream, slices) {
            (Stream::Raw(raw), [one]) => Pin::new(raw).poll_write(cx, one),
            (Stream::Raw(raw), _) => Pin::new(raw).poll_write_vectored(cx, slices),
            // Gathered also where nothing is deferred: the head of a frame would become a record of its own.
            _ => self.poll_gather(cx, slices),
        }
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match () {
            () if self.broken => Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
            () if self.deferring => Poll::Ready(Ok(())),
            () => self.poll_send(cx),
        }
    }

    fn poll_read(&mut self, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if !self.early.is_empty() {
            let taken = self.early.len().min(buffer.remaining());
            buffer.put_slice(&self.early[..taken]);
            self.early.drain(..taken);
            self.early.shrink_to_fit();
            return Poll::Ready(Ok(()));
        }
        match &mut self.stream {
            Stream::Raw(raw) => Pin::new(raw).poll_read(cx, buffer),
            // The others need memory that was written before. To copy what came costs less than to clear the room for
            // it.
            stream => with_scratch(|scratch| {
                let room = buffer.remaining().min(SCRATCH_SIZE);
                stream.poll_read(cx, &mut scratch[..room]).map_ok(|read| buffer.put_slice(&scratch[..read]))
            }),
        }
    }
}

impl AsyncRead for Transport {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.0.borrow_mut().poll_read(cx, buffer)
    }
}

impl AsyncWrite for Transport {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.0.borrow_mut().poll_write(cx, &[IoSlice::new(bytes)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.0.borrow_mut().poll_write(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.borrow_mut().poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut line = self.0.borrow_mut();
        ready!(line.poll_send(cx))?;
        line.stream.poll_shutdown(cx)
    }
}
