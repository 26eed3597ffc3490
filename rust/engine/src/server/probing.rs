//! Health checks on their way: begun by the control plane, made by a worker, and their verdicts until they are taken.

use std::rc::Rc;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::worker::Worker;
use crate::snapshot::Endpoint;
use crate::upstream::Upstream;

/// A check to be made.
#[derive(Debug)]
pub struct Probe {
    /// Whoever asked knows it by this.
    pub number: u64,
    pub upstream: Arc<Upstream>,
    pub endpoint: Endpoint,
}

/// The number of a check, and why it failed; none where it did not.
pub type Verdict = (u64, Option<String>);

/// Verdicts that nobody has taken yet. There are never more than checks that were asked for.
#[derive(Debug, Default)]
pub struct Verdicts {
    waiting: Mutex<Vec<Verdict>>,
    arrived: Condvar,
}

impl Verdicts {
    fn push(&self, verdict: Verdict) {
        self.lock().push(verdict);
        self.arrived.notify_one();
    }

    /// All of them; waits for one up to `patience`.
    pub fn wait(&self, patience: Duration) -> Vec<Verdict> {
        let is_empty = |waiting: &mut Vec<Verdict>| waiting.is_empty();
        let waited = self.arrived.wait_timeout_while(self.lock(), patience, is_empty);
        let (mut waiting, _) = waited.unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut *waiting)
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Verdict>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Makes a check.
pub async fn run(worker: Rc<Worker>, probe: Probe) {
    let Probe { number, upstream, endpoint } = probe;
    let events = &worker.shared.events;
    let failure = upstream.probe(&endpoint, events).await.err();
    worker.shared.verdicts.push((number, failure));
    // Ejections end by themselves, and with them perhaps a panic: of the upstream that runs now.
    if let Some(state) = worker.shared.state() {
        state
            .upstreams
            .iter()
            .filter(|running| running.name == upstream.name)
            .for_each(|running| running.review(events));
    }
}
