//! Ending live WebSockets on purpose: all of them in a drain, some after a reload. Never all at once: clients that
//! come back in the same instant are an attack on whatever takes their place.

use std::rc::Rc;
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use super::leases::Lease;
use super::state::State;
use super::worker::Worker;
use crate::error::Cause;
use crate::io::clock::{self, Millis};
use crate::io::random;
use crate::relay::Order;
use crate::snapshot::OnChange;

/// At least this many a second, so that a few connections do not take the whole window.
const SLOWEST: u64 = 50;
/// The longest time after which a client is told to come back, in seconds.
const LONGEST_RETRY: u64 = 15;

/// How fast WebSockets are closed.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// Over all workers together.
    pub spread: Duration,
    /// Until when each may wait for the end of a message.
    pub until: Millis,
    pub cause: Cause,
    pub reason: &'static str,
}

impl Pace {
    /// Spreads `count` closes evenly over at most `window`; each waits for the end of a message until all `patience`,
    /// counted from now, is used up.
    pub fn new(count: usize, window: u64, patience: u64, cause: Cause) -> Self {
        let spread = Duration::from_millis(window.min(count as u64 * 1000 / SLOWEST));
        let reason = if cause == Cause::Drain { "gw: drain" } else { "gw: reload" };
        Self { spread, until: clock::now() + patience, cause, reason }
    }
}

/// Closes every WebSocket of this worker.
pub fn everything(worker: &Rc<Worker>, pace: &Pace) {
    worker.pools.clear();
    close_paced(worker, worker.leases.select(|_| true), *pace);
}

/// Closes the WebSockets that the running configuration has no place for, or whose route or upstream wants it.
pub fn reconcile(worker: &Rc<Worker>) {
    let Some(state) = worker.shared.state() else { return };
    let ids = worker.leases.select(|lease| !stays(&state, lease));
    let drain = state.snapshot.drain;
    let pace = Pace::new(ids.len() * worker.peers.len(), drain.window, drain.timeout, Cause::Reload);
    close_paced(worker, ids, pace);
}

fn stays(state: &State, lease: &Lease) -> bool {
    let Some(route) = state.route(&lease.route) else { return false };
    if has_departed(lease) {
        return false;
    }
    let has_upstream = lease.endpoint.is_none() || state.upstreams.iter().any(|up| up.name == lease.upstream);
    let has_listener = state.listener(&lease.connection.listening.key).is_some();
    let changed = state.routes[route].fingerprint != lease.fingerprint;
    has_upstream && has_listener && !(changed && state.snapshot.routes[route].on_change == OnChange::Drain)
}

/// Whether it is at an endpoint that has left, and may not stay there.
fn has_departed(lease: &Lease) -> bool {
    lease.endpoint.as_ref().is_some_and(|permit| permit.endpoint().is_draining())
}

fn close_paced(worker: &Rc<Worker>, ids: Vec<u64>, pace: Pace) {
    if ids.is_empty() {
        return;
    }
    let worker = worker.clone();
    tokio::task::spawn_local(async move {
        let (start, count) = (Instant::now(), ids.len() as u32);
        for (position, id) in ids.into_iter().enumerate() {
            sleep_until(start + pace.spread * position as u32 / count).await;
            worker.leases.close(id, &order(&worker, id, &pace));
        }
    });
}

fn order(worker: &Worker, id: u64, pace: &Pace) -> Order {
    let retry = 1 + random::number() % LONGEST_RETRY;
    Order {
        cause: pace.cause,
        code: worker.leases.drain_code(id),
        reason: pace.reason.into(),
        retry: Some(retry as u8),
        patience: pace.until.saturating_sub(clock::now()),
    }
}

/// Why a WebSocket whose handshake is done must end at once: others like it were closed while it was under way, and
/// nobody would come for this one again. `decided` is the state that let it in.
pub fn lateness(worker: &Worker, decided: &State, lease: &Lease) -> Option<Cause> {
    if worker.shared.is_draining() && lease.connection.listening.gate.is_closed() {
        return Some(Cause::Drain);
    }
    if has_departed(lease) {
        return Some(Cause::Reload);
    }
    let state = worker.shared.state()?;
    (state.generation != decided.generation && !stays(&state, lease)).then_some(Cause::Reload)
}

/// Closes one that came too late.
pub fn close_latecomer(worker: &Worker, id: u64, cause: Cause) {
    worker.leases.close(id, &order(worker, id, &Pace::new(0, 0, 0, cause)));
}
