//! One request: what was asked, and what was found out about it.

use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;

use super::admission::Held;
use super::client::Client;
use super::forwarded;
use super::state::State;
use super::worker::Worker;
use crate::http::grpc_web::WebCall;
use crate::http::{Fields, RequestHead};
use crate::io::clock::{self, Millis};
use crate::io::random;
use crate::relay::RelayMetrics;
use crate::route::{self, CleanPath, Compiled, HostRule, Values};
use crate::snapshot::{Action, Forward, HttpVersion, WebSocket};
use crate::upstream::{self, Link, Upstream};

/// The field that names a request, towards the upstream and the client.
pub const REQUEST_ID: &str = "X-Request-ID";

/// A request under way.
#[derive(Debug)]
pub struct Exchange {
    /// What runs, as of this request.
    pub state: Arc<State>,
    pub listener: usize,
    pub head: RequestHead,
    /// The client itself, behind trusted proxies too.
    pub client: Option<IpAddr>,
    pub request_id: String,
    /// Path and query as the upstream gets them.
    pub target: Vec<u8>,
    pub(super) peer: Option<IpAddr>,
    pub(super) server_name: Option<String>,
    pub(super) connection: u64,
    /// Spoken with the client.
    pub(super) protocol: HttpVersion,
    pub(super) started: Millis,
    pub(super) found: Option<Found>,
    /// Index of the upstream that the split chose.
    pub(super) upstream: Option<usize>,
    pub(super) endpoint: Option<Arc<str>>,
    /// Spoken with the endpoint, for the log.
    pub(super) upstream_protocol: &'static str,
    /// Tries at the upstream.
    pub(super) attempts: u32,
    /// Whether it asks for a WebSocket; then its connection carries nothing after an answer other than 101.
    pub(super) is_attempt: bool,
    /// Of the WebSocket that it may become.
    pub(super) held: Held,
}

/// The route that takes it, by index, and the WebSocket settings there.
#[derive(Clone, Copy, Debug)]
pub(super) struct Found {
    pub(super) route: usize,
    pub(super) websocket: usize,
}

impl Exchange {
    /// Loads the state and says who asks. None when the listener has gone meanwhile. In a box: it is large, and goes
    /// from hand to hand.
    pub fn new(worker: &Rc<Worker>, client: &Client<'_>, head: RequestHead) -> Option<Box<Self>> {
        let (state, downstream) = (worker.shared.state()?, client.downstream());
        let listener = state.listener(&downstream.permit.listening.key)?;
        let trusted = &state.snapshot.listeners[listener].trusted_proxies;
        let peer = downstream.peer.map(|peer| peer.ip());
        let given = head.fields.first(REQUEST_ID).filter(|id| forwarded::is_trusted(peer, trusted) && is_id(id));
        let request_id = given.map_or_else(fresh_id, |id| String::from_utf8_lossy(id).into_owned());
        Some(Box::new(Self {
            client: forwarded::client(peer, &head.fields, trusted),
            request_id,
            target: Vec::new(),
            peer,
            server_name: downstream.tls.as_ref().and_then(|tls| tls.server_name.clone()),
            connection: downstream.id,
            protocol: client.protocol(),
            started: clock::now(),
            found: None,
            upstream: None,
            endpoint: None,
            upstream_protocol: "h1",
            attempts: 0,
            is_attempt: false,
            held: Held::default(),
            state,
            listener,
            head,
        }))
    }

    /// The host asked for, as received; empty in HTTP/1.0 without one.
    pub fn host(&self) -> &[u8] {
        self.head.host.as_ref().map_or(b"", |host| host.as_bytes())
    }

    /// The route's index. Only for exchanges that were decided.
    pub fn route_index(&self) -> usize {
        self.found.as_ref().map_or(0, |found| found.route)
    }

    pub(super) fn route_name(&self) -> Option<&str> {
        self.found.as_ref().map(|found| &*self.state.routes[found.route].name)
    }

    /// The WebSocket settings of its route on its listener.
    pub fn websocket(&self) -> &Arc<WebSocket> {
        &self.state.websockets[self.found.as_ref().map_or(0, |found| found.websocket)]
    }

    /// The most that its body may have.
    pub fn body_limit(&self) -> Option<u64> {
        let on = &self.state.snapshot.routes[self.route_index()].listeners;
        on.iter().find(|on| on.listener == self.listener).and_then(|on| on.body_limit)
    }

    /// How long its body may pause.
    pub fn body_timeout(&self) -> Option<Millis> {
        self.state.snapshot.listeners[self.listener].body_timeout
    }

    /// The call of gRPC-Web that it is, where its route translates them.
    pub fn web_call(&self) -> Option<WebCall> {
        let route = &self.state.snapshot.routes[self.found.as_ref()?.route];
        let translates = matches!(&route.action, Action::Forward(forward) if forward.grpc_web);
        if translates { WebCall::of(&self.head.fields) } else { None }
    }

    /// Where its route forwards to. Only for exchanges with that plan.
    pub fn forward(&self) -> &Forward {
        match &self.state.snapshot.routes[self.route_index()].action {
            Action::Forward(forward) => forward,
            Action::Redirect(_) | Action::Respond(_) => unreachable!("decided by a route that forwards"),
        }
    }

    /// The upstream that the split chose.
    pub fn pick_upstream(&self) -> &Arc<Upstream> {
        &self.state.upstreams[self.upstream.unwrap_or(0)]
    }

    /// The name of the upstream, empty where there is none.
    pub fn upstream_name(&self) -> Arc<str> {
        self.upstream.map_or_else(|| "".into(), |index| self.state.upstreams[index].name.clone())
    }

    /// Remembers where it went, for the log.
    pub fn went_to(&mut self, link: &Link) {
        self.goes_to(&link.permit, link.protocol());
    }

    /// Like [`Exchange::went_to`], before there is a link.
    pub fn goes_to(&mut self, permit: &upstream::Permit, protocol: &'static str) {
        self.endpoint = Some(permit.endpoint().name.clone());
        self.upstream_protocol = protocol;
    }

    /// Whether asking a second time does no harm: nothing of a body was sent.
    pub fn may_repeat(&self) -> bool {
        self.head.body.is_empty() && self.head.method.is_idempotent()
    }

    /// The first subprotocol that the client offers and the route allows.
    pub fn first_subprotocol(&self) -> Option<Vec<u8>> {
        let allowed = self.websocket().subprotocols.as_ref();
        let may = |name: &&[u8]| allowed.is_none_or(|allowed| allowed.iter().any(|one| one.as_bytes() == *name));
        self.head.fields.elements("Sec-WebSocket-Protocol").find(may).map(<[u8]>::to_vec)
    }

    pub(super) fn compiled(&self) -> &Compiled {
        self.state.table.compiled(self.route_index())
    }

    /// The request's path. Only for exchanges that were decided: its path was clean then.
    pub(super) fn path(&self) -> CleanPath<'_> {
        route::clean(self.head.target.path()).expect("decided, so its path is clean")
    }

    pub(super) fn values<'a>(&'a self, path: &'a CleanPath<'a>) -> Values<'a> {
        Values {
            client_ip: self.client,
            server_name: self.server_name.as_deref(),
            route: self.route_name().unwrap_or_default(),
            request_id: &self.request_id,
            host: self.head.host.as_ref().map_or(b"", |host| host.host()),
            method: self.head.method.as_bytes(),
            path,
            query: self.head.target.query().unwrap_or_default(),
            fields: &self.head.fields,
            compiled: self.compiled(),
        }
    }

    /// Makes of the client's fields, without those of its connection, the upstream's. In this order, because a client
    /// could otherwise name what we add in its `Connection` and have it dropped.
    pub fn request_fields(&self, mut fields: Fields, is_tls: bool, endpoint_host: &str) -> Fields {
        let trusted = &self.state.snapshot.listeners[self.listener].trusted_proxies;
        let port = self.head.host.as_ref().and_then(|host| host.port());
        let arrival = forwarded::Arrival { peer: self.peer, is_tls, host: self.host(), port };
        forwarded::announce(&mut fields, &arrival, trusted);
        fields.set(REQUEST_ID, self.request_id.as_bytes());
        match &self.compiled().host {
            HostRule::Preserve if fields.has("Host") => {}
            HostRule::Preserve | HostRule::Upstream => fields.set("Host", endpoint_host.as_bytes()),
            HostRule::Set(template) => {
                let mut host = Vec::new();
                template.render(&mut host, &self.values(&self.path()));
                fields.set("Host", &host);
            }
        }
        self.edit(&self.compiled().request_edits, &mut fields);
        fields
    }

    fn edit(&self, edits: &route::CompiledEdits, fields: &mut Fields) {
        if !edits.is_empty() {
            edits.apply(fields, &self.values(&self.path()));
        }
    }

    /// Edits an answer's fields as the route says.
    pub fn edit_response(&self, fields: &mut Fields) {
        self.edit(&self.compiled().response_edits, fields);
    }

    /// The counters of this route's relays.
    pub fn relay_metrics(&self, worker: &Worker) -> Arc<RelayMetrics> {
        let route = self.route_index();
        worker.tallies.relay(self.state.generation, route, &self.state.routes[route].name)
    }
}

/// Whether a request id from outside may go into logs and headers as it is.
fn is_id(id: &[u8]) -> bool {
    (1..=128).contains(&id.len()) && id.iter().all(u8::is_ascii_graphic)
}

fn fresh_id() -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut id = String::with_capacity(32);
    for number in [random::number(), random::number()] {
        id.extend((0..16).rev().map(|place| char::from(DIGITS[(number >> (4 * place)) as usize & 15])));
    }
    id
}
