//! The live connections of a worker that its timers and commands may reach: what moves their bytes, by the id of the
//! connection, each with its lease and the next time it wants to be looked at.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use hashbrown::HashMap;

use super::timers::Timers;
use crate::io::clock::{self, Millis};
use crate::relay::{Pipe, Relay};

/// Entries that a table may have in vain before it is cleaned.
const SLACK: usize = 1024;

/// What has deadlines.
pub trait Timed {
    /// When [`Timed::on_time`] wants to be called next.
    fn next_deadline(&self, now: Millis) -> Option<Millis>;

    /// Does what has become due.
    fn on_time(&mut self, now: Millis);
}

impl Timed for Relay {
    fn next_deadline(&self, now: Millis) -> Option<Millis> {
        self.next_deadline(now)
    }

    fn on_time(&mut self, now: Millis) {
        self.on_time(now);
    }
}

impl Timed for Pipe {
    fn next_deadline(&self, _: Millis) -> Option<Millis> {
        self.next_deadline()
    }

    fn on_time(&mut self, now: Millis) {
        self.on_time(now);
    }
}

#[derive(Debug)]
struct Live<T, L> {
    mover: Rc<RefCell<T>>,
    lease: L,
    /// The time of its valid entry among the timers.
    armed: Cell<Millis>,
}

/// Live connections by id. `T` moves their bytes, `L` is what they hold on to.
#[derive(Debug)]
pub struct Table<T, L> {
    live: RefCell<HashMap<u64, Live<T, L>>>,
    pub timers: Timers<u64>,
}

impl<T, L> Default for Table<T, L> {
    fn default() -> Self {
        Self { live: RefCell::default(), timers: Timers::default() }
    }
}

impl<T: Timed, L> Table<T, L> {
    pub fn insert(&self, id: u64, mover: Rc<RefCell<T>>, lease: L) {
        self.live.borrow_mut().insert(id, Live { mover, lease, armed: Cell::new(Millis::MAX) });
        self.arm(id);
    }

    pub fn remove(&self, id: u64) -> Option<L> {
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

    /// Sees to it that it is looked at when it wants to be.
    pub fn arm(&self, id: u64) {
        let live = self.live.borrow();
        let Some(live) = live.get(&id) else { return };
        let Some(when) = live.mover.borrow().next_deadline(clock::now()) else { return };
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
            live.mover.borrow_mut().on_time(clock::now());
        }
        self.arm(id);
    }

    /// Does something with one; none when it is not here.
    pub fn with<R>(&self, id: u64, act: impl FnOnce(&mut T) -> R) -> Option<R> {
        self.live.borrow().get(&id).map(|live| act(&mut live.mover.borrow_mut()))
    }

    /// Does something with each of them.
    pub fn each(&self, act: impl Fn(&mut T)) {
        self.live.borrow().values().for_each(|live| act(&mut live.mover.borrow_mut()));
    }

    /// What `look` finds, over all of them.
    pub fn collect<R>(&self, look: impl Fn(&T, &L) -> Option<R>) -> Vec<R> {
        self.live.borrow().values().filter_map(|live| look(&live.mover.borrow(), &live.lease)).collect()
    }
}
