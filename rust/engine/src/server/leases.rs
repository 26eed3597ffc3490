//! The live WebSockets of a worker, and what is kept of the decision that let each of them in.

use std::cell::{Cell, RefCell};
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;

use hashbrown::HashMap;
use serde_json::{Value, json};

use super::permit::Permit as ConnectionPermit;
use super::timers::Timers;
use crate::io::clock::{self, Millis};
use crate::log::connection_name;
use crate::metrics;
use crate::relay::{Order, Relay};
use crate::snapshot::HttpVersion;
use crate::upstream;

/// Entries that a table may have in vain before it is cleaned.
const SLACK: usize = 1024;

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

#[derive(Debug)]
struct Live {
    relay: Rc<RefCell<Relay>>,
    lease: Lease,
    /// The time of its valid entry among the timers.
    armed: Cell<Millis>,
}

/// The live WebSockets of a worker, by id.
#[derive(Debug, Default)]
pub struct Leases {
    live: RefCell<HashMap<u64, Live>>,
    pub timers: Timers<u64>,
}

impl Leases {
    pub fn insert(&self, relay: Rc<RefCell<Relay>>, lease: Lease) {
        let id = lease.id;
        self.live.borrow_mut().insert(id, Live { relay, lease, armed: Cell::new(Millis::MAX) });
        self.arm(id);
    }

    pub fn remove(&self, id: u64) -> Option<Lease> {
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

    /// Ids of those for which `wanted` says yes.
    pub fn select(&self, wanted: impl Fn(&Lease) -> bool) -> Vec<u64> {
        self.live.borrow().values().filter(|live| wanted(&live.lease)).map(|live| live.lease.id).collect()
    }

    /// Sees to it that the relay is looked at when it wants to be.
    pub fn arm(&self, id: u64) {
        let live = self.live.borrow();
        let Some(live) = live.get(&id) else { return };
        let Some(when) = live.relay.borrow().next_deadline(clock::now()) else { return };
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
            live.relay.borrow_mut().on_time(clock::now());
        }
        self.arm(id);
    }

    /// Closes one; false when it is not here.
    pub fn close(&self, id: u64, order: &Order) -> bool {
        let live = self.live.borrow();
        let found = live.get(&id);
        if let Some(live) = found {
            live.relay.borrow_mut().close(order);
        }
        found.is_some()
    }

    /// The code that this one's route says for a drain.
    pub fn drain_code(&self, id: u64) -> u16 {
        self.live.borrow().get(&id).map_or(1012, |live| live.relay.borrow().drain_code())
    }

    /// Ends all of them now.
    pub fn cut(&self, cause: crate::error::Cause) {
        for live in self.live.borrow().values() {
            live.relay.borrow_mut().cut(cause);
        }
    }

    /// Each one as JSON.
    pub fn describe(&self) -> Vec<Value> {
        self.live.borrow().values().map(Live::describe).collect()
    }
}

impl Live {
    fn describe(&self) -> Value {
        let (lease, traffic) = (&self.lease, self.relay.borrow().traffic());
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
}
