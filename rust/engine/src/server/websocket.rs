//! Opening a WebSocket through the gateway: the upstream's handshake, then the client's 101.

use std::future::poll_fn;
use std::rc::Rc;
use std::time::Duration;

use tokio::time::timeout;

use super::answering;
use super::client::{Client, Gone};
use super::connection::Step;
use super::exchange::Exchange;
use super::extended::{self, Asked};
use super::lifecycle::Grant;
use super::opening;
use super::plan::Offer;
use super::worker::Worker;
use crate::error::{Refusal, refusal};
use crate::http::write::{write_request, write_response};
use crate::http::{Fields, ResponseHead};
use crate::io::random;
use crate::snapshot::{Deflate, Protocol};
use crate::upstream::{Crossing, HeadError, Link, Reached, ResponseReader, Tries, Wish};
use crate::ws::handshake::{self, Accepted, Offered};

/// An upstream that has answered.
struct Answered {
    link: Link,
    reader: ResponseReader,
    head: ResponseHead,
    question: Question,
}

/// What the upstream was asked.
enum Question {
    /// RFC 6455: our key, and what was offered with it.
    Strict { key: [u8; 24], offered: Offered },
    /// RFC 8441, RFC 9220: what was offered.
    Extended(Offered),
    /// Whatever the client said.
    Opaque,
}

impl Answered {
    /// Whether it says that a WebSocket is open.
    fn opens(&self) -> bool {
        match self.question {
            Question::Extended(_) => (200..300).contains(&self.head.status),
            Question::Strict { .. } | Question::Opaque => self.head.status == 101,
        }
    }
}

/// Bridges an attempt to the upstream: 101 and a relay, or the upstream's own answer, or a refusal.
pub async fn bridge(worker: &Rc<Worker>, client: &mut Client<'_>, mut exchange: Box<Exchange>, offer: Offer) -> Step {
    if worker.shared.is_draining() && client.downstream().is_closing() {
        return exchange.refuse(worker, client, &refusal::NOT_READY).await;
    }
    let early = match early_bytes(client, &offer).await {
        Some(early) => early,
        None => return Step::Drop,
    };
    let is_tls = client.downstream().is_tls();
    let asking = async |exchange: &mut Exchange, tries: &mut Tries, held: &mut Option<Answered>| {
        ask(worker, exchange, is_tls, &offer, &early, tries, held).await
    };
    let Some(answered) = opening::answer(worker, client, &mut exchange, asking).await else {
        return exchange.abandoned(worker);
    };
    match answered {
        Ok(answered) if answered.opens() => accept(worker, client, exchange, &offer, answered).await,
        // To a client of HTTP/2 a 2xx says that its WebSocket is open (RFC 8441 §5).
        Ok(answered) if exchange.head.protocol.is_some() && answered.head.status < 300 => {
            exchange.went_to(&answered.link);
            exchange.refuse(worker, client, &refusal::BAD_HANDSHAKE).await
        }
        Ok(Answered { link, reader, head, .. }) => {
            exchange.went_to(&link);
            if let Some(liveness) = exchange.pick_upstream().liveness() {
                link.stream.set_liveness(liveness);
            }
            // In a box: it is large, and few need it.
            Box::pin(answering::pass_answer(worker, client, exchange, link, reader, head)).await
        }
        Err(refusal) => exchange.refuse(worker, client, &refusal).await,
    }
}

/// The only bytes behind the head that go to the upstream before its answer: the 8 that hixie-76 counts as part of it.
async fn early_bytes(client: &mut Client<'_>, offer: &Offer) -> Option<Vec<u8>> {
    const KEY3: usize = 8;
    let session = match (offer, client) {
        (Offer::Opaque(opaque), Client::H1(session)) if opaque.hixie76 => session,
        _ => return Some(Vec::new()),
    };
    let wait = async {
        while session.buffer.len() < KEY3 {
            if !matches!(session.stream.read_more(&mut session.buffer).await, Ok(1..)) {
                return None;
            }
        }
        let early = session.buffer[..KEY3].to_vec();
        session.consume(KEY3);
        Some(early)
    };
    timeout(Duration::from_secs(10), wait).await.ok().flatten()
}

/// Asks one endpoint after the other, as the route's `retry` says. An answer that is worth another try stays in `held`:
/// it is the client's, if nothing better comes.
async fn ask(
    worker: &Worker,
    exchange: &mut Exchange,
    is_tls: bool,
    offer: &Offer,
    early: &[u8],
    tries: &mut Tries,
    held: &mut Option<Answered>,
) -> Result<Answered, Refusal> {
    let events = &worker.shared.events;
    loop {
        let reached = tries.reach(&worker.pools, wish(exchange, offer), events).await?;
        let answered = match reached {
            Reached::Link(link) => ask_endpoint(exchange, is_tls, offer, early, link).await,
            Reached::Crossing(crossing) => {
                Box::pin(ask_extended(worker, exchange, is_tls, offer, crossing, tries)).await
            }
        };
        match &answered {
            Ok(answered) => tries.answered(answered.head.status, events),
            Err(refusal) => tries.failed(refusal.reason, events),
        }
        let answered = answered?;
        if !tries.retries(answered.head.status) {
            return Ok(answered);
        }
        *held = Some(answered);
    }
}

fn wish(exchange: &Exchange, offer: &Offer) -> Wish {
    match offer {
        Offer::Strict(_) => Wish::WebSocket { over: exchange.websocket().upstream_protocol },
        // Other dialects know nothing of HTTP/2 and HTTP/3.
        Offer::Opaque(_) => Wish::WebSocket { over: Some(Protocol::H1) },
    }
}

/// Asks over HTTP/2 or HTTP/3; over HTTP/1.1 an endpoint that refuses this, where that will do.
async fn ask_extended(
    worker: &Worker,
    exchange: &mut Exchange,
    is_tls: bool,
    offer: &Offer,
    crossing: Crossing,
    tries: &Tries,
) -> Result<Answered, Refusal> {
    let version = crossing.version();
    exchange.goes_to(&crossing.permit, version.label());
    match extended::ask(exchange, is_tls, crossing).await? {
        Asked::Answered { link, head, offered } => {
            let (reader, question) = (ResponseReader::default(), Question::Extended(offered));
            Ok(Answered { link, reader, head: *head, question })
        }
        Asked::OnlyOverH1(permit) => {
            let link = tries.fall_back(permit, version, &worker.pools, &worker.shared.events).await?;
            ask_endpoint(exchange, is_tls, offer, &[], link).await
        }
    }
}

/// Sends the handshake to an endpoint and waits for its final answer.
async fn ask_endpoint(
    exchange: &mut Exchange,
    is_tls: bool,
    offer: &Offer,
    early: &[u8],
    mut link: Link,
) -> Result<Answered, Refusal> {
    exchange.went_to(&link);
    let (request, question) = request(exchange, is_tls, offer, &link);
    let mut bytes = request;
    bytes.extend_from_slice(early);
    link.stream.write_all(&bytes).await.map_err(|_| refusal::UPSTREAM_LOST)?;
    let mut reader = ResponseReader::default();
    loop {
        let head = poll_fn(|cx| reader.poll_head(cx, &mut link.stream, false)).await;
        match head {
            // Interim answers mean nothing to a client that waits for a 101.
            Ok(head) if (100..200).contains(&head.status) && head.status != 101 => {}
            Ok(head) => return Ok(Answered { link, reader, head, question }),
            Err(HeadError::Lost { .. } | HeadError::Untouched) => return Err(refusal::UPSTREAM_LOST),
            Err(HeadError::Malformed(_)) => return Err(refusal::BAD_RESPONSE),
        }
    }
}

fn request(exchange: &Exchange, is_tls: bool, offer: &Offer, link: &Link) -> (Vec<u8>, Question) {
    let client = &exchange.head.fields;
    let (fields, question) = match offer {
        Offer::Opaque(_) => (client.clone(), Question::Opaque),
        Offer::Strict(_) => {
            let settings = exchange.websocket();
            let key = handshake::fresh_key(random::bytes());
            let rules = handshake::OfferRules {
                key: Some(&key),
                subprotocols: settings.subprotocols.as_deref(),
                deflate: settings.deflate == Deflate::Pass,
            };
            let (fields, offered) = handshake::offer_fields(client, &rules);
            (fields, Question::Strict { key, offered })
        }
    };
    let fields = exchange.request_fields(fields, is_tls, &link.permit.endpoint().host);
    let mut bytes = Vec::with_capacity(1024);
    write_request(&mut bytes, exchange.head.method.as_bytes(), &exchange.target, &fields);
    (bytes, question)
}

/// The upstream says 101: check that it is the answer to our question, and only then tell the client.
async fn accept(
    worker: &Rc<Worker>,
    client: &mut Client<'_>,
    mut exchange: Box<Exchange>,
    offer: &Offer,
    answered: Answered,
) -> Step {
    exchange.went_to(&answered.link);
    let (mut fields, accepted) = match check(offer, &answered) {
        Ok(checked) => checked,
        Err(fake) => {
            let refusal = Refusal { text: fake.text(), ..refusal::BAD_HANDSHAKE };
            return exchange.refuse(worker, client, &refusal).await;
        }
    };
    exchange.edit_response(&mut fields);
    // Clients of the oldest drafts compare the whole status line.
    let reason = matches!(offer, Offer::Opaque(_)).then_some(&*answered.head.reason);
    if let Err(Gone) = tell_open(client, reason, &fields).await {
        return exchange.abandoned(worker);
    }
    Step::Relay(Box::new(Grant {
        exchange,
        accepted,
        upstream: answered.link.stream,
        upstream_early: answered.reader.rest,
        endpoint: Some(answered.link.permit),
    }))
}

/// Tells a client that its WebSocket is open: by 101, or by 200 where there is nothing to switch (RFC 8441 §5).
pub async fn tell_open(client: &mut Client<'_>, reason: Option<&[u8]>, fields: &Fields) -> Result<(), Gone> {
    match client {
        Client::H1(session) => {
            let mut bytes = Vec::with_capacity(512);
            write_response(&mut bytes, 101, reason, fields);
            session.stream.write_all(&bytes).await.map_err(|_| Gone)
        }
        Client::H2(request) => request.begin(200, fields, false),
        Client::H3(request) => request.begin(200, fields),
    }
}

fn check(offer: &Offer, answered: &Answered) -> Result<(Fields, Accepted), handshake::Fake> {
    let head = &answered.head;
    match (offer, &answered.question) {
        (Offer::Strict(client), Question::Strict { key, offered }) => {
            let expected = handshake::accept_key(key);
            let accepted = handshake::check_answer(head.status, &head.fields, &expected, offered)?;
            Ok((handshake::answer_fields(&head.fields, client.accept().as_ref(), &accepted), accepted))
        }
        (Offer::Strict(client), Question::Extended(offered)) => {
            let accepted = handshake::check_choices(&head.fields, offered)?;
            Ok((handshake::answer_fields(&head.fields, client.accept().as_ref(), &accepted), accepted))
        }
        _ => {
            handshake::check_opaque_answer(head.status, &head.fields)?;
            Ok((head.fields.clone(), Accepted::default()))
        }
    }
}
