//! A TCP connection from its opening to its record: lease, pipe, log, counters.

use std::cell::RefCell;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Context, Poll, ready};

use super::super::reply::write_log;
use super::super::worker::Worker;
use super::leases::Lease;
use super::{Link, Opening, drain};
use crate::error::Cause;
use crate::io::clock;
use crate::log::{self, Kind};
use crate::relay::{Limits, Pipe, Piping};

/// Hands the connection over to a pipe. The task that dialled ends here, and its memory goes.
pub fn begin(worker: &Rc<Worker>, opening: Opening, link: Link) {
    let Opening { state, listener, session, started, upstream, server_name, attempts } = opening;
    let settings = state.snapshot.listeners[listener].tcp.as_ref();
    let limits =
        Limits { idle: settings.and_then(|tcp| tcp.idle), lifetime: settings.and_then(|tcp| tcp.max_lifetime) };
    let listener = state.listeners[listener].name.clone();
    let upstream = upstream.map_or_else(|| "".into(), |index| state.upstreams[index].name.clone());
    let counters = worker.pipes.tallies.counters(&listener, &upstream);
    let (stream, early, downstream) = session.into_parts();
    let (id, client, connection) = (downstream.id, downstream.peer.map(|peer| peer.ip()), downstream.permit);
    let pipe = Pipe::new(stream, &early, link.stream, limits, counters.bytes.clone());
    let endpoint = link.endpoint;
    let server_name = server_name.map(Into::into);
    let opened = clock::now();
    let lease = Lease { id, listener, upstream, client, server_name, opened, counters, endpoint, connection };
    let open = log::TcpOpen { duration: lease.opened - started };
    write_log(&state, log::Exchange { attempts, ..facts(&lease) }, Kind::TcpOpen(open));
    let late = drain::lateness(worker, &state, &lease);
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
        self.worker.pipes.tallies.closed(&lease.listener, &lease.upstream, &lease.counters, cause, lasted);
        if let Some(state) = self.worker.shared.state() {
            let pipe = self.piping.0.borrow();
            let [bytes_in, bytes_out] = pipe.received();
            let cause = cause.label();
            let close = log::TcpClose { cause, bytes_in, bytes_out, discarded: pipe.discarded(), duration: lasted };
            write_log(&state, facts(&lease), Kind::TcpClose(close));
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

fn facts(lease: &Lease) -> log::Exchange<'_> {
    log::Exchange {
        connection: lease.id,
        listener: &lease.listener,
        client: lease.client,
        protocol: "tcp",
        upstream: Some(&*lease.upstream).filter(|name| !name.is_empty()),
        endpoint: lease.endpoint.as_ref().map(|permit| &*permit.endpoint().name),
        host: lease.server_name.as_deref().map(str::as_bytes),
        upstream_protocol: lease.endpoint.as_ref().map(|_| "tcp"),
        ..log::Exchange::default()
    }
}
