//! A pipe from its opening to its record: lease, counters, log.

use std::cell::RefCell;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Context, Poll, ready};

use super::super::reply::write_log;
use super::super::state::State;
use super::super::worker::Worker;
use super::drain;
use super::leases::Lease;
use crate::error::Cause;
use crate::io::clock;
use crate::log::{self, Kind};
use crate::relay::{Pipe, Piping};

/// Sets a pipe going. `decided` is the state that let it in. The task that dialled ends here, and its memory goes.
pub fn begin(worker: &Rc<Worker>, decided: &State, pipe: Pipe, lease: Lease) {
    let (id, late) = (lease.id, drain::lateness(worker, decided, &lease));
    lease.counters.open();
    worker.shared.pipes.fetch_add(1, Relaxed);
    let pipe = Rc::new(RefCell::new(pipe));
    worker.pipes.live.insert(id, pipe.clone(), lease);
    if let Some(cause) = late {
        worker.pipes.close(id, cause);
    }
    tokio::task::spawn_local(Tracked { worker: worker.clone(), id, piping: Piping(pipe) });
}

/// A pipe's task: drives it, keeps its deadline known, and closes the books at the end, also when it panics.
struct Tracked {
    worker: Rc<Worker>,
    id: u64,
    piping: Piping,
}

impl Future for Tracked {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let polled = Pin::new(&mut self.piping).poll(cx);
        if self.piping.0.borrow_mut().take_hurried() {
            self.worker.pipes.live.arm(self.id);
        }
        let cause = ready!(polled);
        self.finish(cause);
        Poll::Ready(())
    }
}

impl Tracked {
    fn finish(&self, cause: Cause) {
        let Some(lease) = self.worker.pipes.live.remove(self.id) else { return };
        let lasted = clock::now() - lease.opened;
        self.worker.pipes.tallies.closed(&lease.counters, cause, lasted);
        if let Some(state) = self.worker.shared.state() {
            let pipe = self.piping.0.borrow();
            let [bytes_in, bytes_out] = pipe.received();
            let cause = cause.label();
            let close = log::PipeClose { cause, bytes_in, bytes_out, discarded: pipe.discarded(), duration: lasted };
            write_log(&state, lease.facts(), Kind::PipeClose(close));
        }
        release(&self.worker, &lease);
    }
}

impl Drop for Tracked {
    fn drop(&mut self) {
        // Only a task that did not come to its end still has its lease.
        if let Some(lease) = self.worker.pipes.live.remove(self.id) {
            release(&self.worker, &lease);
        }
    }
}

fn release(worker: &Worker, lease: &Lease) {
    lease.counters.leave();
    worker.shared.pipes.fetch_sub(1, Relaxed);
}
