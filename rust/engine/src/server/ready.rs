//! Keeps connections to endpoints ready that the configuration wants to be dialled ahead.

use std::collections::HashSet;
use std::rc::Rc;
use std::time::Duration;

use tokio::time::timeout;

use super::state::State;
use super::worker::Worker;

/// How often the rest is looked at: what was closed, endpoints that came, pauses that are over.
const LOOK: Duration = Duration::from_secs(1);

/// Dials what is missing, now and whenever one was taken.
pub async fn keep_ready(worker: Rc<Worker>) {
    loop {
        // Whoever was told, or had to wait no longer.
        let _ = timeout(LOOK, worker.pools.ahead.spent.notified()).await;
        let Some(state) = worker.shared.state() else { continue };
        replenish(&worker, &state);
    }
}

fn replenish(worker: &Rc<Worker>, state: &State) {
    let mut wanted = HashSet::new();
    let readied = if worker.shared.is_draining() { &[][..] } else { &state.readied };
    for (index, kind) in readied {
        let upstream = &state.upstreams[*index];
        for (endpoint, key) in upstream.readied(*kind) {
            wanted.insert(key);
            for _ in 0..upstream.lacks(&key, &worker.pools) {
                let (worker, upstream, endpoint) = (worker.clone(), upstream.clone(), endpoint.clone());
                tokio::task::spawn_local(async move { upstream.dial_ahead(&endpoint, key, &worker.pools).await });
            }
        }
    }
    worker.pools.retain_ahead(|key| wanted.contains(key));
    worker.pools.ahead.retain(|key| wanted.contains(key));
}
