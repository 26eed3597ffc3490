//! The life of one connection, in order. Read this first.
//!
//! ```text
//! accept ─ PROXY header ─ access ─ TLS ─▶ session ─▶ TCP: `tcp`
//!   └─▶ head ─▶ route ─▶ handshake check ─▶ plan ─┬─▶ answer of our own
//!          ▲                                      ├─▶ HTTP: dial or reuse, stream both ways ──┐
//!          └──────────────── next request ◀───────┴───────────────────────────────────────────┘
//!                                                 ├─▶ WebSocket: dial, handshake, 101 ─▶ relay ─▶ one record
//!                                                 └─▶ tunnel: dial, answer ─▶ pipe ─▶ one record
//! ```
//!
//! Nothing is answered before the upstream has; nothing of the client's stream behind its head is sent before the
//! handshake is validated. Each request decides from one state, loaded once. The relay keeps a lease and lets the state
//! go.

use std::rc::Rc;

use super::accept::{self, Accepted};
use super::client::Client;
use super::exchange::Exchange;
use super::plan::{self, Plan};
use super::session::NoHead;
use super::worker::Worker;
use super::{echo, h2, lifecycle, proxy, reply, tcp, tunnel, websocket};
use crate::error::refusal;
use crate::http::RequestHead;

/// What follows an exchange.
#[derive(Debug)]
pub enum Step {
    /// Another request may come.
    Next,
    /// The connection ends, and the client gets our last words.
    Close,
    /// The client is gone, or must not believe the answer complete: the connection ends at once.
    Drop,
    /// The connection is a WebSocket now.
    Relay(Box<lifecycle::Grant>),
    /// The connection carries bytes now that nobody looks at.
    Tunnel(Box<tunnel::Grant>),
}

/// Serves one connection from accept to its end.
pub async fn serve(worker: Rc<Worker>, accepted: Accepted) {
    let Some(mut session) = accept::establish(&worker, accepted).await else { return };
    if session.is_tcp {
        return Box::pin(tcp::serve(&worker, session)).await;
    }
    if session.has_agreed_on_h2() {
        return h2::begin(&worker, session);
    }
    loop {
        let step = match session.next_head(&worker).await {
            Ok(head) => serve_request(&worker, &mut Client::H1(&mut session), head).await,
            Err(NoHead::Refused(refusal)) => {
                reply::refuse_unread(&worker, &mut Client::H1(&mut session), &refusal).await
            }
            Err(NoHead::Preface) => return h2::begin(&worker, session),
            Err(NoHead::Closed) => Step::Drop,
        };
        match step {
            Step::Next => {}
            Step::Close => return session.close().await,
            Step::Drop => return,
            Step::Relay(grant) => return lifecycle::begin(&worker, session, *grant),
            Step::Tunnel(grant) => return tunnel::begin(&worker, session, *grant),
        }
    }
}

/// Serves one request, over whatever version of HTTP it came.
pub async fn serve_request(worker: &Rc<Worker>, client: &mut Client<'_>, head: RequestHead) -> Step {
    let Some(mut exchange) = Exchange::new(worker, client, head) else {
        return reply::refuse_unread(worker, client, &refusal::LISTENER_GONE).await;
    };
    match plan::decide(client.downstream(), &mut exchange) {
        Ok(Plan::Answer(answer)) => exchange.answer(worker, client, &answer).await,
        Ok(Plan::Echo) => echo::request(worker, client, &exchange).await,
        Ok(Plan::EchoWebSocket(offer)) => Box::pin(echo::websocket(worker, client, exchange, &offer)).await,
        Ok(Plan::Forward) => proxy::forward(worker, client, &mut exchange).await,
        // In boxes, like the echo: they are large, and plain requests need no room for them.
        Ok(Plan::WebSocket(offer)) => Box::pin(websocket::bridge(worker, client, exchange, offer)).await,
        Ok(Plan::Tunnel(wanted)) => Box::pin(tunnel::open(worker, client, exchange, wanted)).await,
        Err(refusal) => exchange.refuse(worker, client, &refusal).await,
    }
}
