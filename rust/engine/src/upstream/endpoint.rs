//! One address of an upstream, with what outlives a configuration: its load and its health.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering::Relaxed};

use super::seats::Seat;
use crate::balance::Health;
use crate::io::clock::{self, Millis};
use crate::snapshot::{self, HttpVersion, PeerName, Target};
use crate::tls::Mistrust;

/// An endpoint. Kept by identity (name and target) from one configuration to the next.
#[derive(Debug)]
pub struct Endpoint {
    /// As written.
    pub name: Arc<str>,
    /// The Host header for `host: upstream`.
    pub host: Arc<str>,
    pub target: Target,
    /// Its host, when TLS is spoken to it.
    pub tls: Option<PeerName>,
    /// How it did, for `eject`.
    pub health: Health,
    /// What the checks say of it.
    verdict: AtomicU8,
    /// When it came to a running upstream, or became healthy again; 0 where it was there from the start.
    came_in: AtomicU64,
    load: AtomicU64,
    /// It has left its upstream, and its connections are to end.
    is_draining: AtomicBool,
    failures: AtomicU64,
    mistrust: [AtomicU64; Mistrust::ALL.len()],
    speaks: AtomicU8,
    /// Until when WebSockets that are meant for HTTP/2, and for HTTP/3, go over HTTP/1.1.
    fallen_back: [AtomicU64; 2],
    fallbacks: AtomicU64,
}

/// What an endpoint speaks, as far as it was found out by ALPN.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Speaks {
    Unknown,
    H1,
    /// When it may choose.
    H2,
    /// It has refused HTTP/1.1.
    OnlyH2,
}

/// How long an endpoint that takes no WebSockets over HTTP/2 or HTTP/3 is not asked again.
const FALL_BACK: Millis = 600_000;

/// Verdicts.
const UNKNOWN: u8 = 0;
const HEALTHY: u8 = 1;
const UNHEALTHY: u8 = 2;

impl Endpoint {
    pub fn new(endpoint: &snapshot::Endpoint) -> Self {
        Self {
            name: endpoint.name.as_str().into(),
            host: endpoint.host.as_str().into(),
            target: endpoint.target.clone(),
            tls: endpoint.tls.clone(),
            health: Health::default(),
            verdict: AtomicU8::new(UNKNOWN),
            came_in: AtomicU64::new(0),
            load: AtomicU64::new(0),
            is_draining: AtomicBool::new(false),
            failures: AtomicU64::new(0),
            mistrust: Default::default(),
            speaks: AtomicU8::new(Speaks::Unknown as u8),
            fallen_back: Default::default(),
            fallbacks: AtomicU64::new(0),
        }
    }

    /// The checks say so of it; none is nothing.
    pub fn found(&self, healthy: Option<bool>) {
        let verdict = healthy.map_or(UNKNOWN, |is_healthy| if is_healthy { HEALTHY } else { UNHEALTHY });
        if self.verdict.swap(verdict, Relaxed) == UNHEALTHY && verdict != UNHEALTHY {
            self.comes_in();
        }
    }

    /// Whether its checks fail.
    pub fn is_unhealthy(&self) -> bool {
        self.verdict.load(Relaxed) == UNHEALTHY
    }

    /// It is new here, or again.
    pub fn comes_in(&self) {
        self.came_in.store(clock::now().max(1), Relaxed);
    }

    /// When it came in; none where it was there from the start.
    pub fn came_in(&self) -> Option<Millis> {
        Some(self.came_in.load(Relaxed)).filter(|when| *when > 0)
    }

    pub fn speaks(&self) -> Speaks {
        let all = [Speaks::Unknown, Speaks::H1, Speaks::H2, Speaks::OnlyH2];
        all[usize::from(self.speaks.load(Relaxed))]
    }

    /// Remembers what ALPN has agreed on.
    pub fn learn(&self, speaks: Speaks) {
        self.speaks.store(speaks as u8, Relaxed);
    }

    /// Whether WebSockets that are meant for this version go over HTTP/1.1 now.
    pub fn has_fallen_back(&self, version: HttpVersion) -> bool {
        self.fallen_back[usize::from(version == HttpVersion::H3)].load(Relaxed) > clock::now()
    }

    /// WebSockets that are meant for this version go over HTTP/1.1 for a while.
    pub fn fall_back(&self, version: HttpVersion) {
        self.fallen_back[usize::from(version == HttpVersion::H3)].store(clock::now() + FALL_BACK, Relaxed);
        self.fallbacks.fetch_add(1, Relaxed);
    }

    /// How often it has begun to.
    pub fn fallbacks(&self) -> u64 {
        self.fallbacks.load(Relaxed)
    }

    /// Whether this is what `wanted` describes.
    pub fn is_same(&self, wanted: &snapshot::Endpoint) -> bool {
        *self.name == *wanted.name && self.target == wanted.target && self.tls == wanted.tls
    }

    /// Exchanges under way, live WebSockets included.
    pub fn load(&self) -> u64 {
        self.load.load(Relaxed)
    }

    /// Whether it has left its upstream and its connections are to end.
    pub fn is_draining(&self) -> bool {
        self.is_draining.load(Relaxed)
    }

    /// Says so; whether that is news.
    pub fn set_draining(&self, is_draining: bool) -> bool {
        self.is_draining.swap(is_draining, Relaxed) != is_draining
    }

    /// Connects that failed.
    pub fn failures(&self) -> u64 {
        self.failures.load(Relaxed)
    }

    pub fn count_failure(&self) {
        self.failures.fetch_add(1, Relaxed);
    }

    /// TLS handshakes that failed, by why.
    pub fn mistrust(&self) -> impl Iterator<Item = (&'static str, u64)> {
        Mistrust::ALL.iter().zip(&self.mistrust).map(|(mistrust, count)| (mistrust.label(), count.load(Relaxed)))
    }

    pub fn count_mistrust(&self, mistrust: Mistrust) {
        self.mistrust[mistrust as usize].fetch_add(1, Relaxed);
    }

    /// The address as text, for logs and for `hash`, whose choices it decides.
    pub fn address(&self) -> String {
        match &self.target {
            Target::Tcp(ip, port) => std::net::SocketAddr::new(*ip, *port).to_string(),
            Target::Unix(path) => format!("unix:{}", path.display()),
            Target::Name(name, port) => format!("{name}:{port}"),
        }
    }
}

/// An exchange's place: in an endpoint's load, and in its upstream where its connection is its own.
#[derive(Debug)]
pub struct Permit {
    load: Load,
    /// None on a stream of a connection that others use too.
    pub seat: Option<Seat>,
}

/// A place in an endpoint's load, given back when dropped.
#[derive(Debug)]
struct Load(Arc<Endpoint>);

impl Permit {
    pub fn new(endpoint: Arc<Endpoint>) -> Self {
        endpoint.load.fetch_add(1, Relaxed);
        Self { load: Load(endpoint), seat: None }
    }

    pub fn endpoint(&self) -> &Arc<Endpoint> {
        &self.load.0
    }

    /// The same, for a connection that has this seat.
    pub fn seated(self, seat: Seat) -> Self {
        Self { seat: Some(seat), ..self }
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.0.load.fetch_sub(1, Relaxed);
    }
}
