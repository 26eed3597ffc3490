//! Health checks: one question to one endpoint, over a connection that is made for it and ends with it.
//!
//! A check goes the way of every exchange ([`Upstream::connect`]): the same sockets, TLS, PROXY header and version of
//! HTTP. But it goes through a twin of the upstream, whose seats and pools nobody else has, to a copy of the endpoint:
//! so it waits for no seat and takes none, finds nothing that was kept and leaves nothing, and no counter of exchanges
//! shows it.

mod grpc;
mod http;
mod websocket;

use std::any::Any;
use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::time::timeout;

use super::connect::{Introduction, Seating, Trip};
use super::{Endpoint, Group, HeadError, Owner, Pools, Reached, Upstream, Wish};
use crate::error::{Refusal, refusal};
use crate::http::Fields;
use crate::io::proxy_protocol::write_local;
use crate::io::{Linger, Stream};
use crate::log::Events;
use crate::snapshot::{self, Balance, Check, Health, Pool, Protocol, Target, UpstreamLimits};

/// How long an endpoint may take to close its end behind a check, which is over by then.
const LINGER: Linger = Linger { quiet: Duration::from_millis(500), total: Duration::from_secs(1) };
const AGENT: &[u8] = concat!("tidegate/", env!("CARGO_PKG_VERSION"), " (health check)").as_bytes();

/// Why a check failed, for people.
type Failure = String;

impl Upstream {
    /// Checks an endpoint, whether it is in the list or not.
    ///
    /// # Errors
    /// Why it is not healthy.
    pub async fn probe(&self, endpoint: &snapshot::Endpoint, events: &Events) -> Result<(), Failure> {
        let health = self.health.as_ref().ok_or("the upstream has no health checks")?;
        let us: Rc<dyn Any> = Rc::new(());
        let introduction = self.proxy_protocol.map(|version| {
            let mut header = Vec::with_capacity(16);
            write_local(&mut header, version);
            Introduction { header, owner: Owner { id: 1, connection: Rc::downgrade(&us) } }
        });
        let probe = Probe {
            twin: self.twin(&health.check),
            endpoint: Arc::new(Endpoint::new(&at_port(endpoint, health.port))),
            introduction,
            pools: Pools::default(),
            seating: Seating::default(),
            events,
            awaited: Cell::new("connection"),
        };
        let asked = timeout(Duration::from_millis(health.timeout), probe.ask(&health.check)).await;
        asked.unwrap_or_else(|_| Err(probe.late(health)))
    }

    fn twin(&self, check: &Check) -> Self {
        let protocol = match (check, self.protocol) {
            // There are no calls of gRPC over HTTP/1.1, and in clear text nobody else says so.
            (Check::Grpc(_), protocol) if protocol != Protocol::H3 => Protocol::H2,
            (_, protocol) => protocol,
        };
        Self {
            name: self.name.clone(),
            balance: Balance::Random,
            protocol,
            http2: self.http2,
            terms: self.terms,
            limits: UpstreamLimits { connections: None, pending: 0 },
            pool: Pool { idle: 0, idle_timeout: 0, ready: 0 },
            proxy_protocol: self.proxy_protocol,
            seats: Arc::default(),
            tls: self.tls.clone(),
            eject: None,
            ejections: Arc::default(),
            on_remove: self.on_remove,
            zone: None,
            health: None,
            slow_start: None,
            panic: Arc::default(),
            endpoints: ArcSwap::from_pointee(Group::build(&[], None, None)),
        }
    }
}

fn at_port(endpoint: &snapshot::Endpoint, port: Option<u16>) -> snapshot::Endpoint {
    let mut endpoint = endpoint.clone();
    if let (Target::Tcp(_, own) | Target::Name(_, own), Some(port)) = (&mut endpoint.target, port) {
        *own = port;
    }
    endpoint
}

/// A check under way.
struct Probe<'p> {
    twin: Upstream,
    endpoint: Arc<Endpoint>,
    introduction: Option<Introduction>,
    pools: Pools,
    seating: Seating,
    events: &'p Events,
    /// What it waits for.
    awaited: Cell<&'static str>,
}

impl Probe<'_> {
    async fn ask(&self, check: &Check) -> Result<(), Failure> {
        match check {
            Check::Tcp => self.ask_tcp().await,
            Check::Http(check) => self.ask_http(check).await,
            Check::Grpc(check) => self.ask_grpc(check).await,
            Check::Websocket(check) => self.ask_websocket(check).await,
        }
    }

    async fn ask_tcp(&self) -> Result<(), Failure> {
        if let Reached::Link(link) = self.reach(Wish::Bytes).await? {
            leave(link.stream);
        }
        Ok(())
    }

    /// A way to the endpoint; then its answer is awaited.
    async fn reach(&self, wish: Wish) -> Result<Reached, Failure> {
        let reached =
            self.twin.connect(&self.endpoint, wish, &self.trip()).await.map_err(|refusal| explain(&refusal))?;
        self.awaited.set("answer");
        Ok(reached)
    }

    fn trip(&self) -> Trip<'_> {
        Trip {
            pools: &self.pools,
            events: self.events,
            introduction: self.introduction.as_ref(),
            patience: None,
            seating: &self.seating,
        }
    }

    /// The fields of a request, in the order in which they go.
    fn fields(&self, host: Option<&str>, more: &[(String, String)]) -> Fields {
        let mut fields = Fields::new();
        fields.push(b"Host", host.unwrap_or(&self.endpoint.host).as_bytes());
        if !more.iter().any(|(name, _)| name.eq_ignore_ascii_case("user-agent")) {
            fields.push(b"User-Agent", AGENT);
        }
        more.iter().for_each(|(name, value)| fields.push(name.as_bytes(), value.as_bytes()));
        fields
    }

    fn late(&self, health: &Health) -> Failure {
        format!("no {} within {} s", self.awaited.get(), health.timeout as f64 / 1000.0)
    }
}

/// Ends a connection so that the endpoint takes it for a good end, without waiting for that.
fn leave(stream: Stream) {
    tokio::task::spawn_local(stream.linger(LINGER));
}

fn explain(refusal: &Refusal) -> Failure {
    let text = match refusal.reason {
        reason if reason == refusal::CONNECT_FAILED.reason => "no connection",
        reason if reason == refusal::CONNECT_TIMEOUT.reason => "no connection in time",
        reason if reason == refusal::UPSTREAM_PROTOCOL.reason => {
            "it does not speak the version of HTTP that is asked of it"
        }
        reason if reason == refusal::UPSTREAM_WEBSOCKET.reason => "it takes no WebSockets over HTTP/2",
        _ => refusal.text,
    };
    text.to_owned()
}

fn no_answer(error: &HeadError) -> Failure {
    match error {
        HeadError::Lost { .. } => "the connection was lost before the answer".to_owned(),
        HeadError::Untouched => "it refused the request".to_owned(),
        HeadError::Malformed(text) => (*text).to_owned(),
    }
}
