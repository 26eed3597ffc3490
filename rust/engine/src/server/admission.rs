//! Whether a good attempt may become a WebSocket, by what its route says of whoever asks.

use super::downstream::Downstream;
use super::exchange::Exchange;
use super::forwarded::{self, Arrival, Asked};
use crate::error::{Refusal, refusal};
use crate::policy::{self, Page};

/// Lets it on, or says why not.
///
/// # Errors
/// The refusal for the client.
pub fn check(downstream: &Downstream, exchange: &Exchange) -> Result<(), Refusal> {
    if admits_page(downstream, exchange) { Ok(()) } else { Err(refusal::ORIGIN) }
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
