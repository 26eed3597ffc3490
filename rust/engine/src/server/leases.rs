//! The live WebSockets of a worker, and what is kept of the decision that let each of them in.

use std::cell::RefCell;
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;

use serde_json::{Value, json};

use super::admission::Held;
use super::permit::Permit as ConnectionPermit;
use super::table::Table;
use crate::error::Cause;
use crate::io::clock::{self, Millis};
use crate::log::connection_name;
use crate::metrics;
use crate::relay::{Order, Relay};
use crate::snapshot::HttpVersion;
use crate::upstream;

/// What a live WebSocket holds on to. The state that decided is released, so a reload changes nothing for it.
#[derive(Debug)]
pub struct Lease {
    /// The same in every log record of the connection.
    pub id: u64,
    pub listener: Arc<str>,
    pub route: Arc<str>,
    /// Of the route, when it was taken.
    pub fingerprint: u64,
    pub upstream: Arc<str>,
    pub facts: Box<Facts>,
    pub opened: Millis,
    /// The gauge that counts it.
    pub gauge: Arc<metrics::Cell>,
    /// `None` where the gateway itself is the server.
    pub endpoint: Option<upstream::Permit>,
    /// Spoken with the endpoint.
    pub upstream_protocol: &'static str,
    pub connection: Rc<ConnectionPermit>,
    /// Its places among those that are counted.
    pub held: RefCell<Held>,
    /// The address that it counts for.
    pub counted: Option<IpAddr>,
    /// Spoken with the client.
    pub protocol: HttpVersion,
}

/// What its log records say again at the end.
#[derive(Debug)]
pub struct Facts {
    pub client: Option<IpAddr>,
    pub host: Box<[u8]>,
    pub path: Box<[u8]>,
    pub request_id: Box<[u8]>,
    pub user_agent: Option<Box<[u8]>>,
}

/// The live WebSockets of a worker.
pub type Leases = Table<Relay, Lease>;

impl Leases {
    /// Ids of those for which `wanted` says yes.
    pub fn select(&self, wanted: impl Fn(&Lease) -> bool) -> Vec<u64> {
        self.collect(|_, lease| wanted(lease).then_some(lease.id))
    }

    /// Closes one; false when it is not here.
    pub fn close(&self, id: u64, order: &Order) -> bool {
        self.with(id, |relay| relay.close(order)).is_some()
    }

    /// The code that this one's route says for a drain.
    pub fn drain_code(&self, id: u64) -> u16 {
        self.with(id, |relay| relay.drain_code()).unwrap_or(1012)
    }

    /// Ends all of them now.
    pub fn cut(&self, cause: Cause) {
        self.each(|relay| relay.cut(cause));
    }

    /// Each one as JSON.
    pub fn describe(&self) -> Vec<Value> {
        self.collect(|relay, lease| Some(describe(relay, lease)))
    }
}

fn describe(relay: &Relay, lease: &Lease) -> Value {
    let traffic = relay.traffic();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let messages = |counts: &crate::ws::Counts| counts.messages_text + counts.messages_binary;
    json!({
        "id": connection_name(lease.id),
        "listener": &*lease.listener,
        "route": &*lease.route,
        "upstream": &*lease.upstream,
        "endpoint": lease.endpoint.as_ref().map(|permit| permit.endpoint().name.to_string()),
        "client": lease.facts.client,
        "host": text(&lease.facts.host),
        "path": text(&lease.facts.path),
        "seconds": (clock::now() - lease.opened) as f64 / 1000.0,
        "messages": {"to_upstream": messages(&traffic.client), "to_client": messages(&traffic.upstream)},
        "bytes": {"to_upstream": traffic.client.bytes, "to_client": traffic.upstream.bytes},
    })
}
