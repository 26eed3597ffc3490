//! What an exchange's tries at its upstream begin with, and what is told of them at the end.

use std::net::IpAddr;

use super::exchange::Exchange;
use super::worker::Worker;
use crate::balance::hash;
use crate::http::cookie;
use crate::route;
use crate::snapshot::{Balance, HashKey};
use crate::upstream::{Again, Tries};

/// The tries of `exchange`, none of them made yet.
pub fn begin(exchange: &Exchange) -> Tries {
    let upstream = exchange.pick_upstream();
    let key = match upstream.balance() {
        Balance::Hash(by) => key(exchange, by),
        _ => None,
    };
    Tries::new(upstream, &exchange.forward().retry, key)
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
