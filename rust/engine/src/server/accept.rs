//! From a listening socket to a session: accept, PROXY header, TLS.

use std::future::poll_fn;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::task::Poll;
use std::time::Duration;

use rustls::HandshakeKind;
use tokio::time::timeout;

use super::access;
use super::admission;
use super::connection;
use super::downstream::{Downstream, TlsFacts};
use super::handshakes;
use super::listening::{GateWatch, ListenSocket, Listening, Occupancy};
use super::permit::Permit;
use super::session::Session;
use super::state::State;
use super::tcp;
use super::worker::{Command, Worker};
use crate::io::proxy_protocol::{self, ParsedProxy, ProxyHeader};
use crate::io::{Raw, Stream, clock, room, tls};
use crate::log::Level;
use crate::snapshot::Rate;

/// How long accepting pauses when the process is out of descriptors or memory.
const PAUSE: Duration = Duration::from_millis(50);
/// How many are accepted before live connections have their turn: a crowd that comes at once must not keep them waiting
/// until all of it is in. With one the runtime would poll for events once for each connection, a tenth of what opening
/// a WebSocket costs.
const IN_A_ROW: u32 = 4;
/// A worker gives a connection away only if it has this many more than the idlest one.
const IMBALANCE: usize = 4;
/// Why a connection beyond the listener's rate is not taken.
pub const TOO_FAST: &str = "connection_rate";

/// A connection as it came off the socket.
#[derive(Debug)]
pub struct Accepted {
    pub raw: Raw,
    pub peer: Option<SocketAddr>,
    pub permit: Permit,
}

/// Accepts until the gate closes.
pub async fn run(worker: Rc<Worker>, socket: Arc<ListenSocket>) {
    let listening = socket.listening.clone();
    let listener = match socket.listener() {
        Ok(listener) => listener,
        Err(error) => return worker.shared.say(Level::Error, "accept", format!("{}: {error}", listening.address)),
    };
    // The engine keeps the socket itself; it must be able to close it without asking us.
    drop(socket);
    let (mut leaving, mut row) = (GateWatch::default(), 0);
    loop {
        let accepted = poll_fn(|cx| match leaving.poll_closed(cx, &listening.gate) {
            Poll::Ready(()) => Poll::Ready(None),
            Poll::Pending => match listener.poll_accept(cx) {
                Poll::Ready(accepted) => Poll::Ready(Some(accepted)),
                Poll::Pending => Poll::Pending,
            },
        });
        let Some(accepted) = accepted.await else { return };
        match accepted {
            Ok((raw, peer)) => match wait_for_room(&worker, &listening, &raw).await {
                Room::Free(occupancy) => dispatch(&worker, &listening, occupancy, raw, peer),
                Room::TooFast => turn_away(&worker, &listening, &raw),
                Room::Closed => return,
            },
            // The client was gone before we came to it.
            Err(error) if matches!(error.kind(), ErrorKind::ConnectionAborted | ErrorKind::Interrupted) => {}
            Err(error) => {
                note_pause(&worker, &listening, &error.to_string());
                tokio::time::sleep(PAUSE).await;
            }
        }
        row = (row + 1) % IN_A_ROW;
        if row == 0 {
            // Wakes the task only after the runtime has polled for events and woken those that they are for.
            tokio::task::yield_now().await;
        }
    }
}

fn note_pause(worker: &Worker, listening: &Listening, why: &str) {
    if worker.tallies.accept_paused(&listening.address, "resources") {
        let message = format!("{}: accepting pauses: {why}", listening.address);
        worker.shared.say(Level::Warning, "accept_paused", message);
    }
}

/// Whether there is room for a connection.
enum Room {
    /// On the listener with these connections.
    Free(Arc<Occupancy>),
    /// They come too fast.
    TooFast,
    /// The gate closed meanwhile.
    Closed,
}

/// Holds `raw` back, and with it all that come after it, while the listener has as many as it may have, or only the
/// control plane's descriptors are left.
async fn wait_for_room(worker: &Worker, listening: &Listening, raw: &Raw) -> Room {
    let mut is_first = true;
    loop {
        let (occupancy, limits) = occupancy(worker, listening);
        if is_first && limits.rate.is_some_and(|rate| occupancy.meter.take(&rate, clock::now()).is_err()) {
            return Room::TooFast;
        }
        is_first = false;
        if occupancy.open.load(Relaxed) >= limits.open {
            worker.tallies.accept_paused(&listening.address, "connections");
            tokio::select! { () = listening.gate.closed() => return Room::Closed, () = occupancy.freed.notified() => {} }
        } else if room::is_last(raw) && !room::is_left(raw) {
            note_pause(worker, listening, "too many open files");
            tokio::select! { () = listening.gate.closed() => return Room::Closed, () = tokio::time::sleep(PAUSE) => {} }
        } else {
            return Room::Free(occupancy);
        }
    }
}

/// Closes a connection that is one too many for the rate. Nothing else is done for it: whoever makes a flood of them is
/// not worth more.
fn turn_away(worker: &Worker, listening: &Listening, raw: &Raw) {
    raw.reset_when_dropped();
    let Some(state) = worker.shared.state() else { return };
    let Some(listener) = state.listener(&listening.key) else { return };
    let name = &state.listeners[listener].name;
    worker.tallies.accepted(name);
    worker.tallies.not_established(name, TOO_FAST);
    if worker.tallies.rate_exceeded() {
        let message =
            format!("{}: connections come faster than limits.connection_rate and are reset", listening.address);
        worker.shared.say(Level::Warning, "connection_rate", message);
    }
}

/// What a listener's connections may be.
struct Limits {
    open: u64,
    rate: Option<Rate>,
}

/// The connections of the listener, and what they may be.
fn occupancy(worker: &Worker, listening: &Listening) -> (Arc<Occupancy>, Limits) {
    let state = worker.shared.state();
    let found = state.as_ref().and_then(|state| Some((state, state.listener(&listening.key)?)));
    let Some((state, index)) = found else { return (Arc::default(), Limits { open: u64::MAX, rate: None }) };
    let limits = &state.snapshot.listeners[index].limits;
    let limits = Limits { open: limits.connections.unwrap_or(u64::MAX), rate: limits.connection_rate };
    (state.listeners[index].occupancy.clone(), limits)
}

/// Gives the connection to the worker that has the least to do.
fn dispatch(
    worker: &Rc<Worker>,
    listening: &Arc<Listening>,
    occupancy: Arc<Occupancy>,
    raw: Raw,
    peer: Option<SocketAddr>,
) {
    let mine = worker.load.load(Relaxed);
    let idlest = worker.peers.iter().min_by_key(|peer| peer.load.load(Relaxed));
    let target = idlest.filter(|idlest| idlest.load.load(Relaxed) + IMBALANCE <= mine);
    let load = target.map_or(&worker.load, |target| &target.load).clone();
    let permit = Permit::new(worker.shared.clone(), listening.clone(), occupancy, load);
    match target {
        None => serve(worker, Accepted { raw, peer, permit }),
        Some(target) => {
            if let Ok(loose) = raw.detach() {
                // A worker that has ended takes nothing; then the connection closes with the dropped command.
                let _ = target.commands.send(Command::Serve(loose, peer, permit));
            }
        }
    }
}

/// Starts to serve a connection on this worker.
pub fn serve(worker: &Rc<Worker>, accepted: Accepted) {
    // In a box: the runtime copies what it is given several times over, and this is some KiB.
    tokio::task::spawn_local(Box::pin(connection::serve(worker.clone(), accepted)));
}

/// PROXY header and TLS, as the listener has them. None when the connection is not worth an answer; it was counted.
pub async fn establish(worker: &Rc<Worker>, accepted: Accepted) -> Option<Session> {
    let state = worker.shared.state()?;
    let listener = state.listener(&accepted.permit.listening.key)?;
    let settings = &state.snapshot.listeners[listener];
    worker.tallies.accepted(&settings.name);
    let established = if settings.tls.is_none() && settings.proxy_protocol.is_empty() {
        let (Accepted { raw, peer, permit }, id) = (accepted, worker.shared.serial());
        admit(&state, listener, id, peer, &raw, &permit).map(|()| {
            let downstream = Downstream { peer, destination: None, tls: None, permit: Rc::new(permit), id };
            Session::new(Stream::Raw(raw), Vec::new(), downstream)
        })
    } else {
        // In a box, because it is some KiB, which a connection would otherwise have room for until its end.
        let handshake = Box::pin(establish_on(worker, &state, listener, accepted));
        timeout(Duration::from_millis(settings.tls_timeout), handshake).await.unwrap_or(Err("timeout"))
    };
    let mut session = established.inspect_err(|reason| worker.tallies.not_established(&settings.name, reason)).ok()?;
    session.is_tcp = settings.tcp.is_some();
    Some(session)
}

async fn establish_on(
    worker: &Rc<Worker>,
    state: &State,
    listener: usize,
    accepted: Accepted,
) -> Result<Session, &'static str> {
    let Accepted { mut raw, mut peer, permit } = accepted;
    let settings = &state.snapshot.listeners[listener];
    let (mut early, mut destination) = (Vec::new(), None);
    let from_proxy = peer.is_some_and(|peer| settings.proxy_protocol.iter().any(|net| net.contains(&peer.ip())));
    let named = if from_proxy { read_proxy_header(&mut raw, &mut early).await? } else { None };
    if let Some((source, told)) = named {
        (peer, destination) = (Some(source), Some(told));
    }
    let (id, permit) = (worker.shared.serial(), Rc::new(permit));
    admit(state, listener, id, peer, &raw, &permit)?;
    match &state.listeners[listener].tls {
        None => {
            let session =
                Session::new(Stream::Raw(raw), early, Downstream { peer, destination: None, tls: None, permit, id });
            Ok(session.addressed(destination))
        }
        Some(server) => {
            let hello = tls::read_hello(raw, early).await.map_err(|_| "tls")?;
            let name = hello.server_name.as_deref().map(str::to_ascii_lowercase);
            let facts = TlsFacts { rule: server.rule(name.as_deref()), server_name: name };
            let gauges = worker.tallies.tls_gauges(state.generation, listener, &settings.name);
            let patience = Duration::from_millis(settings.tls_queue);
            let entered = handshakes::enter(&state.listeners[listener].slots, &worker.turns, &gauges, patience).await;
            let (_place, turn) = entered.ok_or("tls_queue")?;
            let answered = hello.answer(server.config(facts.server_name.as_deref())).map_err(|_| "tls")?;
            drop(turn);
            let stream = answered.finish().await.map_err(|_| "tls")?;
            if !server.readmits(facts.server_name.as_deref(), stream.common()) {
                return Err("tls");
            }
            let resumed = stream.common().handshake_kind() == Some(HandshakeKind::Resumed);
            worker.tallies.tls_handshake(&settings.name, if resumed { "resumed" } else { "full" });
            let downstream = Downstream { peer, destination: None, tls: Some(facts), permit, id };
            let session = Session::new(Stream::Tls(Box::new(stream)), Vec::new(), downstream);
            Ok(session.addressed(destination))
        }
    }
}

/// Whether a client may connect. One that may not is reset: nothing is said to it.
fn admit(
    state: &State,
    listener: usize,
    id: u64,
    peer: Option<SocketAddr>,
    raw: &Raw,
    permit: &Permit,
) -> Result<(), &'static str> {
    let client = peer.map(|peer| peer.ip());
    let admitted = match access::admits(&state.snapshot.listeners[listener].access, client) {
        true => admission::admit_connection(state, listener, client, permit),
        false => Err(tcp::ACCESS_DENIED),
    };
    admitted.map_err(|refusal| {
        tcp::log_refused(state, listener, id, client, "tcp", &refusal);
        raw.reset_when_dropped();
        refusal.reason
    })
}

/// Reads the PROXY header; what came behind it stays in `early`. None where the proxy speaks for itself.
async fn read_proxy_header(
    raw: &mut Raw,
    early: &mut Vec<u8>,
) -> Result<Option<(SocketAddr, SocketAddr)>, &'static str> {
    loop {
        match proxy_protocol::parse(early).map_err(|_| "proxy_header")? {
            ParsedProxy::Complete { header, consumed } => {
                early.drain(..consumed);
                return Ok(match header {
                    ProxyHeader::Addresses { source, destination } => Some((source, destination)),
                    _ => None,
                });
            }
            ParsedProxy::Partial => {}
        }
        let mut chunk = [0; 512];
        let read = tokio::io::AsyncReadExt::read(raw, &mut chunk).await.map_err(|_| "proxy_header")?;
        if read == 0 {
            return Err("proxy_header");
        }
        early.extend_from_slice(&chunk[..read]);
    }
}
