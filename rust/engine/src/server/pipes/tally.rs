//! The counters of pipes: found once for each set of names, then held while one is open.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;

use crate::error::Cause;
use crate::io::clock::Millis;
use crate::metrics::{Cell, Histogram, Metrics};

/// The metrics of one kind of pipes.
#[derive(Debug)]
pub struct Family {
    opened: &'static str,
    live: &'static str,
    bytes: &'static str,
    closed: &'static str,
    seconds: &'static str,
    labels: &'static [&'static str],
}

pub static TCP: Family = Family {
    opened: "tidegate_tcp_opened_total",
    live: "tidegate_tcp_connections",
    bytes: "tidegate_tcp_bytes_total",
    closed: "tidegate_tcp_closed_total",
    seconds: "tidegate_tcp_seconds",
    labels: &["listener", "upstream"],
};

pub static TUNNEL: Family = Family {
    opened: "tidegate_tunnel_opened_total",
    live: "tidegate_tunnel_connections",
    bytes: "tidegate_tunnel_bytes_total",
    closed: "tidegate_tunnel_closed_total",
    seconds: "tidegate_tunnel_seconds",
    labels: &["listener", "upstream", "route", "protocol"],
};

/// Counters by what they count, of one worker.
#[derive(Debug)]
pub struct Tallies {
    metrics: Arc<Metrics>,
    known: RefCell<HashMap<Names, Rc<Counters>>>,
}

/// The name of a family, and the values of its labels.
type Names = (&'static str, Vec<Arc<str>>);

/// The counters of the pipes of a family that have the same names.
#[derive(Debug)]
pub struct Counters {
    family: &'static Family,
    values: Vec<Arc<str>>,
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

    /// The counters for pipes of `family` with these values of its labels.
    pub fn counters(&self, family: &'static Family, values: Vec<Arc<str>>) -> Rc<Counters> {
        let mut known = self.known.borrow_mut();
        let entry = known.entry((family.live, values));
        entry.or_insert_with_key(|(_, values)| Rc::new(Counters::new(&self.metrics, family, values.clone()))).clone()
    }

    /// Forgets those that no pipe holds: their names may be gone from the configuration.
    pub fn forget_idle(&self) {
        self.known.borrow_mut().retain(|_, counters| Rc::strong_count(counters) > 1);
    }

    /// A connection found no upstream.
    pub fn refused(&self, listener: &str, reason: &str) {
        let labels = [("listener", listener), ("reason", reason)];
        self.metrics.counter("tidegate_tcp_refused_total", &labels).add(1);
    }

    /// A pipe has ended.
    pub fn closed(&self, counters: &Counters, cause: Cause, lasted: Millis) {
        let mut ends = counters.ends.borrow_mut();
        let (total, seconds) = ends.entry(cause).or_insert_with(|| {
            let labels = counters.family.labels(&counters.values, Some(("cause", cause.label())));
            let total = self.metrics.counter(counters.family.closed, &labels);
            (total, self.metrics.histogram(counters.family.seconds, &labels))
        });
        total.add(1);
        seconds.record(lasted);
    }
}

impl Family {
    fn labels<'v>(
        &self,
        values: &'v [Arc<str>],
        more: impl IntoIterator<Item = (&'static str, &'v str)>,
    ) -> Vec<(&'static str, &'v str)> {
        self.labels.iter().copied().zip(values.iter().map(|value| &**value)).chain(more).collect()
    }
}

impl Counters {
    fn new(metrics: &Metrics, family: &'static Family, values: Vec<Arc<str>>) -> Self {
        let labels = family.labels(&values, None);
        let bytes = |direction| {
            let labels = family.labels(&values, Some(("direction", direction)));
            metrics.counter(family.bytes, &labels)
        };
        Self {
            opened: metrics.counter(family.opened, &labels),
            live: metrics.gauge(family.live, &labels),
            bytes: ["to_upstream", "to_client"].map(bytes),
            ends: RefCell::default(),
            family,
            values,
        }
    }

    /// A pipe is open.
    pub fn open(&self) {
        self.opened.add(1);
        self.live.add(1);
    }

    /// It is not any more.
    pub fn leave(&self) {
        self.live.subtract(1);
    }
}
