//! A connection from its handshake to its end.
//!
//! It ends by GOAWAY (RFC 9114 §5.2): when its listener goes or the gateway drains, or when it has asked for nothing
//! for `keep_alive`. The first GOAWAY names a stream that will never be, so that requests that are on their way are
//! still served; the last one, some round trips later, the one behind the last that was.

use std::future::poll_fn;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use quinn::{Connection, ConnectionError, RecvStream, SendStream};
use tokio::time::{Instant, sleep_until, timeout};

use super::request::Request;
use super::terms::LAST_STREAM;
use crate::error::refusal;
use crate::http::h3::code::Code;
use crate::http::h3::control::Speaker;
use crate::http::h3::head::{NoHead, read_request};
use crate::http::h3::qpack::{self, BadSection};
use crate::http::{BodyLength, RequestHead};
use crate::io::h3::{self, Control, Peer, Quic, Receive, Section, Send, Undelivered, varint};
use crate::server::client::Client;
use crate::server::connection::{Step, serve_request};
use crate::server::downstream::Downstream;
use crate::server::resets::Resets;
use crate::server::state::State;
use crate::server::worker::Worker;
use crate::server::{lifecycle, reply, tunnel};
use crate::snapshot::HttpVersion;

/// How long a client may take to take its leave of a connection that we end.
const LAST_WORDS: Duration = Duration::from_secs(5);

/// The time between two looks at whether a connection is in use: at most, at least, and while it ends.
const LOOKS: (Duration, Duration, Duration) =
    (Duration::from_secs(5), Duration::from_secs(1), Duration::from_millis(50));

/// What is fixed when a connection begins.
struct Terms {
    listener: Arc<str>,
    head_timeout: Duration,
    keep_alive: Duration,
    head_limit: usize,
}

/// A connection under way.
struct Driver {
    worker: Rc<Worker>,
    quic: Quic,
    downstream: Rc<Downstream>,
    terms: Rc<Terms>,
    resets: Rc<Resets>,
    control: Control,
    peer: Rc<Peer>,
    undelivered: Undelivered,
    /// The stream behind the last that was accepted.
    next: u64,
    quiet_since: Option<Instant>,
    ending: Ending,
}

#[derive(Clone, Copy)]
enum Ending {
    No,
    /// The first GOAWAY went out; the last one does at this time.
    Announced(Instant),
    /// The last one went out then.
    Said(Instant),
}

/// Serves a connection until its end.
pub async fn serve(
    worker: &Rc<Worker>,
    state: &State,
    listener: usize,
    connection: Connection,
    downstream: Downstream,
) {
    let settings = &state.snapshot.listeners[listener];
    let terms = Terms {
        listener: state.listeners[listener].name.clone(),
        head_timeout: Duration::from_millis(settings.head_timeout),
        keep_alive: Duration::from_millis(settings.keep_alive),
        head_limit: settings.limits.headers as usize,
    };
    let server_name = downstream.tls.as_ref().and_then(|tls| tls.server_name.as_deref());
    let takes_websockets = state.listeners[listener].offers_websockets(HttpVersion::H3, server_name);
    let quic = Quic::new(connection);
    let control = Control::open(&quic.connection, 2 * terms.head_limit as u64, takes_websockets).await;
    let Some(control) = control else {
        quic.end_for(Code::STREAM_CREATION_ERROR);
        return note(worker, &terms.listener, &quic);
    };
    let driver = Driver {
        worker: worker.clone(),
        quic,
        downstream: Rc::new(downstream),
        terms: Rc::new(terms),
        resets: Rc::new(Resets::new(settings.http2.streams)),
        control,
        peer: Peer::new(Speaker::Client),
        undelivered: Undelivered::default(),
        next: 0,
        quiet_since: Some(Instant::now()),
        ending: Ending::No,
    };
    driver.run().await;
}

/// Counts a connection that has ended because of what its client has sent.
fn note(worker: &Worker, listener: &str, quic: &Quic) {
    let code = match (quic.fault(), quic.connection.close_reason()) {
        (Some(code), _) => code.label(),
        // It broke the rules of QUIC itself.
        (None, Some(ConnectionError::TransportError(_))) => "transport",
        _ => return,
    };
    worker.tallies.http3_error(listener, code);
}

impl Driver {
    async fn run(mut self) {
        let (worker, terms, quic) = (self.worker.clone(), self.terms.clone(), self.quic.clone());
        self.drive().await;
        note(&worker, &terms.listener, &quic);
    }

    async fn drive(&mut self) {
        let (connection, resets) = (self.quic.connection.clone(), self.resets.clone());
        let listening = self.downstream.permit.listening.clone();
        let mut closed = std::pin::pin!(listening.gate.closed());
        let mut look = std::pin::pin!(sleep_until(self.next_look()));
        loop {
            tokio::select! {
                biased;
                () = resets.too_many() => return self.quic.end_for(Code::EXCESSIVE_LOAD),
                stream = connection.accept_bi() => match stream {
                    Ok((send, receive)) => self.begin(send, receive),
                    Err(_) => return,
                },
                stream = connection.accept_uni() => match stream {
                    Ok(stream) => {
                        tokio::task::spawn_local(h3::read(self.quic.clone(), stream, self.peer.clone()));
                    }
                    Err(_) => return,
                },
                () = &mut closed, if matches!(self.ending, Ending::No) => {
                    self.announce_end().await;
                    look.as_mut().reset(self.next_look());
                }
                () = &mut look => {
                    if self.look().await {
                        return connection.close(varint(Code::NO_ERROR), b"");
                    }
                    look.as_mut().reset(self.next_look());
                }
            }
        }
    }

    fn begin(&mut self, mut send: SendStream, mut receive: RecvStream) {
        if matches!(self.ending, Ending::Said(_)) {
            let _ = send.reset(varint(Code::REQUEST_REJECTED));
            let _ = receive.stop(varint(Code::REQUEST_REJECTED));
            return;
        }
        self.next = self.next.max(u64::from(receive.id()) + 4);
        self.quiet_since = None;
        let receive = Receive::new(self.quic.clone(), receive, Speaker::Client, self.terms.head_limit);
        let request = Request::new(self.downstream.clone(), receive, Send::new(send, self.undelivered.clone()));
        let (worker, terms, resets) = (self.worker.clone(), self.terms.clone(), self.resets.clone());
        tokio::task::spawn_local(exchange(worker, request, terms, resets));
    }

    async fn announce_end(&mut self) {
        self.control.go_away(LAST_STREAM).await;
        self.ending = Ending::Announced(Instant::now() + 2 * self.quic.connection.rtt());
    }

    fn next_look(&self) -> Instant {
        let (most, least, ending) = LOOKS;
        let now = Instant::now();
        match self.ending {
            Ending::No => now + (self.terms.keep_alive / 4).clamp(least, most),
            Ending::Announced(when) => when,
            Ending::Said(_) => now + ending,
        }
    }

    /// Goes on with the end, or begins it; true when the connection is to be closed now.
    async fn look(&mut self) -> bool {
        let is_used = Rc::strong_count(&self.downstream) > 1 || Rc::strong_count(&self.downstream.permit) > 1;
        match self.ending {
            Ending::No if is_used => self.quiet_since = None,
            Ending::No => {
                let quiet = self.quiet_since.get_or_insert_with(Instant::now).elapsed();
                if quiet >= self.terms.keep_alive {
                    self.announce_end().await;
                }
            }
            Ending::Announced(_) => {
                self.control.go_away(self.next).await;
                self.ending = Ending::Said(Instant::now());
            }
            Ending::Said(_) if is_used => self.ending = Ending::Said(Instant::now()),
            // What is on its way would be lost with the connection.
            Ending::Said(since) => return self.undelivered.is_empty() || since.elapsed() > LAST_WORDS,
        }
        false
    }
}

/// One stream, from its head to the end of its answer.
async fn exchange(worker: Rc<Worker>, mut request: Request, terms: Rc<Terms>, resets: Rc<Resets>) {
    let reading = poll_fn(|cx| request.receive.poll_head(cx));
    let section = match timeout(terms.head_timeout, reading).await {
        Ok(Ok(section)) => section,
        Ok(Err(_)) => return resets.count(),
        Err(_) => {
            reply::refuse_unread(&worker, &mut Client::H3(&mut request), &refusal::HEAD_TIMEOUT).await;
            return;
        }
    };
    let head = read_head(&mut request, &section, terms.head_limit);
    let mut client = Client::H3(&mut request);
    let step = match head {
        Ok(head) => serve_request(&worker, &mut client, head).await,
        Err(NoHead::Bad(bad)) => reply::refuse_unread(&worker, &mut client, &bad.into()).await,
        Err(NoHead::Malformed) => {
            resets.count();
            request.receive.dismiss(Code::MESSAGE_ERROR);
            return request.reset(Code::MESSAGE_ERROR);
        }
    };
    match step {
        Step::Next | Step::Close => request.receive.dismiss(Code::NO_ERROR),
        Step::Drop => {
            if request.was_given_up() {
                resets.count();
            }
            request.reset(Code::INTERNAL_ERROR);
        }
        Step::Relay(grant) => {
            let permit = request.downstream.permit.clone();
            lifecycle::begin_stream(&worker, permit, request.into_stream(), *grant);
        }
        Step::Tunnel(grant) => {
            let permit = request.downstream.permit.clone();
            tunnel::begin_stream(&worker, permit, request.into_stream(), *grant);
        }
    }
}

fn read_head(request: &mut Request, section: &Section, limit: usize) -> Result<RequestHead, NoHead> {
    let Section::Fields(section) = section else { return Err(NoHead::Bad(TOO_LARGE)) };
    let fields = qpack::decode(section, 2 * limit).map_err(|bad| match bad {
        BadSection::TooLarge => NoHead::Bad(TOO_LARGE),
        BadSection::Malformed => {
            request.receive.end_connection(Code::DECOMPRESSION_FAILED);
            NoHead::Malformed
        }
    })?;
    let ended = request.receive.poll_ended(&mut std::task::Context::from_waker(std::task::Waker::noop()));
    let head = read_request(&fields, ended, limit)?;
    if let BodyLength::Length(length) = head.body {
        request.receive.expect(Some(length));
    }
    Ok(head)
}

const TOO_LARGE: crate::http::BadHead = crate::http::fault::HEAD_TOO_LARGE;
