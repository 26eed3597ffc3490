//! What the other side is sent on the stream of a request: a client the answers, a server its request.

use std::fmt;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};

use quinn::SendStream;

use super::{lost, varint};
use crate::http::h3::code::Code;
use crate::http::h3::frame::{write_data_head, write_headers};

/// The most that one DATA frame has.
const FRAME: usize = 16 * 1024;

/// Streams whose end the other side has not acknowledged: a connection that is closed takes with it what is on its way.
#[derive(Clone, Debug, Default)]
pub struct Undelivered(Rc<()>);

impl Undelivered {
    pub fn is_empty(&self) -> bool {
        Rc::strong_count(&self.0) == 1
    }
}

/// The direction to the other side.
pub struct Send {
    stream: SendStream,
    /// Framed, and not taken by QUIC yet.
    out: Vec<u8>,
    sent: usize,
    finished: bool,
    stopped: Option<Pin<Box<dyn Future<Output = ()>>>>,
    undelivered: Undelivered,
}

impl Send {
    pub fn new(stream: SendStream, undelivered: Undelivered) -> Self {
        Self { stream, out: Vec::new(), sent: 0, finished: false, stopped: None, undelivered }
    }

    /// Sends a head, or trailers; what cannot go at once goes with what follows.
    pub fn send_section(&mut self, section: &[u8]) -> io::Result<()> {
        write_headers(&mut self.out, section);
        self.push()
    }

    /// Writes some of `bytes`, in a frame.
    pub fn poll_write(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        ready!(self.poll_flush(cx))?;
        let taken = bytes.len().min(FRAME);
        if taken > 0 {
            write_data_head(&mut self.out, taken);
            self.out.extend_from_slice(&bytes[..taken]);
            self.push()?;
        }
        Poll::Ready(Ok(taken))
    }

    /// Gives QUIC what it takes now.
    fn push(&mut self) -> io::Result<()> {
        match self.poll_flush(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(result) => result,
            Poll::Pending => Ok(()),
        }
    }

    /// Gives QUIC all there is.
    pub fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.sent < self.out.len() {
            self.sent += ready!(Pin::new(&mut self.stream).poll_write(cx, &self.out[self.sent..])).map_err(lost)?;
        }
        self.out = Vec::new();
        self.sent = 0;
        Poll::Ready(Ok(()))
    }

    /// Ends the direction, behind what was written.
    pub fn poll_finish(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_flush(cx))?;
        if !self.finished {
            self.finished = true;
            self.stream.finish().map_err(lost)?;
            let (delivered, held) = (self.stream.stopped(), self.undelivered.clone());
            tokio::task::spawn_local(async move {
                let _ = delivered.await;
                drop(held);
            });
        }
        Poll::Ready(Ok(()))
    }

    /// Ends it at once: what is not sent is thrown away.
    pub fn reset(&mut self, code: Code) {
        if !self.finished {
            self.finished = true;
            let _ = self.stream.reset(varint(code));
        }
    }

    /// Ready when the other side wants nothing more, or the connection is lost.
    pub fn poll_stopped(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let stream = &self.stream;
        let stopped = self.stopped.get_or_insert_with(|| {
            let stopped = stream.stopped();
            Box::pin(async move {
                let _ = stopped.await;
            })
        });
        stopped.as_mut().poll(cx)
    }
}

impl Drop for Send {
    fn drop(&mut self) {
        self.reset(Code::REQUEST_CANCELLED);
    }
}

impl fmt::Debug for Send {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Send({})", self.stream.id())
    }
}
