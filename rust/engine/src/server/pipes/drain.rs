//! Ending live pipes on purpose.
//!
//! Nobody can be told: an end of ours comes in the middle of whatever is said. So a drain leaves them alone for as long
//! as it may, and most end by themselves. The others end within the last `window` before the cut, one after the other,
//! because clients that come back in the same instant are an attack on whatever takes their place; those that have been
//! silent for longest go first, because they have the least to lose.

use std::rc::Rc;
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use super::super::state::State;
use super::super::worker::Worker;
use super::leases::{About, Lease};
use crate::error::Cause;
use crate::snapshot::OnChange;

/// At least this many a second, so that a few connections do not take the whole window.
const SLOWEST: u64 = 50;

/// When connections are ended.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// From now to the first one.
    after: Duration,
    /// From the first one to the last one, over all workers together.
    spread: Duration,
    cause: Cause,
}

impl Pace {
    /// Spreads `count` ends over at most `window` from now on.
    fn now(count: usize, window: u64, cause: Cause) -> Self {
        let spread = Duration::from_millis(window.min(count as u64 * 1000 / SLOWEST));
        Self { after: Duration::ZERO, spread, cause }
    }

    /// Spreads `count` ends over at most `window`, so that the last one comes after `patience`.
    pub fn last(count: usize, window: u64, patience: u64) -> Self {
        let pace = Self::now(count, window.min(patience), Cause::Drain);
        Self { after: Duration::from_millis(patience).saturating_sub(pace.spread), ..pace }
    }
}

/// Ends every pipe that this worker has when the pace begins.
pub fn drain(worker: &Rc<Worker>, pace: Pace) {
    let worker = worker.clone();
    tokio::task::spawn_local(async move {
        tokio::time::sleep(pace.after).await;
        let ids = worker.pipes.select(|_| true);
        close_paced(&worker, ids, pace).await;
    });
}

/// Ends the pipes that the running configuration has no place for.
pub fn reconcile(worker: &Rc<Worker>) {
    let Some(state) = worker.shared.state() else { return };
    worker.pipes.tallies.forget_idle();
    let ids = worker.pipes.select(|lease| !stays(&state, lease));
    if ids.is_empty() {
        return;
    }
    let pace = Pace::now(ids.len() * worker.peers.len(), state.snapshot.drain.window, Cause::Reload);
    let worker = worker.clone();
    tokio::task::spawn_local(async move { close_paced(&worker, ids, pace).await });
}

async fn close_paced(worker: &Rc<Worker>, ids: Vec<u64>, pace: Pace) {
    let (start, count) = (Instant::now(), ids.len() as u32);
    for (position, id) in ids.into_iter().enumerate() {
        sleep_until(start + pace.spread * position as u32 / count).await;
        worker.pipes.close(id, pace.cause);
    }
}

fn stays(state: &State, lease: &Lease) -> bool {
    let Some(listener) = state.listener(&lease.connection.listening.key) else { return false };
    if has_departed(lease) {
        return false;
    }
    let is_tcp = state.listeners[listener].tcp.is_some();
    let may_stay = match &lease.about {
        About::Tcp { .. } => is_tcp,
        About::Tunnel(tunnel) => {
            !is_tcp
                && state.route(&tunnel.route).is_some_and(|route| {
                    let changed = state.routes[route].fingerprint != tunnel.fingerprint;
                    !(changed && state.snapshot.routes[route].on_change == OnChange::Drain)
                })
        }
    };
    may_stay && (lease.endpoint.is_none() || state.upstreams.iter().any(|one| one.name == lease.upstream))
}

/// Whether it is at an endpoint that has left, and may not stay there.
fn has_departed(lease: &Lease) -> bool {
    lease.endpoint.as_ref().is_some_and(|permit| permit.endpoint().is_draining())
}

/// Why a pipe that has just been opened must end at once: others like it were ended while it was under way, and
/// nobody would come for this one again. `decided` is the state that let it in.
pub fn lateness(worker: &Worker, decided: &State, lease: &Lease) -> Option<Cause> {
    if has_departed(lease) {
        return Some(Cause::Reload);
    }
    let state = worker.shared.state()?;
    (state.generation != decided.generation && !stays(&state, lease)).then_some(Cause::Reload)
}
