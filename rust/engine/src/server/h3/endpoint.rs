//! An endpoint of QUIC: which connections may begin, and their handshakes.
//!
//! A first packet costs its sender nothing and may name anybody as its sender. So where many handshakes are under way,
//! a client must first show that it gets what is sent to its address (Retry, RFC 9000 §8.1.2).

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use quinn::crypto::rustls::HandshakeData;
use quinn::{Connection, Endpoint, EndpointConfig, Incoming, TokioRuntime};
use tokio::time::timeout;

use super::connection;
use super::socket::QuicSocket;
use crate::http::h3::code::Code;
use crate::io::clock;
use crate::io::h3::varint;
use crate::log::Level;
use crate::server::accept::TOO_FAST;
use crate::server::downstream::{Downstream, TlsFacts};
use crate::server::listening::Listening;
use crate::server::permit::Permit;
use crate::server::state::State;
use crate::server::worker::Worker;
use crate::server::{access, handshakes, tcp};

/// Handshakes under way beyond which a client must show its address.
const UNPROVEN: usize = 64;

/// Serves an endpoint until its gate closes. Its connections go on until their own end.
pub async fn listen(worker: Rc<Worker>, socket: Arc<QuicSocket>) {
    let listening = socket.listening.clone();
    let endpoint = match start(&worker, &socket) {
        Ok(endpoint) => endpoint,
        Err(error) => return worker.shared.say(Level::Error, "accept", format!("{}: {error}", listening.address)),
    };
    drop(socket);
    let under_way = Rc::new(());
    loop {
        let incoming = tokio::select! {
            biased;
            () = listening.gate.closed() => break,
            incoming = endpoint.accept() => incoming,
        };
        let Some(incoming) = incoming else { return };
        if Rc::strong_count(&under_way) > UNPROVEN && incoming.may_retry() && !incoming.remote_address_validated() {
            if let Some(state) = worker.shared.state()
                && let Some(listener) = state.listener(&listening.key)
            {
                worker.tallies.quic_retry(&state.listeners[listener].name);
            }
            let _ = incoming.retry();
            continue;
        }
        tokio::task::spawn_local(Box::pin(serve(worker.clone(), listening.clone(), incoming, under_way.clone())));
    }
    // It must see its connections to their end. Those who come meanwhile are told, and come again over TCP.
    let refusing = async {
        while let Some(incoming) = endpoint.accept().await {
            incoming.refuse();
        }
    };
    tokio::select! { () = endpoint.wait_idle() => {}, () = refusing => {} }
}

fn start(worker: &Worker, socket: &QuicSocket) -> std::io::Result<Endpoint> {
    let state = worker.shared.state();
    let found = state.as_ref().and_then(|state| Some((state, state.listener(&socket.listening.key)?)));
    let config = found.and_then(|(state, listener)| state.listeners[listener].quic.clone());
    let config = config.map(|config| quinn::ServerConfig::clone(&config));
    Endpoint::new(EndpointConfig::default(), config, socket.socket()?, Arc::new(TokioRuntime))
}

async fn serve(worker: Rc<Worker>, listening: Arc<Listening>, incoming: Incoming, under_way: Rc<()>) {
    let Some(state) = worker.shared.state() else { return incoming.refuse() };
    let Some(listener) = state.listener(&listening.key) else { return incoming.refuse() };
    let name = &state.snapshot.listeners[listener].name;
    worker.tallies.accepted(name);
    match establish(&worker, &state, listener, &listening, incoming).await {
        Ok((connection, downstream)) => {
            drop(under_way);
            connection::serve(&worker, &state, listener, connection, downstream).await;
        }
        Err(reason) => worker.tallies.not_established(name, reason),
    }
}

async fn establish(
    worker: &Rc<Worker>,
    state: &State,
    listener: usize,
    listening: &Arc<Listening>,
    incoming: Incoming,
) -> Result<(Connection, Downstream), &'static str> {
    let (id, peer) = (worker.shared.serial(), canonical(incoming.remote_address()));
    // It cannot begin with the PROXY header that it must have.
    if state.snapshot.listeners[listener].proxy_protocol.iter().any(|net| net.contains(&peer.ip())) {
        incoming.refuse();
        return Err("proxy_header");
    }
    let rate = &state.snapshot.listeners[listener].limits.connection_rate;
    if rate.is_some_and(|rate| state.listeners[listener].occupancy.meter.take(&rate, clock::now()).is_err()) {
        incoming.refuse();
        return Err(TOO_FAST);
    }
    let Some(permit) = admit(worker, state, listener, listening, peer, id) else {
        incoming.refuse();
        return Err("access_denied");
    };
    let settings = &state.snapshot.listeners[listener];
    let occupancy = &state.listeners[listener].occupancy;
    if occupancy.open.load(Relaxed) > settings.limits.connections.unwrap_or(u64::MAX) {
        worker.tallies.accept_paused(&listening.address, "connections");
        incoming.refuse();
        return Err("connections");
    }
    let handshake = shake(worker, state, listener, incoming);
    let connection = timeout(Duration::from_millis(settings.tls_timeout), handshake).await.unwrap_or(Err("timeout"))?;
    worker.tallies.tls_handshake(&settings.name, "full");
    let tls = state.listeners[listener].tls.as_ref().ok_or("tls")?;
    let server_name = server_name(&connection);
    if !tls.speaks_h3(server_name.as_deref()) {
        // What this name asks of its clients can only be asked over TCP.
        connection.close(varint(Code::VERSION_FALLBACK), b"");
        return Err("tls");
    }
    let facts = TlsFacts { rule: tls.rule(server_name.as_deref()), server_name };
    let destination = destination(&connection, listening);
    Ok((connection, Downstream { peer: Some(peer), destination, tls: Some(facts), permit: Rc::new(permit), id }))
}

/// What the client has connected to.
fn destination(connection: &Connection, listening: &Listening) -> Option<SocketAddr> {
    Some(SocketAddr::new(connection.local_ip()?.to_canonical(), listening.port?))
}

fn canonical(peer: SocketAddr) -> SocketAddr {
    SocketAddr::new(peer.ip().to_canonical(), peer.port())
}

fn admit(
    worker: &Rc<Worker>,
    state: &State,
    listener: usize,
    listening: &Arc<Listening>,
    peer: SocketAddr,
    id: u64,
) -> Option<Permit> {
    if !access::admits(&state.snapshot.listeners[listener].access, Some(peer.ip())) {
        tcp::log_refused(state, listener, id, Some(peer.ip()), "h3", &tcp::ACCESS_DENIED);
        return None;
    }
    let occupancy = state.listeners[listener].occupancy.clone();
    Some(Permit::new(worker.shared.clone(), listening.clone(), occupancy, worker.load.clone()))
}

/// The handshake, when it is its turn: it costs a signature, as it does over TCP.
async fn shake(
    worker: &Worker,
    state: &State,
    listener: usize,
    incoming: Incoming,
) -> Result<Connection, &'static str> {
    let (ours, settings) = (&state.listeners[listener], &state.snapshot.listeners[listener]);
    let config = ours.quic.clone().ok_or("tls")?;
    let gauges = worker.tallies.tls_gauges(state.generation, listener, &settings.name);
    let patience = Duration::from_millis(settings.tls_queue);
    let entered = handshakes::enter(&ours.slots, &worker.turns, &gauges, patience).await;
    let (_place, turn) = entered.ok_or("tls_queue")?;
    let connecting = incoming.accept_with(config).map_err(|_| "tls")?;
    drop(turn);
    connecting.await.map_err(|_| "tls")
}

fn server_name(connection: &Connection) -> Option<String> {
    let data = connection.handshake_data()?.downcast::<HandshakeData>().ok()?;
    data.server_name.map(|name| name.to_ascii_lowercase())
}
