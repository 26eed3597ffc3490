//! What all threads of the engine see.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;

use super::probing::Verdicts;
use super::state::State;
use crate::log::{Event, Events, Level};

/// Shared by the workers and the handle that Python holds.
#[derive(Debug, Default)]
pub struct Shared {
    /// What runs; none before the first commit.
    pub state: ArcSwapOption<State>,
    pub events: Events,
    pub verdicts: Verdicts,
    /// Connections that are open.
    pub connections: AtomicUsize,
    /// WebSockets that are live.
    pub websockets: AtomicUsize,
    /// TCP connections that are live.
    pub pipes: AtomicUsize,
    /// From the first moment of a drain.
    pub draining: AtomicBool,
    /// Tasks that panicked.
    pub panics: AtomicU64,
    serial: AtomicU64,
    /// The drain is over.
    finished: AtomicBool,
    empty: Mutex<()>,
    emptied: Condvar,
}

impl Shared {
    /// A connection id that was not given before.
    pub fn serial(&self) -> u64 {
        self.serial.fetch_add(1, Ordering::Relaxed) + 1
    }

    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }

    /// Says something to whoever reads the engine's log.
    pub fn say(&self, level: Level, event: &'static str, message: impl Into<String>) {
        self.events.push(Event::new(level, event, message));
    }

    /// A connection has gone.
    pub fn leave(&self) {
        let left = self.connections.fetch_sub(1, Ordering::AcqRel) - 1;
        if left == 0 && self.is_draining() {
            let _guard = self.empty.lock().unwrap_or_else(PoisonError::into_inner);
            self.emptied.notify_all();
        }
    }

    /// Waits until no connection is open; false when `patience` ran out first.
    pub fn wait_empty(&self, patience: Duration) -> bool {
        self.wait_until(patience, || self.connections.load(Ordering::Acquire) == 0)
    }

    /// The drain is over: whoever waits for that is told.
    pub fn finish(&self) {
        self.finished.store(true, Ordering::Release);
        let _guard = self.empty.lock().unwrap_or_else(PoisonError::into_inner);
        self.emptied.notify_all();
    }

    /// Waits until the drain is over; false when `patience` ran out first.
    pub fn wait_finished(&self, patience: Duration) -> bool {
        self.wait_until(patience, || self.finished.load(Ordering::Acquire))
    }

    fn wait_until(&self, patience: Duration, is_true: impl Fn() -> bool) -> bool {
        let until = Instant::now() + patience;
        let mut guard = self.empty.lock().unwrap_or_else(PoisonError::into_inner);
        while !is_true() {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            // A connection may leave between the look and the wait; a bounded wait makes that harmless.
            let wait = left.min(Duration::from_millis(50));
            guard = self.emptied.wait_timeout(guard, wait).unwrap_or_else(PoisonError::into_inner).0;
        }
        true
    }

    pub fn note_panic(&self) {
        self.panics.fetch_add(1, Ordering::Relaxed);
        self.say(Level::Error, "panic", "a connection's task panicked and was ended; this is a bug in Tidegate");
    }

    /// The running state.
    pub fn state(&self) -> Option<Arc<State>> {
        self.state.load_full()
    }
}
