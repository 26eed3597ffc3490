//! Answers of our own, and what is counted and logged about every answer.

use std::rc::Rc;

use h2::Reason;

use super::answer::{self, Reply};
use super::client::Client;
use super::connection::Step;
use super::exchange::{Exchange, REQUEST_ID};
use super::grpc;
use super::plan::Answer;
use super::state::State;
use super::tally::Handshake;
use super::worker::Worker;
use crate::error::Refusal;
use crate::error::refusal::HTTP_1_1_REQUIRED;
use crate::http::h3::code::Code;
use crate::http::{Fields, Method};
use crate::io::clock;
use crate::log::{self, Kind};
use crate::snapshot::HttpVersion;
use crate::ws::handshake::Accepted;

impl Exchange {
    /// Whether the connection can go on: the client wants it, the body is known to be over, nobody drains.
    fn may_go_on(&self, client: &Client<'_>) -> bool {
        let head = &self.head;
        head.keep_alive && head.body.is_empty() && !self.is_attempt && !client.downstream().is_closing()
    }

    /// Sends an answer of our own.
    pub async fn answer(&self, worker: &Rc<Worker>, client: &mut Client<'_>, answer: &Answer) -> Step {
        let go_on = self.may_go_on(client);
        let Answer { status, fields, content_type, body, received } = answer;
        let reply = Reply::new(*status, self.named(client, fields), content_type, body.into());
        self.count_handshake(worker, *status, "answered");
        self.answered(worker, *status, None, *received, body.len() as u64);
        client.send(&reply, &self.head.method, go_on).await
    }

    /// Refuses the request.
    pub async fn refuse(&self, worker: &Rc<Worker>, client: &mut Client<'_>, refusal: &Refusal) -> Step {
        let go_on = self.may_go_on(client) && refusal.status != 400;
        let fields = self.named(client, &Fields::new());
        let reply = match (&*client, self.web_call()) {
            (_, Some(web)) => grpc::refusal(refusal, &web.media(), fields),
            (Client::H2(_) | Client::H3(_), None) if grpc::is_call(&self.head.fields) => {
                grpc::refusal(refusal, b"application/grpc", fields)
            }
            _ => answer::refusal(refusal, Some(&self.head.fields), fields),
        };
        self.count_handshake(worker, refusal.status, refusal.reason);
        if !self.is_attempt {
            self.count_request(worker, refusal.status, Some(refusal.reason));
        }
        let duration = clock::now() - self.started;
        let record = log::Refusal { status: refusal.status, reason: refusal.reason, duration };
        write_log(&self.state, self.log_facts(self.connection), Kind::Refusal(record));
        match client {
            Client::H2(request) if *refusal == HTTP_1_1_REQUIRED => request.reset(Reason::HTTP_1_1_REQUIRED),
            Client::H3(request) if *refusal == HTTP_1_1_REQUIRED => request.reset(Code::VERSION_FALLBACK),
            client => return client.send(&reply, &self.head.method, go_on).await,
        }
        Step::Close
    }

    /// That the listener speaks HTTP/3 too (RFC 7838 §3), for clients that came another way.
    pub fn alternative_service(&self, client: &Client<'_>) -> Option<String> {
        let ours = &self.state.listeners[self.listener];
        if ours.quic.is_none() || self.protocol == HttpVersion::H3 {
            return None;
        }
        let downstream = client.downstream();
        let server_name = downstream.tls.as_ref()?.server_name.as_deref();
        let port = downstream.permit.listening.port.filter(|_| !downstream.is_closing())?;
        let speaks = ours.tls.as_ref().is_some_and(|tls| tls.speaks_h3(server_name));
        speaks.then(|| format!("h3=\":{port}\"; ma=86400"))
    }

    /// The fields of an answer of ours, with what concerns the request and the connection in front.
    fn named(&self, client: &Client<'_>, fields: &Fields) -> Fields {
        let mut named = Fields::new();
        named.push(REQUEST_ID.as_bytes(), self.request_id.as_bytes());
        if let (Some(service), false) = (self.alternative_service(client), fields.has("Alt-Svc")) {
            named.push(b"Alt-Svc", service.as_bytes());
        }
        let others = fields.iter().filter(|(name, _)| !name.eq_ignore_ascii_case(REQUEST_ID.as_bytes()));
        others.for_each(|(name, value)| named.push(name, value));
        named
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
            self.count_request(worker, status, reason);
        }
        let duration = clock::now() - self.started;
        let record = log::Request { status, reason, bytes_in: received, bytes_out: sent, duration };
        write_log(&self.state, self.log_facts(self.connection), Kind::Request(record));
    }

    fn count_request(&self, worker: &Worker, status: u16, failed: Option<&str>) {
        let route = self.found.as_ref().map(|found| (found.route, &*self.state.routes[found.route].name));
        if let Some(reason) = failed {
            worker.tallies.failed(self.route_name(), reason);
        }
        worker.tallies.request(self.state.generation, route, status, clock::now() - self.started);
    }

    /// Counts the answer to an attempt; plain requests are no handshakes.
    pub fn count_handshake(&self, worker: &Worker, status: u16, reason: &str) {
        if self.is_attempt {
            let (listener, route) = (&self.state.listeners[self.listener].name, self.route_name());
            let (route, protocol) = (route.unwrap_or_default(), self.protocol.label());
            worker.tallies.handshake(&Handshake { listener, route, protocol, status, reason });
        }
    }

    /// Writes the record of a WebSocket's opening answer.
    pub fn log_open(&self, connection: u64, status: u16, accepted: &Accepted) {
        let open = log::Open {
            status,
            subprotocol: accepted.subprotocol.as_deref(),
            extensions: accepted.deflate.as_deref(),
            duration: clock::now() - self.started,
        };
        write_log(&self.state, self.log_facts(connection), Kind::Open(open));
    }

    pub fn log_facts(&self, connection: u64) -> log::Exchange<'_> {
        log::Exchange {
            connection,
            listener: &self.state.listeners[self.listener].name,
            route: self.route_name(),
            client: self.client,
            protocol: self.protocol.label(),
            upstream: self.upstream.map(|index| &*self.state.upstreams[index].name),
            endpoint: self.endpoint.as_deref(),
            upstream_protocol: self.endpoint.as_ref().map(|_| self.upstream_protocol),
            attempts: self.attempts,
            method: Some(self.head.method.as_bytes()),
            host: Some(self.host()),
            path: Some(self.head.target.path()),
            user_agent: self.head.fields.first("user-agent"),
            request_id: Some(self.request_id.as_bytes()),
        }
    }
}

/// Answers what could not be read as a request.
pub async fn refuse_unread(worker: &Rc<Worker>, client: &mut Client<'_>, refusal: &Refusal) -> Step {
    let Some(state) = worker.shared.state() else { return Step::Close };
    let (downstream, protocol) = (client.downstream(), client.protocol());
    let listener = state.listener(&downstream.permit.listening.key);
    let facts = log::Exchange {
        connection: downstream.id,
        listener: listener.map_or("", |index| &state.listeners[index].name),
        client: downstream.peer.map(|peer| peer.ip()),
        protocol: protocol.label(),
        ..log::Exchange::default()
    };
    worker.tallies.request(state.generation, None, refusal.status, 0);
    worker.tallies.failed(None, refusal.reason);
    let record = log::Refusal { status: refusal.status, reason: refusal.reason, duration: 0 };
    write_log(&state, facts, Kind::Refusal(record));
    client.send(&answer::refusal(refusal, None, Fields::new()), &Method::Get, false).await
}

/// Offers a line to the access log, if there is one.
pub fn write_log(state: &State, exchange: log::Exchange<'_>, kind: Kind<'_>) {
    let (Some(sink), Some(spec)) = (&state.access_log, &state.snapshot.access_log) else { return };
    let mut line = Vec::with_capacity(512);
    log::Record { time: clock::wall(), exchange, kind }.write(spec.format, &mut line);
    sink.push(line);
}
