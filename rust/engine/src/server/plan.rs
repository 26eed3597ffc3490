//! What is to be done with a request: its route, and the rules for a WebSocket there.

use super::admission;
use super::downstream::Downstream;
use super::exchange::{Exchange, Found};
use crate::error::{Refusal, refusal};
use crate::http::tunnel::{self, Wanted};
use crate::http::{BodyLength, Fields, Method};
use crate::route;
use crate::snapshot::{Action, Forward, Frames, HttpVersion, Redirect, Respond};
use crate::ws::handshake::{self, Attempt};

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
    Tunnel(Wanted),
}

/// An answer of our own.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub fields: Fields,
    pub content_type: String,
    pub body: Vec<u8>,
    /// Bytes of the request's body that were read for it.
    pub received: u64,
}

/// Finds the route and says what it wants.
///
/// # Errors
/// The refusal for the client.
pub fn decide(downstream: &Downstream, exchange: &mut Exchange) -> Result<Plan, Refusal> {
    let found = check_authority(downstream, exchange).and_then(|()| find(exchange));
    exchange.found = found.unwrap_or_default();
    // Known before anything is refused: the connection ends behind every answer to an attempt, and to who wanted a
    // tunnel.
    let upgrade = wanted_upgrade(exchange);
    let is_connect = exchange.head.method == Method::Connect;
    exchange.head.keep_alive &= !is_connect && upgrade.is_none();
    let attempt = if upgrade.is_some() { Attempt::None } else { attempt(exchange) };
    exchange.is_attempt = !matches!(attempt, Attempt::None);
    if found?.is_none() {
        return Err(if is_connect { tunnel::CONNECT } else { refusal::NO_ROUTE });
    }
    let state = exchange.state.clone();
    match &state.snapshot.routes[exchange.route_index()].action {
        Action::Forward(forward) if is_connect => plan_connect(exchange, forward),
        _ if is_connect => Err(tunnel::CONNECT),
        Action::Forward(forward) => {
            let plan = plan_forward(downstream, exchange, forward, attempt)?;
            Ok(upgrade.map_or(plan, Plan::Tunnel))
        }
        Action::Respond(respond) => plan_respond(downstream, exchange, respond, attempt),
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

/// The tunnel that the request asks for by an upgrade, where its route takes it.
fn wanted_upgrade(exchange: &Exchange) -> Option<Wanted> {
    let route = &exchange.state.snapshot.routes[exchange.found.as_ref()?.route];
    let Action::Forward(Forward { tunnels: Some(tunnels), .. }) = &route.action else { return None };
    tunnel::wanted_upgrade(&exchange.head, &tunnels.upgrades)
}

fn plan_connect(exchange: &mut Exchange, forward: &Forward) -> Result<Plan, Refusal> {
    let is_served = forward.tunnels.as_ref().is_some_and(|tunnels| tunnels.connect.is_some());
    if !is_served {
        return Err(tunnel::CONNECT);
    }
    let wanted = tunnel::check_connect(&exchange.head)?;
    exchange.upstream = Some(share(exchange, forward));
    Ok(Plan::Tunnel(wanted))
}

/// The upstream that the split chooses.
fn share(exchange: &Exchange, forward: &Forward) -> usize {
    let split = exchange.state.routes[exchange.route_index()].split.as_ref();
    forward.to[split.map_or(0, |split| split.choose())].upstream
}

fn plan_forward(
    downstream: &Downstream,
    exchange: &mut Exchange,
    forward: &Forward,
    attempt: Attempt<Offer>,
) -> Result<Plan, Refusal> {
    let offer = admitted(downstream, exchange, attempt)?;
    check_length(exchange)?;
    exchange.target = upstream_target(exchange)?;
    exchange.upstream = Some(share(exchange, forward));
    Ok(offer.map_or(Plan::Forward, Plan::WebSocket))
}

/// A body that says itself that it is too large is not even begun.
fn check_length(exchange: &Exchange) -> Result<(), Refusal> {
    match (exchange.head.body, exchange.body_limit()) {
        (BodyLength::Length(length), Some(limit)) if length > limit => Err(refusal::BODY_TOO_LARGE),
        _ => Ok(()),
    }
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
    downstream: &Downstream,
    exchange: &mut Exchange,
    respond: &Respond,
    attempt: Attempt<Offer>,
) -> Result<Plan, Refusal> {
    match respond {
        Respond::Echo => match admitted(downstream, exchange, attempt)? {
            Some(Offer::Strict(offer)) => Ok(Plan::EchoWebSocket(offer)),
            Some(Offer::Opaque(_)) => Err(refusal::WEBSOCKET_DISABLED),
            None => check_length(exchange).map(|()| Plan::Echo),
        },
        Respond::Ready => Ok(Plan::Answer(ready(!downstream.permit.shared.is_draining()))),
        Respond::Fixed { status, body, content_type, .. } => Ok(Plan::Answer(Answer {
            status: *status,
            fields: own_fields(exchange),
            content_type: content_type.clone(),
            body: body.clone().into_bytes(),
            received: 0,
        })),
    }
}

fn redirected(exchange: &Exchange, redirect: &Redirect) -> Answer {
    let mut fields = Fields::new();
    if let Some(location) = &exchange.compiled().redirect_to {
        fields.push(b"Location", &location.render(&exchange.values(&exchange.path())));
    }
    exchange.edit_response(&mut fields);
    Answer { status: redirect.status, fields, content_type: String::new(), body: Vec::new(), received: 0 }
}

/// RFC 9110 §7.4: a connection that was opened for one server name must not be used for another one that has its own
/// certificate, its own rule for client certificates, or other versions of HTTP.
fn check_authority(downstream: &Downstream, exchange: &Exchange) -> Result<(), Refusal> {
    let tls = exchange.state.listeners[exchange.listener].tls.as_ref();
    let (Some(tls), Some(facts), Some(host)) = (tls, &downstream.tls, &exchange.head.host) else { return Ok(()) };
    let host = String::from_utf8_lossy(host.host()).trim_end_matches('.').to_ascii_lowercase();
    let same_name = facts.server_name.as_deref() == Some(&host);
    // The host of CONNECT is where it leads to, not who was connected to.
    let is_origin = exchange.head.method != Method::Connect;
    let other_certificate = is_origin && facts.server_name.is_some() && !same_name && !tls.covers(&host);
    let other_rule = tls.rule(host.as_str()) != facts.rule;
    let other_protocols = !tls.speaks(&host, exchange.protocol);
    if other_certificate || other_rule || other_protocols { Err(refusal::MISDIRECTED) } else { Ok(()) }
}

/// Whether the request asks for a WebSocket, by the rules of its route.
fn attempt(exchange: &Exchange) -> Attempt<Offer> {
    let head = &exchange.head;
    let (method, is_1_1, has_body) = (head.method.as_bytes(), head.minor == 1, !head.body.is_empty());
    let settings = exchange.found.as_ref().map(|found| &exchange.state.websockets[found.websocket]);
    if let Some(protocol) = &head.protocol {
        if settings.is_some_and(|settings| settings.frames == Frames::Opaque) {
            return Attempt::Refused(refusal::OPAQUE_OVER_H2);
        }
        return map(handshake::classify_connect(protocol, &head.fields), Offer::Strict);
    }
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

/// What may be opened, by the table and by what its route says of whoever asks; None for plain HTTP.
fn admitted(
    downstream: &Downstream,
    exchange: &mut Exchange,
    attempt: Attempt<Offer>,
) -> Result<Option<Offer>, Refusal> {
    let offer = allowed(exchange, attempt)?;
    if offer.is_some() {
        exchange.held = admission::admit(downstream, exchange)?;
    }
    Ok(offer)
}

/// The table "Is a WebSocket allowed here?": None for plain HTTP.
fn allowed(exchange: &Exchange, attempt: Attempt<Offer>) -> Result<Option<Offer>, Refusal> {
    let settings = exchange.websocket();
    let enabled = settings.enabled;
    match attempt {
        Attempt::None => Ok(None),
        Attempt::WebSocket(offer) if enabled && settings.over.contains(&exchange.protocol) => Ok(Some(offer)),
        Attempt::WebSocket(_) if enabled && exchange.protocol != HttpVersion::H1 => Err(refusal::HTTP_1_1_REQUIRED),
        Attempt::WebSocket(_) => Err(refusal::WEBSOCKET_DISABLED),
        // A wrong version is no malformed request: where nothing may be opened, that is the answer.
        Attempt::Refused(bad) if bad.reason == "websocket_version" && !enabled => Err(refusal::WEBSOCKET_DISABLED),
        Attempt::Refused(refusal) => Err(refusal),
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
    Answer { status, fields, content_type: "text/plain; charset=utf-8".into(), body: body.into(), received: 0 }
}
