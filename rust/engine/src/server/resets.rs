//! Requests over HTTP/2 and HTTP/3 that their client takes back (CVE-2023-44487, "rapid reset").
//!
//! A request that is reset leaves its place to the next one, so the limit of streams bounds nothing; but the work for
//! each was begun, and the connection upstream is lost with it. A client may do that to so many in a while, and is then
//! told to calm down, by the end of its connection.

use std::cell::Cell;

use tokio::sync::Notify;

use crate::io::clock::{self, Millis};

/// As many times the streams of a connection may be reset by its client in a while: a page that is left resets all of
/// its requests, and the next one too.
const RESETS: u32 = 5;

/// Over which they are counted.
const WHILE: Millis = 10_000;

/// The resets of one connection.
#[derive(Debug)]
pub struct Resets {
    limit: u32,
    since: Cell<Millis>,
    count: Cell<u32>,
    exceeded: Notify,
}

impl Resets {
    /// Of one that may have so many streams at once.
    pub fn new(streams: u32) -> Self {
        Self { limit: streams * RESETS, since: Cell::new(clock::now()), count: Cell::new(0), exceeded: Notify::new() }
    }

    /// A stream was reset before its answer was whole.
    pub fn count(&self) {
        let now = clock::now();
        if now - self.since.get() >= WHILE {
            self.since.set(now);
            self.count.set(0);
        }
        self.count.set(self.count.get() + 1);
        // Once: its end is the connection's.
        if self.count.get() == self.limit + 1 {
            self.exceeded.notify_one();
        }
    }

    /// Returns when there were too many.
    pub async fn too_many(&self) {
        self.exceeded.notified().await;
    }
}
