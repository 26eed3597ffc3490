//! Whether a client that waits for its answer is still there.
//!
//! The end of what a client sends (FIN) says one of two things: it has asked and goes on reading (`printf … | nc`), or
//! it has closed its connection. TCP tells them apart only when something is sent: a closed socket answers with RST. So
//! an HTTP/1.1 client that ends its sending before its answer has begun gets a `100 Continue`, which every client must
//! be able to skip (RFC 9110 §15.2), and its silence or its RST is the difference. HTTP/1.0 knows no such answers;
//! there the answer itself is the first thing that can tell. In the middle of an answer its next bytes tell, and an
//! answer that pauses for [`PAUSE`] has lost its client. Over TLS nobody half-closes: the end of one direction is the
//! end of both.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::time::Sleep;

use super::session::Session;
use crate::io::Stream;

/// Bytes of later requests that a client may send ahead; then it is not read until their turn comes.
const AHEAD: usize = 64 * 1024;

/// How long an answer under way may pause when its client ends its sending.
const PAUSE: Duration = Duration::from_secs(1);

const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// Where in its exchange a client is.
#[derive(Clone, Copy, Debug)]
pub enum Moment {
    /// Nothing of the answer has been sent. `interim`: the client knows interim answers.
    Unanswered { interim: bool },
    /// So many bytes of the answer have been sent.
    Answer { sent: u64 },
}

/// A client's end, once it has ended its sending.
#[derive(Default)]
pub struct Presence(Option<Ended>);

struct Ended {
    reset: Pin<Box<dyn Future<Output = ()>>>,
    /// What must be sent, or time that must pass, until it is known whether anybody reads.
    unknown: Option<Unknown>,
}

struct Unknown {
    sent: u64,
    pause: Pin<Box<Sleep>>,
}

impl fmt::Debug for Presence {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(if self.0.is_some() { "Ended" } else { "Here" })
    }
}

impl Session {
    /// Ready when the client has gone. Keeps what it sends meanwhile, up to a limit.
    pub fn poll_gone(&mut self, cx: &mut Context<'_>, moment: Moment) -> Poll<()> {
        if self.presence.0.is_none() {
            if ready!(poll_end(cx, &mut self.stream, &mut self.buffer)).is_err() {
                return Poll::Ready(());
            }
            match Ended::begin(cx, &mut self.stream, moment) {
                Ok(ended) => self.presence.0 = Some(ended),
                Err(_) => return Poll::Ready(()),
            }
        }
        self.presence.0.as_mut().map_or(Poll::Pending, |ended| ended.poll_gone(cx, moment))
    }
}

impl Ended {
    /// An error where the client is gone for certain.
    fn begin(cx: &mut Context<'_>, stream: &mut Stream, moment: Moment) -> io::Result<Self> {
        let reset = Box::pin(stream.reset()?);
        let unknown = match moment {
            Moment::Unanswered { interim } => {
                if interim {
                    knock(cx, stream)?;
                }
                None
            }
            Moment::Answer { sent } => Some(Unknown { sent, pause: Box::pin(tokio::time::sleep(PAUSE)) }),
        };
        Ok(Self { reset, unknown })
    }

    fn poll_gone(&mut self, cx: &mut Context<'_>, moment: Moment) -> Poll<()> {
        if self.reset.as_mut().poll(cx).is_ready() {
            return Poll::Ready(());
        }
        let Some(unknown) = &mut self.unknown else { return Poll::Pending };
        if matches!(moment, Moment::Answer { sent } if sent == unknown.sent) {
            return unknown.pause.as_mut().poll(cx);
        }
        // Something was sent since: a reset tells if nobody took it.
        self.unknown = None;
        Poll::Pending
    }
}

/// Sends what only a client that has gone answers to. Where the socket is full the answer will do it.
fn knock(cx: &mut Context<'_>, stream: &mut Stream) -> io::Result<()> {
    match stream.poll_write(cx, CONTINUE) {
        Poll::Ready(Ok(written)) if written < CONTINUE.len() => Err(io::ErrorKind::WriteZero.into()),
        Poll::Ready(Err(error)) => Err(error),
        Poll::Ready(Ok(_)) | Poll::Pending => Ok(()),
    }
}

/// Returns when the stream has ended, in whatever way; keeps what comes before, up to a limit.
pub async fn ended(stream: &mut Stream, buffer: &mut Vec<u8>) {
    let _ = std::future::poll_fn(|cx| poll_end(cx, stream, buffer)).await;
}

fn poll_end(cx: &mut Context<'_>, stream: &mut Stream, buffer: &mut Vec<u8>) -> Poll<io::Result<()>> {
    while buffer.len() < AHEAD {
        if ready!(stream.poll_read_more(cx, buffer))? == 0 {
            return Poll::Ready(Ok(()));
        }
    }
    Poll::Pending
}
