//! Upstreams: named groups of endpoints, how one is chosen, dialled, and asked.

mod connect;
mod crossing;
mod dial;
mod endpoint;
mod h2;
mod h3;
mod pool;
mod quic;
mod read;
mod ready;
mod seats;
mod tries;
mod trunk;
mod trunks;

use std::fmt::Display;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use arc_swap::ArcSwap;

pub use self::connect::{Introduction, Reached, Wish};
pub use self::crossing::{Awaited, Crossing, Question};
use self::dial::Terms;
pub use self::endpoint::{Endpoint, Permit, Speaks};
pub use self::pool::{Owner, Pools};
pub use self::read::{HeadError, ResponseReader};
pub use self::ready::Kind;
use self::seats::Seats;
pub use self::tries::{Again, Tries};
pub use self::trunk::{Opened, Place};
use crate::balance::{self, Candidates, Choice, Cursor};
use crate::io::{Stream, clock, random};
use crate::log::{Event, Events, Level};
use crate::snapshot::{self, HttpVersion};
use crate::tls::ClientTls;

/// One upstream of the running configuration.
#[derive(Debug)]
pub struct Upstream {
    pub name: Arc<str>,
    balance: snapshot::Balance,
    protocol: snapshot::Protocol,
    http2: snapshot::Http2,
    terms: Terms,
    limits: snapshot::UpstreamLimits,
    pub pool: snapshot::Pool,
    pub proxy_protocol: Option<snapshot::ProxyVersion>,
    seats: Arc<Seats>,
    tls: Option<Arc<ClientTls>>,
    eject: Option<snapshot::Eject>,
    ejections: Arc<Ejections>,
    on_remove: snapshot::OnChange,
    /// Changes when discovery says so, without a reload.
    endpoints: ArcSwap<Group>,
}

/// What the upstreams of one name have in common about their ejected endpoints.
#[derive(Debug, Default)]
struct Ejections {
    /// When the last of them comes back: one look tells that none is out.
    until: AtomicU64,
    /// Held while one is ejected, so that two workers do not exceed `at_most` together.
    turn: Mutex<()>,
}

/// The endpoints of an upstream and where the balancer stands among them.
#[derive(Debug)]
struct Group {
    endpoints: Vec<Arc<Endpoint>>,
    candidates: Candidates,
    cursor: Cursor,
    /// Those that left and still have exchanges: one that comes back must not look idle.
    departed: Vec<Weak<Endpoint>>,
}

/// A connection of HTTP/1.1 to an endpoint, or a stream on one of HTTP/2 or HTTP/3, and its place in the endpoint's
/// load.
#[derive(Debug)]
pub struct Link {
    pub stream: Stream,
    pub permit: Permit,
    /// The TLS it was made with, if any.
    pub tls: Option<Arc<ClientTls>>,
    /// Whose it is, where it has named a client.
    pub owner: Option<Owner>,
    /// It has carried exchanges before: its peer may close it at any moment.
    pub reused: bool,
}

impl Link {
    /// What is spoken over it, in logs.
    pub fn protocol(&self) -> &'static str {
        let version = match self.stream {
            Stream::H2(_) => HttpVersion::H2,
            Stream::H3(_) => HttpVersion::H3,
            Stream::Raw(_) | Stream::Tls(_) | Stream::Closed => HttpVersion::H1,
        };
        version.label()
    }
}

impl Upstream {
    /// Builds from what is written, and takes over the endpoints of `previous`, the upstream of the same name.
    pub fn build(upstream: &snapshot::Upstream, tls: Option<Arc<ClientTls>>, previous: Option<&Self>) -> Self {
        Self {
            name: upstream.name.as_str().into(),
            balance: upstream.balance.clone(),
            protocol: upstream.protocol,
            http2: upstream.http2,
            terms: Terms {
                patience: Duration::from_millis(upstream.connect_timeout),
                liveness: Some(upstream.liveness),
            },
            limits: upstream.limits,
            pool: upstream.pool,
            proxy_protocol: upstream.proxy_protocol,
            seats: previous.map_or_else(Arc::default, |previous| previous.seats.clone()),
            tls,
            eject: upstream.eject,
            ejections: previous.map_or_else(Arc::default, |previous| previous.ejections.clone()),
            on_remove: upstream.on_remove,
            endpoints: ArcSwap::from_pointee(group(&upstream.endpoints, previous)),
        }
    }

    /// How its connections find out that their peer has gone.
    pub fn liveness(&self) -> Option<&snapshot::Liveness> {
        self.terms.liveness.as_ref()
    }

    /// The TLS towards its endpoints, for the next configuration.
    pub fn tls(&self) -> Option<&Arc<ClientTls>> {
        self.tls.as_ref()
    }

    /// The connections that it has and may have.
    pub fn seats(&self) -> &Arc<Seats> {
        &self.seats
    }

    /// Its limits, and what becomes of endpoints that have left, hold from now on.
    pub fn commit(&self) {
        self.seats.set_limits(&self.limits);
        self.mark_departed();
    }

    /// Replaces the endpoints; those that stay keep their load. Whether the connections of some are to end now.
    pub fn set_endpoints(&self, endpoints: &[snapshot::Endpoint]) -> bool {
        self.endpoints.store(Arc::new(group(endpoints, Some(self))));
        self.mark_departed()
    }

    /// Tells endpoints whether their connections are to end; whether there are such that did not know it.
    fn mark_departed(&self) -> bool {
        let group = self.endpoints.load();
        for endpoint in &group.endpoints {
            endpoint.set_draining(false);
        }
        let drains = self.on_remove == snapshot::OnChange::Drain;
        let departed = group.departed.iter().filter_map(Weak::upgrade);
        // All of them are told, so no `any`.
        departed.filter(|endpoint| endpoint.set_draining(drains) && drains).count() > 0
    }

    /// The endpoints now.
    pub fn endpoints(&self) -> Vec<Arc<Endpoint>> {
        self.endpoints.load().endpoints.clone()
    }

    /// How an endpoint is chosen.
    pub fn balance(&self) -> &snapshot::Balance {
        &self.balance
    }

    /// Whether `endpoint`, one of its own, gets nothing now.
    pub fn is_ejected(&self, endpoint: &Endpoint) -> bool {
        self.eject.is_some() && endpoint.health.is_ejected(clock::now())
    }

    fn pick(&self, group: &Group, key: Option<u64>, tried: &[bool]) -> Option<usize> {
        let ejected = self.ejected(group);
        let (policy, cursor, random) = (&self.balance, &group.cursor, random::number());
        let choice = Choice { policy, cursor, random, key, tried, ejected: &ejected };
        group.candidates.pick(&choice, |index| group.endpoints[index].load())
    }

    /// Who is ejected now; empty when nobody is. Where a change of the endpoints has left more of them ejected than may
    /// be, nobody is.
    fn ejected(&self, group: &Group) -> Vec<bool> {
        let Some(rules) = &self.eject else { return Vec::new() };
        let now = clock::now();
        if self.ejections.until.load(Relaxed) <= now {
            return Vec::new();
        }
        let ejected: Vec<bool> = group.endpoints.iter().map(|endpoint| endpoint.health.is_ejected(now)).collect();
        let count = ejected.iter().filter(|is_ejected| **is_ejected).count();
        if count > balance::most(rules, ejected.len()) { Vec::new() } else { ejected }
    }

    /// An endpoint has failed, and may have done so too often.
    fn blame(&self, endpoint: &Endpoint, why: impl Display, events: &Events) {
        let Some(rules) = &self.eject else { return };
        let now = clock::now();
        if !endpoint.health.failed(rules, now) {
            return;
        }
        let _turn = self.ejections.turn.lock().unwrap_or_else(PoisonError::into_inner);
        let group = self.endpoints.load();
        let out = group.endpoints.iter().filter(|endpoint| endpoint.health.is_ejected(now)).count();
        if out >= balance::most(rules, group.endpoints.len()) {
            return;
        }
        if let Some(lasts) = endpoint.health.eject(rules, now) {
            self.ejections.until.fetch_max(now + lasts, Relaxed);
            events.push(self.ejection(endpoint, why, lasts));
        }
    }

    fn ejection(&self, endpoint: &Endpoint, why: impl Display, lasts: u64) -> Event {
        let (upstream, address, failures) = (&*self.name, endpoint.address(), endpoint.health.failures());
        let seconds = lasts as f64 / 1000.0;
        let message = format!(
            "{address} of the upstream {upstream} gets nothing for {seconds} s: {failures} failures in a row, the last \
             one {why}"
        );
        let event = Event::new(Level::Warning, "endpoint_ejected", message);
        event.with("upstream", upstream).with("endpoint", address).with("seconds", seconds)
    }
}

fn group(endpoints: &[snapshot::Endpoint], previous: Option<&Upstream>) -> Group {
    let old = previous.map(|previous| previous.endpoints.load().known()).unwrap_or_default();
    let keep = |wanted: &snapshot::Endpoint| old.iter().find(|endpoint| endpoint.is_same(wanted)).cloned();
    let (endpoints, weights): (Vec<Arc<Endpoint>>, Vec<u32>) = endpoints
        .iter()
        .filter(|endpoint| !matches!(endpoint.target, snapshot::Target::Name(..)))
        .map(|wanted| (keep(wanted).unwrap_or_else(|| Arc::new(Endpoint::new(wanted))), wanted.weight))
        .unzip();
    let places: Vec<_> = endpoints.iter().zip(weights).map(|(endpoint, weight)| (weight, endpoint.address())).collect();
    let has_left = |endpoint: &&Arc<Endpoint>| !endpoints.iter().any(|stays| Arc::ptr_eq(stays, endpoint));
    let departed = old.iter().filter(has_left).map(Arc::downgrade).collect();
    Group { candidates: Candidates::new(&places), cursor: Cursor::default(), departed, endpoints }
}

impl Group {
    /// The endpoints, and those that left but are not forgotten.
    fn known(&self) -> Vec<Arc<Endpoint>> {
        self.endpoints.iter().cloned().chain(self.departed.iter().filter_map(Weak::upgrade)).collect()
    }
}
