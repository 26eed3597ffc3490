//! An upstream's answer on its way to the client, from its head to its last byte.
//!
//! What is cut short upstream is cut short downstream: the connection ends without the last chunk or byte that was
//! announced, by a reset where nothing was announced. Nobody may take the part for the whole.

use std::rc::Rc;
use std::task::{Context, Poll};

use super::connection::Step;
use super::exchange::{Exchange, REQUEST_ID};
use super::presence::Moment;
use super::proxy::Asked;
use super::pump::{Pump, Stuck};
use super::session::Session;
use super::worker::Worker;
use crate::error::refusal;
use crate::http::write::{strip_connection_fields, write_response};
use crate::http::{BodyLength, Fields, ResponseHead};
use crate::upstream::{Link, ResponseReader};

/// Both bodies, while the answer goes down.
struct Answering<'a> {
    session: &'a mut Session,
    link: &'a mut Link,
    upload: &'a mut Pump,
    download: &'a mut Pump,
    is_uploading: bool,
}

/// Passes an answer on.
pub async fn respond(worker: &Rc<Worker>, session: &mut Session, exchange: &Exchange, mut asked: Box<Asked>) -> Step {
    let Asked { link, reader, head, upload } = &mut *asked;
    let keep = exchange.head.keep_alive && !session.permit.listening.gate.is_closed();
    // A body whose end only the close shows is told in chunks, where the client understands them.
    let chunked = match head.body {
        BodyLength::Chunked | BodyLength::UntilClose => exchange.head.minor == 1,
        BodyLength::None | BodyLength::Length(_) => false,
    };
    let delimited = chunked || !matches!(head.body, BodyLength::Chunked | BodyLength::UntilClose);
    // Where the request's body is not through yet, nobody knows where the next request begins.
    let keep = keep && delimited && upload.is_done();
    let bytes = answer_head(exchange, head, chunked, keep);
    let mut download = Pump::new(head.body, chunked, bytes, std::mem::take(&mut reader.rest));
    let is_uploading = !upload.is_done();
    let mut answering = Answering { session, link, upload, download: &mut download, is_uploading };
    let ended = std::future::poll_fn(|cx| answering.poll(cx)).await;
    exchange.answered(worker, asked.head.status, ended.err(), asked.upload.content, download.content);
    if let Err(reason) = ended {
        if !delimited && reason != CLIENT_LOST {
            session.stream.reset_when_dropped();
        }
        return Step::Drop;
    }
    // Bytes behind an answer were asked for by nobody: that connection is not to be trusted again.
    let Asked { link, head, upload, .. } = *asked;
    if head.keep_alive && upload.is_done() && download.input.is_empty() && head.body != BodyLength::UntilClose {
        worker.pools.put(link, &exchange.pick_upstream().pool);
    }
    if keep { Step::Next } else { Step::Close }
}

const CLIENT_LOST: &str = "client_lost";

impl Answering<'_> {
    /// Ready when the answer has gone out whole; the reason, when it ends early.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), &'static str>> {
        match self.download.poll(cx, &mut self.link.stream, &mut self.session.stream) {
            Poll::Ready(Ok(())) => return Poll::Ready(Ok(())),
            Poll::Ready(Err(Stuck::Sink)) => return Poll::Ready(Err(CLIENT_LOST)),
            Poll::Ready(Err(Stuck::Source | Stuck::Malformed | Stuck::TooLarge)) => {
                return Poll::Ready(Err(refusal::UPSTREAM_LOST.reason));
            }
            Poll::Pending => {}
        }
        if self.is_uploading {
            return self.poll_upload(cx);
        }
        // An answer may pause for hours between two events: nobody must go on making it for a client that has gone.
        let moment = Moment::Answer { sent: self.download.written() };
        self.session.poll_gone(cx, moment).map(|()| Err(CLIENT_LOST))
    }

    fn poll_upload(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), &'static str>> {
        match self.upload.poll(cx, &mut self.session.stream, &mut self.link.stream) {
            Poll::Pending => return Poll::Pending,
            Poll::Ready(Ok(()) | Err(Stuck::Sink)) => self.is_uploading = false,
            // The upstream would wait for the rest for ever.
            Poll::Ready(Err(Stuck::Source)) => return Poll::Ready(Err(CLIENT_LOST)),
            Poll::Ready(Err(Stuck::Malformed)) => return Poll::Ready(Err(refusal::BODY_CUT.reason)),
            Poll::Ready(Err(Stuck::TooLarge)) => return Poll::Ready(Err(refusal::BODY_TOO_LARGE.reason)),
        }
        let moment = Moment::Answer { sent: self.download.written() };
        self.session.poll_gone(cx, moment).map(|()| Err(CLIENT_LOST))
    }
}

fn answer_head(exchange: &Exchange, head: &mut ResponseHead, chunked: bool, keep: bool) -> Vec<u8> {
    let mut fields = std::mem::take(&mut head.fields);
    // A 426 says nothing without the protocols that it asks for (RFC 9110 §15.5.22).
    let upgrades = if head.status == 426 { fields.all("Upgrade").collect::<Vec<_>>().join(&b", "[..]) } else { vec![] };
    strip_connection_fields(&mut fields);
    fields.set(REQUEST_ID, exchange.request_id.as_bytes());
    exchange.edit_response(&mut fields);
    if chunked {
        fields.push(b"Transfer-Encoding", b"chunked");
    }
    let asks_for = !upgrades.is_empty();
    if asks_for {
        fields.push(b"Upgrade", &upgrades);
    }
    push_connection(&mut fields, asks_for, keep, exchange.head.minor);
    let mut bytes = Vec::with_capacity(1024);
    write_response(&mut bytes, head.status, Some(&head.reason), &fields);
    bytes
}

fn push_connection(fields: &mut Fields, upgrade: bool, keep: bool, minor: u8) {
    let value: &[u8] = match (upgrade, keep, minor) {
        (true, false, _) => b"Upgrade, close",
        (true, true, 0) => b"Upgrade, keep-alive",
        (true, true, _) => b"Upgrade",
        (false, false, _) => b"close",
        (false, true, 0) => b"keep-alive",
        (false, true, _) => return,
    };
    fields.push(b"Connection", value);
}

/// An answer other than 101 to an attempt: it goes through whole, and then both connections end.
pub async fn pass_answer(
    worker: &Rc<Worker>,
    session: &mut Session,
    mut exchange: Exchange,
    link: Link,
    reader: ResponseReader,
    head: ResponseHead,
) -> Step {
    exchange.head.keep_alive = false;
    let head = ResponseHead { keep_alive: false, ..head };
    exchange.count_handshake(worker, head.status, "upstream");
    let upload = Pump::new(BodyLength::None, false, Vec::new(), Vec::new());
    respond(worker, session, &exchange, Box::new(Asked { link, reader, head, upload })).await
}
