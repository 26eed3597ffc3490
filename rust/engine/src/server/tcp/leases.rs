//! The live TCP connections of a worker, and what is kept of the decision that let each of them in.

use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;

use serde_json::{Value, json};

use super::super::permit::Permit;
use super::super::table::Table;
use super::tally::{Counters, Tallies};
use crate::error::Cause;
use crate::io::clock::{self, Millis};
use crate::log::connection_name;
use crate::metrics::Metrics;
use crate::relay::Pipe;
use crate::upstream;

/// What a live connection holds on to. The state that decided is released, so a reload changes nothing for it.
#[derive(Debug)]
pub struct Lease {
    /// The same in every log record of the connection.
    pub id: u64,
    pub listener: Arc<str>,
    /// Empty where the gateway itself is the server.
    pub upstream: Arc<str>,
    pub client: Option<IpAddr>,
    /// What the client asked for, where we looked.
    pub server_name: Option<Box<str>>,
    pub opened: Millis,
    pub counters: Rc<Counters>,
    /// None where the gateway itself is the server.
    pub endpoint: Option<upstream::Permit>,
    pub connection: Rc<Permit>,
}

/// The live TCP connections of a worker.
#[derive(Debug)]
pub struct Pipes {
    pub live: Table<Pipe, Lease>,
    pub(super) tallies: Tallies,
}

impl Pipes {
    /// None yet; they are counted in `metrics`.
    pub fn new(metrics: Arc<Metrics>) -> Self {
        Self { live: Table::default(), tallies: Tallies::new(metrics) }
    }

    /// Ids of those for which `wanted` says yes; the one that has been silent for longest comes first.
    pub(super) fn select(&self, wanted: impl Fn(&Lease) -> bool) -> Vec<u64> {
        let mut found = self.live.collect(|pipe, lease| wanted(lease).then(|| (pipe.last_active(), lease.id)));
        found.sort_unstable();
        found.into_iter().map(|(_, id)| id).collect()
    }

    /// Closes one; false when it is not here.
    pub fn close(&self, id: u64, cause: Cause) -> bool {
        self.live.with(id, |pipe| pipe.close(cause)).is_some()
    }

    /// Ends all of them now.
    pub fn cut(&self, cause: Cause) {
        self.live.each(|pipe| pipe.cut(cause));
    }

    /// Each one as JSON.
    pub fn describe(&self) -> Vec<Value> {
        self.live.collect(|pipe, lease| Some(describe(pipe, lease)))
    }
}

fn describe(pipe: &Pipe, lease: &Lease) -> Value {
    let [to_upstream, to_client] = pipe.received();
    json!({
        "id": connection_name(lease.id),
        "protocol": "tcp",
        "listener": &*lease.listener,
        "upstream": &*lease.upstream,
        "endpoint": lease.endpoint.as_ref().map(|permit| permit.endpoint().name.to_string()),
        "client": lease.client,
        "host": lease.server_name,
        "seconds": (clock::now() - lease.opened) as f64 / 1000.0,
        "bytes": {"to_upstream": to_upstream, "to_client": to_client},
    })
}
