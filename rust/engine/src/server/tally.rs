//! The counters of a worker outside of relays: found once, then held, for as long as the configuration stays.

use std::cell::{Cell as Slot, RefCell};
use std::sync::Arc;

use hashbrown::HashMap;

use super::handshakes::Gauges;
use crate::io::clock::{self, Millis};
use crate::metrics::{Cell, Histogram, Metrics};
use crate::relay::{End, RelayMetrics};

/// At most one event a second about accepting that paused, and one about connections that come too fast; the counters
/// have them all.
const EVENT_GAP: Millis = 1_000;

/// Counters by what they count. The caches are emptied when the configuration changes: they are keyed by indices.
#[derive(Debug)]
pub struct Tallies {
    metrics: Arc<Metrics>,
    generation: Slot<u64>,
    requests: RefCell<HashMap<(Option<usize>, u16), Requests>>,
    relays: RefCell<HashMap<usize, Arc<RelayMetrics>>>,
    tls: RefCell<HashMap<usize, Gauges>>,
    paused_at: Slot<Millis>,
    hurried_at: Slot<Millis>,
}

#[derive(Clone, Debug)]
struct Requests {
    total: Arc<Cell>,
    seconds: Arc<Histogram>,
}

/// Who asked for a WebSocket, and what came of it.
#[derive(Clone, Copy, Debug)]
pub struct Handshake<'a> {
    pub listener: &'a str,
    pub route: &'a str,
    pub protocol: &'a str,
    pub status: u16,
    pub reason: &'a str,
}

impl Tallies {
    pub fn new(metrics: Arc<Metrics>) -> Self {
        Self {
            metrics,
            generation: Slot::new(0),
            requests: RefCell::default(),
            relays: RefCell::default(),
            tls: RefCell::default(),
            paused_at: Slot::new(0),
            hurried_at: Slot::new(0),
        }
    }

    fn refresh(&self, generation: u64) {
        if self.generation.replace(generation) != generation {
            self.requests.borrow_mut().clear();
            self.relays.borrow_mut().clear();
            self.tls.borrow_mut().clear();
        }
    }

    /// A connection was accepted.
    pub fn accepted(&self, listener: &str) {
        self.metrics.counter("tidegate_connections_accepted_total", &[("listener", listener)]).add(1);
    }

    /// A connection ended before it could ask for anything.
    pub fn not_established(&self, listener: &str, reason: &str) {
        let labels = [("listener", listener), ("reason", reason)];
        self.metrics.counter("tidegate_connections_failed_total", &labels).add(1);
    }

    /// The gauges of the TLS handshakes of a listener.
    pub fn tls_gauges(&self, generation: u64, index: usize, listener: &str) -> Gauges {
        self.refresh(generation);
        let gauge = |stage| {
            let labels = [("listener", listener), ("stage", stage)];
            self.metrics.gauge("tidegate_tls_handshakes", &labels)
        };
        let make = || Gauges { waiting: gauge("waiting"), running: gauge("running") };
        self.tls.borrow_mut().entry(index).or_insert_with(make).clone()
    }

    /// A TLS handshake succeeded.
    pub fn tls_handshake(&self, listener: &str, kind: &str) {
        let labels = [("listener", listener), ("kind", kind)];
        self.metrics.counter("tidegate_tls_handshakes_total", &labels).add(1);
    }

    /// Accepting paused. True when it is worth telling.
    pub fn accept_paused(&self, address: &str, reason: &str) -> bool {
        self.metrics.counter("tidegate_accept_paused_total", &[("address", address), ("reason", reason)]).add(1);
        is_due(&self.paused_at)
    }

    /// Connections come too fast. True when it is worth telling.
    pub fn rate_exceeded(&self) -> bool {
        is_due(&self.hurried_at)
    }

    /// A plain request was answered; `route` is an index and a name.
    pub fn request(&self, generation: u64, route: Option<(usize, &str)>, status: u16, took: Millis) {
        self.refresh(generation);
        let mut requests = self.requests.borrow_mut();
        let key = (route.map(|(index, _)| index), status);
        let found = requests.entry(key).or_insert_with(|| {
            let (name, code) = (route.map_or("", |(_, name)| name), status.to_string());
            Requests {
                total: self.metrics.counter("tidegate_http_requests_total", &[("route", name), ("status", &code)]),
                seconds: self.metrics.histogram("tidegate_http_request_seconds", &[("route", name)]),
            }
        });
        found.total.add(1);
        found.seconds.record(took);
    }

    /// A plain request was refused, or its answer ended early.
    pub fn failed(&self, route: Option<&str>, reason: &str) {
        let labels = [("route", route.unwrap_or_default()), ("reason", reason)];
        self.metrics.counter("tidegate_http_failed_total", &labels).add(1);
    }

    /// An attempt to open a WebSocket was answered.
    pub fn handshake(&self, handshake: &Handshake<'_>) {
        let status = handshake.status.to_string();
        let labels = [
            ("listener", handshake.listener),
            ("route", handshake.route),
            ("protocol", handshake.protocol),
            ("status", &status),
            ("reason", handshake.reason),
        ];
        self.metrics.counter("tidegate_websocket_handshakes_total", &labels).add(1);
    }

    /// A connection of HTTP/2 ended because of what its client had sent.
    pub fn http2_error(&self, listener: &str, code: &str) {
        self.metrics.counter("tidegate_http2_errors_total", &[("listener", listener), ("code", code)]).add(1);
    }

    /// A connection of HTTP/3 ended because of what its client had sent.
    pub fn http3_error(&self, listener: &str, code: &str) {
        self.metrics.counter("tidegate_http3_errors_total", &[("listener", listener), ("code", code)]).add(1);
    }

    /// A client over QUIC must show that its address is its own.
    pub fn quic_retry(&self, listener: &str) {
        self.metrics.counter("tidegate_quic_retries_total", &[("listener", listener)]).add(1);
    }

    /// An upstream was tried again for an exchange; `on` says why.
    pub fn retried(&self, route: &str, upstream: &str, on: &str) {
        let labels = [("route", route), ("upstream", upstream), ("on", on)];
        self.metrics.counter("tidegate_retries_total", &labels).add(1);
    }

    /// The counters of the relays of a route.
    pub fn relay(&self, generation: u64, index: usize, route: &str) -> Arc<RelayMetrics> {
        self.refresh(generation);
        let mut relays = self.relays.borrow_mut();
        relays.entry(index).or_insert_with(|| Arc::new(RelayMetrics::new(&self.metrics, route))).clone()
    }

    /// The gauge of live WebSockets.
    pub fn live(&self, listener: &str, route: &str, upstream: &str, protocol: &str) -> Arc<Cell> {
        let labels = [("listener", listener), ("route", route), ("upstream", upstream), ("protocol", protocol)];
        self.metrics.gauge("tidegate_websocket_connections", &labels)
    }

    /// A WebSocket has ended.
    pub fn closed(&self, route: &str, end: &End, lasted: Millis) {
        let (code, cause) = (crate::ws::close::label(end.code()), end.cause.label());
        let labels = [("route", route), ("code", code), ("cause", cause)];
        self.metrics.counter("tidegate_websocket_closed_total", &labels).add(1);
        self.metrics.histogram("tidegate_websocket_seconds", &[("route", route), ("cause", cause)]).record(lasted);
    }
}

/// Whether the last event was long enough ago; then there is one now.
fn is_due(last: &Slot<Millis>) -> bool {
    let now = clock::now();
    let is_due = now >= last.get() + EVENT_GAP;
    if is_due {
        last.set(now);
    }
    is_due
}
