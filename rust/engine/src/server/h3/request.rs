//! One stream of a client's: a request, and the way of its answer.

use std::fmt;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use crate::http::h3::code::Code;
use crate::http::h3::head::write_response;
use crate::http::{BodyLength, Fields};
use crate::io::Stream;
use crate::io::h3::{H3, Receive, Send};
use crate::server::alarm::Alarm;
use crate::server::answer::Reply;
use crate::server::client::Gone;
use crate::server::connection::Step;
use crate::server::downstream::Downstream;
use crate::server::pump::{Framing, Pump, Sink};

/// A request of a client.
pub struct Request {
    pub downstream: Rc<Downstream>,
    pub receive: Receive,
    /// For whatever its task waits for.
    pub alarm: Alarm,
    pub send: Send,
    has_begun: bool,
}

impl Request {
    pub fn new(downstream: Rc<Downstream>, receive: Receive, send: Send) -> Self {
        Self { downstream, receive, alarm: Alarm::default(), send, has_begun: false }
    }

    /// Sends an interim answer.
    pub fn send_interim(&mut self, status: u16, fields: &Fields) -> Result<(), Gone> {
        if self.has_begun {
            return Ok(());
        }
        self.send.send_section(&write_response(status, fields)).map_err(|_| Gone)
    }

    /// Sends the head of the answer.
    pub fn begin(&mut self, status: u16, fields: &Fields) -> Result<(), Gone> {
        self.has_begun = true;
        self.send.send_section(&write_response(status, fields)).map_err(|_| Gone)
    }

    /// Sends an answer whole.
    pub async fn send(&mut self, reply: &Reply<'_>, is_head: bool) -> Step {
        let body = if is_head { Vec::new() } else { reply.body.to_vec() };
        let length = if body.is_empty() { BodyLength::None } else { BodyLength::Length(body.len() as u64) };
        if self.begin(reply.status, &reply.fields).is_err() {
            return Step::Drop;
        }
        let mut rest = Pump::whole(length, Framing::Data, body);
        let sent = poll_fn(|cx| match rest.poll_out(cx, &mut Sink::H3(&mut self.send)) {
            Poll::Ready(sent) => Poll::Ready(sent.map_err(|_| Gone)),
            Poll::Pending => self.send.poll_stopped(cx).map(|()| Err(Gone)),
        });
        if sent.await.is_ok() { Step::Next } else { Step::Drop }
    }

    /// Ready when the client wants no answer any more, or the connection is lost. Until then what had no room yet goes.
    pub fn poll_gone(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        // Where it fails, the next line tells.
        let _ = self.send.poll_flush(cx);
        self.send.poll_stopped(cx)
    }

    /// Whether the client has taken it back, or broken the rules.
    pub fn was_given_up(&mut self) -> bool {
        self.receive.has_failed() || self.poll_gone(&mut Context::from_waker(Waker::noop())).is_ready()
    }

    /// Ends the stream at once: nobody must take what has come of the answer for the whole.
    pub fn reset(&mut self, code: Code) {
        self.send.reset(code);
    }

    /// The stream as a byte stream, behind the head of its answer.
    pub fn into_stream(self) -> Stream {
        Stream::H3(Box::new(H3::tunnel(self.send, self.receive)))
    }
}

impl fmt::Debug for Request {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Request({:?})", self.receive)
    }
}
