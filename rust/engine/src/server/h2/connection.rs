//! A connection from its preface to its end.
//!
//! It ends by GOAWAY (RFC 9113 §6.8): when its listener goes or the gateway drains, when it has asked for nothing for
//! `keep_alive`, or when its client is up to no good. The first GOAWAY names the highest stream there can be, so that
//! requests that are on their way are still answered; the last one, a round trip later, the last that was.
//!
//! Of what a client may try, `h2` bounds most: heads without end, small or empty frames that nobody takes, requests
//! that are reset before we see them; and it reads nothing more from a client that does not take its answers to pings
//! and settings. What it does not bound is in [`crate::server::resets`].

use std::future::poll_fn;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use ::http::Request as Head;
use bytes::Bytes;
use h2::server::{self, Connection, SendResponse};
use h2::{Reason, RecvStream};
use tokio::time::{Instant, sleep_until, timeout};

use super::Request;
use crate::http::h2::read_request;
use crate::io::h2::Transport;
use crate::server::client::Client;
use crate::server::connection::{Step, serve_request};
use crate::server::downstream::Downstream;
use crate::server::resets::Resets;
use crate::server::session::{LINGER, Session};
use crate::server::worker::Worker;
use crate::server::{lifecycle, reply, tunnel};
use crate::snapshot::{HttpVersion, Listener};

/// What a stream holds of an answer that the client does not take yet.
const SEND_BUFFER: usize = 64 * 1024;

/// What small DATA frames may cost that nobody has taken yet, as `h2` counts: each has 256, less its bytes. It is the
/// memory that they take beside their bytes. WebSockets are small frames; the crate's own limit would end connections
/// that do nothing wrong.
const SMALL_FRAMES: usize = 16 << 20;

/// Who holds a connection's permit while nothing uses it: the connection, and who waits for its end.
const HOLDERS: usize = 2;

/// How long a client may take to take its leave of a connection that we end.
const LAST_WORDS: Duration = Duration::from_secs(5);

/// The shortest time between two looks at whether a connection is in use.
const TICK: Duration = Duration::from_secs(1);

/// What is fixed when a connection begins.
struct Terms {
    listener: Arc<str>,
    /// Streams that may be reset before their answer in a while.
    streams: u32,
    head_timeout: Duration,
    keep_alive: Duration,
    head_limit: usize,
}

/// Serves a connection whose client speaks HTTP/2, in a task of its own.
pub fn begin(worker: &Rc<Worker>, session: Session) {
    let Some(state) = worker.shared.state() else { return };
    let Some(listener) = state.listener(&session.downstream.permit.listening.key) else { return };
    let settings = &state.snapshot.listeners[listener];
    let terms = Terms {
        listener: state.listeners[listener].name.clone(),
        streams: settings.http2.streams,
        head_timeout: Duration::from_millis(settings.head_timeout),
        keep_alive: Duration::from_millis(settings.keep_alive),
        head_limit: settings.limits.headers as usize,
    };
    let mut builder = builder(settings);
    let server_name = session.downstream.tls.as_ref().and_then(|tls| tls.server_name.as_deref());
    if state.listeners[listener].offers_websockets(HttpVersion::H2, server_name) {
        builder.enable_connect_protocol();
    }
    tokio::task::spawn_local(serve(worker.clone(), session, builder, terms));
}

fn builder(settings: &Listener) -> server::Builder {
    let http2 = &settings.http2;
    let mut builder = server::Builder::new();
    builder
        .max_concurrent_streams(http2.streams)
        .initial_window_size(http2.window)
        .initial_connection_window_size(http2.connection_window)
        // Counted with 32 bytes for each field (RFC 9113 §6.5.2): beyond this there is no answer of ours.
        .max_header_list_size(settings.limits.headers.saturating_mul(2))
        .max_send_buffer_size(SEND_BUFFER)
        .data_frame_budget(SMALL_FRAMES);
    builder
}

async fn serve(worker: Rc<Worker>, session: Session, builder: server::Builder, terms: Terms) {
    let destination = session.connected_to();
    let (stream, early, downstream) = session.into_parts();
    let downstream = Downstream { destination, ..downstream };
    let (transport, permit) = (Transport::new(stream, early), downstream.permit.clone());
    let handshake = builder.handshake::<_, Bytes>(transport.clone());
    match timeout(terms.head_timeout, handshake).await {
        Ok(Ok(connection)) => {
            transport.defer();
            drive(&worker, connection, &transport, Rc::new(downstream), &terms).await;
        }
        Ok(Err(error)) => note(&worker, &terms, &error),
        Err(_) => {}
    }
    // Unread bytes would make a reset of our close, and the client might never see why.
    transport.take_stream().linger(LINGER).await;
    drop(permit);
}

/// A code as a value of metrics; those that no RFC knows have none of their own.
fn label(code: Reason) -> &'static str {
    match code {
        Reason::PROTOCOL_ERROR => "protocol_error",
        Reason::INTERNAL_ERROR => "internal_error",
        Reason::FLOW_CONTROL_ERROR => "flow_control_error",
        Reason::SETTINGS_TIMEOUT => "settings_timeout",
        Reason::STREAM_CLOSED => "stream_closed",
        Reason::FRAME_SIZE_ERROR => "frame_size_error",
        Reason::REFUSED_STREAM => "refused_stream",
        Reason::COMPRESSION_ERROR => "compression_error",
        Reason::ENHANCE_YOUR_CALM => "enhance_your_calm",
        Reason::INADEQUATE_SECURITY => "inadequate_security",
        _ => "other",
    }
}

/// Counts a connection that ends because of what its client has sent.
fn note(worker: &Worker, terms: &Terms, error: &h2::Error) {
    if let Some(code) = error.reason().filter(|_| error.is_library()) {
        worker.tallies.http2_error(&terms.listener, label(code));
    }
}

type Connected = Connection<Transport, Bytes>;
type Accepted = Result<(Head<RecvStream>, SendResponse<Bytes>), h2::Error>;

/// The next request. Before it waits for one, what there is to send goes out.
async fn accept(connection: &mut Connected, transport: &Transport) -> Option<Accepted> {
    poll_fn(|cx| {
        let accepted = connection.poll_accept(cx);
        if accepted.is_pending() {
            transport.poll_send(cx);
        }
        accepted
    })
    .await
}

async fn drive(
    worker: &Rc<Worker>,
    mut connection: Connected,
    transport: &Transport,
    downstream: Rc<Downstream>,
    terms: &Terms,
) {
    let listening = downstream.permit.listening.clone();
    let mut closed = std::pin::pin!(listening.gate.closed());
    let mut occupation = Occupation::new(terms.keep_alive);
    let mut look = std::pin::pin!(sleep_until(occupation.next_look()));
    let mut is_ending = false;
    let resets = Rc::new(Resets::new(terms.streams));
    loop {
        tokio::select! {
            biased;
            () = resets.too_many() => {
                is_ending = true;
                worker.tallies.http2_error(&terms.listener, label(Reason::ENHANCE_YOUR_CALM));
                connection.abrupt_shutdown(Reason::ENHANCE_YOUR_CALM);
            }
            accepted = accept(&mut connection, transport) => match accepted {
                Some(Ok((head, respond))) => {
                    occupation.quiet_since = None;
                    let (worker, downstream, resets) = (worker.clone(), downstream.clone(), resets.clone());
                    let exchange = exchange(worker, downstream, resets, head, respond, terms.head_limit);
                    // In a box: on its way into a task and out of it a future is copied many times, and this one is
                    // large.
                    tokio::task::spawn_local(Box::pin(exchange));
                }
                Some(Err(error)) => return note(worker, terms, &error),
                None => return,
            },
            () = &mut closed, if !is_ending => {
                is_ending = true;
                connection.graceful_shutdown();
            }
            () = &mut look => {
                let is_used = Rc::strong_count(&downstream) > 1 || Rc::strong_count(&downstream.permit) > HOLDERS;
                match occupation.is_over(is_used, is_ending) {
                    true if is_ending => return,
                    true => {
                        is_ending = true;
                        occupation.quiet_since = None;
                        connection.graceful_shutdown();
                    }
                    false => {}
                }
                look.as_mut().reset(occupation.next_look());
            }
        }
    }
}

/// Whether a connection is in use, by looking at it from time to time.
struct Occupation {
    keep_alive: Duration,
    quiet_since: Option<Instant>,
}

impl Occupation {
    fn new(keep_alive: Duration) -> Self {
        Self { keep_alive, quiet_since: Some(Instant::now()) }
    }

    fn next_look(&self) -> Instant {
        Instant::now() + (self.keep_alive / 4).clamp(TICK, LAST_WORDS)
    }

    /// Whether nothing has used it for so long that it may end, or, where it is ending already, must.
    fn is_over(&mut self, is_used: bool, is_ending: bool) -> bool {
        if is_used {
            self.quiet_since = None;
            return false;
        }
        let patience = if is_ending { LAST_WORDS } else { self.keep_alive };
        self.quiet_since.get_or_insert_with(Instant::now).elapsed() >= patience
    }
}

/// One stream, from its head to the end of its answer.
async fn exchange(
    worker: Rc<Worker>,
    downstream: Rc<Downstream>,
    resets: Rc<Resets>,
    head: Head<RecvStream>,
    respond: SendResponse<Bytes>,
    limit: usize,
) {
    let (parts, receive) = head.into_parts();
    let read = read_request(&parts, receive.is_end_stream(), limit);
    drop(parts);
    let mut request = Request::new(downstream, receive, respond);
    let mut client = Client::H2(&mut request);
    let step = match read {
        Ok(head) => serve_request(&worker, &mut client, head).await,
        Err(bad) => reply::refuse_unread(&worker, &mut client, &bad.into()).await,
    };
    match step {
        Step::Next | Step::Close => {}
        Step::Drop if request.was_reset() => resets.count(),
        Step::Drop => request.reset(Reason::INTERNAL_ERROR),
        Step::Relay(grant) => {
            let permit = request.downstream.permit.clone();
            let Some(stream) = request.into_stream() else { return };
            lifecycle::begin_stream(&worker, permit, stream, *grant);
        }
        Step::Tunnel(grant) => {
            let permit = request.downstream.permit.clone();
            let Some(stream) = request.into_stream() else { return };
            tunnel::begin_stream(&worker, permit, stream, *grant);
        }
    }
}
