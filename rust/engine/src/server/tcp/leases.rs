//! The live TCP connections of a worker, and what is kept of the decision that let each of them in.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;

use serde_json::{Value, json};

use super::super::permit::Permit;
use super::super::timers::Timers;
use super::tally::{Counters, Tallies};
use crate::error::Cause;
use crate::io::clock::{self, Millis};
use crate::log::connection_name;
use crate::metrics::Metrics;
use crate::relay::Pipe;
use crate::upstream;

/// Entries that a table may have in vain before it is cleaned.
const SLACK: usize = 1024;

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

#[derive(Debug)]
struct Live {
    pipe: Rc<RefCell<Pipe>>,
    lease: Lease,
    /// The time of its valid entry among the timers.
    armed: Cell<Millis>,
}

/// The live TCP connections of a worker, by id.
#[derive(Debug)]
pub struct Pipes {
    live: RefCell<HashMap<u64, Live>>,
    pub timers: Timers<u64>,
    pub(super) tallies: Tallies,
}

impl Pipes {
    /// None yet; they are counted in `metrics`.
    pub fn new(metrics: Arc<Metrics>) -> Self {
        Self { live: RefCell::default(), timers: Timers::default(), tallies: Tallies::new(metrics) }
    }

    pub(super) fn insert(&self, pipe: Rc<RefCell<Pipe>>, lease: Lease) {
        let id = lease.id;
        self.live.borrow_mut().insert(id, Live { pipe, lease, armed: Cell::new(Millis::MAX) });
        self.arm(id);
    }

    pub(super) fn remove(&self, id: u64) -> Option<Lease> {
        let mut live = self.live.borrow_mut();
        let removed = live.remove(&id).map(|live| live.lease);
        // After a rush the tables are as large as they ever were; give that back.
        if live.capacity() > SLACK && live.len() < live.capacity() / 8 {
            live.shrink_to_fit();
        }
        if self.timers.len() > SLACK + 4 * live.len() {
            self.timers.retain(|when, id| live.get(&id).is_some_and(|live| live.armed.get() == when));
        }
        removed
    }

    /// Ids of those for which `wanted` says yes; the one that has been silent for longest comes first.
    pub(super) fn select(&self, wanted: impl Fn(&Lease) -> bool) -> Vec<u64> {
        let live = self.live.borrow();
        let mut found: Vec<(Millis, u64)> = live
            .values()
            .filter(|live| wanted(&live.lease))
            .map(|live| (live.pipe.borrow().last_active(), live.lease.id))
            .collect();
        found.sort_unstable();
        found.into_iter().map(|(_, id)| id).collect()
    }

    /// Sees to it that the pipe is looked at when it wants to be.
    pub(super) fn arm(&self, id: u64) {
        let live = self.live.borrow();
        let Some(live) = live.get(&id) else { return };
        let Some(when) = live.pipe.borrow().next_deadline() else { return };
        if when < live.armed.get() {
            live.armed.set(when);
            self.timers.arm(when, id);
        }
    }

    /// A deadline has come.
    pub fn on_time(&self, when: Millis, id: u64) {
        {
            let live = self.live.borrow();
            let Some(live) = live.get(&id).filter(|live| live.armed.get() == when) else { return };
            live.armed.set(Millis::MAX);
            live.pipe.borrow_mut().on_time(clock::now());
        }
        self.arm(id);
    }

    /// Closes one; false when it is not here.
    pub fn close(&self, id: u64, cause: Cause) -> bool {
        let live = self.live.borrow();
        let found = live.get(&id);
        if let Some(live) = found {
            live.pipe.borrow_mut().close(cause);
        }
        found.is_some()
    }

    /// Ends all of them now.
    pub fn cut(&self, cause: Cause) {
        for live in self.live.borrow().values() {
            live.pipe.borrow_mut().cut(cause);
        }
    }

    /// Each one as JSON.
    pub fn describe(&self) -> Vec<Value> {
        self.live.borrow().values().map(Live::describe).collect()
    }
}

impl Live {
    fn describe(&self) -> Value {
        let (lease, [to_upstream, to_client]) = (&self.lease, self.pipe.borrow().received());
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
}
