//! Plain HTTP/1.1 through the gateway: one request, one answer, streamed both ways.

use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::time::timeout;

use super::connection::Step;
use super::exchange::{Exchange, REQUEST_ID};
use super::pump::{Pump, Stuck};
use super::session::Session;
use super::tries;
use super::worker::Worker;
use crate::error::{Refusal, refusal};
use crate::http::write::{strip_connection_fields, write_request, write_response};
use crate::http::{BodyLength, Method, ResponseHead};
use crate::io::Stream;
use crate::upstream::{HeadError, Link, ResponseReader, Tries, Upstream};

/// Bytes of later requests that a client may send ahead; then it is not read until their turn comes.
const AHEAD: usize = 64 * 1024;

/// Why there is no answer to pass on.
enum Failed {
    /// The client is gone: nobody to tell.
    Client,
    /// A kept connection had been closed by its peer before it answered: nothing was done, so it may be asked again.
    Stale,
    Refused(Refusal),
}

/// An upstream's answer, while the request's body may still be on its way.
struct Asked {
    link: Link,
    reader: ResponseReader,
    head: ResponseHead,
    upload: Pump,
}

/// Sends the request to an endpoint and its answer back.
pub async fn forward(worker: &Rc<Worker>, session: &mut Session, mut exchange: Exchange) -> Step {
    let patience = exchange.forward().request_timeout.map(Duration::from_millis);
    let (mut tries, mut held) = (tries::begin(&exchange), None);
    let asking = ask(worker, session, &mut exchange, &mut tries, &mut held);
    let answer = match patience {
        None => Ok(asking.await),
        Some(patience) => timeout(patience, asking).await,
    };
    // With a body, it may be the client that was slow.
    if answer.is_err() && exchange.head.body.is_empty() {
        tries.failed(refusal::REQUEST_TIMEOUT.reason, &worker.shared.events);
    }
    tries::end(worker, &mut exchange, &tries);
    match (answer.unwrap_or(Err(Failed::Refused(refusal::REQUEST_TIMEOUT))), held) {
        (Ok(asked), _) | (Err(Failed::Refused(_)), Some(asked)) => {
            exchange.went_to(&asked.link);
            let upstream = exchange.pick_upstream().clone();
            respond(worker, session, exchange, &upstream, asked).await
        }
        (Err(Failed::Client), _) => exchange.abandoned(worker),
        (Err(Failed::Refused(refusal)), None) => exchange.refuse(worker, session, &refusal).await,
        (Err(Failed::Stale), _) => exchange.refuse(worker, session, &refusal::UPSTREAM_LOST).await,
    }
}

/// Asks one endpoint after the other, as the route's `retry` says. An answer that is worth another try stays in `held`:
/// it is the client's, if nothing better comes.
async fn ask(
    worker: &Rc<Worker>,
    session: &mut Session,
    exchange: &mut Exchange,
    tries: &mut Tries,
    held: &mut Option<Asked>,
) -> Result<Asked, Failed> {
    let events = &worker.shared.events;
    loop {
        let link = link(worker, session, exchange, tries).await?;
        exchange.went_to(&link);
        let asked = match ask_endpoint(session, exchange, link).await {
            Ok(asked) => asked,
            Err(Failed::Stale) => {
                tries.renew();
                continue;
            }
            Err(Failed::Refused(refusal)) => {
                // Else the client broke off or sent what cannot be passed on.
                if refusal.status >= 500 {
                    tries.failed(refusal.reason, events);
                }
                return Err(Failed::Refused(refusal));
            }
            Err(Failed::Client) => return Err(Failed::Client),
        };
        tries.answered(asked.head.status, events);
        if !(exchange.may_repeat() && tries.retries(asked.head.status)) {
            return Ok(asked);
        }
        *held = Some(asked);
    }
}

async fn link(worker: &Worker, session: &mut Session, exchange: &Exchange, tries: &mut Tries) -> Result<Link, Failed> {
    let linking = tries.link(Some(&worker.pools), &worker.shared.events);
    let link = if exchange.head.body.is_empty() {
        tokio::select! {
            biased;
            link = linking => link,
            () = client_gone(&mut session.stream, &mut session.buffer) => return Err(Failed::Client),
        }
    } else {
        linking.await
    };
    link.map_err(Failed::Refused)
}

async fn ask_endpoint(session: &mut Session, exchange: &Exchange, link: Link) -> Result<Asked, Failed> {
    let head = request_head(exchange, session.is_tls(), &link);
    let chunked = exchange.head.body == BodyLength::Chunked;
    // Without a body, what was read ahead is the client's next request, whatever becomes of this one.
    let input = if exchange.head.body.is_empty() { Vec::new() } else { std::mem::take(&mut session.buffer) };
    let upload = Pump::new(exchange.head.body, chunked, head, input);
    read_answer(session, exchange, link, upload).await
}

fn request_head(exchange: &Exchange, is_tls: bool, link: &Link) -> Vec<u8> {
    let mut fields = exchange.head.fields.clone();
    let takes_trailers = fields.lists("TE", "trailers");
    strip_connection_fields(&mut fields);
    if takes_trailers {
        // It holds for the client, as trailers go through; and servers of gRPC insist on it (RFC 9110 §10.1.4).
        fields.push(b"TE", b"trailers");
        fields.push(b"Connection", b"TE");
    }
    let mut fields = exchange.request_fields(fields, is_tls, &link.permit.endpoint().host);
    if exchange.head.body == BodyLength::Chunked {
        fields.push(b"Transfer-Encoding", b"chunked");
    }
    let mut head = Vec::with_capacity(1024);
    write_request(&mut head, exchange.head.method.as_bytes(), &exchange.target, &fields);
    head
}

/// Sends the body and waits for the answer's head at once: an upstream may answer before it has read everything.
async fn read_answer(
    session: &mut Session,
    exchange: &Exchange,
    mut link: Link,
    mut upload: Pump,
) -> Result<Asked, Failed> {
    let was_head = exchange.head.method == Method::Head;
    let may_repeat = link.reused && exchange.may_repeat();
    let mut reader = ResponseReader::default();
    let mut sending = true;
    loop {
        let head = std::future::poll_fn(|cx| {
            if sending {
                match upload.poll(cx, &mut session.stream, &mut link.stream) {
                    Poll::Ready(Ok(())) => {
                        sending = false;
                        session.buffer.append(&mut upload.input);
                    }
                    // The upstream wants no more of it; perhaps it has said why.
                    Poll::Ready(Err(Stuck::Sink)) => sending = false,
                    Poll::Ready(Err(Stuck::Source)) => return Poll::Ready(Err(Failed::Client)),
                    Poll::Ready(Err(Stuck::Malformed)) => {
                        return Poll::Ready(Err(Failed::Refused(refusal::BODY_CUT)));
                    }
                    Poll::Pending => {}
                }
            } else if poll_gone(cx, &mut session.stream, &mut session.buffer).is_ready() {
                return Poll::Ready(Err(Failed::Client));
            }
            reader.poll_head(cx, &mut link.stream, was_head).map_err(|error| explain(error, may_repeat))
        });
        let head = head.await?;
        match head.status {
            101 => return Err(Failed::Refused(refusal::BAD_RESPONSE)),
            100..200 => pass_interim(session, exchange, &head).await?,
            _ => return Ok(Asked { link, reader, head, upload }),
        }
    }
}

fn explain(error: HeadError, may_repeat: bool) -> Failed {
    match error {
        HeadError::Lost { unanswered: true } if may_repeat => Failed::Stale,
        HeadError::Lost { .. } => Failed::Refused(refusal::UPSTREAM_LOST),
        HeadError::Malformed(text) => Failed::Refused(Refusal { text, ..refusal::BAD_RESPONSE }),
    }
}

/// 100 and 103 go through as they come, to clients that know them.
async fn pass_interim(session: &mut Session, exchange: &Exchange, head: &ResponseHead) -> Result<(), Failed> {
    if exchange.head.minor == 0 {
        return Ok(());
    }
    let mut fields = head.fields.clone();
    strip_connection_fields(&mut fields);
    let mut bytes = Vec::new();
    write_response(&mut bytes, head.status, Some(&head.reason), &fields);
    session.stream.write_all(&bytes).await.map_err(|_| Failed::Client)
}

async fn respond(
    worker: &Rc<Worker>,
    session: &mut Session,
    exchange: Exchange,
    upstream: &Arc<Upstream>,
    asked: Asked,
) -> Step {
    let Asked { mut link, reader, head, mut upload } = asked;
    let keep = exchange.head.keep_alive && !session.permit.listening.gate.is_closed();
    // A body whose end only the close shows is told in chunks, where the client understands them.
    let chunked = match head.body {
        BodyLength::Chunked | BodyLength::UntilClose => exchange.head.minor == 1,
        BodyLength::None | BodyLength::Length(_) => false,
    };
    let delimited = chunked || !matches!(head.body, BodyLength::Chunked | BodyLength::UntilClose);
    // Where the request's body is not through yet, nobody knows where the next request begins.
    let keep = keep && delimited && upload.is_done();
    let bytes = answer_head(&exchange, &head, chunked, keep);
    let mut download = Pump::new(head.body, chunked, bytes, reader.rest);
    let mut uploading = !upload.is_done();
    let sent = std::future::poll_fn(|cx| {
        if uploading {
            // Whatever becomes of it, the answer is what matters now.
            uploading = upload.poll(cx, &mut session.stream, &mut link.stream).is_pending();
        }
        let downloaded = download.poll(cx, &mut link.stream, &mut session.stream);
        // An answer may pause for hours between two events: nobody must go on making it for a client that has gone.
        if downloaded.is_pending() && !uploading && poll_gone(cx, &mut session.stream, &mut session.buffer).is_ready() {
            return Poll::Ready(Err(Stuck::Sink));
        }
        downloaded
    })
    .await;
    let reason = sent.err().map(|stuck| if stuck == Stuck::Sink { "client_lost" } else { "upstream_lost" });
    exchange.answered(worker, head.status, reason, upload.content, download.content);
    if let Err(stuck) = sent {
        if !delimited && stuck != Stuck::Sink {
            session.stream.reset_when_dropped();
        }
        return Step::Drop;
    }
    // Bytes behind an answer were asked for by nobody: that connection is not to be trusted again.
    if head.keep_alive && upload.is_done() && download.input.is_empty() && head.body != BodyLength::UntilClose {
        worker.pools.put(link, &upstream.pool);
    }
    if keep { Step::Next } else { Step::Close }
}

fn answer_head(exchange: &Exchange, head: &ResponseHead, chunked: bool, keep: bool) -> Vec<u8> {
    let mut fields = head.fields.clone();
    let upgrades: Vec<u8> = fields.all("Upgrade").collect::<Vec<_>>().join(&b", "[..]);
    strip_connection_fields(&mut fields);
    fields.set(REQUEST_ID, exchange.request_id.as_bytes());
    exchange.edit_response(&mut fields);
    if chunked {
        fields.push(b"Transfer-Encoding", b"chunked");
    }
    // A 426 says nothing without the protocols that it asks for (RFC 9110 §15.5.22).
    let asks_for = head.status == 426 && !upgrades.is_empty();
    if asks_for {
        fields.push(b"Upgrade", &upgrades);
    }
    match (asks_for, keep, exchange.head.minor) {
        (true, false, _) => fields.push(b"Connection", b"Upgrade, close"),
        (true, true, 0) => fields.push(b"Connection", b"Upgrade, keep-alive"),
        (true, true, _) => fields.push(b"Connection", b"Upgrade"),
        (false, false, _) => fields.push(b"Connection", b"close"),
        (false, true, 0) => fields.push(b"Connection", b"keep-alive"),
        (false, true, _) => {}
    }
    let mut bytes = Vec::with_capacity(1024);
    write_response(&mut bytes, head.status, Some(&head.reason), &fields);
    bytes
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
    let upstream = exchange.pick_upstream().clone();
    let head = ResponseHead { keep_alive: false, ..head };
    exchange.count_handshake(worker, head.status, "upstream");
    let upload = Pump::new(BodyLength::None, false, Vec::new(), Vec::new());
    respond(worker, session, exchange, &upstream, Asked { link, reader, head, upload }).await
}

/// Returns when the client has gone; keeps what it sends meanwhile, up to a limit.
pub async fn client_gone(stream: &mut Stream, buffer: &mut Vec<u8>) {
    std::future::poll_fn(|cx| poll_gone(cx, stream, buffer)).await;
}

fn poll_gone(cx: &mut Context<'_>, stream: &mut Stream, buffer: &mut Vec<u8>) -> Poll<()> {
    while buffer.len() < AHEAD {
        let read: io::Result<usize> = ready!(stream.poll_read_more(cx, buffer));
        if !matches!(read, Ok(1..)) {
            return Poll::Ready(());
        }
    }
    Poll::Pending
}
