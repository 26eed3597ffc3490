//! Plain HTTP through the gateway: one request, one answer, streamed both ways.

use std::pin::pin;
use std::rc::Rc;

use super::answering::respond;
use super::asking::Asking;
use super::client::Client;
use super::connection::Step;
use super::exchange::Exchange;
use super::origin::Origin;
use super::presence::Moment;
use super::pump::{Framing, Pump};
use super::tries;
use super::worker::Worker;
use crate::error::{Refusal, refusal};
use crate::http::grpc_web::WebCall;
use crate::http::write::{strip_connection_fields, write_request};
use crate::http::{BodyLength, Fields, ResponseHead};
use crate::upstream::{Crossing, Link, Question, Reached, ResponseReader, Tries, Wish};

/// Why there is no answer to pass on.
pub enum Failed {
    /// The client is gone: nobody to tell.
    Client,
    /// A kept connection had been closed by its peer before it answered: nothing was done, so it may be asked again.
    Stale,
    Refused(Refusal),
}

/// An upstream's answer, while the request's body may still be on its way. Large: goes from hand to hand in a box.
pub struct Asked {
    pub link: Link,
    pub reader: ResponseReader,
    pub head: ResponseHead,
    pub upload: Pump,
}

/// Sends the request to an endpoint and its answer back.
pub async fn forward(worker: &Rc<Worker>, client: &mut Client<'_>, exchange: &mut Exchange) -> Step {
    // While a body goes up, only who is waited for can be late.
    let patience = exchange.forward().request_timeout.filter(|_| exchange.head.body.is_empty());
    let (mut tries, mut held) = (tries::begin(client, exchange), None);
    let answer = match patience {
        None => Ok(ask(worker, client, exchange, &mut tries, &mut held).await),
        Some(patience) => {
            let mut alarm = std::mem::take(client.alarm());
            let answer = {
                let asking = pin!(ask(worker, client, exchange, &mut tries, &mut held));
                alarm.within(patience, asking).await
            };
            *client.alarm() = alarm;
            answer
        }
    };
    let late = |_| Err(Failed::Refused(tries.late(refusal::REQUEST_TIMEOUT, &worker.shared.events)));
    let answer = answer.unwrap_or_else(late);
    tries::end(worker, exchange, &tries);
    match (answer, held) {
        (Ok(asked), _) | (Err(Failed::Refused(_)), Some(asked)) => {
            exchange.went_to(&asked.link);
            respond(worker, client, exchange, asked).await
        }
        (Err(Failed::Client), _) => exchange.abandoned(worker),
        (Err(Failed::Refused(refusal)), None) => exchange.refuse(worker, client, &refusal).await,
        (Err(Failed::Stale), _) => exchange.refuse(worker, client, &refusal::UPSTREAM_LOST).await,
    }
}

/// Asks one endpoint after the other, as the route's `retry` says. An answer that is worth another try stays in `held`:
/// it is the client's, if nothing better comes.
async fn ask(
    worker: &Rc<Worker>,
    client: &mut Client<'_>,
    exchange: &mut Exchange,
    tries: &mut Tries,
    held: &mut Option<Box<Asked>>,
) -> Result<Box<Asked>, Failed> {
    let events = &worker.shared.events;
    loop {
        let reached = reach(worker, client, exchange, tries).await?;
        exchange.goes_to(reached.permit(), reached.protocol());
        let asked = match ask_endpoint(client, exchange, reached).await {
            Ok(asked) => asked,
            // Once: an endpoint may refuse a stream of HTTP/2 as often as it likes.
            Err(Failed::Stale) if tries.is_renewed() => return Err(Failed::Refused(refusal::UPSTREAM_LOST)),
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

async fn reach(
    worker: &Worker,
    client: &mut Client<'_>,
    exchange: &Exchange,
    tries: &mut Tries,
) -> Result<Reached, Failed> {
    let reaching = tries.reach(&worker.pools, Wish::Request { kept: true }, &worker.shared.events);
    let reached = if exchange.head.body.is_empty() {
        tokio::select! {
            biased;
            reached = reaching => reached,
            () = client.gone(Moment::Unanswered { interim: exchange.head.minor == 1 }) => return Err(Failed::Client),
        }
    } else {
        reaching.await
    };
    reached.map_err(Failed::Refused)
}

async fn ask_endpoint(client: &mut Client<'_>, exchange: &Exchange, reached: Reached) -> Result<Box<Asked>, Failed> {
    let is_tls = client.downstream().is_tls();
    let web = exchange.web_call();
    let (origin, framing, head) = match reached {
        // Its trailers would have nowhere to go.
        Reached::Link(_) if web.is_some() => return Err(Failed::Refused(refusal::UPSTREAM_PROTOCOL)),
        Reached::Link(link) => {
            let framing = if exchange.head.body == BodyLength::Chunked { Framing::Chunked } else { Framing::Plain };
            let head = request_head(exchange, is_tls, &link);
            (Origin::h1(link), framing, head)
        }
        Reached::Crossing(crossing) => {
            let origin = cross(exchange, is_tls, crossing, web.as_ref()).map_err(Failed::Refused)?;
            (origin, Framing::Data, Vec::new())
        }
    };
    // Without a body, what was read ahead is the client's next request, whatever becomes of this one.
    let input = if exchange.head.body.is_empty() { Vec::new() } else { client.take_early() };
    let upload = Pump::new(exchange.head.body, framing, head, input).limited(exchange.body_limit());
    let upload = upload.translated(web.as_ref().and_then(WebCall::upload));
    Asking::new(client, exchange, origin, upload).answer().await
}

/// Opens a stream with the request's head.
fn cross(exchange: &Exchange, is_tls: bool, crossing: Crossing, web: Option<&WebCall>) -> Result<Origin, Refusal> {
    let mut own = own_fields(exchange);
    if let Some(web) = web {
        web.ask(&mut own);
    }
    let fields = exchange.request_fields(own, is_tls, &crossing.permit.endpoint().host);
    let (method, target) = (exchange.head.method.as_bytes(), &exchange.target);
    let question = Question { method, target, fields: &fields, protocol: None };
    Origin::crossing(crossing, &question, exchange.head.body.is_empty())
}

/// The client's fields without those of its connection.
fn own_fields(exchange: &Exchange) -> Fields {
    let mut fields = exchange.head.fields.clone();
    let takes_trailers = fields.lists("TE", "trailers");
    strip_connection_fields(&mut fields);
    if takes_trailers {
        // It holds for the client, as trailers go through; and servers of gRPC insist on it (RFC 9110 §10.1.4).
        fields.push(b"TE", b"trailers");
    }
    fields
}

fn request_head(exchange: &Exchange, is_tls: bool, link: &Link) -> Vec<u8> {
    let mut fields = own_fields(exchange);
    if fields.has("TE") {
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
