//! What an exchange's tries at its upstream begin with, and what is told of them at the end.

use std::any::Any;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::time::Duration;

use super::client::Client;
use super::downstream::Downstream;
use super::exchange::Exchange;
use super::worker::Worker;
use crate::balance::hash;
use crate::http::cookie;
use crate::io::proxy_protocol::{write_local, write_v1, write_v2};
use crate::route;
use crate::snapshot::{Balance, HashKey, ProxyVersion};
use crate::upstream::{Again, Introduction, Owner, Tries};

/// The tries of `exchange`, none of them made yet.
pub fn begin(client: &Client<'_>, exchange: &Exchange) -> Tries {
    let upstream = exchange.pick_upstream();
    let key = match upstream.balance() {
        Balance::Hash(by) => key(exchange, by),
        _ => None,
    };
    let forward = exchange.forward();
    let introduction =
        upstream.proxy_protocol.map(|version| introduce(client.downstream(), client.destination(), version));
    // Requests with a body have no limit over all tries; the others are looked at by who makes them.
    let patience = forward.request_timeout.filter(|_| !exchange.head.body.is_empty()).map(Duration::from_millis);
    Tries::new(upstream, &forward.retry, key).introduced(introduction).patient(patience)
}

/// What connections of a client begin with, to name it.
pub fn introduce(downstream: &Downstream, destination: Option<SocketAddr>, version: ProxyVersion) -> Introduction {
    let mut header = Vec::with_capacity(64);
    match (downstream.peer, destination, version) {
        (Some(source), Some(destination), ProxyVersion::V1) => write_v1(&mut header, source, destination),
        (Some(source), Some(destination), ProxyVersion::V2) => write_v2(&mut header, source, destination),
        _ => write_local(&mut header, version),
    }
    let permit: Rc<dyn Any> = downstream.permit.clone();
    Introduction { header, owner: Owner { id: downstream.id, connection: Rc::downgrade(&permit) } }
}

/// What a hash goes by; none where the request lacks it, or it is empty.
fn key(exchange: &Exchange, by: &HashKey) -> Option<u64> {
    let head = &exchange.head;
    let hash_of = |value: &[u8]| (!value.is_empty()).then(|| hash(value));
    match by {
        HashKey::ClientIp => exchange.client.map(address_key),
        HashKey::Header(name) => head.fields.first(name).and_then(hash_of),
        HashKey::Cookie(name) => cookie(&head.fields, name).and_then(hash_of),
        HashKey::Query(name) => {
            let mut parameters = route::parameters(head.target.query().unwrap_or_default());
            let found = parameters.find(|(found, _)| **found == *name.as_bytes());
            found.and_then(|(_, value)| hash_of(&value))
        }
    }
}

/// What a hash by the client's address goes by.
pub fn address_key(client: IpAddr) -> u64 {
    match client {
        IpAddr::V4(address) => hash(&address.octets()),
        IpAddr::V6(address) => hash(&address.octets()),
    }
}

/// Remembers for the log how many there were, and counts those behind the first.
pub fn end(worker: &Worker, exchange: &mut Exchange, tries: &Tries) {
    exchange.attempts = tries.made();
    for again in tries.again() {
        let status;
        let on = match again {
            Again::Connect => "connect",
            Again::Kept => "kept",
            Again::Status(code) => {
                status = code.to_string();
                &status
            }
        };
        worker.tallies.retried(exchange.route_name().unwrap_or_default(), &exchange.upstream_name(), on);
    }
}
