//! Upstreams: named groups of endpoints, how one is chosen, dialled, and asked.

mod connect;
mod crossing;
mod dial;
mod endpoint;
mod group;
mod h2;
mod h3;
mod pool;
mod probe;
mod quic;
mod read;
mod ready;
mod seats;
mod tries;
mod trunk;
mod trunks;

use std::fmt::Display;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;

pub use self::connect::{Introduction, Reached, Wish};
pub use self::crossing::{Awaited, Crossing, Question, refuses_extended};
use self::dial::Terms;
pub use self::endpoint::{Endpoint, Permit, Speaks};
use self::group::{Group, Panic};
pub use self::pool::{Owner, Pools};
pub use self::read::{HeadError, ResponseReader};
pub use self::ready::Kind;
use self::seats::Seats;
pub use self::tries::{Again, Tries};
pub use self::trunk::{Opened, Place};
use crate::balance;
use crate::io::Stream;
use crate::io::clock::{self, Millis};
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
    /// Our own.
    zone: Option<String>,
    health: Option<snapshot::Health>,
    slow_start: Option<Millis>,
    panic: Arc<Panic>,
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

impl Ejections {
    /// When the last of those that are ejected comes back; 0 where none ever was.
    fn until(&self) -> Millis {
        self.until.load(Relaxed)
    }
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
        let running = previous.map(|previous| previous.endpoints.load());
        let group =
            Group::build(&upstream.endpoints, upstream.zone.as_deref(), running.as_deref().map(|group| &**group));
        let built = Self {
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
            zone: upstream.zone.clone(),
            health: upstream.health.clone(),
            slow_start: upstream.slow_start,
            panic: previous.map_or_else(Arc::default, |previous| previous.panic.clone()),
            endpoints: ArcSwap::from_pointee(group),
        };
        built.refresh(&built.endpoints.load());
        built
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

    /// Its limits hold from now on, what becomes of endpoints that have left, and what was found out since it was
    /// built.
    pub fn commit(&self, events: &Events) {
        self.seats.set_limits(&self.limits);
        self.mark_departed();
        self.refresh(&self.endpoints.load());
        self.review(events);
    }

    /// Replaces the endpoints; those that stay keep their load. Whether the connections of some are to end now.
    pub fn set_endpoints(&self, endpoints: &[snapshot::Endpoint], events: &Events) -> bool {
        let group = Group::build(endpoints, self.zone.as_deref(), Some(&self.endpoints.load()));
        self.refresh(&group);
        self.endpoints.store(Arc::new(group));
        self.review(events);
        self.mark_departed()
    }

    /// Tells endpoints whether their connections are to end; whether there are such that did not know it.
    fn mark_departed(&self) -> bool {
        let group = self.endpoints.load();
        for endpoint in &group.endpoints {
            endpoint.set_draining(false);
        }
        let drains = self.on_remove == snapshot::OnChange::Drain;
        // All of them are told, so no `any`.
        group.departed().filter(|endpoint| endpoint.set_draining(drains) && drains).count() > 0
    }

    /// The endpoints now.
    pub fn endpoints(&self) -> Vec<Arc<Endpoint>> {
        self.endpoints.load().endpoints.clone()
    }

    /// How an endpoint is chosen.
    pub fn balance(&self) -> &snapshot::Balance {
        &self.balance
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
