//! HTTP/2 to an endpoint: what a trunk of it does, and what a stream of it says.
//!
//! A task drives a connection until its end. It also asks with a PING whether the peer is still there: at the
//! beginning, because the answer says that the peer's SETTINGS have come before it (RFC 9113 §3.4) and so whether it
//! takes WebSockets; and then now and then, since a peer that has vanished says nothing. Seldom, for servers of gRPC
//! end connections that ask more than once in five minutes without need.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use bytes::Bytes;
use h2::client::{Builder, Connection, ResponseFuture, SendRequest};
use h2::{Ping, PingPong, Reason, RecvStream, SendStream};
use http::{Request, Response};
use tokio::sync::oneshot;
use tokio::time::{sleep, timeout};

use super::HeadError;
use super::seats::Seat;
use crate::io::h2::{H2, Transport};
use crate::io::{SCRATCH_SIZE, Stream};
use crate::snapshot::Http2;

/// How long we wait for the peer's SETTINGS before we believe that it takes no WebSockets.
pub const SETTINGS_PATIENCE: Duration = Duration::from_secs(1);
/// Between two PINGs.
const PING_EVERY: Duration = Duration::from_secs(310);
const PONG_PATIENCE: Duration = Duration::from_secs(20);
/// What the head of an answer may take at most.
const HEAD_LIMIT: u32 = 64 * 1024;
/// Streams that we have reset and whose frames may still come.
const RESET_STREAMS: usize = 1024;

/// A connection.
pub struct Carrier(SendRequest<Bytes>);

impl Carrier {
    /// Begins to speak HTTP/2. None where the peer does not.
    pub async fn begin(stream: Stream, http2: &Http2, seat: Seat) -> Option<Self> {
        let transport = Transport::new(stream, Vec::new());
        let (requests, mut connection) = builder(http2).handshake(transport.clone()).await.ok()?;
        transport.defer();
        let pings = connection.ping_pong()?;
        let (settled, settles) = oneshot::channel();
        tokio::task::spawn_local(drive(connection, transport, pings, settled, seat));
        // Else it is asked what there is to know now.
        let _ = timeout(SETTINGS_PATIENCE, settles).await;
        Some(Self(requests))
    }

    /// Whether something new may begin on it.
    pub fn is_usable(&self) -> bool {
        let ready = self.0.clone().poll_ready(&mut Context::from_waker(Waker::noop()));
        !matches!(ready, Poll::Ready(Err(_)))
    }

    /// Streams that there may be at once: not quite as many as the peer says, which may think otherwise when they come.
    pub fn limit(&self, most: usize) -> usize {
        match self.0.current_max_send_streams() {
            0 => 0,
            peer => (peer / 5 * 4).max(1).min(most),
        }
    }

    /// Whether the peer takes WebSockets (RFC 8441 §3).
    pub fn takes_websockets(&self) -> bool {
        self.0.is_extended_connect_protocol_enabled()
    }

    /// Sends a request's head; `ended`: it has no body.
    pub fn open(&self, request: Request<()>, ended: bool) -> Option<Opened> {
        // A clone each time: the original would remember a stream that waits to be opened, and take its wake-ups.
        let (response, send) = self.0.clone().send_request(request, ended).ok()?;
        Some(Opened { response, send, receive: None })
    }
}

/// A stream, from the head of its request to the head of its answer.
pub struct Opened {
    response: ResponseFuture,
    pub send: SendStream<Bytes>,
    /// Once that has come.
    receive: Option<RecvStream>,
}

impl Opened {
    /// The next head, and whether nothing follows.
    pub fn poll_head(&mut self, cx: &mut Context<'_>) -> Poll<Result<(Response<()>, bool), HeadError>> {
        if self.receive.is_some() {
            return Poll::Pending;
        }
        if let Poll::Ready(Some(Ok(interim))) = self.response.poll_informational(cx) {
            return Poll::Ready(Ok((interim, true)));
        }
        let answered = ready!(Pin::new(&mut self.response).poll(cx));
        let (head, receive) = answered.map_err(|error| no_answer(&error))?.into_parts();
        let ended = receive.is_end_stream();
        self.receive = Some(receive);
        Poll::Ready(Ok((Response::from_parts(head, ()), ended)))
    }

    /// The stream behind the head of its answer; none before that.
    pub fn into_stream(self) -> Option<H2> {
        Some(H2::new(self.send, self.receive?))
    }
}

/// Why there is no answer.
fn no_answer(error: &h2::Error) -> HeadError {
    let untouched = match error.reason() {
        // The peer has not begun to work on it (RFC 9113 §8.7).
        Some(Reason::REFUSED_STREAM) => true,
        // Streams above the last one that a GOAWAY names.
        Some(_) => error.is_go_away() && error.is_remote(),
        None => false,
    };
    if untouched { HeadError::Untouched } else { HeadError::Lost { unanswered: !error.is_reset() } }
}

fn builder(http2: &Http2) -> Builder {
    let mut builder = Builder::new();
    builder
        .enable_push(false)
        .initial_window_size(http2.window)
        .initial_connection_window_size(http2.connection_window)
        .initial_max_send_streams(http2.streams as usize)
        .max_header_list_size(HEAD_LIMIT)
        .max_concurrent_reset_streams(RESET_STREAMS)
        .max_send_buffer_size(SCRATCH_SIZE)
        // For small frames that nobody has read yet: what their bytes may take, they may take once more.
        .data_frame_budget(http2.connection_window as usize);
    builder
}

/// Until the connection has ended and gives its seat back, or its peer has vanished: then dropping it tells its
/// streams.
async fn drive(
    mut connection: Connection<Transport, Bytes>,
    transport: Transport,
    pings: PingPong,
    settled: oneshot::Sender<()>,
    _seat: Seat,
) {
    let ended = poll_fn(|cx| {
        let ended = Pin::new(&mut connection).poll(cx);
        transport.poll_send(cx);
        ended
    });
    tokio::select! {
        _ = ended => {}
        () = vanished(pings, settled) => {}
    }
}

async fn vanished(mut pings: PingPong, settled: oneshot::Sender<()>) {
    if pings.ping(Ping::opaque()).await.is_ok() {
        let _ = settled.send(());
    }
    loop {
        sleep(PING_EVERY).await;
        if !matches!(timeout(PONG_PATIENCE, pings.ping(Ping::opaque())).await, Ok(Ok(_))) {
            return;
        }
    }
}
