//! Whether a good attempt may become a WebSocket: by the page that asks, how often, and how many there are already. And
//! whether a connection to a TCP listener may stay: by how many its client's address has.
//!
//! What one address asks too much of is found out first, so that it takes nothing from what all share. A place is taken
//! here and goes with the exchange into the lease, so it comes back whatever happens on the way.

use std::cell::RefCell;
use std::net::IpAddr;
use std::sync::mpsc;

use super::downstream::Downstream;
use super::exchange::Exchange;
use super::forwarded::{self, Arrival, Asked};
use super::leases::Lease;
use super::permit::Permit;
use super::pipes::{self, About};
use super::state::State;
use super::worker::{Command, Worker};
use crate::error::{Cause, Refusal, refusal};
use crate::io::clock::{self, Millis};
use crate::policy::{self, Full, Page, Place};
use crate::relay::Order;
use crate::snapshot::{self, Admission};

/// How long one that is evicted may take to end its message.
const PATIENCE: Millis = 1_000;
/// The Close code for it.
const EVICTED: u16 = 1008;
/// When who has too many should ask again, in seconds: nobody knows when one ends.
const SOME_TIME: Millis = 10_000;

/// Who holds a place: a worker, and the id of one of its WebSockets.
pub type Holder = (usize, u64);
pub type Limiter = policy::Limiter<Holder>;

/// The places of one WebSocket.
#[derive(Debug, Default)]
pub struct Held {
    listener: Option<Box<Place<Holder>>>,
    route: Option<Box<Place<Holder>>>,
}

/// Lets an attempt on, with its places, or says why not.
///
/// # Errors
/// The refusal for the client.
pub fn admit(downstream: &Downstream, exchange: &Exchange) -> Result<Held, Refusal> {
    if !admits_page(downstream, exchange) {
        return Err(refusal::ORIGIN);
    }
    let (address, now) = (counted_address(exchange), clock::now());
    let [listener, route] = limits(exchange);
    for (limiter, rules) in [listener, route] {
        let paced = limiter.pace_address(rules, address, now);
        paced.map_err(|wait| refusal::TOO_MANY_HANDSHAKES.after(wait))?;
    }
    listener.0.pace(listener.1, now).map_err(|wait| refusal::LISTENER_BUSY.after(wait))?;
    route.0.pace(route.1, now).map_err(|wait| refusal::ROUTE_BUSY.after(wait))?;
    let enter = |(limiter, rules): (&Limiter, &Admission), full: Refusal| {
        limiter.enter(rules, address).map_err(|which| match which {
            Full::Address => refusal::TOO_MANY_CONNECTIONS.after(SOME_TIME),
            Full::All => full.after(SOME_TIME),
        })
    };
    Ok(Held { listener: enter(listener, refusal::LISTENER_FULL)?, route: enter(route, refusal::ROUTE_FULL)? })
}

/// Gives a connection of a TCP listener its place among those of its client's address. Over HTTP WebSockets are
/// counted.
///
/// # Errors
/// There is none.
pub fn admit_connection(
    state: &State,
    listener: usize,
    client: Option<IpAddr>,
    permit: &Permit,
) -> Result<(), Refusal> {
    let settings = &state.snapshot.listeners[listener];
    if settings.tcp.is_none() {
        return Ok(());
    }
    let entered = state.listeners[listener].limiter.enter(&settings.admission, counted(client, settings));
    if let Some(place) = entered.map_err(|_| refusal::TOO_MANY_CONNECTIONS)? {
        let _ = permit.place.set(place);
    }
    Ok(())
}

/// The limits of an exchange's listener and of its route.
fn limits(exchange: &Exchange) -> [(&Limiter, &Admission); 2] {
    let (state, route) = (&exchange.state, exchange.route_index());
    let (listeners, routes) = (&state.snapshot.listeners, &state.snapshot.routes);
    [
        (&*state.listeners[exchange.listener].limiter, &listeners[exchange.listener].admission),
        (&*state.routes[route].limiter, &routes[route].admission),
    ]
}

/// The client's address, as it counts.
fn counted_address(exchange: &Exchange) -> Option<IpAddr> {
    counted(exchange.client, &exchange.state.snapshot.listeners[exchange.listener])
}

/// None where the address is that of a proxy who speaks for many.
fn counted(client: Option<IpAddr>, listener: &snapshot::Listener) -> Option<IpAddr> {
    let proxies = [&listener.trusted_proxies, &listener.proxy_protocol];
    client.filter(|_| !proxies.iter().any(|nets| forwarded::is_trusted(client, nets)))
}

impl Held {
    /// Its WebSocket is open; those that must go for it are told.
    pub fn open(&mut self, worker: &Worker, id: u64) {
        for place in [&mut self.listener, &mut self.route].into_iter().flatten() {
            for holder in place.open((worker.index, id)) {
                evict(worker, holder);
            }
        }
    }
}

fn evict(worker: &Worker, (index, id): Holder) {
    let order = Order {
        cause: Cause::Evicted,
        code: EVICTED,
        reason: "gw: evicted by a newer connection".into(),
        retry: None,
        patience: PATIENCE,
    };
    // Nobody waits for the answer: one that has gone by itself is as good.
    let (answer, _) = mpsc::channel();
    let _ = worker.peers[index].commands.send(Command::Close(id, order, answer));
}

/// Counts what was open before the configuration that runs now counted it.
pub fn adopt(worker: &Worker) {
    let Some(state) = worker.shared.state() else { return };
    adopt_websockets(worker, &state);
    worker.pipes.live.collect(|_, lease: &pipes::Lease| {
        let (place, index) = (&lease.connection.place, state.listener(&lease.connection.listening.key));
        if let (About::Tcp { .. }, None, Some(index)) = (&lease.about, place.get(), index) {
            let settings = &state.snapshot.listeners[index];
            let (address, holder) = (counted(lease.client, settings), (worker.index, lease.id));
            if let Some(adopted) = state.listeners[index].limiter.adopt(&settings.admission, address, holder) {
                let _ = place.set(adopted);
            }
        }
        None::<()>
    });
}

fn adopt_websockets(worker: &Worker, state: &State) {
    worker.leases.collect(|_, lease: &Lease| {
        let mut held = lease.held.borrow_mut();
        let holder = (worker.index, lease.id);
        if let (None, Some(index)) = (&held.listener, state.listener(&lease.connection.listening.key)) {
            let rules = &state.snapshot.listeners[index].admission;
            held.listener = state.listeners[index].limiter.adopt(rules, lease.counted, holder);
        }
        if let (None, Some(index)) = (&held.route, state.route(&lease.route)) {
            let rules = &state.snapshot.routes[index].admission;
            held.route = state.routes[index].limiter.adopt(rules, lease.counted, holder);
        }
        None::<()>
    });
}

/// What a lease keeps: its places, and whose they are.
pub fn keep(exchange: &mut Exchange) -> (RefCell<Held>, Option<IpAddr>) {
    (RefCell::new(std::mem::take(&mut exchange.held)), counted_address(exchange))
}

fn admits_page(downstream: &Downstream, exchange: &Exchange) -> bool {
    let origins = &exchange.websocket().origins;
    if origins.allow.is_none() && origins.missing {
        return true;
    }
    let fields = &exchange.head.fields;
    let arrival = Arrival { peer: exchange.peer, is_tls: downstream.is_tls(), host: exchange.host(), port: None };
    let trusted = &exchange.state.snapshot.listeners[exchange.listener].trusted_proxies;
    let Asked { host, is_tls } = forwarded::asked(&arrival, fields, trusted);
    // The drafts before RFC 6455, which opaque routes carry, have called it so.
    let mut origins_told = fields.all("Origin").chain(fields.all("Sec-WebSocket-Origin"));
    let origin = origins_told.next().map(|first| if origins_told.next().is_some() { b"" } else { first });
    let page = Page { origin, site: fields.first("Sec-Fetch-Site"), host: host.as_ref(), is_tls };
    policy::admits(origins, &page)
}
