//! One stream of a client's: a request, and the way of its answer.

use std::fmt;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use ::http::{Response, StatusCode};
use bytes::Bytes;
use h2::server::SendResponse;
use h2::{Reason, RecvStream, SendStream};

use crate::http::{BodyLength, Fields, to_map};
use crate::io::Stream;
use crate::io::h2::H2;
use crate::server::alarm::Alarm;
use crate::server::answer::Reply;
use crate::server::client::Gone;
use crate::server::connection::Step;
use crate::server::downstream::Downstream;
use crate::server::pump::{Framing, Pump, Sink};

/// A request of a client.
pub struct Request {
    pub downstream: Rc<Downstream>,
    pub receive: RecvStream,
    /// For whatever its task waits for.
    pub alarm: Alarm,
    answer: Answer,
}

enum Answer {
    Awaited(SendResponse<Bytes>),
    /// Its head has been sent.
    Begun(SendStream<Bytes>),
}

impl Request {
    pub fn new(downstream: Rc<Downstream>, receive: RecvStream, respond: SendResponse<Bytes>) -> Self {
        Self { downstream, receive, alarm: Alarm::default(), answer: Answer::Awaited(respond) }
    }

    /// Sends an interim answer.
    pub fn send_interim(&mut self, status: u16, fields: &Fields) -> Result<(), Gone> {
        match &mut self.answer {
            Answer::Awaited(respond) => respond.send_informational(response(status, fields)).map_err(|_| Gone),
            Answer::Begun(_) => Ok(()),
        }
    }

    /// Sends the head of the answer. `ended`: no body follows.
    pub fn begin(&mut self, status: u16, fields: &Fields, ended: bool) -> Result<(), Gone> {
        if let Answer::Awaited(respond) = &mut self.answer {
            let begun = respond.send_response(response(status, fields), ended).map_err(|_| Gone)?;
            self.answer = Answer::Begun(begun);
        }
        Ok(())
    }

    /// Where the body of the answer goes, once it has begun.
    pub fn sink(&mut self) -> Sink<'_> {
        match &mut self.answer {
            Answer::Awaited(_) => Sink::Gone,
            Answer::Begun(send) => Sink::H2(send),
        }
    }

    /// Sends an answer whole.
    pub async fn send(&mut self, reply: &Reply<'_>, is_head: bool) -> Step {
        let body = if is_head { Vec::new() } else { reply.body.to_vec() };
        let length = if body.is_empty() { BodyLength::None } else { BodyLength::Length(body.len() as u64) };
        if self.begin(reply.status, &reply.fields, body.is_empty()).is_err() {
            return Step::Drop;
        }
        let mut rest = Pump::whole(length, Framing::Data, body);
        let sent = poll_fn(|cx| {
            if self.poll_gone(cx).is_ready() {
                return Poll::Ready(Err(Gone));
            }
            rest.poll_out(cx, &mut self.sink()).map_err(|_| Gone)
        });
        if sent.await.is_ok() { Step::Next } else { Step::Drop }
    }

    /// Ready when the client has reset the stream, or the connection is lost.
    pub fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match &mut self.answer {
            Answer::Awaited(respond) => respond.poll_reset(cx).map(|_| ()),
            Answer::Begun(send) => send.poll_reset(cx).map(|_| ()),
        }
    }

    /// Whether the client has reset the stream.
    pub fn was_reset(&mut self) -> bool {
        let mut cx = Context::from_waker(Waker::noop());
        let reset = match &mut self.answer {
            Answer::Awaited(respond) => respond.poll_reset(&mut cx),
            Answer::Begun(send) => send.poll_reset(&mut cx),
        };
        matches!(reset, Poll::Ready(Ok(_)))
    }

    /// Ends the stream at once: nobody must take what has come of the answer for the whole.
    pub fn reset(&mut self, reason: Reason) {
        match &mut self.answer {
            Answer::Awaited(respond) => respond.send_reset(reason),
            Answer::Begun(send) => send.send_reset(reason),
        }
    }

    /// The stream as a byte stream, behind the head of its answer. None where the answer has not begun.
    pub fn into_stream(self) -> Option<Stream> {
        match self.answer {
            Answer::Awaited(_) => None,
            Answer::Begun(send) => Some(Stream::H2(Box::new(H2::new(send, self.receive)))),
        }
    }
}

impl fmt::Debug for Request {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Request({})", self.receive.stream_id().as_u32())
    }
}

fn response(status: u16, fields: &Fields) -> Response<()> {
    let mut response = Response::new(());
    // From 100 to 999, as they are read and configured.
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    *response.headers_mut() = to_map(fields);
    response
}
