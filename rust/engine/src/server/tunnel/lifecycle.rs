//! A tunnel from its opening answer on: lease, log, pipe.

use std::rc::Rc;

use super::super::exchange::Exchange;
use super::super::permit::Permit;
use super::super::pipes::{self, About, Lease, TUNNEL, Tunnel};
use super::super::reply::write_log;
use super::super::session::Session;
use super::super::worker::Worker;
use crate::io::{Stream, clock};
use crate::log::{self, Kind};
use crate::relay::{Limits, Pipe};
use crate::upstream::Link;

/// A tunnel that was let in.
#[derive(Debug)]
pub struct Grant {
    pub exchange: Box<Exchange>,
    /// What it was opened by: `connect`, or the token of the upgrade.
    pub upgrade: String,
    /// That the client got.
    pub status: u16,
    pub link: Link,
    /// What the upstream sent behind its answer.
    pub upstream_early: Vec<u8>,
}

/// Hands a connection over to a pipe. The task that read the request ends here, and its memory goes.
pub fn begin(worker: &Rc<Worker>, session: Session, grant: Grant) {
    let (stream, early, downstream) = session.into_parts();
    carry(worker, grant, downstream.id, stream, &early, downstream.permit);
}

/// Hands a stream of HTTP/2 or HTTP/3 over to a pipe. It has an id of its own: there may be many on its connection,
/// whose place is `permit`.
pub fn begin_stream(worker: &Rc<Worker>, permit: Rc<Permit>, stream: Stream, grant: Grant) {
    let id = worker.shared.serial();
    carry(worker, grant, id, stream, &[], permit);
}

fn carry(worker: &Rc<Worker>, grant: Grant, id: u64, client: Stream, early: &[u8], permit: Rc<Permit>) {
    let Grant { exchange, upgrade, status, link, upstream_early } = grant;
    let open = log::TunnelOpen { status, upgrade: &upgrade, duration: clock::now() - exchange.started };
    write_log(&exchange.state, exchange.log_facts(id), Kind::TunnelOpen(open));
    let tunnels = exchange.forward().tunnels.as_ref();
    let limits = Limits {
        idle: tunnels.and_then(|tunnels| tunnels.idle),
        lifetime: tunnels.and_then(|tunnels| tunnels.max_lifetime),
    };
    let lease = lease(worker, id, &exchange, upgrade, link.permit, permit);
    let bytes = lease.counters.bytes.clone();
    let pipe = Pipe::new([client, link.stream], [early, &upstream_early], limits, bytes);
    pipes::begin(worker, &exchange.state, pipe, lease);
}

fn lease(
    worker: &Worker,
    id: u64,
    exchange: &Exchange,
    upgrade: String,
    endpoint: crate::upstream::Permit,
    connection: Rc<Permit>,
) -> Lease {
    let (state, route) = (&exchange.state, exchange.route_index());
    let (listener, upstream) = (state.listeners[exchange.listener].name.clone(), exchange.upstream_name());
    let name = state.routes[route].name.clone();
    let labels = vec![listener.clone(), upstream.clone(), name.clone(), exchange.protocol.label().into()];
    Lease {
        id,
        listener,
        upstream,
        client: exchange.client,
        about: About::Tunnel(Box::new(Tunnel {
            route: name,
            fingerprint: state.routes[route].fingerprint,
            protocol: exchange.protocol,
            upgrade: upgrade.into(),
            method: exchange.head.method.as_bytes().into(),
            host: exchange.host().into(),
            path: exchange.head.target.path().into(),
            request_id: exchange.request_id.as_bytes().into(),
            user_agent: exchange.head.fields.first("user-agent").map(Into::into),
        })),
        opened: clock::now(),
        counters: worker.pipes.tallies.counters(&TUNNEL, labels),
        endpoint: Some(endpoint),
        upstream_protocol: exchange.upstream_protocol,
        connection,
    }
}
