//! One request: what was asked, what was found out about it, and what is decided.

use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;

use super::answer;
use super::connection::Step;
use super::forwarded;
use super::leases;
use super::session::Session;
use super::state::State;
use super::tally::Handshake;
use super::worker::Worker;
use crate::error::{Refusal, refusal};
use crate::http::{Fields, RequestHead};
use crate::io::clock::{self, Millis};
use crate::io::random;
use crate::log::{self, Kind};
use crate::relay::RelayMetrics;
use crate::route::{self, CleanPath, Compiled, HostRule, Values};
use crate::snapshot::{Action, Forward, Frames, Redirect, Respond, WebSocket};
use crate::upstream::{Link, Upstream};
use crate::ws::handshake::{self, Accepted, Attempt};

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
    peer: Option<IpAddr>,
    server_name: Option<String>,
    connection: u64,
    started: Millis,
    found: Option<Found>,
    /// Index of the upstream that the split chose.
    upstream: Option<usize>,
    endpoint: Option<Arc<str>>,
    /// Whether it asks for a WebSocket; then its connection carries nothing after an answer other than 101.
    is_attempt: bool,
}

/// The route that takes it, by index, and the WebSocket settings there.
#[derive(Clone, Copy, Debug)]
struct Found {
    route: usize,
    websocket: usize,
}

/// What a good attempt asks for.
#[derive(Clone, Copy, Debug)]
pub enum Offer {
    Strict(handshake::Offer),
    Opaque(handshake::Opaque),
}

/// What is to be done.
#[derive(Debug)]
pub enum Plan {
    Answer(Answer),
    Echo,
    EchoWebSocket(handshake::Offer),
    Forward,
    WebSocket(Offer),
}

/// An answer of our own.
#[derive(Debug)]
pub struct Answer {
    status: u16,
    fields: Fields,
    content_type: String,
    body: Vec<u8>,
}

impl Exchange {
    /// Loads the state and says who asks. None when the listener has gone meanwhile.
    pub fn new(worker: &Rc<Worker>, session: &Session, head: RequestHead) -> Option<Self> {
        let state = worker.shared.state()?;
        let listener = state.listener(&session.permit.listening.key)?;
        let trusted = &state.snapshot.listeners[listener].trusted_proxies;
        let peer = session.peer.map(|peer| peer.ip());
        let given = head.fields.first("x-request-id").filter(|id| forwarded::is_trusted(peer, trusted) && is_id(id));
        let request_id = given.map_or_else(fresh_id, |id| String::from_utf8_lossy(id).into_owned());
        Some(Self {
            client: forwarded::client(peer, &head.fields, trusted),
            request_id,
            target: Vec::new(),
            peer,
            server_name: session.tls.as_ref().and_then(|tls| tls.server_name.clone()),
            connection: session.id,
            started: clock::now(),
            found: None,
            upstream: None,
            endpoint: None,
            is_attempt: false,
            state,
            listener,
            head,
        })
    }

    /// The host asked for, as received; empty in HTTP/1.0 without one.
    pub fn host(&self) -> &[u8] {
        self.head.host.as_ref().map_or(b"", |host| host.as_bytes())
    }

    /// The route's index. Only for exchanges that were decided.
    pub fn route_index(&self) -> usize {
        self.found.as_ref().map_or(0, |found| found.route)
    }

    fn route_name(&self) -> Option<&str> {
        self.found.as_ref().map(|found| &*self.state.routes[found.route].name)
    }

    /// The WebSocket settings of its route on its listener.
    pub fn websocket(&self) -> &Arc<WebSocket> {
        &self.state.websockets[self.found.as_ref().map_or(0, |found| found.websocket)]
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
    pub fn went_to(&mut self, _: &Upstream, link: &Link) {
        self.endpoint = Some(link.permit.endpoint().name.clone());
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

    fn compiled(&self) -> &Compiled {
        self.state.table.compiled(self.route_index())
    }

    /// The request's path. Only for exchanges that were decided: its path was clean then.
    fn path(&self) -> CleanPath<'_> {
        route::clean(self.head.target.path()).expect("decided, so its path is clean")
    }

    fn values<'a>(&'a self, path: &'a CleanPath<'a>) -> Values<'a> {
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
        forwarded::announce(&mut fields, self.peer, trusted, is_tls, self.host());
        fields.set("X-Request-ID", self.request_id.as_bytes());
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

/// Finds the route and says what it wants.
///
/// # Errors
/// The refusal for the client.
pub fn decide(session: &Session, exchange: &mut Exchange) -> Result<Plan, Refusal> {
    check_authority(session, exchange)?;
    exchange.found = find(exchange)?;
    let attempt = attempt(exchange);
    exchange.is_attempt = !matches!(attempt, Attempt::None);
    if exchange.found.is_none() {
        return Err(refusal::NO_ROUTE);
    }
    let state = exchange.state.clone();
    match &state.snapshot.routes[exchange.route_index()].action {
        Action::Forward(forward) => plan_forward(exchange, forward, attempt),
        Action::Respond(respond) => plan_respond(session, exchange, respond, attempt),
        Action::Redirect(redirect) => Ok(Plan::Answer(redirected(exchange, redirect))),
    }
}

fn find(exchange: &Exchange) -> Result<Option<Found>, Refusal> {
    let head = &exchange.head;
    let path = route::clean(head.target.path()).map_err(route::BadPath::refusal)?;
    let request = route::Request {
        host: head.host.as_ref().map_or(b"", |host| host.host()),
        path: &path,
        query: head.target.query().unwrap_or_default(),
        method: head.method.as_bytes(),
        fields: &head.fields,
    };
    let found = exchange.state.table.find(exchange.listener, &request);
    Ok(found.map(|found| Found { route: found.route, websocket: found.websocket }))
}

fn plan_forward(exchange: &mut Exchange, forward: &Forward, attempt: Attempt<Offer>) -> Result<Plan, Refusal> {
    let offer = allowed(exchange, attempt)?;
    exchange.target = upstream_target(exchange)?;
    let split = exchange.state.routes[exchange.route_index()].split.as_ref();
    let share = split.map_or(0, |split| split.choose());
    exchange.upstream = Some(forward.to[share].upstream);
    Ok(offer.map_or(Plan::Forward, Plan::WebSocket))
}

fn upstream_target(exchange: &Exchange) -> Result<Vec<u8>, Refusal> {
    let path = exchange.path();
    let mut target = exchange.compiled().upstream_path(&path).map_err(route::BadPath::refusal)?.into_owned();
    if let Some(query) = exchange.head.target.query() {
        target.push(b'?');
        target.extend_from_slice(query);
    }
    Ok(target)
}

fn plan_respond(
    session: &Session,
    exchange: &Exchange,
    respond: &Respond,
    attempt: Attempt<Offer>,
) -> Result<Plan, Refusal> {
    match respond {
        Respond::Echo => match allowed(exchange, attempt)? {
            Some(Offer::Strict(offer)) => Ok(Plan::EchoWebSocket(offer)),
            Some(Offer::Opaque(_)) => Err(refusal::WEBSOCKET_DISABLED),
            None => Ok(Plan::Echo),
        },
        Respond::Ready => Ok(Plan::Answer(ready(!session.permit.shared.is_draining()))),
        Respond::Fixed { status, body, content_type, .. } => Ok(Plan::Answer(Answer {
            status: *status,
            fields: own_fields(exchange),
            content_type: content_type.clone(),
            body: body.clone().into_bytes(),
        })),
    }
}

fn redirected(exchange: &Exchange, redirect: &Redirect) -> Answer {
    let mut fields = Fields::new();
    if let Some(location) = &exchange.compiled().redirect_to {
        fields.push(b"Location", &location.render(&exchange.values(&exchange.path())));
    }
    exchange.edit_response(&mut fields);
    Answer { status: redirect.status, fields, content_type: String::new(), body: Vec::new() }
}

/// RFC 9110 §7.4: a connection that was opened for one server name must not be used for another one that has its own
/// certificate or its own rule for client certificates.
fn check_authority(session: &Session, exchange: &Exchange) -> Result<(), Refusal> {
    let tls = exchange.state.listeners[exchange.listener].tls.as_ref();
    let (Some(tls), Some(facts), Some(host)) = (tls, &session.tls, &exchange.head.host) else { return Ok(()) };
    let host = String::from_utf8_lossy(host.host()).trim_end_matches('.').to_ascii_lowercase();
    let same_name = facts.server_name.as_deref() == Some(&host);
    let other_certificate = facts.server_name.is_some() && !same_name && !tls.covers(&host);
    let other_rule = tls.rule(host.as_str()) != facts.rule;
    if other_certificate || other_rule { Err(refusal::MISDIRECTED) } else { Ok(()) }
}

/// Whether the request asks for a WebSocket, by the rules of its route.
fn attempt(exchange: &Exchange) -> Attempt<Offer> {
    let head = &exchange.head;
    let (method, is_1_1, has_body) = (head.method.as_bytes(), head.minor == 1, !head.body.is_empty());
    let settings = exchange.found.as_ref().map(|found| &exchange.state.websockets[found.websocket]);
    if settings.is_some_and(|settings| settings.frames == Frames::Opaque) {
        return map(handshake::classify_opaque(method, is_1_1, &head.fields, has_body), Offer::Opaque);
    }
    map(handshake::classify(method, is_1_1, &head.fields, has_body), Offer::Strict)
}

fn map<T>(attempt: Attempt<T>, offer: impl FnOnce(T) -> Offer) -> Attempt<Offer> {
    match attempt {
        Attempt::None => Attempt::None,
        Attempt::WebSocket(good) => Attempt::WebSocket(offer(good)),
        Attempt::Refused(refusal) => Attempt::Refused(refusal),
    }
}

/// The table "Is a WebSocket allowed here?": None for plain HTTP.
fn allowed(exchange: &Exchange, attempt: Attempt<Offer>) -> Result<Option<Offer>, Refusal> {
    let enabled = exchange.websocket().enabled;
    match attempt {
        Attempt::None => Ok(None),
        Attempt::WebSocket(offer) if enabled => Ok(Some(offer)),
        Attempt::WebSocket(_) => Err(refusal::WEBSOCKET_DISABLED),
        // A wrong version is no malformed request: where nothing may be opened, that is the answer.
        Attempt::Refused(bad) if bad.status == 426 && !enabled => Err(refusal::WEBSOCKET_DISABLED),
        Attempt::Refused(bad) => Err(Refusal::new(bad.status, bad.reason, bad.text)),
    }
}

fn own_fields(exchange: &Exchange) -> Fields {
    let mut fields = Fields::new();
    exchange.edit_response(&mut fields);
    fields
}

fn ready(is_ready: bool) -> Answer {
    let mut fields = Fields::new();
    fields.push(b"Cache-Control", b"no-store");
    let (status, body) = if is_ready { (200, "ready\n") } else { (503, "draining\n") };
    Answer { status, fields, content_type: "text/plain; charset=utf-8".into(), body: body.into() }
}

/// Whether a request id from outside may go into logs and headers as it is.
fn is_id(id: &[u8]) -> bool {
    (1..=128).contains(&id.len()) && id.iter().all(u8::is_ascii_graphic)
}

fn fresh_id() -> String {
    format!("{:032x}", u128::from_be_bytes(random::bytes()))
}

/// Answers, and everything that is counted and logged about them.
impl Exchange {
    /// Whether the connection can go on: the client wants it, the body is known to be over, nobody drains.
    fn may_go_on(&self, session: &Session) -> bool {
        self.head.keep_alive
            && self.head.body.is_empty()
            && !self.is_attempt
            && !session.permit.listening.gate.is_closed()
    }

    /// Sends an answer of our own.
    pub async fn answer(&self, worker: &Rc<Worker>, session: &mut Session, answer: &Answer) -> Step {
        self.answer_with(worker, session, answer.status, &answer.fields, &answer.content_type, &answer.body).await
    }

    pub async fn answer_with(
        &self,
        worker: &Rc<Worker>,
        session: &mut Session,
        status: u16,
        fields: &Fields,
        content_type: &str,
        body: &[u8],
    ) -> Step {
        let go_on = self.may_go_on(session);
        let is_head = self.head.method == crate::http::Method::Head;
        let bytes = answer::write(status, fields, content_type, body, !go_on, is_head);
        self.count_handshake(worker, status, "answered");
        self.answered(worker, status, None, 0, body.len() as u64);
        self.send(session, &bytes, go_on).await
    }

    /// Refuses the request.
    pub async fn refuse(&self, worker: &Rc<Worker>, session: &mut Session, refusal: &Refusal) -> Step {
        let go_on = self.may_go_on(session) && refusal.status != 400;
        let is_head = self.head.method == crate::http::Method::Head;
        let mut fields = Fields::new();
        fields.push(b"X-Request-ID", self.request_id.as_bytes());
        let bytes = answer::write_refusal(refusal, Some(&self.head.fields), &fields, !go_on, is_head);
        self.count_handshake(worker, refusal.status, refusal.reason);
        if !self.is_attempt {
            self.count_request(worker, refusal.status);
        }
        let duration = clock::now() - self.started;
        let record = log::Refusal { status: refusal.status, reason: refusal.reason, duration };
        write_log(&self.state, self.log_facts(&leases::name(self.connection)), Kind::Refusal(record));
        self.send(session, &bytes, go_on).await
    }

    async fn send(&self, session: &mut Session, bytes: &[u8], go_on: bool) -> Step {
        match session.stream.write_all(bytes).await {
            Ok(()) if go_on => Step::Next,
            Ok(()) => Step::Close,
            Err(_) => Step::Drop,
        }
    }

    /// The client left before it had an answer.
    pub fn abandoned(&self, worker: &Rc<Worker>) -> Step {
        self.count_handshake(worker, 499, "client_lost");
        self.answered(worker, 499, Some("client_lost"), 0, 0);
        Step::Drop
    }

    /// An answer has gone out whole, or ended early for `reason`.
    pub fn answered(&self, worker: &Worker, status: u16, reason: Option<&'static str>, received: u64, sent: u64) {
        if !self.is_attempt {
            self.count_request(worker, status);
        }
        let duration = clock::now() - self.started;
        let record = log::Request { status, reason, bytes_in: received, bytes_out: sent, duration };
        write_log(&self.state, self.log_facts(&leases::name(self.connection)), Kind::Request(record));
    }

    fn count_request(&self, worker: &Worker, status: u16) {
        let route = self.found.as_ref().map(|found| (found.route, &*self.state.routes[found.route].name));
        worker.tallies.request(self.state.generation, route, status, clock::now() - self.started);
    }

    /// Counts the answer to an attempt; plain requests are no handshakes.
    pub fn count_handshake(&self, worker: &Worker, status: u16, reason: &str) {
        if self.is_attempt {
            let (listener, route) = (&self.state.listeners[self.listener].name, self.route_name());
            worker.tallies.handshake(&Handshake { listener, route: route.unwrap_or_default(), status, reason });
        }
    }

    /// Writes the record of a WebSocket's 101.
    pub fn log_open(&self, connection: u64, accepted: &Accepted) {
        let open = log::Open {
            status: 101,
            subprotocol: accepted.subprotocol.as_deref(),
            extensions: accepted.deflate.as_deref(),
            duration: clock::now() - self.started,
        };
        write_log(&self.state, self.log_facts(&leases::name(connection)), Kind::Open(open));
    }

    fn log_facts<'a>(&'a self, connection: &'a str) -> log::Exchange<'a> {
        log::Exchange {
            connection,
            listener: &self.state.listeners[self.listener].name,
            route: self.route_name(),
            client: self.client,
            protocol: "h1",
            upstream: self.upstream.map(|index| &*self.state.upstreams[index].name),
            endpoint: self.endpoint.as_deref(),
            upstream_protocol: self.endpoint.as_ref().map(|_| "h1"),
            method: Some(self.head.method.as_bytes()),
            host: Some(self.host()),
            path: Some(self.head.target.path()),
            user_agent: self.head.fields.first("user-agent"),
            request_id: Some(self.request_id.as_bytes()),
        }
    }
}

/// Answers what could not be read as a request.
pub async fn refuse_unread(worker: &Rc<Worker>, session: &mut Session, refusal: &Refusal) {
    let bytes = answer::write_refusal(refusal, None, &Fields::new(), true, false);
    let Some(state) = worker.shared.state() else { return };
    let listener = state.listener(&session.permit.listening.key);
    let connection = leases::name(session.id);
    let facts = log::Exchange {
        connection: &connection,
        listener: listener.map_or("", |index| &state.listeners[index].name),
        client: session.peer.map(|peer| peer.ip()),
        protocol: "h1",
        ..log::Exchange::default()
    };
    worker.tallies.request(state.generation, None, refusal.status, 0);
    let record = log::Refusal { status: refusal.status, reason: refusal.reason, duration: 0 };
    write_log(&state, facts, Kind::Refusal(record));
    let _ = session.stream.write_all(&bytes).await;
}

/// Offers a line to the access log, if there is one.
pub fn write_log(state: &State, exchange: log::Exchange<'_>, kind: Kind<'_>) {
    let (Some(sink), Some(spec)) = (&state.access_log, &state.snapshot.access_log) else { return };
    let mut line = Vec::with_capacity(512);
    log::Record { time: clock::wall(), exchange, kind }.write(spec.format, &mut line);
    sink.push(line);
}
