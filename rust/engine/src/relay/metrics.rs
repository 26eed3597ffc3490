//! What a relay counts while it runs.

use std::sync::Arc;

use super::Role;
use crate::io::clock::Millis;
use crate::metrics::{Cell, Histogram, Metrics};
use crate::ws::Counts;

/// The counters of one route in one worker.
#[derive(Debug)]
pub struct RelayMetrics {
    directions: [Direction; 2],
    protocol_errors: [Arc<Cell>; 2],
    delayed: Arc<Cell>,
    dropped: Arc<Cell>,
    closed: Arc<Cell>,
    ping_seconds: [Arc<Histogram>; 2],
}

#[derive(Debug)]
struct Direction {
    text: Arc<Cell>,
    binary: Arc<Cell>,
    ping: Arc<Cell>,
    pong: Arc<Cell>,
    close: Arc<Cell>,
    bytes: Arc<Cell>,
}

impl Direction {
    fn new(metrics: &Metrics, route: &str, direction: &str) -> Self {
        let messages = |opcode: &str| {
            let labels = [("route", route), ("direction", direction), ("opcode", opcode)];
            metrics.counter("tidegate_websocket_messages_total", &labels)
        };
        Self {
            text: messages("text"),
            binary: messages("binary"),
            ping: messages("ping"),
            pong: messages("pong"),
            close: messages("close"),
            bytes: metrics.counter("tidegate_websocket_bytes_total", &[("route", route), ("direction", direction)]),
        }
    }
}

impl RelayMetrics {
    pub fn new(metrics: &Metrics, route: &str) -> Self {
        let by_side = ["client", "upstream"];
        let limited =
            |action: &str| metrics.counter("tidegate_websocket_limited_total", &[("route", route), ("action", action)]);
        Self {
            delayed: limited("delayed"),
            dropped: limited("dropped"),
            closed: limited("closed"),
            directions: ["to_upstream", "to_client"].map(|direction| Direction::new(metrics, route, direction)),
            protocol_errors: by_side.map(|side| {
                metrics.counter("tidegate_websocket_protocol_errors_total", &[("route", route), ("side", side)])
            }),
            ping_seconds: by_side
                .map(|side| metrics.histogram("tidegate_websocket_ping_seconds", &[("route", route), ("side", side)])),
        }
    }

    /// Adds what a side sent between two looks at its counts.
    pub(super) fn count(&self, from: Role, before: &Counts, after: &Counts) {
        let direction = &self.directions[from as usize];
        let add = |cell: &Cell, before: u64, after: u64| {
            if after != before {
                cell.add(after - before);
            }
        };
        add(&direction.bytes, before.bytes, after.bytes);
        add(&direction.text, before.messages_text, after.messages_text);
        add(&direction.binary, before.messages_binary, after.messages_binary);
        add(&direction.ping, before.pings, after.pings);
        add(&direction.pong, before.pongs, after.pongs);
        add(&direction.close, before.closes, after.closes);
    }

    pub(super) fn count_bytes(&self, from: Role, bytes: u64) {
        self.directions[from as usize].bytes.add(bytes);
    }

    pub(super) fn violation(&self, from: Role) {
        self.protocol_errors[from as usize].add(1);
    }

    /// A side has to wait before more is read from it.
    pub(super) fn delayed(&self) {
        self.delayed.add(1);
    }

    /// A message or a control frame was left out.
    pub(super) fn dropped(&self) {
        self.dropped.add(1);
    }

    /// A connection ended because its client was too fast.
    pub(super) fn outpaced(&self) {
        self.closed.add(1);
    }

    pub(super) fn pong(&self, from: Role, took: Millis) {
        self.ping_seconds[from as usize].record(took);
    }
}
