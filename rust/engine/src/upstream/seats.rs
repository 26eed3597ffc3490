//! How many connections an upstream may have, over all workers, and who waits for one.
//!
//! A connection has a *seat* from before it is dialled until its end, idle times included; one of HTTP/2 or HTTP/3 has
//! one, whatever it carries. Seats are counted also where there is no limit, so that a limit that a reload brings finds
//! what is there. Taking one costs one addition as long as nobody waits.
//!
//! Where all are taken, who comes waits in a queue, first come, first served. A seat that is given back goes to the
//! first of them; idle connections are closed for them ([`Caller`] tells the workers that keep some), unless the first
//! one waits on the very worker for the very endpoint that an idle one leads to: then it gets the connection as it is.
//!
//! The count and the length of the queue are changed in the same total order (`SeqCst`): either who gives a seat back
//! sees that somebody waits, or who begins to wait sees the seat.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed, Ordering::SeqCst};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::timeout;

use super::pool::Kept;
use crate::error::{Refusal, refusal};
use crate::io::clock::{self, Millis};
use crate::log::{Event, Events, Level};
use crate::snapshot::UpstreamLimits;

/// At most one event so often about those who are turned away; the counter has them all.
const EVENT_GAP: Millis = 1_000;
/// No limit.
const UNLIMITED: u64 = u64::MAX;

/// The seats of an upstream. Kept by its name from one configuration to the next.
#[derive(Debug)]
pub struct Seats {
    taken: AtomicU64,
    limit: AtomicU64,
    /// How many may wait.
    pending: AtomicU64,
    /// How many do; changed under the lock of `queue` alone.
    waiting: AtomicU64,
    overflows: AtomicU64,
    told: AtomicU64,
    queue: Mutex<Queue>,
}

#[derive(Debug, Default)]
struct Queue {
    /// Who waits, the first one in front.
    entries: VecDeque<Arc<Entry>>,
    /// The workers that keep idle connections.
    callers: Vec<Arc<Caller>>,
}

/// One that waits.
#[derive(Debug)]
struct Entry {
    /// The kept connection that would do as well as a seat.
    place: Option<Place>,
    served: Notify,
    /// What it was served with is a kept connection, and not a seat.
    is_kept: AtomicBool,
}

/// Where a kept connection is: by the address in memory of its worker's caller, and its key in the pool there.
pub type Place = (usize, super::pool::Key);

/// How one worker is told that its idle connections are wanted.
#[derive(Debug, Default)]
pub struct Caller(pub Notify);

/// A seat, given back when dropped.
#[derive(Debug)]
pub struct Seat(Arc<Seats>);

/// Connections on their way from one exchange to the next, on one worker, by who waits for each.
#[derive(Debug, Default)]
pub struct Handed(RefCell<Vec<(Arc<Entry>, Kept)>>);

/// What came of waiting.
#[derive(Debug)]
pub enum Served {
    Seat(Seat),
    Kept(Kept),
}

impl Default for Seats {
    fn default() -> Self {
        Self {
            taken: AtomicU64::new(0),
            limit: AtomicU64::new(UNLIMITED),
            pending: AtomicU64::new(0),
            waiting: AtomicU64::new(0),
            overflows: AtomicU64::new(0),
            told: AtomicU64::new(0),
            queue: Mutex::default(),
        }
    }
}

impl Seats {
    /// Holds for what comes; those who wait may have to go on, or find more seats.
    pub fn set_limits(&self, limits: &UpstreamLimits) {
        self.pending.store(limits.pending.into(), Relaxed);
        self.limit.store(limits.connections.unwrap_or(UNLIMITED), SeqCst);
        self.serve(&mut self.lock());
    }

    /// Connections that there are, or are being made.
    pub fn taken(&self) -> u64 {
        self.taken.load(Relaxed)
    }

    /// How many wait.
    pub fn waiting(&self) -> u64 {
        self.waiting.load(Relaxed)
    }

    /// How many were turned away, as too many waited.
    pub fn overflows(&self) -> u64 {
        self.overflows.load(Relaxed)
    }

    /// Whether a seat would be of use to somebody.
    pub fn is_wanted(&self) -> bool {
        self.waiting.load(SeqCst) > 0
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A seat, if there is one that nobody waits for.
    pub fn take(self: &Arc<Self>) -> Option<Seat> {
        (!self.is_wanted() && self.count_one()).then(|| Seat(self.clone()))
    }

    fn count_one(&self) -> bool {
        let limit = self.limit.load(SeqCst);
        self.taken.fetch_update(SeqCst, SeqCst, |taken| (taken < limit).then_some(taken + 1)).is_ok()
    }

    /// A seat, or the kept connection at `place`, whatever comes first.
    ///
    /// # Errors
    /// [`refusal::PENDING_FULL`] at once when too many wait; [`refusal::PENDING_TIMEOUT`] after `patience`.
    pub async fn wait(
        self: &Arc<Self>,
        place: Option<Place>,
        handed: &Handed,
        patience: Option<Duration>,
    ) -> Result<Served, Refusal> {
        let entry = {
            let mut queue = self.lock();
            if self.waiting.load(Relaxed) >= self.pending.load(Relaxed) {
                // Nobody may wait; but a seat may have been given back meanwhile.
                let is_free = queue.entries.is_empty() && self.count_one();
                return is_free.then(|| Served::Seat(Seat(self.clone()))).ok_or(refusal::PENDING_FULL);
            }
            let entry = Arc::new(Entry { place, served: Notify::new(), is_kept: AtomicBool::new(false) });
            queue.entries.push_back(entry.clone());
            self.waiting.fetch_add(1, SeqCst);
            self.serve(&mut queue);
            queue.callers.iter().for_each(|caller| caller.0.notify_one());
            entry
        };
        let mut waiting = Waiting { seats: self, entry, handed, is_over: false };
        match patience {
            None => waiting.entry.served.notified().await,
            Some(patience) => {
                let served = timeout(patience, waiting.entry.served.notified()).await;
                served.map_err(|_| refusal::PENDING_TIMEOUT)?;
            }
        }
        Ok(waiting.served())
    }

    /// Gives free seats to those who wait.
    fn serve(&self, queue: &mut Queue) {
        while !queue.entries.is_empty() && self.count_one() {
            let Some(entry) = queue.entries.pop_front() else { return };
            self.waiting.fetch_sub(1, SeqCst);
            entry.served.notify_one();
        }
    }

    /// Counts one that was turned away, and says so now and then.
    pub fn overflowed(&self, upstream: &str, events: &Events) {
        self.overflows.fetch_add(1, Relaxed);
        let (now, told) = (clock::now(), self.told.load(Relaxed));
        let is_due = now >= told + EVENT_GAP && self.told.compare_exchange(told, now, Relaxed, Relaxed).is_ok();
        if is_due {
            let (taken, waiting) = (self.taken(), self.waiting());
            let message = format!("{upstream} has {taken} connections, and {waiting} wait for one: no more may");
            events.push(Event::new(Level::Warning, "pending_full", message).with("upstream", upstream));
        }
    }

    /// Tells `caller` from now on when somebody waits: its worker keeps idle connections.
    pub fn enlist(&self, caller: &Arc<Caller>) {
        let mut queue = self.lock();
        if !queue.callers.iter().any(|known| Arc::ptr_eq(known, caller)) {
            queue.callers.push(caller.clone());
        }
    }

    /// Hands a connection that is idle now to the first of those who wait, if it waits for that one; else gives it
    /// back.
    pub fn hand_over(&self, place: Place, kept: Kept, handed: &Handed) -> Option<Kept> {
        let mut queue = self.lock();
        match queue.entries.front() {
            Some(entry) if entry.place == Some(place) => {
                entry.is_kept.store(true, Relaxed);
                handed.0.borrow_mut().push((entry.clone(), kept));
                entry.served.notify_one();
                queue.entries.pop_front();
                self.waiting.fetch_sub(1, SeqCst);
                None
            }
            _ => Some(kept),
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.0.taken.fetch_sub(1, SeqCst);
        if self.0.is_wanted() {
            self.0.serve(&mut self.0.lock());
        }
    }
}

/// A place in the queue, or what came of it; left when dropped.
struct Waiting<'w> {
    seats: &'w Arc<Seats>,
    entry: Arc<Entry>,
    handed: &'w Handed,
    is_over: bool,
}

impl Waiting<'_> {
    fn served(&mut self) -> Served {
        self.is_over = true;
        let kept = self.entry.is_kept.load(Relaxed).then(|| self.handed.take(&self.entry)).flatten();
        kept.map_or_else(|| Served::Seat(Seat(self.seats.clone())), Served::Kept)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if self.is_over {
            return;
        }
        let mut queue = self.seats.lock();
        let place = queue.entries.iter().position(|entry| Arc::ptr_eq(entry, &self.entry));
        if let Some(place) = place {
            queue.entries.remove(place);
            self.seats.waiting.fetch_sub(1, SeqCst);
        } else {
            drop(queue);
            // It was served in the moment in which it left.
            drop(self.served());
        }
    }
}

impl Handed {
    fn take(&self, entry: &Arc<Entry>) -> Option<Kept> {
        let mut handed = self.0.borrow_mut();
        let place = handed.iter().position(|(whom, _)| Arc::ptr_eq(whom, entry))?;
        Some(handed.swap_remove(place).1)
    }
}
