//! What the workers decide from: a snapshot made ready. Built whole, swapped once, never changed.

use std::collections::{HashMap, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use super::admission::Limiter;
use super::h3::{quic_config, speaks_h3};
use super::handshakes::Slots;
use super::listening::{BindKey, Occupancy};
use super::tcp;
use crate::balance::Split;
use crate::error::Fault;
use crate::log;
use crate::route::RouteTable;
use crate::snapshot::{self, Action, Forward, Frames, HostMatch, HttpVersion, Respond, Snapshot};
use crate::tls::{self, ClientTls, ServerTls};
use crate::upstream::{Kind, Upstream};

/// PEM texts by the key that the snapshot names them with.
pub type Secrets = HashMap<String, Vec<u8>>;

/// The running configuration.
#[derive(Debug)]
pub struct State {
    pub generation: u64,
    pub snapshot: Snapshot,
    pub table: RouteTable,
    pub routes: Vec<RouteState>,
    pub listeners: Vec<ListenerState>,
    pub upstreams: Vec<Arc<Upstream>>,
    pub websockets: Vec<Arc<snapshot::WebSocket>>,
    pub access_log: Option<log::Sink>,
    /// The upstreams that want connections dialled ahead, by index, and for what.
    pub readied: Vec<(usize, Kind)>,
    by_key: hashbrown::HashMap<BindKey, usize>,
    by_name: hashbrown::HashMap<Arc<str>, usize>,
}

#[derive(Debug)]
pub struct ListenerState {
    pub name: Arc<str>,
    pub tls: Option<ServerTls>,
    /// None on listeners that speak HTTP.
    pub tcp: Option<tcp::Plan>,
    pub occupancy: Arc<Occupancy>,
    /// Of the WebSockets that come through it.
    pub limiter: Arc<Limiter>,
    pub slots: Arc<Slots>,
    /// None on listeners that do not speak HTTP/3.
    pub quic: Option<Arc<quinn::ServerConfig>>,
    /// The hosts whose WebSockets may come over HTTP/2.
    pub h2_websockets: Vec<HostMatch>,
    /// And over HTTP/3.
    pub h3_websockets: Vec<HostMatch>,
}

impl ListenerState {
    /// Whether some route takes WebSockets over this version of HTTP, which has extended CONNECT, on a connection that
    /// was made for this server name, or for none.
    pub fn offers_websockets(&self, version: HttpVersion, server_name: Option<&str>) -> bool {
        let hosts = if version == HttpVersion::H3 { &self.h3_websockets } else { &self.h2_websockets };
        let Some(name) = server_name else { return !hosts.is_empty() };
        hosts.iter().any(|host| match host {
            HostMatch::Any => true,
            HostMatch::Exact(host) => name == host,
            HostMatch::Suffix(suffix) => name.ends_with(&**suffix),
            HostMatch::Prefix(prefix) => name.starts_with(&**prefix),
        })
    }
}

#[derive(Debug)]
pub struct RouteState {
    pub name: Arc<str>,
    /// Equal as long as nothing that a connection uses has changed.
    pub fingerprint: u64,
    /// Of its WebSockets.
    pub limiter: Arc<Limiter>,
    /// How requests are shared between upstreams; none on routes that answer themselves.
    pub split: Option<Split>,
}

impl State {
    /// Makes `snapshot` ready, taking over from `previous` what outlives a configuration.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn build(snapshot: Snapshot, secrets: &Secrets, previous: Option<&Self>) -> Result<Self, Vec<Fault>> {
        let mut faults = shape_faults(&snapshot);
        if !faults.is_empty() {
            return Err(faults);
        }
        let listeners = build_listeners(&snapshot, secrets, previous, &mut faults);
        let secured = build_upstream_tls(&snapshot, secrets, previous, &mut faults);
        let table = RouteTable::build(&snapshot).map_err(|more| faults.extend(more));
        let access_log = open_log(&snapshot, previous, &mut faults);
        let (Ok(table), true) = (table, faults.is_empty()) else { return Err(faults) };
        Ok(Self {
            generation: previous.map_or(0, |state| state.generation) + 1,
            table,
            routes: snapshot.routes.iter().map(|route| build_route(&snapshot, route, previous)).collect(),
            listeners,
            upstreams: snapshot
                .upstreams
                .iter()
                .zip(secured)
                .map(|(upstream, tls)| Arc::new(Upstream::build(upstream, tls, named(previous, &upstream.name))))
                .collect(),
            websockets: snapshot.websockets.iter().cloned().map(Arc::new).collect(),
            access_log,
            readied: readied(&snapshot),
            by_name: snapshot
                .routes
                .iter()
                .enumerate()
                .map(|(index, route)| (route.name.as_str().into(), index))
                .collect(),
            by_key: snapshot
                .listeners
                .iter()
                .enumerate()
                .flat_map(|(index, listener)| bind_keys(listener).map(move |key| (key, index)))
                .collect(),
            snapshot,
        })
    }

    /// Everything that is wrong with `snapshot`, without touching the system: no log is opened.
    pub fn check(snapshot: &Snapshot, secrets: &Secrets) -> Vec<Fault> {
        let mut faults = shape_faults(snapshot);
        if faults.is_empty() {
            build_listeners(snapshot, secrets, None, &mut faults);
            build_upstream_tls(snapshot, secrets, None, &mut faults);
            faults.extend(RouteTable::build(snapshot).err().unwrap_or_default());
        }
        faults
    }

    /// Where the route of this name stands.
    pub fn route(&self, name: &str) -> Option<usize> {
        self.by_name.get(name).copied()
    }

    /// The listener that a bound address belongs to now; none once it has gone.
    pub fn listener(&self, key: &BindKey) -> Option<usize> {
        self.by_key.get(key).copied()
    }
}

/// The identities of a listener's sockets, in the order of its binds.
pub fn bind_keys(listener: &snapshot::Listener) -> impl Iterator<Item = BindKey> {
    listener.binds.iter().enumerate().map(|(position, bind)| BindKey::new(bind, &listener.name, position))
}

/// Indices that point nowhere would panic later; Python never writes them.
fn shape_faults(snapshot: &Snapshot) -> Vec<Fault> {
    let mut faults = Vec::new();
    if snapshot.format != snapshot::FORMAT {
        faults.push(Fault::new("/format", format!("this engine reads format {}", snapshot::FORMAT)));
    }
    for (index, route) in snapshot.routes.iter().enumerate() {
        let upstreams = match &route.action {
            Action::Forward(forward) => &forward.to[..],
            Action::Redirect(_) | Action::Respond(_) => &[],
        };
        let bad_listener = |at: &snapshot::RouteListener| {
            at.listener >= snapshot.listeners.len() || at.websocket >= snapshot.websockets.len()
        };
        if route.listeners.iter().any(bad_listener) {
            faults.push(Fault::new(format!("/routes/{index}/listeners"), "no such listener or websocket"));
        }
        if upstreams.iter().any(|share| share.upstream >= snapshot.upstreams.len()) {
            faults.push(Fault::new(format!("/routes/{index}/action/forward/to"), "no such upstream"));
        }
    }
    for (index, listener) in snapshot.listeners.iter().enumerate() {
        let mut shares = listener.tcp.iter().flat_map(|tcp| tcp.target.shares());
        if shares.any(|share| share.upstream >= snapshot.upstreams.len()) {
            faults.push(Fault::new(format!("/listeners/{index}/tcp"), "no such upstream"));
        }
    }
    for (index, upstream) in snapshot.upstreams.iter().enumerate() {
        if upstream.tls.is_none() && upstream.endpoints.iter().any(|endpoint| endpoint.tls.is_some()) {
            faults.push(Fault::new(format!("/upstreams/{index}"), "an endpoint wants TLS, and there is none"));
        }
    }
    faults
}

/// Which upstreams want connections dialled ahead, and for what.
fn readied(snapshot: &Snapshot) -> Vec<(usize, Kind)> {
    let forwards = snapshot.routes.iter().filter_map(|route| match &route.action {
        Action::Forward(forward) => Some(forward),
        Action::Redirect(_) | Action::Respond(_) => None,
    });
    let routed = forwards.flat_map(|forward| {
        let connect = forward.tunnels.as_ref().and_then(|tunnels| tunnels.connect);
        let kind = if connect == Some(snapshot::Connect::Terminate) { Kind::Bytes } else { Kind::Http };
        forward.to.iter().map(move |share| (share.upstream, kind))
    });
    let carriers = snapshot.listeners.iter().filter_map(|listener| listener.tcp.as_ref());
    let carried = carriers.flat_map(|tcp| tcp.target.shares()).map(|share| (share.upstream, Kind::Bytes));
    let all: HashSet<(usize, Kind)> = routed.chain(carried).collect();
    all.into_iter().filter(|(index, _)| snapshot.upstreams[*index].pool.ready > 0).collect()
}

/// The upstream of this name in the configuration before.
fn named<'s>(previous: Option<&'s State>, name: &str) -> Option<&'s Upstream> {
    previous?.upstreams.iter().find(|old| *old.name == *name).map(|old| &**old)
}

fn build_upstream_tls(
    snapshot: &Snapshot,
    secrets: &Secrets,
    previous: Option<&State>,
    faults: &mut Vec<Fault>,
) -> Vec<Option<Arc<ClientTls>>> {
    let build = |(index, upstream): (usize, &snapshot::Upstream)| {
        let old = named(previous, &upstream.name).and_then(Upstream::tls);
        let built = tls::build_client(upstream.tls.as_ref()?, secrets, &format!("/upstreams/{index}/tls"), old);
        built.map_err(|more| faults.extend(more)).ok()
    };
    snapshot.upstreams.iter().enumerate().map(build).collect()
}

fn build_listeners(
    snapshot: &Snapshot,
    secrets: &Secrets,
    previous: Option<&State>,
    faults: &mut Vec<Fault>,
) -> Vec<ListenerState> {
    let build = |(index, listener): (usize, &snapshot::Listener)| {
        let old = previous.and_then(|state| state.listeners.iter().find(|old| *old.name == *listener.name));
        let (pointer, before) = (format!("/listeners/{index}/tls"), old.and_then(|old| old.tls.as_ref()));
        let tls = listener.tls.as_ref().map(|tls| tls::build(tls, secrets, &pointer, offered(listener), before));
        let tls = tls.transpose().unwrap_or_else(|more| {
            faults.extend(more);
            None
        });
        let tcp = listener.tcp.as_ref().map(tcp::Plan::new);
        let occupancy = old.map_or_else(Arc::default, |old| old.occupancy.clone());
        let limiter = old.map_or_else(Arc::default, |old| old.limiter.clone());
        let count = listener.limits.tls_handshakes;
        let slots = old.map(|old| &old.slots).filter(|slots| slots.is_same(count)).cloned();
        let slots = slots.unwrap_or_else(|| Arc::new(Slots::new(count)));
        let quic = build_quic(listener, tls.as_ref()).unwrap_or_else(|why| {
            faults.push(Fault::new(format!("/listeners/{index}/http"), why));
            None
        });
        let [h2_websockets, h3_websockets] =
            [HttpVersion::H2, HttpVersion::H3].map(|version| websocket_hosts(snapshot, index, version));
        let name = listener.name.as_str().into();
        ListenerState { name, tls, tcp, occupancy, limiter, slots, quic, h2_websockets, h3_websockets }
    };
    snapshot.listeners.iter().enumerate().map(build).collect()
}

/// The versions of HTTP that a listener offers by ALPN. Over TCP the gateway knows of none.
fn offered(listener: &snapshot::Listener) -> &[HttpVersion] {
    if listener.tcp.is_some() { &[] } else { &listener.http }
}

fn build_quic(
    listener: &snapshot::Listener,
    tls: Option<&ServerTls>,
) -> Result<Option<Arc<quinn::ServerConfig>>, String> {
    match tls.filter(|_| speaks_h3(listener)) {
        Some(tls) => quic_config(listener, tls.over_quic()?).map(Some),
        None => Ok(None),
    }
}

/// The hosts of the routes on a listener that take WebSockets, or another protocol, by the extended CONNECT of this
/// version of HTTP; just the one where that is any.
fn websocket_hosts(snapshot: &Snapshot, listener: usize, version: HttpVersion) -> Vec<HostMatch> {
    let takes = |route: &&snapshot::Route| {
        let on = route.listeners.iter().find(|on| on.listener == listener);
        let serves = matches!(route.action, Action::Forward(_) | Action::Respond(Respond::Echo));
        let settings = on.map(|on| &snapshot.websockets[on.websocket]);
        let takes = settings.is_some_and(|one| one.enabled && one.over.contains(&version) && !is_opaque(one));
        (serves && takes) || (on.is_some() && has_upgrades(&route.action))
    };
    let hosts: HashSet<&HostMatch> =
        snapshot.routes.iter().filter(takes).flat_map(|route| &route.matches.hosts).collect();
    if hosts.contains(&HostMatch::Any) { vec![HostMatch::Any] } else { hosts.into_iter().cloned().collect() }
}

/// Whether other protocols than websocket may be asked for.
fn has_upgrades(action: &Action) -> bool {
    matches!(action, Action::Forward(Forward { tunnels: Some(tunnels), .. }) if !tunnels.upgrades.is_empty())
}

fn is_opaque(settings: &snapshot::WebSocket) -> bool {
    settings.frames == Frames::Opaque
}

/// The log stays open across reloads that do not change it.
fn open_log(snapshot: &Snapshot, previous: Option<&State>, faults: &mut Vec<Fault>) -> Option<log::Sink> {
    let wanted = snapshot.access_log.as_ref()?;
    let old = previous.filter(|state| state.snapshot.access_log.as_ref() == Some(wanted));
    if let Some(sink) = old.and_then(|state| state.access_log.clone()) {
        return Some(sink);
    }
    let opened = log::open(wanted);
    opened
        .map_err(|error| {
            let message = format!("cannot write the access log to {}: {error}", wanted.path);
            faults.push(Fault::new("/access_log/path", message));
        })
        .ok()
}

fn build_route(snapshot: &Snapshot, route: &snapshot::Route, previous: Option<&State>) -> RouteState {
    let old = previous.and_then(|state| Some(&state.routes[state.route(&route.name)?]));
    let limiter = old.map_or_else(Arc::default, |old| old.limiter.clone());
    let split = match &route.action {
        Action::Forward(forward) => Some(Split::new(&forward.to.iter().map(|share| share.weight).collect::<Vec<_>>())),
        Action::Redirect(_) | Action::Respond(_) => None,
    };
    RouteState { name: route.name.as_str().into(), fingerprint: fingerprint(snapshot, route), limiter, split }
}

/// A hash of what a connection on this route uses: the route, its settings, the names of its upstreams. Neither its
/// place in the file nor the order of routes, listeners and upstreams is part of it.
fn fingerprint(snapshot: &Snapshot, route: &snapshot::Route) -> u64 {
    let mut hasher = DefaultHasher::new();
    let mut plain = route.clone();
    plain.place = snapshot::Place { file: String::new(), line: 0 };
    plain.listeners.clear();
    // Who may open one is no concern of those that are open.
    plain.admission = snapshot::Admission::default();
    if let Action::Forward(forward) = &mut plain.action {
        for share in &mut forward.to {
            snapshot.upstreams[share.upstream].name.hash(&mut hasher);
            share.upstream = 0;
        }
    }
    format!("{plain:?}").hash(&mut hasher);
    let mut settings: Vec<_> = route
        .listeners
        .iter()
        .map(|at| (&snapshot.listeners[at.listener].name, format!("{:?}", snapshot.websockets[at.websocket])))
        .collect();
    settings.sort();
    settings.hash(&mut hasher);
    hasher.finish()
}
