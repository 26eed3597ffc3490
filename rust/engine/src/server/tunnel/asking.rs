//! What an endpoint is asked for a tunnel, over whatever version of HTTP, and what it says.

use std::future::poll_fn;

use super::super::downstream::Downstream;
use super::super::exchange::Exchange;
use super::super::worker::Worker;
use crate::error::{Refusal, refusal};
use crate::http::tunnel::{Wanted, tunnel_fields};
use crate::http::write::write_request;
use crate::http::{Authority, BodyLength, Fields, Method, ResponseHead};
use crate::snapshot::{Connect, Protocol};
use crate::upstream::{Crossing, HeadError, Link, Question, Reached, ResponseReader, Tries, Wish};

const HOST: Refusal = Refusal::new(400, "host_invalid", "the host that the upstream would get is none");

/// Who asks, for what.
pub struct Asker<'a> {
    is_tls: bool,
    wanted: &'a Wanted,
    /// Of the request; goes up with its head.
    body: &'a [u8],
}

/// An endpoint that has answered.
pub struct Answered {
    pub link: Link,
    pub reader: ResponseReader,
    pub head: ResponseHead,
    /// Whether a 101 opens the tunnel, not a 2xx.
    by_switch: bool,
}

impl Answered {
    /// Whether it says that the tunnel is open.
    pub fn opens(&self) -> bool {
        if self.by_switch { self.head.status == 101 } else { (200..300).contains(&self.head.status) }
    }

    /// The protocol that the tunnel is for; nothing for CONNECT.
    ///
    /// # Errors
    /// What is wrong with the answer.
    pub fn token<'s>(&'s self, wanted: &'s Wanted) -> Result<&'s [u8], &'static str> {
        match wanted {
            _ if self.by_switch => wanted.chosen(&self.head.fields),
            Wanted::Connect => Ok(b""),
            Wanted::Upgrade(tokens) => Ok(tokens.first().map_or(b"", |token| token)),
        }
    }
}

impl<'a> Asker<'a> {
    pub fn new(downstream: &Downstream, wanted: &'a Wanted, body: &'a [u8]) -> Self {
        Self { is_tls: downstream.is_tls(), wanted, body }
    }
}

/// Asks one endpoint after the other, as the route's `retry` says. An answer that is worth another try stays in `held`:
/// it is the client's, if nothing better comes.
pub async fn ask(
    worker: &Worker,
    exchange: &mut Exchange,
    asker: &Asker<'_>,
    tries: &mut Tries,
    held: &mut Option<Answered>,
) -> Result<Answered, Refusal> {
    let events = &worker.shared.events;
    if ends_here(exchange, asker.wanted) {
        return dial(worker, exchange, tries).await;
    }
    loop {
        let answered = match tries.reach(&worker.pools, wish(exchange, asker.wanted), events).await? {
            Reached::Link(link) => ask_h1(exchange, asker, link).await,
            Reached::Crossing(crossing) => ask_extended(exchange, asker, crossing).await,
        };
        match &answered {
            Ok(answered) => tries.answered(answered.head.status, events),
            Err(refusal) if refusal.status >= 500 => tries.failed(refusal.reason, events),
            Err(_) => {}
        }
        let answered = answered?;
        let may_repeat = *asker.wanted == Wanted::Connect || exchange.may_repeat();
        if !(may_repeat && tries.retries(answered.head.status)) {
            return Ok(answered);
        }
        *held = Some(answered);
    }
}

fn ends_here(exchange: &Exchange, wanted: &Wanted) -> bool {
    let connect = exchange.forward().tunnels.as_ref().and_then(|tunnels| tunnels.connect);
    *wanted == Wanted::Connect && connect == Some(Connect::Terminate)
}

/// A TCP connection in place of an answer.
async fn dial(worker: &Worker, exchange: &mut Exchange, tries: &mut Tries) -> Result<Answered, Refusal> {
    let link = tries.link(&worker.pools, &worker.shared.events).await?;
    tries.connected();
    exchange.goes_to(&link.permit, "tcp");
    let head = ResponseHead {
        status: 200,
        reason: b"Connection established"[..].into(),
        minor: 1,
        fields: Fields::new(),
        body: BodyLength::None,
        keep_alive: false,
    };
    Ok(Answered { link, reader: ResponseReader::default(), head, by_switch: false })
}

fn wish(exchange: &Exchange, wanted: &Wanted) -> Wish {
    match wanted {
        Wanted::Connect => Wish::Connect,
        // What has another method, a body, or a choice of protocols, only HTTP/1.1 can say.
        Wanted::Upgrade(tokens)
            if exchange.head.method != Method::Get || !exchange.head.body.is_empty() || tokens.len() > 1 =>
        {
            Wish::WebSocket { over: Some(Protocol::H1) }
        }
        Wanted::Upgrade(_) => Wish::WebSocket { over: None },
    }
}

async fn ask_h1(exchange: &mut Exchange, asker: &Asker<'_>, mut link: Link) -> Result<Answered, Refusal> {
    exchange.went_to(&link);
    let request = request(exchange, asker, &link)?;
    link.stream.write_all(&request).await.map_err(|_| refusal::UPSTREAM_LOST)?;
    let mut reader = ResponseReader::default();
    loop {
        match poll_fn(|cx| reader.poll_head(cx, &mut link.stream, false)).await {
            // Interim answers mean nothing to a client that waits for its tunnel.
            Ok(head) if (100..200).contains(&head.status) && head.status != 101 => {}
            Ok(head) => return Ok(Answered { link, reader, head, by_switch: *asker.wanted != Wanted::Connect }),
            Err(HeadError::Lost { .. } | HeadError::Untouched) => return Err(refusal::UPSTREAM_LOST),
            Err(HeadError::Malformed(_)) => return Err(refusal::BAD_RESPONSE),
        }
    }
}

/// The request's head and body.
fn request(exchange: &Exchange, asker: &Asker<'_>, link: &Link) -> Result<Vec<u8>, Refusal> {
    let mut fields = fields(exchange, asker, &link.permit.endpoint().host);
    let mut bytes = Vec::with_capacity(1024 + asker.body.len());
    match asker.wanted {
        Wanted::Connect => {
            let host = destination(exchange, &fields)?;
            fields.set("Host", &host);
            write_request(&mut bytes, b"CONNECT", &host, &fields);
        }
        Wanted::Upgrade(_) => {
            fields.push(b"Connection", b"Upgrade");
            fields.push(b"Upgrade", &asker.wanted.tokens());
            if !exchange.head.body.is_empty() {
                fields.push(b"Content-Length", asker.body.len().to_string().as_bytes());
            }
            write_request(&mut bytes, exchange.head.method.as_bytes(), &exchange.target, &fields);
            bytes.extend_from_slice(asker.body);
        }
    }
    Ok(bytes)
}

fn fields(exchange: &Exchange, asker: &Asker<'_>, endpoint_host: &str) -> Fields {
    let mut own = tunnel_fields(&exchange.head.fields);
    // It has been given its leave.
    own.remove("expect");
    exchange.request_fields(own, asker.is_tls, endpoint_host)
}

/// What the endpoint is asked to connect to: the host that the route gives it, with the port that the client asks for
/// where that has none. A template may have made anything of it, and it goes into the request line.
fn destination(exchange: &Exchange, fields: &Fields) -> Result<Vec<u8>, Refusal> {
    let host = Authority::parse(fields.first("Host").unwrap_or_default()).ok_or(HOST)?;
    let asked = exchange.head.host.as_ref().and_then(Authority::port);
    match (host.port(), asked) {
        (None, Some(port)) => Ok([host.host(), format!(":{port}").as_bytes()].concat()),
        _ => Ok(host.as_bytes().to_vec()),
    }
}

async fn ask_extended(exchange: &mut Exchange, asker: &Asker<'_>, crossing: Crossing) -> Result<Answered, Refusal> {
    exchange.goes_to(&crossing.permit, crossing.version().label());
    let mut fields = fields(exchange, asker, &crossing.permit.endpoint().host);
    let token;
    let protocol = match asker.wanted {
        Wanted::Connect => {
            fields.set("Host", &destination(exchange, &fields)?);
            None
        }
        Wanted::Upgrade(_) => {
            token = String::from_utf8_lossy(&asker.wanted.tokens()).into_owned();
            Some(&*token)
        }
    };
    let question = Question { method: b"CONNECT", target: &exchange.target, fields: &fields, protocol };
    let mut awaited = crossing.open(&question, false)?;
    let head = awaited.final_head().await.map_err(|_| refusal::UPSTREAM_LOST)?;
    let link = awaited.into_link().ok_or(refusal::UPSTREAM_LOST)?;
    Ok(Answered { link, reader: ResponseReader::default(), head, by_switch: false })
}
