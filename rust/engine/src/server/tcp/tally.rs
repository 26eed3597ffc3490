//! The counters of TCP connections: found once for each listener and upstream, then held while one is open.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;

use crate::error::Cause;
use crate::io::clock::Millis;
use crate::metrics::{Cell, Histogram, Metrics};

/// Counters by what they count, of one worker.
#[derive(Debug)]
pub struct Tallies {
    metrics: Arc<Metrics>,
    known: RefCell<HashMap<Names, Rc<Counters>>>,
}

/// Of a listener and an upstream.
type Names = (Arc<str>, Arc<str>);

/// The counters of a listener's connections to an upstream.
#[derive(Debug)]
pub struct Counters {
    opened: Arc<Cell>,
    live: Arc<Cell>,
    /// From the client, and from the upstream.
    pub bytes: [Arc<Cell>; 2],
    ends: RefCell<HashMap<Cause, Ends>>,
}

/// How many there were, and how long they had lasted.
type Ends = (Arc<Cell>, Arc<Histogram>);

impl Tallies {
    pub fn new(metrics: Arc<Metrics>) -> Self {
        Self { metrics, known: RefCell::default() }
    }

    /// The counters for connections of `listener` to `upstream`.
    pub fn counters(&self, listener: &Arc<str>, upstream: &Arc<str>) -> Rc<Counters> {
        let mut known = self.known.borrow_mut();
        let key = (listener.clone(), upstream.clone());
        known.entry(key).or_insert_with(|| Rc::new(Counters::new(&self.metrics, listener, upstream))).clone()
    }

    /// Forgets those that no connection holds: their names may be gone from the configuration.
    pub fn forget_idle(&self) {
        self.known.borrow_mut().retain(|_, counters| Rc::strong_count(counters) > 1);
    }

    /// A connection found no upstream.
    pub fn refused(&self, listener: &str, reason: &str) {
        let labels = [("listener", listener), ("reason", reason)];
        self.metrics.counter("tidegate_tcp_refused_total", &labels).add(1);
    }

    /// A connection has ended.
    pub fn closed(&self, listener: &str, upstream: &str, counters: &Counters, cause: Cause, lasted: Millis) {
        let mut ends = counters.ends.borrow_mut();
        let (total, seconds) = ends.entry(cause).or_insert_with(|| {
            let labels = [("listener", listener), ("upstream", upstream), ("cause", cause.label())];
            let total = self.metrics.counter("tidegate_tcp_closed_total", &labels);
            (total, self.metrics.histogram("tidegate_tcp_seconds", &labels))
        });
        total.add(1);
        seconds.record(lasted);
    }
}

impl Counters {
    fn new(metrics: &Metrics, listener: &str, upstream: &str) -> Self {
        let labels = [("listener", listener), ("upstream", upstream)];
        let bytes = |direction| {
            let labels = [labels[0], labels[1], ("direction", direction)];
            metrics.counter("tidegate_tcp_bytes_total", &labels)
        };
        Self {
            opened: metrics.counter("tidegate_tcp_opened_total", &labels),
            live: metrics.gauge("tidegate_tcp_connections", &labels),
            bytes: ["to_upstream", "to_client"].map(bytes),
            ends: RefCell::default(),
        }
    }

    /// A connection is open.
    pub fn open(&self) {
        self.opened.add(1);
        self.live.add(1);
    }

    /// It is not any more.
    pub fn leave(&self) {
        self.live.subtract(1);
    }
}
