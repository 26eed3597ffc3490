//! TCP: connections that carry no HTTP, from accept to their record.
//!
//! ```text
//! accept ─ PROXY header ─ access ─ TLS ─▶ session ─▶ choose ─ dial ─▶ pipe ─▶ one record
//! ```
//!
//! Nothing is read from the client before there is an upstream for it. A connection that finds none ends with a reset:
//! there is no other way to tell it.

mod plan;
mod sni;

use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::UnixStream;
use tokio::time::timeout;

pub use self::plan::Plan;
use self::plan::Target;
use super::pipes::{self, About, Lease, TCP};
use super::reply::write_log;
use super::session::Session;
use super::state::State;
use super::tries;
use super::worker::Worker;
use crate::error::{Refusal, refusal};
use crate::io::clock::{self, Millis};
use crate::io::{Raw, Stream, room};
use crate::log::{self, Kind};
use crate::relay::{Limits, Pipe};
use crate::snapshot::{self, Retry};
use crate::upstream::{Again, Permit, Tries};

/// The client's address is not among those that may connect.
pub const ACCESS_DENIED: Refusal = Refusal::new(403, "access_denied", "this client may not connect");

/// A client's connection that waits for one to an upstream.
struct Opening {
    state: Arc<State>,
    listener: usize,
    session: Session,
    started: Millis,
    /// Index of the upstream that was chosen; none where the gateway itself is the server.
    upstream: Option<usize>,
    /// The server name that the client asks for, where we look for one.
    server_name: Option<String>,
    /// Endpoints tried.
    attempts: u32,
}

/// The other end.
struct Link {
    stream: Stream,
    /// None where the gateway itself is the server.
    endpoint: Option<Permit>,
}

/// Serves a connection of a TCP listener.
pub async fn serve(worker: &Rc<Worker>, session: Session) {
    let Some(mut opening) = Opening::new(worker, session) else { return };
    match opening.connect(worker).await {
        Ok(link) => opening.begin(worker, link),
        Err(refusal) => {
            opening.note_refusal(worker, &refusal);
            if refusal == sni::UNKNOWN_NAME {
                return sni::alert(opening.session).await;
            }
            opening.session.stream.reset_when_dropped();
        }
    }
}

impl Opening {
    /// None when the listener has gone, or is no TCP listener any more.
    fn new(worker: &Worker, session: Session) -> Option<Self> {
        let state = worker.shared.state()?;
        let listener = state.listener(&session.downstream.permit.listening.key)?;
        state.listeners[listener].tcp.as_ref()?;
        Some(Self { listener, session, started: clock::now(), upstream: None, server_name: None, attempts: 0, state })
    }

    /// The settings of its listener.
    fn settings(&self) -> &snapshot::Tcp {
        self.state.snapshot.listeners[self.listener].tcp.as_ref().expect("looked at when it began")
    }

    async fn connect(&mut self, worker: &Rc<Worker>) -> Result<Link, Refusal> {
        let state = self.state.clone();
        let target = &state.listeners[self.listener].tcp.as_ref().expect("looked at when it began").target;
        let shares = match target {
            Target::Echo => return echo(),
            Target::To(shares) => shares,
            Target::Sni(sni) => {
                let patience = Duration::from_millis(state.snapshot.listeners[self.listener].tls_timeout);
                self.server_name = sni::read_name(&mut self.session, patience).await?;
                sni.find(self.server_name.as_deref()).ok_or(sni::UNKNOWN_NAME)?
            }
        };
        self.upstream = Some(shares.choose());
        self.dial(worker).await
    }

    async fn dial(&mut self, worker: &Rc<Worker>) -> Result<Link, Refusal> {
        let upstream = &self.state.upstreams[self.upstream.unwrap_or_default()];
        let rules = Retry { attempts: self.settings().attempts, connect: true, statuses: Vec::new() };
        let client = self.session.downstream.peer.map(|peer| peer.ip());
        let introduction = upstream
            .proxy_protocol
            .map(|version| tries::introduce(&self.session.downstream, self.session.connected_to(), version));
        let mut tries = Tries::new(upstream, &rules, client.map(tries::address_key)).introduced(introduction);
        let patience = Duration::from_millis(self.settings().connect_timeout);
        let linked = timeout(patience, tries.link(&worker.pools, &worker.shared.events)).await;
        let linked = linked.unwrap_or_else(|_| Err(tries.late(refusal::CONNECT_TIMEOUT, &worker.shared.events)));
        if linked.is_ok() {
            tries.connected();
        }
        for _ in tries.again().iter().filter(|again| **again == Again::Connect) {
            worker.tallies.retried("", &upstream.name, "connect");
        }
        self.attempts = tries.made();
        linked.map(|link| Link { stream: link.stream, endpoint: Some(link.permit) })
    }

    /// Hands the connection over to a pipe.
    fn begin(self, worker: &Rc<Worker>, link: Link) {
        let Self { state, listener, session, started, upstream, server_name, attempts } = self;
        let settings = state.snapshot.listeners[listener].tcp.as_ref();
        let limits =
            Limits { idle: settings.and_then(|tcp| tcp.idle), lifetime: settings.and_then(|tcp| tcp.max_lifetime) };
        let listener = state.listeners[listener].name.clone();
        let upstream = upstream.map_or_else(|| "".into(), |index| state.upstreams[index].name.clone());
        let counters = worker.pipes.tallies.counters(&TCP, vec![listener.clone(), upstream.clone()]);
        let (stream, early, downstream) = session.into_parts();
        let pipe = Pipe::new([stream, link.stream], [&early, &[]], limits, counters.bytes.clone());
        let lease = Lease {
            id: downstream.id,
            listener,
            upstream,
            client: downstream.peer.map(|peer| peer.ip()),
            about: About::Tcp { server_name: server_name.map(Into::into) },
            opened: clock::now(),
            counters,
            endpoint: link.endpoint,
            upstream_protocol: "tcp",
            connection: downstream.permit,
        };
        let open = log::TcpOpen { duration: lease.opened - started };
        write_log(&state, log::Exchange { attempts, ..lease.facts() }, Kind::TcpOpen(open));
        pipes::begin(worker, &state, pipe, lease);
    }

    /// Counts and writes down that nobody takes it.
    fn note_refusal(&self, worker: &Worker, refusal: &Refusal) {
        let listener = &self.state.listeners[self.listener].name;
        worker.pipes.tallies.refused(listener, refusal.reason);
        let facts = log::Exchange {
            connection: self.session.downstream.id,
            listener,
            client: self.session.downstream.peer.map(|peer| peer.ip()),
            protocol: "tcp",
            upstream: self.upstream.map(|index| &*self.state.upstreams[index].name),
            attempts: self.attempts,
            host: self.server_name.as_deref().map(str::as_bytes),
            ..log::Exchange::default()
        };
        let record = log::TcpRefusal { reason: refusal.reason, duration: clock::now() - self.started };
        write_log(&self.state, facts, Kind::TcpRefusal(record));
    }
}

/// A server inside the gateway that sends every byte back. A pipe leads to it like to any other, so that limits and
/// counters are the real ones.
fn echo() -> Result<Link, Refusal> {
    let pair = UnixStream::pair().and_then(|(near, far)| Ok((near, room::claim(far)?)));
    let (near, mut far) = pair.map_err(|_| refusal::OVERLOAD)?;
    tokio::task::spawn_local(async move {
        let (mut reader, mut writer) = far.split();
        // An end or an error on either side ends both: dropping the socket tells the pipe.
        let _ = tokio::io::copy(&mut reader, &mut writer).await;
    });
    Ok(Link { stream: Stream::Raw(Raw::Unix(near)), endpoint: None })
}

/// Writes down a client that may not connect.
pub fn log_refused(
    state: &State,
    listener: usize,
    id: u64,
    client: Option<IpAddr>,
    protocol: &'static str,
    why: &Refusal,
) {
    let facts = log::Exchange {
        connection: id,
        listener: &state.listeners[listener].name,
        client,
        protocol,
        ..log::Exchange::default()
    };
    write_log(state, facts, Kind::TcpRefusal(log::TcpRefusal { reason: why.reason, duration: 0 }));
}
