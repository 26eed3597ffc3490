//! Answers of our own, and what is counted and logged about every answer.

use std::rc::Rc;

use super::answer;
use super::connection::Step;
use super::exchange::{Exchange, REQUEST_ID};
use super::plan::Answer;
use super::session::Session;
use super::state::State;
use super::tally::Handshake;
use super::worker::Worker;
use crate::error::Refusal;
use crate::http::{Fields, Method};
use crate::io::clock;
use crate::log::{self, Kind};
use crate::ws::handshake::Accepted;

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
        let go_on = self.may_go_on(session);
        let is_head = self.head.method == Method::Head;
        let Answer { status, fields, content_type, body, received } = answer;
        let bytes = answer::write(*status, &self.named(fields), content_type, body, !go_on, is_head);
        self.count_handshake(worker, *status, "answered");
        self.answered(worker, *status, None, *received, body.len() as u64);
        self.send(session, &bytes, go_on).await
    }

    /// Refuses the request.
    pub async fn refuse(&self, worker: &Rc<Worker>, session: &mut Session, refusal: &Refusal) -> Step {
        let go_on = self.may_go_on(session) && refusal.status != 400;
        let is_head = self.head.method == Method::Head;
        let fields = self.named(&Fields::new());
        let bytes = answer::write_refusal(refusal, Some(&self.head.fields), &fields, !go_on, is_head);
        self.count_handshake(worker, refusal.status, refusal.reason);
        if !self.is_attempt {
            self.count_request(worker, refusal.status, Some(refusal.reason));
        }
        let duration = clock::now() - self.started;
        let record = log::Refusal { status: refusal.status, reason: refusal.reason, duration };
        write_log(&self.state, self.log_facts(self.connection), Kind::Refusal(record));
        self.send(session, &bytes, go_on).await
    }

    /// The fields of an answer of ours, with the request's id in front.
    fn named(&self, fields: &Fields) -> Fields {
        let mut named = Fields::new();
        named.push(REQUEST_ID.as_bytes(), self.request_id.as_bytes());
        let others = fields.iter().filter(|(name, _)| !name.eq_ignore_ascii_case(REQUEST_ID.as_bytes()));
        others.for_each(|(name, value)| named.push(name, value));
        named
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
        write_log(&self.state, self.log_facts(connection), Kind::Open(open));
    }

    fn log_facts(&self, connection: u64) -> log::Exchange<'_> {
        log::Exchange {
            connection,
            listener: &self.state.listeners[self.listener].name,
            route: self.route_name(),
            client: self.client,
            protocol: "h1",
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
pub async fn refuse_unread(worker: &Rc<Worker>, session: &mut Session, refusal: &Refusal) {
    let bytes = answer::write_refusal(refusal, None, &Fields::new(), true, false);
    let Some(state) = worker.shared.state() else { return };
    let listener = state.listener(&session.permit.listening.key);
    let facts = log::Exchange {
        connection: session.id,
        listener: listener.map_or("", |index| &state.listeners[index].name),
        client: session.peer.map(|peer| peer.ip()),
        protocol: "h1",
        ..log::Exchange::default()
    };
    worker.tallies.request(state.generation, None, refusal.status, 0);
    worker.tallies.failed(None, refusal.reason);
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
