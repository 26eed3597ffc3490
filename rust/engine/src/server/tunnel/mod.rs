//! Tunnels: requests that make a byte stream of their connection (see [`crate::http::tunnel`]), opened as a WebSocket
//! is.
//!
//! | the client | asks an endpoint of HTTP/1.1 | of HTTP/2 | and is told |
//! |---|---|---|---|
//! | `Upgrade: x` | the same; 101 opens | extended CONNECT, `:protocol: x`; 2xx opens | 101 |
//! | extended CONNECT, `:protocol: x` | `Upgrade: x`; 101 opens | the same; 2xx opens | 200 |
//! | `CONNECT host:port` | the same; 2xx opens | the same; 2xx opens | 200 |
//! | `CONNECT`, `connect: terminate` | nothing: a TCP connection opens | | 200 |
//!
//! A CONNECT never goes where its client says: the route names the upstream, and the host is a name that the upstream
//! gets. Nothing of what the client says behind its head goes on before the answer was checked; it waits, as before a
//! WebSocket, and then a pipe carries it. Every other answer is the client's, and ends its connection: what it had sent
//! for the tunnel must never be read as a request.

mod asking;
mod lifecycle;

use std::rc::Rc;

use self::asking::{Answered, ask};
pub use self::lifecycle::{Grant, begin, begin_stream};
use super::answering;
use super::client::{Client, Gone};
use super::connection::Step;
use super::exchange::{Exchange, REQUEST_ID};
use super::opening;
use super::whole::{self, Unread};
use super::worker::Worker;
use crate::error::{Refusal, refusal};
use crate::http::Fields;
use crate::http::tunnel::{Wanted, tunnel_fields};
use crate::http::write::write_response;
use crate::snapshot::HttpVersion;
use crate::upstream::Tries;

/// The body of a request that asks for an upgrade goes up whole, before anything of the tunnel.
const BODY_LIMIT: u64 = 64 * 1024;

/// Opens the tunnel that a request wants, or passes on the upstream's own answer, or refuses.
pub async fn open(worker: &Rc<Worker>, client: &mut Client<'_>, mut exchange: Box<Exchange>, wanted: Wanted) -> Step {
    if worker.shared.is_draining() && client.downstream().is_closing() {
        return exchange.refuse(worker, client, &refusal::NOT_READY).await;
    }
    let body = match whole::read(client, &exchange, BODY_LIMIT).await {
        Ok(body) => body,
        Err(Unread::Gone) => return exchange.abandoned(worker),
        Err(Unread::Refused(refusal)) => return exchange.refuse(worker, client, &refusal).await,
    };
    let asker = asking::Asker::new(client.downstream(), &wanted, &body);
    let asking = async |exchange: &mut Exchange, tries: &mut Tries, held: &mut Option<Answered>| {
        ask(worker, exchange, &asker, tries, held).await
    };
    let Some(answered) = opening::answer(worker, client, &mut exchange, asking).await else {
        return exchange.abandoned(worker);
    };
    match answered {
        Ok(answered) => pass_on(worker, client, exchange, &wanted, answered).await,
        Err(refusal) => exchange.refuse(worker, client, &refusal).await,
    }
}

/// The upstream has answered: with a tunnel, or with something else.
async fn pass_on(
    worker: &Rc<Worker>,
    client: &mut Client<'_>,
    exchange: Box<Exchange>,
    wanted: &Wanted,
    answered: Answered,
) -> Step {
    let status = answered.head.status;
    let token = match answered.opens() {
        true => answered.token(wanted),
        // A switch that was not asked for; and to a client of HTTP/2 any 2xx says that its tunnel is open.
        false if status == 101 || (status < 300 && exchange.protocol != HttpVersion::H1) => {
            Err(refusal::BAD_HANDSHAKE.text)
        }
        false => {
            let Answered { link, reader, head, .. } = answered;
            return Box::pin(answering::pass_answer(worker, client, exchange, link, reader, head)).await;
        }
    };
    let token = match token {
        Ok(token) => token,
        Err(text) => {
            let refusal = Refusal { text, ..refusal::BAD_HANDSHAKE };
            return exchange.refuse(worker, client, &refusal).await;
        }
    };
    let mut fields = tunnel_fields(&answered.head.fields);
    fields.set(REQUEST_ID, exchange.request_id.as_bytes());
    exchange.edit_response(&mut fields);
    let status = match tell_open(client, wanted, token, &answered.head.reason, fields).await {
        Ok(status) => status,
        Err(Gone) => return exchange.abandoned(worker),
    };
    let upgrade = match wanted {
        Wanted::Connect => wanted.name(),
        Wanted::Upgrade(_) => String::from_utf8_lossy(token).to_ascii_lowercase(),
    };
    let Answered { link, reader, .. } = answered;
    Step::Tunnel(Box::new(Grant { exchange, upgrade, status, link, upstream_early: reader.rest }))
}

/// Tells the client that its tunnel is open; the status that says so.
async fn tell_open(
    client: &mut Client<'_>,
    wanted: &Wanted,
    token: &[u8],
    reason: &[u8],
    fields: Fields,
) -> Result<u16, Gone> {
    match client {
        Client::H1(session) => {
            let (status, reason, fields) = match wanted {
                Wanted::Connect => (200, Some(reason), fields),
                Wanted::Upgrade(_) => (101, None, switching(token, &fields)),
            };
            let mut bytes = Vec::with_capacity(512);
            write_response(&mut bytes, status, reason, &fields);
            session.stream.write_all(&bytes).await.map(|()| status).map_err(|_| Gone)
        }
        Client::H2(request) => request.begin(200, &fields, false).map(|()| 200),
        Client::H3(request) => request.begin(200, &fields).map(|()| 200),
    }
}

fn switching(token: &[u8], rest: &Fields) -> Fields {
    let mut fields = Fields::new();
    fields.push(b"Connection", b"Upgrade");
    fields.push(b"Upgrade", token);
    rest.iter().for_each(|(name, value)| fields.push(name, value));
    fields
}
