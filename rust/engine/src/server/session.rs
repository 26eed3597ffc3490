//! One HTTP/1.1 connection from a client, between and before its exchanges.

use std::net::SocketAddr;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use super::alarm::Alarm;
use super::listening::GateWatch;
use super::permit::Permit;
use super::presence::Presence;
use super::worker::Worker;
use crate::error::{Refusal, refusal};
use crate::http::{BadHead, Parsed, RequestHead, Scan, resume_request};
use crate::io::clock::{self, Millis};
use crate::io::{Linger, Stream};
use crate::tls::RuleId;

/// How long a closing connection may take to read our last words. What still comes is thrown away meanwhile: many clients
/// look for an answer only when all they have to say is sent, and a reset would take the answer from them.
const LINGER: Linger = Linger { quiet: Duration::from_secs(1), total: Duration::from_secs(30) };

/// What TLS told about a connection.
#[derive(Debug)]
pub struct TlsFacts {
    pub server_name: Option<String>,
    /// The rule that the server name fell under.
    pub rule: RuleId,
}

/// A client's connection.
#[derive(Debug)]
pub struct Session {
    pub stream: Stream,
    /// Bytes that were read and belong to nothing yet.
    pub buffer: Vec<u8>,
    /// The client, as the PROXY header or the socket says.
    pub peer: Option<SocketAddr>,
    pub tls: Option<TlsFacts>,
    pub permit: Permit,
    pub id: u64,
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
}

impl From<BadHead> for Refusal {
    fn from(bad: BadHead) -> Self {
        Self::new(bad.status, bad.reason, bad.text)
    }
}

impl Session {
    pub fn new(
        stream: Stream,
        buffer: Vec<u8>,
        peer: Option<SocketAddr>,
        tls: Option<TlsFacts>,
        permit: Permit,
        id: u64,
    ) -> Self {
        let (presence, alarm, leaving) = (Presence::default(), Alarm::default(), GateWatch::default());
        let (is_tcp, scan, requests) = (false, Scan::new(), 0);
        Self { stream, buffer, peer, tls, permit, id, presence, alarm, is_tcp, leaving, scan, requests }
    }

    /// Waits for the next request and reads its head.
    pub async fn next_head(&mut self, worker: &Rc<Worker>) -> Result<RequestHead, NoHead> {
        let state = worker.shared.state.load();
        let state = state.as_ref().ok_or(NoHead::Closed)?;
        let listener = state.listener(&self.permit.listening.key).ok_or(NoHead::Closed)?;
        let settings = &state.snapshot.listeners[listener];
        let (limit, head_timeout) = (settings.limits.headers as usize, settings.head_timeout);
        let patience = if self.requests == 0 { settings.head_timeout } else { settings.keep_alive };
        if self.buffer.is_empty() {
            self.wait_for_bytes(patience).await?;
        }
        self.requests += 1;
        self.read_head(limit, head_timeout).await
    }

    /// The first byte of a request. A listener that goes takes connections with it that ask for nothing.
    async fn wait_for_bytes(&mut self, patience: Millis) -> Result<(), NoHead> {
        let deadline = clock::now() + patience;
        let has_come = std::future::poll_fn(|cx| {
            // First, so that a request that is there already is answered.
            if let Poll::Ready(read) = self.stream.poll_read_more(cx, &mut self.buffer) {
                return Poll::Ready(matches!(read, Ok(1..)));
            }
            if self.leaving.poll_closed(cx, &self.permit.listening.gate).is_ready() {
                return Poll::Ready(false);
            }
            self.alarm.poll(cx, deadline).map(|()| false)
        });
        if has_come.await { Ok(()) } else { Err(NoHead::Closed) }
    }

    async fn read_head(&mut self, limit: usize, patience: Millis) -> Result<RequestHead, NoHead> {
        let deadline = clock::now() + patience;
        loop {
            let parsed = resume_request(&mut self.scan, &self.buffer, limit);
            if let Parsed::Complete { head, consumed } = parsed.map_err(|bad| NoHead::Refused(bad.into()))? {
                self.consume(consumed);
                self.scan = Scan::new();
                return Ok(head);
            }
            let read = std::future::poll_fn(|cx| match self.stream.poll_read_more(cx, &mut self.buffer) {
                Poll::Ready(read) => Poll::Ready(Some(read)),
                Poll::Pending => self.alarm.poll(cx, deadline).map(|()| None),
            });
            match read.await {
                Some(Ok(1..)) => {}
                Some(_) => return Err(NoHead::Closed),
                None => return Err(NoHead::Refused(refusal::HEAD_TIMEOUT)),
            }
        }
    }

    /// Forgets the first bytes of the buffer; an empty buffer owns no memory.
    pub fn consume(&mut self, count: usize) {
        if count == self.buffer.len() {
            self.buffer = Vec::new();
        } else {
            self.buffer.drain(..count);
        }
    }

    pub fn is_tls(&self) -> bool {
        self.tls.is_some()
    }

    /// The stream and what was read ahead, for a relay.
    pub fn take(self) -> (Stream, Vec<u8>, Permit) {
        (self.stream, self.buffer, self.permit)
    }

    /// Ends the connection so that the client gets our last words.
    pub async fn close(self) {
        self.stream.linger(LINGER).await;
    }
}
