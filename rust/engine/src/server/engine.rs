//! The engine as its owner sees it: prepare, commit, drain, stop.

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::sync::mpsc::unbounded_channel;

use super::drain::Pace;
use super::h3::{self, QuicSocket, speaks_h3};
use super::listening::{BindKey, ListenSocket};
use super::pipes;
use super::probing::{Probe, Verdict};
use super::shared::Shared;
use super::state::{Secrets, State, bind_keys};
use super::worker::{self, Command, WorkerHandle};
use crate::error::{Cause, Fault};
use crate::io::{BindError, room};
use crate::log::Level;
use crate::metrics::{self, Metrics};
use crate::relay::Order;
use crate::snapshot::{Bind, Endpoint, Found, Listener, Snapshot};
use crate::upstream::Upstream;

/// How long a worker may take to answer a question.
const ANSWER: Duration = Duration::from_secs(2);
/// How long a close by the operator waits for the end of a message, in milliseconds.
const KILL_PATIENCE: u64 = 5_000;
/// How long before the cut of a drain the last Close goes out, in milliseconds.
const LAST_WORDS: u64 = 2_000;
/// How long WebSockets that are cut may take to write their records.
const CUT: Duration = Duration::from_millis(500);

/// Worker threads and what they serve.
#[derive(Debug)]
pub struct Engine {
    shared: Arc<Shared>,
    workers: Arc<Vec<WorkerHandle>>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    /// What listens now. Held through prepare and commit, so that one change at a time is made.
    sockets: Mutex<HashMap<BindKey, Arc<ListenSocket>>>,
    /// Those of them that have an endpoint of QUIC beside them. Locked behind `sockets`.
    quic: Mutex<HashMap<BindKey, Arc<QuicSocket>>>,
    /// The upstreams of what was prepared last: they are checked before they serve.
    preparing: Mutex<Vec<Arc<Upstream>>>,
}

/// A configuration that is built and bound, but not serving.
#[derive(Debug)]
pub struct Prepared {
    state: State,
    bound: HashMap<BindKey, Arc<ListenSocket>>,
    quic: HashMap<BindKey, Arc<QuicSocket>>,
}

impl Engine {
    /// Starts `workers` threads; one for each core that this process may use when not said.
    ///
    /// # Errors
    /// When a thread cannot be started.
    pub fn start(workers: Option<usize>) -> std::io::Result<Self> {
        let count = workers.unwrap_or_else(|| thread::available_parallelism().map_or(1, usize::from)).max(1);
        // A page of 2 MiB that is touched first is cleared by whoever touches it: for hundreds of microseconds, on a
        // virtual machine for milliseconds, nothing else would move. Without leave from the kernel it works as well.
        let _ = rustix::thread::disable_transparent_huge_pages(true);
        room::prepare();
        let shared = Arc::new(Shared::default());
        let (handles, receivers): (Vec<_>, Vec<_>) = (0..count)
            .map(|_| {
                let (commands, receiver) = unbounded_channel();
                let handle = WorkerHandle { commands, metrics: Arc::new(Metrics::default()), load: Arc::default() };
                (handle, receiver)
            })
            .unzip();
        let workers = Arc::new(handles);
        let mut threads = Vec::with_capacity(count);
        for (index, receiver) in receivers.into_iter().enumerate() {
            let (shared, workers) = (shared.clone(), workers.clone());
            let work = move || worker::run(index, shared, workers, receiver);
            threads.push(thread::Builder::new().name(format!("worker-{index}")).spawn(work)?);
        }
        Ok(Self {
            shared,
            workers,
            threads: Mutex::new(threads),
            sockets: Mutex::default(),
            quic: Mutex::default(),
            preparing: Mutex::default(),
        })
    }

    /// Builds everything from `snapshot` and binds what is new. Nothing changes for what runs.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn prepare(&self, snapshot: Snapshot, secrets: &Secrets) -> Result<Prepared, Vec<Fault>> {
        let running = self.shared.state();
        let state = State::build(snapshot, secrets, running.as_deref())?;
        let sockets = self.sockets.lock().unwrap_or_else(PoisonError::into_inner);
        let bound = bind_new(&state.snapshot, &sockets)?;
        let quic = self.quic.lock().unwrap_or_else(PoisonError::into_inner);
        let quic = bind_quic(&state.snapshot, &quic, |key| sockets.get(key).or_else(|| bound.get(key))?.bound())?;
        *self.preparing.lock().unwrap_or_else(PoisonError::into_inner) = state.upstreams.clone();
        Ok(Prepared { state, bound, quic })
    }

    /// Serves from `prepared` at once. What left the configuration drains.
    pub fn commit(&self, prepared: Prepared) -> u64 {
        let mut sockets = self.sockets.lock().unwrap_or_else(PoisonError::into_inner);
        let Prepared { state, bound, quic } = prepared;
        let generation = state.generation;
        self.preparing.lock().unwrap_or_else(PoisonError::into_inner).clear();
        let gone: Vec<BindKey> = sockets.keys().filter(|key| state.listener(key).is_none()).cloned().collect();
        let speaking: HashSet<BindKey> = quic_keys(&state.snapshot).map(|(_, _, key)| key).collect();
        for listener in &state.snapshot.listeners {
            bind_keys(listener)
                .filter_map(|key| sockets.get(&key))
                .for_each(|one| one.set_liveness(&listener.liveness));
        }
        self.shared.state.store(Some(Arc::new(state)));
        for (turn, (key, socket)) in bound.into_iter().enumerate() {
            self.tell(turn % self.workers.len(), Command::Listen(socket.clone()));
            sockets.insert(key, socket);
        }
        for key in gone {
            if let Some(socket) = sockets.remove(&key) {
                socket.close();
            }
        }
        drop(sockets);
        self.commit_quic(quic, &speaking);
        // Where accepting pauses at a limit, the limit may be another one now. The second call is for who is about to
        // wait.
        for freed in self.shared.state().iter().flat_map(|state| &state.listeners).map(|one| &one.occupancy.freed) {
            freed.notify_waiters();
            freed.notify_one();
        }
        for upstream in self.shared.state().iter().flat_map(|state| &state.upstreams) {
            upstream.commit(&self.shared.events);
        }
        self.tell_all(|| Command::Reconcile);
        generation
    }

    fn commit_quic(&self, bound: HashMap<BindKey, Arc<QuicSocket>>, speaking: &HashSet<BindKey>) {
        let mut quic = self.quic.lock().unwrap_or_else(PoisonError::into_inner);
        for (turn, (key, socket)) in bound.into_iter().enumerate() {
            self.tell(turn % self.workers.len(), Command::ListenQuic(socket.clone()));
            quic.insert(key, socket);
        }
        quic.retain(|key, socket| {
            let stays = speaking.contains(key);
            if !stays {
                socket.close();
            }
            stays
        });
    }

    /// Stops to take connections; those that are open are told to come to an end.
    fn close_sockets(&self) {
        for (_, socket) in self.sockets.lock().unwrap_or_else(PoisonError::into_inner).drain() {
            socket.close();
        }
        for (_, socket) in self.quic.lock().unwrap_or_else(PoisonError::into_inner).drain() {
            socket.close();
        }
    }

    /// Replaces the endpoints of a running upstream.
    ///
    /// # Errors
    /// When there is no such upstream, or an endpoint wants TLS that it has none for.
    pub fn set_endpoints(&self, upstream: &str, endpoints: &[Endpoint]) -> Result<(), Fault> {
        let found = self.upstream(upstream)?;
        if found.tls().is_none() && endpoints.iter().any(|endpoint| endpoint.tls.is_some()) {
            return Err(Fault::new("", format!("an endpoint of {upstream} wants TLS, and there is none")));
        }
        if found.set_endpoints(endpoints, &self.shared.events) {
            self.tell_all(|| Command::Reconcile);
        }
        Ok(())
    }

    /// What the health checks have found out about endpoints of an upstream that runs, or of one that was prepared.
    ///
    /// # Errors
    /// When there is no such upstream.
    pub fn set_health(&self, upstream: &str, found: &[Found]) -> Result<(), Fault> {
        let [running, prepared] = self.both(upstream)?;
        for one in running.iter().chain(&prepared) {
            one.set_health(found, &self.shared.events);
        }
        Ok(())
    }

    /// Begins a health check of an endpoint of an upstream that runs, or was prepared. What comes of it is among the
    /// [`Engine::verdicts`], by its number.
    ///
    /// # Errors
    /// When there is no such upstream.
    pub fn probe(&self, number: u64, upstream: &str, endpoint: Endpoint) -> Result<(), Fault> {
        let [running, prepared] = self.both(upstream)?;
        let Some(upstream) = running.filter(|one| one.has_checks() || prepared.is_none()).or(prepared) else {
            return Ok(());
        };
        let worker = (number % self.workers.len() as u64) as usize;
        self.tell(worker, Command::Probe(Box::new(Probe { number, upstream, endpoint })));
        Ok(())
    }

    /// What came of health checks; waits up to `patience` for something.
    pub fn verdicts(&self, patience: Duration) -> Vec<Verdict> {
        self.shared.verdicts.wait(patience)
    }

    /// The upstream of this name that runs, and the one that was prepared: there is at least one of them.
    fn both(&self, name: &str) -> Result<[Option<Arc<Upstream>>; 2], Fault> {
        let preparing = self.preparing.lock().unwrap_or_else(PoisonError::into_inner);
        let prepared = preparing.iter().find(|one| *one.name == *name).cloned();
        let running = self.upstream(name);
        if prepared.is_none() { Ok([Some(running?), None]) } else { Ok([running.ok(), prepared]) }
    }

    fn upstream(&self, name: &str) -> Result<Arc<Upstream>, Fault> {
        let state = self.shared.state();
        let found = state.as_ref().and_then(|state| state.upstreams.iter().find(|one| *one.name == *name));
        found.cloned().ok_or_else(|| Fault::new("", format!("no upstream is called {name}")))
    }

    /// The addresses that listen now, by listener.
    pub fn listeners(&self) -> Value {
        let Some(state) = self.shared.state() else { return json!([]) };
        let sockets = self.sockets.lock().unwrap_or_else(PoisonError::into_inner);
        let describe = |listener: &crate::snapshot::Listener| {
            let addresses: Vec<&str> =
                bind_keys(listener).filter_map(|key| sockets.get(&key)).map(|s| &*s.listening.address).collect();
            json!({"name": listener.name, "addresses": addresses})
        };
        state.snapshot.listeners.iter().map(describe).collect()
    }

    /// All counters, summed.
    pub fn metrics(&self) -> Value {
        let own = Metrics::default();
        self.measure(&own);
        metrics::sum(self.workers.iter().map(|worker| &*worker.metrics).chain([&own]))
    }

    /// What is not counted by workers but can be seen.
    fn measure(&self, own: &Metrics) {
        own.counter("tidegate_panics_total", &[]).add(self.shared.panics.load(Relaxed));
        for (index, worker) in self.workers.iter().enumerate() {
            let load = worker.load.load(Relaxed) as u64;
            own.gauge("tidegate_worker_connections", &[("worker", &index.to_string())]).add(load);
        }
        for socket in self.sockets.lock().unwrap_or_else(PoisonError::into_inner).values() {
            let listening = &socket.listening;
            own.gauge("tidegate_connections", &[("address", &listening.address)]).add(listening.open.load(Relaxed));
        }
        for socket in self.quic.lock().unwrap_or_else(PoisonError::into_inner).values() {
            let listening = &socket.listening;
            own.gauge("tidegate_connections", &[("address", &listening.address)]).add(listening.open.load(Relaxed));
        }
        let Some(state) = self.shared.state() else { return };
        own.gauge("tidegate_config_generation", &[]).add(state.generation);
        if let Some(sink) = &state.access_log {
            own.counter("tidegate_log_dropped_total", &[]).add(sink.dropped());
        }
        for upstream in &state.upstreams {
            let (labels, seats) = ([("upstream", &*upstream.name)], upstream.seats());
            own.gauge("tidegate_upstream_connections", &labels).add(seats.taken());
            own.gauge("tidegate_upstream_pending", &labels).add(seats.waiting());
            own.counter("tidegate_upstream_overflows_total", &labels).add(seats.overflows());
            if let Some(is_panicking) = upstream.is_panicking() {
                own.gauge("tidegate_upstream_panic", &labels).add(is_panicking.into());
                own.counter("tidegate_upstream_panics_total", &labels).add(upstream.panic_count());
            }
            if let Some(serving) = upstream.serving() {
                own.gauge("tidegate_upstream_priority", &labels).add(u64::from(serving.priority()));
                own.gauge("tidegate_upstream_spilled_percent", &labels).add(serving.spilled());
            }
            let endpoints = upstream.endpoints();
            own.gauge("tidegate_upstream_endpoints", &labels).add(endpoints.len() as u64);
            for endpoint in endpoints {
                let labels = [("upstream", &*upstream.name), ("endpoint", &*endpoint.address())];
                own.gauge("tidegate_endpoint_connections", &labels).add(endpoint.load());
                own.counter("tidegate_endpoint_connect_failures_total", &labels).add(endpoint.failures());
                own.counter("tidegate_endpoint_websocket_fallbacks_total", &labels).add(endpoint.fallbacks());
                for (reason, count) in endpoint.mistrust().filter(|_| endpoint.tls.is_some()) {
                    let labels = [labels[0], labels[1], ("reason", reason)];
                    own.counter("tidegate_endpoint_tls_failures_total", &labels).add(count);
                }
                own.counter("tidegate_endpoint_ejections_total", &labels).add(endpoint.health.ejections());
                own.gauge("tidegate_endpoint_healthy", &labels).raise(upstream.is_usable(&endpoint).into());
            }
        }
    }

    /// The live WebSockets and TCP connections.
    pub fn connections(&self) -> Value {
        let (answer, answers) = mpsc::channel();
        self.tell_all(|| Command::Describe(answer.clone()));
        drop(answer);
        let mut all = Vec::new();
        while let Ok(some) = answers.recv_timeout(ANSWER) {
            all.extend(some);
        }
        Value::Array(all)
    }

    /// Closes one WebSocket or TCP connection; false when there is none of that id.
    pub fn close(&self, id: &str, code: u16, reason: &str) -> bool {
        let Ok(id) = u64::from_str_radix(id, 16) else { return false };
        let order = Order {
            cause: Cause::Killed,
            code,
            reason: reason.to_owned().into(),
            retry: None,
            patience: KILL_PATIENCE,
        };
        let (answer, answers) = mpsc::channel();
        self.tell_all(|| Command::Close(id, order.clone(), answer.clone()));
        drop(answer);
        std::iter::from_fn(|| answers.recv_timeout(ANSWER).ok()).any(|found| found)
    }

    /// What the engine has to say, as JSON texts; waits up to `patience` for it.
    pub fn events(&self, patience: Duration) -> Vec<String> {
        self.shared.events.wait(patience)
    }

    /// Begins to drain: not ready at once, no new connections after the delay, then paced Close frames, then the cut.
    pub fn drain(self: &Arc<Self>) {
        if self.shared.draining.swap(true, Relaxed) {
            return;
        }
        let engine = self.clone();
        let _ = thread::Builder::new().name("drain".into()).spawn(move || engine.run_drain());
    }

    fn run_drain(&self) {
        let drain = self.shared.state().map(|state| state.snapshot.drain);
        let (delay, window, timeout) = drain.map_or((0, 0, 0), |drain| (drain.delay, drain.window, drain.timeout));
        thread::sleep(Duration::from_millis(delay));
        self.close_sockets();
        let count = self.shared.websockets.load(Relaxed);
        let rest = timeout.saturating_sub(delay);
        // The last ones to be told need time to answer before the cut.
        let patience = rest - LAST_WORDS.min(rest / 4);
        let pace = Pace::new(count, window.min(patience), patience, Cause::Drain);
        self.tell_all(|| Command::Drain(pace));
        let pace = pipes::Pace::last(self.shared.pipes.load(Relaxed), window, patience);
        self.tell_all(|| Command::DrainPipes(pace));
        if !self.shared.wait_empty(Duration::from_millis(rest)) {
            let left = self.shared.connections.load(Relaxed);
            self.shared.say(Level::Warning, "drain", format!("cutting {left} connections that did not end in time"));
            self.tell_all(|| Command::Cut);
            self.shared.wait_empty(CUT);
        }
        self.shared.finish();
    }

    pub fn is_draining(&self) -> bool {
        self.shared.is_draining()
    }

    /// Waits up to `patience` for the end of the drain: no connection comes any more and none is left, or what is left
    /// has had its time and goes when the threads end.
    pub fn wait_drained(&self, patience: Duration) -> bool {
        self.shared.wait_finished(patience)
    }

    /// Ends the threads; what is left is cut.
    pub fn stop(&self) {
        self.close_sockets();
        self.tell_all(|| Command::Stop);
        for thread in self.threads.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
            let _ = thread.join();
        }
        if let Some(sink) = self.shared.state().and_then(|state| state.access_log.clone()) {
            sink.flush(ANSWER);
        }
    }

    fn tell(&self, worker: usize, command: Command) {
        // A worker that has ended is told nothing.
        let _ = self.workers[worker].commands.send(command);
    }

    fn tell_all(&self, command: impl Fn() -> Command) {
        (0..self.workers.len()).for_each(|worker| self.tell(worker, command()));
    }
}

fn bind_new(
    snapshot: &Snapshot,
    sockets: &HashMap<BindKey, Arc<ListenSocket>>,
) -> Result<HashMap<BindKey, Arc<ListenSocket>>, Vec<Fault>> {
    let mut bound = HashMap::new();
    let mut faults = Vec::new();
    let stays: HashSet<BindKey> = snapshot.listeners.iter().flat_map(bind_keys).collect();
    let leaving = sockets.values().filter(|socket| !stays.contains(&socket.listening.key));
    let leaving: Vec<_> = leaving.cloned().collect();
    for (index, listener) in snapshot.listeners.iter().enumerate() {
        for (position, bind) in listener.binds.iter().enumerate() {
            let key = BindKey::new(bind, &listener.name, position);
            if sockets.contains_key(&key) {
                continue;
            }
            match bind_one(listener, bind, key.clone(), &leaving) {
                Ok(socket) => drop(bound.insert(key, Arc::new(socket))),
                Err(error) => faults.push(bind_fault(index, position, error.0)),
            }
        }
    }
    if faults.is_empty() { Ok(bound) } else { Err(faults) }
}

/// How often another free port is asked for, where somebody has the same one of UDP.
const PORTS: usize = 16;

/// Where any port will do, it must do for HTTP/3 too.
fn bind_one(
    listener: &Listener,
    bind: &Bind,
    key: BindKey,
    leaving: &[Arc<ListenSocket>],
) -> Result<ListenSocket, BindError> {
    let is_any = speaks_h3(listener) && matches!(bind, Bind::Tcp(address) if address.port() == 0);
    let mut taken = Vec::new();
    loop {
        let socket = ListenSocket::bind(bind, key.clone(), &listener.liveness, leaving)?;
        if !is_any || taken.len() == PORTS || socket.bound().is_none_or(h3::is_free) {
            return Ok(socket);
        }
        // Kept until there is another, or it would be given again.
        taken.push(socket);
    }
}

/// The places of the sockets that have an endpoint of QUIC beside them: the listener's, the bind's, and the key.
fn quic_keys(snapshot: &Snapshot) -> impl Iterator<Item = (usize, usize, BindKey)> {
    let speaking = snapshot.listeners.iter().enumerate().filter(|(_, listener)| speaks_h3(listener));
    speaking.flat_map(|(index, listener)| {
        bind_keys(listener).enumerate().map(move |(position, key)| (index, position, key))
    })
}

/// Binds the UDP sockets that are new, each to the address of the TCP socket that it stands beside.
fn bind_quic(
    snapshot: &Snapshot,
    running: &HashMap<BindKey, Arc<QuicSocket>>,
    address: impl Fn(&BindKey) -> Option<SocketAddr>,
) -> Result<HashMap<BindKey, Arc<QuicSocket>>, Vec<Fault>> {
    let (mut bound, mut faults) = (HashMap::new(), Vec::new());
    for (index, position, key) in quic_keys(snapshot).filter(|(_, _, key)| !running.contains_key(key)) {
        let Some(address) = address(&key) else { continue };
        match QuicSocket::bind(address, key.clone()) {
            Ok(socket) => drop(bound.insert(key, Arc::new(socket))),
            Err(message) => faults.push(bind_fault(index, position, message)),
        }
    }
    if faults.is_empty() { Ok(bound) } else { Err(faults) }
}

fn bind_fault(index: usize, position: usize, message: String) -> Fault {
    Fault::new(format!("/listeners/{index}/binds/{position}"), message)
}
