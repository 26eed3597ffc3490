//! A WebSocket from its opening answer to its record: lease, relay, log, counters.

use std::cell::RefCell;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Context, Poll, ready};

use super::exchange::Exchange;
use super::leases::{Facts, Lease};
use super::permit::Permit;
use super::session::Session;
use super::worker::Worker;
use super::{admission, drain, reply};
use crate::io::{Stream, clock};
use crate::log::{self, Kind};
use crate::relay::{End, Relay, Running, Start, Traffic};
use crate::upstream;
use crate::ws::Counts;
use crate::ws::handshake::Accepted;

/// A WebSocket that was let in: what the lease and the relay are made of.
#[derive(Debug)]
pub struct Grant {
    pub exchange: Box<Exchange>,
    pub accepted: Accepted,
    pub upstream: Stream,
    /// What the upstream sent behind its handshake.
    pub upstream_early: Vec<u8>,
    /// None where the gateway itself is the server.
    pub endpoint: Option<upstream::Permit>,
}

/// Hands a connection over to a relay. The task that read the handshake ends here, and its memory goes.
pub fn begin(worker: &Rc<Worker>, session: Session, grant: Grant) {
    let (stream, early, downstream) = session.into_parts();
    let (id, permit) = (downstream.id, downstream.permit);
    relay(worker, grant, Client { id, status: 101, stream, early, permit });
}

/// Hands a stream of HTTP/2 or HTTP/3 over to a relay. It has an id of its own: there may be many on its connection,
/// whose place is `permit`.
pub fn begin_stream(worker: &Rc<Worker>, permit: Rc<Permit>, stream: Stream, grant: Grant) {
    let id = worker.shared.serial();
    relay(worker, grant, Client { id, status: 200, stream, early: Vec::new(), permit });
}

/// The client's end of a WebSocket.
struct Client {
    id: u64,
    /// That it got.
    status: u16,
    stream: Stream,
    early: Vec<u8>,
    permit: Rc<Permit>,
}

fn relay(worker: &Rc<Worker>, grant: Grant, client: Client) {
    let id = client.id;
    let Grant { mut exchange, accepted, upstream, upstream_early, endpoint } = grant;
    exchange.count_handshake(worker, client.status, "");
    exchange.log_open(id, client.status, &accepted);
    let liveness = exchange.upstream.and_then(|_| exchange.pick_upstream().liveness().copied());
    let start = Start {
        liveness,
        client: client.stream,
        upstream,
        settings: exchange.websocket().clone(),
        metrics: exchange.relay_metrics(worker),
        deflate: accepted.deflate.is_some(),
        client_early: client.early,
        upstream_early,
    };
    exchange.held.open(worker, id);
    let lease = lease(worker, id, &mut exchange, endpoint, client.permit);
    let late = drain::lateness(worker, &exchange.state, &lease);
    lease.gauge.add(1);
    worker.shared.websockets.fetch_add(1, Relaxed);
    let relay = Rc::new(RefCell::new(Relay::new(start)));
    worker.leases.insert(id, relay.clone(), lease);
    if let Some(cause) = late {
        drain::close_latecomer(worker, id, cause);
    }
    tokio::task::spawn_local(Tracked { worker: worker.clone(), id, running: Running(relay) });
}

fn lease(
    worker: &Worker,
    id: u64,
    exchange: &mut Exchange,
    endpoint: Option<upstream::Permit>,
    connection: Rc<Permit>,
) -> Lease {
    let (held, counted) = admission::keep(exchange);
    let (state, route) = (&exchange.state, exchange.route_index());
    let listener = state.listeners[exchange.listener].name.clone();
    let upstream = exchange.upstream_name();
    let name = state.routes[route].name.clone();
    Lease {
        id,
        gauge: worker.tallies.live(&listener, &name, &upstream, exchange.protocol.label()),
        protocol: exchange.protocol,
        listener,
        route: name,
        fingerprint: state.routes[route].fingerprint,
        upstream,
        facts: Box::new(Facts {
            client: exchange.client,
            host: exchange.host().into(),
            path: exchange.head.target.path().into(),
            request_id: exchange.request_id.as_bytes().into(),
            user_agent: exchange.head.fields.first("user-agent").map(Into::into),
        }),
        opened: clock::now(),
        endpoint,
        upstream_protocol: exchange.upstream_protocol,
        connection,
        held,
        counted,
    }
}

/// A relay's task: drives it, keeps its deadline known, and closes the books at the end, also when it panics.
struct Tracked {
    worker: Rc<Worker>,
    id: u64,
    running: Running,
}

impl Future for Tracked {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let polled = Pin::new(&mut self.running).poll(cx);
        if self.running.0.borrow_mut().take_hurried() {
            self.worker.leases.arm(self.id);
        }
        let end = ready!(polled);
        self.finish(&end);
        Poll::Ready(())
    }
}

impl Tracked {
    fn finish(&self, end: &End) {
        let Some(lease) = self.worker.leases.remove(self.id) else { return };
        let traffic = self.running.0.borrow().traffic();
        let lasted = clock::now() - lease.opened;
        self.worker.tallies.closed(&lease.route, end, lasted);
        log_close(&self.worker, &lease, end, &traffic, lasted);
        release(&self.worker, &lease);
    }
}

impl Drop for Tracked {
    fn drop(&mut self) {
        // Only a task that did not come to its end still has its lease.
        if let Some(lease) = self.worker.leases.remove(self.id) {
            release(&self.worker, &lease);
        }
    }
}

fn release(worker: &Worker, lease: &Lease) {
    lease.gauge.subtract(1);
    worker.shared.websockets.fetch_sub(1, Relaxed);
}

fn log_close(worker: &Worker, lease: &Lease, end: &End, traffic: &Traffic, lasted: u64) {
    let Some(state) = worker.shared.state() else { return };
    let facts = &lease.facts;
    let exchange = log::Exchange {
        connection: lease.id,
        listener: &lease.listener,
        route: Some(&lease.route),
        client: facts.client,
        protocol: lease.protocol.label(),
        upstream: Some(&lease.upstream).map(|name| &**name).filter(|name| !name.is_empty()),
        endpoint: lease.endpoint.as_ref().map(|permit| &*permit.endpoint().name),
        upstream_protocol: lease.endpoint.as_ref().map(|_| lease.upstream_protocol),
        attempts: 0,
        method: Some(b"GET"),
        host: Some(&facts.host),
        path: Some(&facts.path),
        user_agent: facts.user_agent.as_deref(),
        request_id: Some(&facts.request_id),
    };
    let close = log::Close {
        cause: end.cause.label(),
        code: end.code(),
        client_code: end.client_close.flatten(),
        upstream_code: end.upstream_close.flatten(),
        received: sums(&traffic.client),
        sent: sums(&traffic.upstream),
        dropped: traffic.dropped,
        discarded: traffic.discarded,
        duration: lasted,
    };
    reply::write_log(&state, exchange, Kind::Close(close));
}

fn sums(counts: &Counts) -> log::Traffic {
    log::Traffic { messages: counts.messages_text + counts.messages_binary, bytes: counts.bytes, pings: counts.pings }
}
