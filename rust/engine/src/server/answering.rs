//! An upstream's answer on its way to the client, from its head to its last byte.
//!
//! What is cut short upstream is cut short downstream: the connection ends without the last chunk or byte that was
//! announced, by a reset where nothing was announced. Nobody may take the part for the whole.

use std::rc::Rc;
use std::task::{Context, Poll};

use super::client::{Client, Gone};
use super::connection::Step;
use super::exchange::{Exchange, REQUEST_ID};
use super::presence::Moment;
use super::proxy::Asked;
use super::pump::{Framing, Pump, Sink, Source, Stuck};
use super::worker::Worker;
use crate::error::refusal;
use crate::http::grpc_web::Translation;
use crate::http::write::{strip_connection_fields, write_response};
use crate::http::{BodyLength, Fields, Method, ResponseHead};
use crate::upstream::{Link, ResponseReader};

/// Both bodies, while the answer goes down.
struct Answering<'a, 'c> {
    client: &'a mut Client<'c>,
    link: &'a mut Link,
    upload: &'a mut Pump,
    download: &'a mut Pump,
    is_uploading: bool,
}

/// Passes an answer on.
pub async fn respond(worker: &Rc<Worker>, client: &mut Client<'_>, exchange: &Exchange, mut asked: Box<Asked>) -> Step {
    let Asked { link, reader, head, upload } = &mut *asked;
    let translation = translate(exchange, head);
    let manner = Manner::new(client, exchange, head, upload.is_done());
    let begun = begin(client, exchange, head, &manner, std::mem::take(&mut reader.rest));
    let Ok(download) = begun else {
        exchange.answered(worker, head.status, Some(CLIENT_LOST), upload.content, 0);
        return Step::Drop;
    };
    let mut download = download.translated(translation);
    let is_uploading = !upload.is_done();
    let mut answering = Answering { client, link, upload, download: &mut download, is_uploading };
    let ended = std::future::poll_fn(|cx| answering.poll(cx)).await;
    exchange.answered(worker, asked.head.status, ended.err(), asked.upload.content, download.content);
    if let Err(reason) = ended {
        if let (Client::H1(session), false) = (client, manner.delimited || reason == CLIENT_LOST) {
            session.stream.reset_when_dropped();
        }
        return Step::Drop;
    }
    // Bytes behind an answer were asked for by nobody: that connection is not to be trusted again.
    let Asked { link, head, upload, .. } = *asked;
    if head.keep_alive && upload.is_done() && download.input.is_empty() && head.body != BodyLength::UntilClose {
        worker.pools.put(link, exchange.pick_upstream());
    }
    if manner.keep { Step::Next } else { Step::Close }
}

/// Makes the answer to a call of gRPC-Web of one of gRPC, whose length is another one then. One that is its trailers
/// alone says them in its head either way.
fn translate(exchange: &Exchange, head: &mut ResponseHead) -> Option<Translation> {
    let web = exchange.web_call()?;
    if !web.answer(&mut head.fields) || head.body.is_empty() {
        return None;
    }
    head.body = BodyLength::UntilClose;
    Some(web.download())
}

/// How an answer goes down.
struct Manner {
    framing: Framing,
    /// Whether the client can tell its end from its being cut off.
    delimited: bool,
    /// The connection may carry another exchange.
    keep: bool,
}

impl Manner {
    fn new(client: &Client<'_>, exchange: &Exchange, head: &ResponseHead, is_uploaded: bool) -> Self {
        if !matches!(client, Client::H1(_)) {
            return Self { framing: Framing::Data, delimited: true, keep: true };
        }
        let until_close = matches!(head.body, BodyLength::Chunked | BodyLength::UntilClose);
        // A body whose end only the close shows is told in chunks, where the client understands them.
        let chunked = until_close && exchange.head.minor == 1;
        let delimited = chunked || !until_close;
        // Where the request's body is not through yet, nobody knows where the next request begins.
        let keep = exchange.head.keep_alive && !client.downstream().is_closing() && delimited && is_uploaded;
        Self { framing: if chunked { Framing::Chunked } else { Framing::Plain }, delimited, keep }
    }
}

/// Sends the answer's head, or puts it in front of the body. `early` is what came of the body with the head.
fn begin(
    client: &mut Client<'_>,
    exchange: &Exchange,
    head: &mut ResponseHead,
    manner: &Manner,
    early: Vec<u8>,
) -> Result<Pump, Gone> {
    // A 426 says nothing without the protocols that it asks for (RFC 9110 §15.5.22).
    let upgrades = if head.status == 426 { listed(&head.fields, "Upgrade") } else { Vec::new() };
    let fields = answer_fields(exchange, client, head);
    let bytes = match client {
        Client::H1(_) => answer_head(exchange, head, fields, manner, &upgrades),
        Client::H2(request) => {
            request.begin(head.status, &fields, head.body.is_empty())?;
            Vec::new()
        }
        Client::H3(request) => {
            request.begin(head.status, &fields)?;
            Vec::new()
        }
    };
    Ok(Pump::new(head.body, manner.framing, bytes, early))
}

const CLIENT_LOST: &str = "client_lost";

impl Answering<'_, '_> {
    /// Ready when the answer has gone out whole; the reason, when it ends early.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), &'static str>> {
        match self.download.poll(cx, Source::of(&mut self.link.stream), self.client.sink()) {
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
        self.client.poll_gone(cx, moment).map(|()| Err(CLIENT_LOST))
    }

    fn poll_upload(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), &'static str>> {
        match self.upload.poll(cx, self.client.source(), Sink::of(&mut self.link.stream)) {
            Poll::Pending if !self.client.can_reset() => return Poll::Pending,
            Poll::Pending => {}
            Poll::Ready(Ok(()) | Err(Stuck::Sink)) => self.is_uploading = false,
            // The upstream would wait for the rest for ever.
            Poll::Ready(Err(Stuck::Source)) => return Poll::Ready(Err(CLIENT_LOST)),
            Poll::Ready(Err(Stuck::Malformed)) => return Poll::Ready(Err(refusal::BODY_CUT.reason)),
            Poll::Ready(Err(Stuck::TooLarge)) => return Poll::Ready(Err(refusal::BODY_TOO_LARGE.reason)),
        }
        let moment = Moment::Answer { sent: self.download.written() };
        self.client.poll_gone(cx, moment).map(|()| Err(CLIENT_LOST))
    }
}

fn answer_fields(exchange: &Exchange, client: &Client<'_>, head: &mut ResponseHead) -> Fields {
    let mut fields = std::mem::take(&mut head.fields);
    strip_connection_fields(&mut fields);
    fields.set(REQUEST_ID, exchange.request_id.as_bytes());
    if let Some(service) = exchange.alternative_service(client) {
        fields.set("Alt-Svc", service.as_bytes());
    }
    exchange.edit_response(&mut fields);
    fields
}

/// The head as HTTP/1.1 has it, with what concerns the client's connection.
fn answer_head(
    exchange: &Exchange,
    head: &ResponseHead,
    mut fields: Fields,
    manner: &Manner,
    upgrades: &[u8],
) -> Vec<u8> {
    if manner.framing == Framing::Chunked {
        fields.push(b"Transfer-Encoding", b"chunked");
    }
    if is_silent(exchange, head) && !fields.has("Content-Length") {
        fields.push(b"Content-Length", b"0");
    }
    if !upgrades.is_empty() {
        fields.push(b"Upgrade", upgrades);
    }
    push_connection(&mut fields, !upgrades.is_empty(), manner.keep, exchange.head.minor);
    let mut bytes = Vec::with_capacity(1024);
    write_response(&mut bytes, head.status, Some(&head.reason), &fields);
    bytes
}

/// Whether the answer has no body where it could have one: over HTTP/2 and HTTP/3 the end of the stream with its head
/// says so, over HTTP/1.1 only a length (RFC 9112 §6.3).
fn is_silent(exchange: &Exchange, head: &ResponseHead) -> bool {
    let may_speak = !matches!(head.status, 204 | 304) && exchange.head.method != Method::Head;
    head.body == BodyLength::None && may_speak
}

fn listed(fields: &Fields, name: &str) -> Vec<u8> {
    fields.all(name).collect::<Vec<_>>().join(&b", "[..])
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
    client: &mut Client<'_>,
    mut exchange: Box<Exchange>,
    link: Link,
    reader: ResponseReader,
    head: ResponseHead,
) -> Step {
    exchange.head.keep_alive = false;
    let head = ResponseHead { keep_alive: false, ..head };
    exchange.count_handshake(worker, head.status, "upstream");
    let upload = Pump::new(BodyLength::None, Framing::Plain, Vec::new(), Vec::new());
    respond(worker, client, &exchange, Box::new(Asked { link, reader, head, upload })).await
}
