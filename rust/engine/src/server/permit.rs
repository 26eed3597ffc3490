//! Places that connections take up, given back when dropped, whatever happened.

use std::cell::OnceCell;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use super::admission::Holder;
use super::listening::{Listening, Occupancy};
use super::shared::Shared;
use crate::policy::Place;

/// One connection's place: on its listener, in its worker and in the engine.
#[derive(Debug)]
pub struct Permit {
    pub shared: Arc<Shared>,
    pub listening: Arc<Listening>,
    /// Among the connections of its client's address, where those are counted.
    pub place: OnceCell<Box<Place<Holder>>>,
    occupancy: Arc<Occupancy>,
    load: Arc<AtomicUsize>,
}

impl Permit {
    pub fn new(
        shared: Arc<Shared>,
        listening: Arc<Listening>,
        occupancy: Arc<Occupancy>,
        load: Arc<AtomicUsize>,
    ) -> Self {
        shared.connections.fetch_add(1, Relaxed);
        listening.open.fetch_add(1, Relaxed);
        occupancy.open.fetch_add(1, Relaxed);
        load.fetch_add(1, Relaxed);
        Self { shared, listening, place: OnceCell::new(), occupancy, load }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.load.fetch_sub(1, Relaxed);
        self.listening.open.fetch_sub(1, Relaxed);
        self.occupancy.open.fetch_sub(1, Relaxed);
        self.occupancy.freed.notify_one();
        if std::thread::panicking() {
            self.shared.note_panic();
        }
        self.shared.leave();
    }
}
