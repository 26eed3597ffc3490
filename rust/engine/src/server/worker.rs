//! A worker: one thread, one single-threaded runtime, and the connections that live on it until their end.

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;

use serde_json::Value;
use tokio::runtime::LocalRuntime;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender};

use super::accept::{self, Accepted};
use super::admission;
use super::drain::{self, Pace};
use super::h3::{self, QuicSocket};
use super::handshakes::Turns;
use super::leases::Leases;
use super::listening::ListenSocket;
use super::permit::Permit;
use super::pipes::{self, Pipes};
use super::probing::{self, Probe};
use super::ready::keep_ready;
use super::shared::Shared;
use super::tally::Tallies;
use crate::error::Cause;
use crate::io::{Loose, turns};
use crate::metrics::Metrics;
use crate::relay::Order;
use crate::upstream::Pools;

/// How often idle upstream connections are looked at.
const SWEEP: Duration = Duration::from_secs(1);

/// What a worker is told to do.
#[derive(Debug)]
pub enum Command {
    /// Accept connections from this socket, until its gate closes.
    Listen(Arc<ListenSocket>),
    /// Accept connections of QUIC from this socket, until its gate closes.
    ListenQuic(Arc<QuicSocket>),
    /// Serve a connection that another worker accepted.
    Serve(Loose, Option<SocketAddr>, Permit),
    /// The configuration has changed: drain the WebSockets that it has no place for any more.
    Reconcile,
    /// Close all WebSockets at this pace.
    Drain(Pace),
    /// End all TCP connections and tunnels at this pace.
    DrainPipes(pipes::Pace),
    /// Close one WebSocket, TCP connection or tunnel; answers whether it was here.
    Close(u64, Order, std::sync::mpsc::Sender<bool>),
    /// Describe the live WebSockets, TCP connections and tunnels.
    Describe(std::sync::mpsc::Sender<Vec<Value>>),
    /// Check the health of an endpoint.
    Probe(Box<Probe>),
    /// End everything that is left.
    Cut,
    /// End the thread.
    Stop,
}

/// How other threads reach a worker.
#[derive(Clone, Debug)]
pub struct WorkerHandle {
    pub commands: UnboundedSender<Command>,
    pub metrics: Arc<Metrics>,
    /// Connections on it.
    pub load: Arc<AtomicUsize>,
}

/// A worker, as its own tasks see it.
#[derive(Debug)]
pub struct Worker {
    /// Its place among all of them.
    pub index: usize,
    pub shared: Arc<Shared>,
    /// All workers, this one included.
    pub peers: Arc<Vec<WorkerHandle>>,
    pub load: Arc<AtomicUsize>,
    pub leases: Leases,
    pub pipes: Pipes,
    pub pools: Pools,
    pub tallies: Tallies,
    /// Of TLS handshakes.
    pub turns: Turns,
}

/// Runs a worker until it is told to stop.
pub fn run(index: usize, shared: Arc<Shared>, peers: Arc<Vec<WorkerHandle>>, commands: UnboundedReceiver<Command>) {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build_local(Default::default()) {
        Ok(runtime) => runtime,
        Err(error) => {
            return shared.say(crate::log::Level::Error, "worker", format!("cannot start worker {index}: {error}"));
        }
    };
    let (metrics, load) = (peers[index].metrics.clone(), peers[index].load.clone());
    let (tallies, pipes) = (Tallies::new(metrics.clone()), Pipes::new(metrics));
    let (leases, pools, turns) = (Leases::default(), Pools::default(), Turns::default());
    let worker = Rc::new(Worker { index, shared, peers, load, leases, pipes, pools, tallies, turns });
    serve(&runtime, &worker, commands);
}

fn serve(runtime: &LocalRuntime, worker: &Rc<Worker>, mut commands: UnboundedReceiver<Command>) {
    runtime.block_on(async {
        tokio::task::spawn_local(keep_time(worker.clone()));
        tokio::task::spawn_local(keep_pipes_time(worker.clone()));
        tokio::task::spawn_local(sweep(worker.clone()));
        tokio::task::spawn_local(turns::keep());
        tokio::task::spawn_local(answer_calls(worker.clone()));
        tokio::task::spawn_local(keep_ready(worker.clone()));
        while let Some(command) = commands.recv().await {
            if matches!(command, Command::Stop) {
                break;
            }
            worker.obey(command);
        }
    });
}

async fn keep_time(worker: Rc<Worker>) {
    loop {
        let (when, id) = worker.leases.timers.next().await;
        worker.leases.on_time(when, id);
    }
}

async fn keep_pipes_time(worker: Rc<Worker>) {
    loop {
        let (when, id) = worker.pipes.live.timers.next().await;
        worker.pipes.live.on_time(when, id);
    }
}

async fn sweep(worker: Rc<Worker>) {
    loop {
        tokio::time::sleep(SWEEP).await;
        worker.pools.sweep();
    }
}

async fn answer_calls(worker: Rc<Worker>) {
    worker.pools.answer_calls().await;
}

impl Worker {
    fn obey(self: &Rc<Self>, command: Command) {
        match command {
            Command::Listen(socket) => {
                tokio::task::spawn_local(accept::run(self.clone(), socket));
            }
            Command::ListenQuic(socket) => {
                tokio::task::spawn_local(h3::listen(self.clone(), socket));
            }
            Command::Serve(loose, peer, permit) => {
                if let Ok(raw) = loose.attach() {
                    accept::serve(self, Accepted { raw, peer, permit });
                }
            }
            Command::Reconcile => {
                admission::adopt(self);
                drain::reconcile(self);
                pipes::reconcile(self);
                self.pools.ahead.spent.notify_one();
            }
            Command::Drain(pace) => drain::everything(self, &pace),
            Command::DrainPipes(pace) => pipes::drain(self, pace),
            Command::Close(id, order, answer) => {
                let _ = answer.send(self.leases.close(id, &order) || self.pipes.close(id, order.cause));
            }
            Command::Describe(answer) => {
                let _ = answer.send([self.leases.describe(), self.pipes.describe()].concat());
            }
            Command::Probe(probe) => {
                tokio::task::spawn_local(probing::run(self.clone(), *probe));
            }
            Command::Cut => {
                self.leases.cut(Cause::Drain);
                self.pipes.cut(Cause::Drain);
                self.pools.clear();
            }
            Command::Stop => {}
        }
    }
}
