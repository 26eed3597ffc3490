//! One HTTP/1.1 connection from a client, between and before its exchanges.

use std::net::SocketAddr;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use super::alarm::Alarm;
use super::downstream::Downstream;
use super::listening::GateWatch;
use super::presence::Presence;
use super::worker::Worker;
use crate::error::{Refusal, refusal};
use crate::http::{BadHead, Parsed, RequestHead, Scan, resume_request};
use crate::io::clock::{self, Millis};
use crate::io::{Linger, Stream, turns};
use crate::snapshot::HttpVersion;

/// How long a closing connection may take to read our last words. What still comes is thrown away meanwhile: many
/// clients look for an answer only when all they have to say is sent, and a reset would take the answer from them.
pub const LINGER: Linger = Linger { quiet: Duration::from_secs(1), total: Duration::from_secs(30) };

/// What a client of HTTP/2 begins with, in clear text as over TLS (RFC 9113 §3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

fn begins_preface(bytes: &[u8]) -> bool {
    let length = bytes.len().min(PREFACE.len());
    bytes[..length] == PREFACE[..length]
}

/// What the next bytes of a connection may be.
#[derive(Clone, Copy)]
struct Takes {
    h1: bool,
    preface: bool,
}

/// A client's connection.
#[derive(Debug)]
pub struct Session {
    pub stream: Stream,
    /// Bytes that were read and belong to nothing yet.
    pub buffer: Vec<u8>,
    pub downstream: Downstream,
    pub presence: Presence,
    /// For whatever its task waits for.
    pub alarm: Alarm,
    /// It carries no HTTP: its listener is a TCP listener.
    pub is_tcp: bool,
    leaving: GateWatch,
    scan: Scan,
    requests: u64,
}

/// Why there is no next request.
#[derive(Debug)]
pub enum NoHead {
    /// The client went, or the connection is no longer wanted: nothing to answer.
    Closed,
    /// Answer this and close.
    Refused(Refusal),
    /// The client speaks HTTP/2.
    Preface,
}

impl From<BadHead> for Refusal {
    fn from(bad: BadHead) -> Self {
        Self::new(bad.status, bad.reason, bad.text)
    }
}

impl Session {
    pub fn new(stream: Stream, buffer: Vec<u8>, downstream: Downstream) -> Self {
        let (presence, alarm, leaving) = (Presence::default(), Alarm::default(), GateWatch::default());
        let (is_tcp, scan, requests) = (false, Scan::new(), 0);
        Self { stream, buffer, downstream, presence, alarm, is_tcp, leaving, scan, requests }
    }

    /// The same, for a client that has connected to `destination`, if a PROXY header says so.
    pub fn addressed(self, destination: Option<SocketAddr>) -> Self {
        let downstream = Downstream { destination, ..self.downstream };
        Self { downstream, ..self }
    }

    /// What the client connected to, as a PROXY header or the socket says.
    pub fn connected_to(&self) -> Option<SocketAddr> {
        self.downstream.destination.or_else(|| self.stream.local_address())
    }

    /// Waits for the next request and reads its head.
    pub async fn next_head(&mut self, worker: &Rc<Worker>) -> Result<RequestHead, NoHead> {
        let (limit, head_timeout, patience, takes) = self.terms(worker).ok_or(NoHead::Closed)?;
        if self.buffer.is_empty() {
            self.wait_for_bytes(patience).await?;
        }
        self.requests += 1;
        self.read_head(limit, head_timeout, takes).await
    }

    /// The limit of a head, how long it may take and may be waited for, and what it may be. No state is held meanwhile.
    fn terms(&self, worker: &Worker) -> Option<(usize, Millis, Millis, Takes)> {
        let state = worker.shared.state.load();
        let state = state.as_ref()?;
        let settings = &state.snapshot.listeners[state.listener(&self.downstream.permit.listening.key)?];
        let is_first = self.requests == 0;
        let takes = Takes {
            h1: settings.http.contains(&HttpVersion::H1),
            // Over TLS ALPN has decided (RFC 9113 §3.2).
            preface: is_first && !self.downstream.is_tls() && settings.http.contains(&HttpVersion::H2),
        };
        let patience = if is_first { settings.head_timeout } else { settings.keep_alive };
        Some((settings.limits.headers as usize, settings.head_timeout, patience, takes))
    }

    /// The first byte of a request. A listener that goes takes connections with it that ask for nothing.
    async fn wait_for_bytes(&mut self, patience: Millis) -> Result<(), NoHead> {
        let deadline = clock::now() + patience;
        let has_come = std::future::poll_fn(|cx| {
            // First, so that a request that is there already is answered.
            if let Poll::Ready(read) = self.stream.poll_read_more(cx, &mut self.buffer) {
                return Poll::Ready(Some(matches!(read, Ok(1..))));
            }
            if self.leaving.poll_closed(cx, &self.downstream.permit.listening.gate).is_ready() {
                return Poll::Ready(Some(false));
            }
            self.alarm.poll(cx, deadline).map(|()| None)
        });
        match has_come.await {
            Some(true) => return Ok(()),
            Some(false) => {}
            None => turns::next().await,
        }
        Err(NoHead::Closed)
    }

    async fn read_head(&mut self, limit: usize, patience: Millis, takes: Takes) -> Result<RequestHead, NoHead> {
        let deadline = clock::now() + patience;
        loop {
            if takes.preface && begins_preface(&self.buffer) {
                if self.buffer.len() >= PREFACE.len() {
                    return Err(NoHead::Preface);
                }
                self.read_on(deadline).await?;
                continue;
            }
            if !takes.h1 {
                return Err(NoHead::Refused(refusal::HTTP_1_OFF));
            }
            let parsed = resume_request(&mut self.scan, &self.buffer, limit);
            if let Parsed::Complete { head, consumed } = parsed.map_err(|bad| NoHead::Refused(bad.into()))? {
                self.consume(consumed);
                self.scan = Scan::new();
                return Ok(head);
            }
            self.read_on(deadline).await?;
        }
    }

    /// Reads once more of a head.
    async fn read_on(&mut self, deadline: Millis) -> Result<(), NoHead> {
        let read = std::future::poll_fn(|cx| match self.stream.poll_read_more(cx, &mut self.buffer) {
            Poll::Ready(read) => Poll::Ready(Some(read)),
            Poll::Pending => self.alarm.poll(cx, deadline).map(|()| None),
        });
        match read.await {
            Some(Ok(1..)) => Ok(()),
            Some(_) => Err(NoHead::Closed),
            None => {
                // Those that came in one millisecond are late in one, too.
                turns::next().await;
                Err(NoHead::Refused(refusal::HEAD_TIMEOUT))
            }
        }
    }

    /// Whether the client has agreed on HTTP/2 by ALPN.
    pub fn has_agreed_on_h2(&self) -> bool {
        matches!(&self.stream, Stream::Tls(tls) if tls.common().alpn_protocol() == Some(b"h2"))
    }

    /// Forgets the first bytes of the buffer; an empty buffer owns no memory.
    pub fn consume(&mut self, count: usize) {
        if count == self.buffer.len() {
            self.buffer = Vec::new();
        } else {
            self.buffer.drain(..count);
        }
    }

    /// The stream, what was read ahead, and whose it is, for who goes on with it.
    pub fn into_parts(self) -> (Stream, Vec<u8>, Downstream) {
        (self.stream, self.buffer, self.downstream)
    }

    /// Ends the connection so that the client gets our last words.
    pub async fn close(self) {
        self.stream.linger(LINGER).await;
    }
}
