//! A connection of HTTP/2 to an endpoint, which many exchanges share, each on a stream of its own.
//!
//! A task drives it until its end. It also asks with a PING whether the peer is still there: at the beginning, because
//! the answer says that the peer's SETTINGS have come before it (RFC 9113 §3.4) and so whether it takes WebSockets; and
//! then now and then, since a peer that has vanished says nothing. Seldom, for servers of gRPC end connections that
//! ask more than once in five minutes without need.
//!
//! Nothing new begins on a trunk whose peer has said GOAWAY, or let a stream wait beyond its time: it goes when its
//! last stream does.

use std::cell::Cell;
use std::fmt;
use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use h2::client::{Builder, Connection, ResponseFuture, SendRequest};
use h2::{Ping, PingPong, SendStream};
use http::Request;
use tokio::sync::oneshot;
use tokio::time::{sleep, timeout};

use crate::io::clock::{self, Millis};
use crate::io::h2::Transport;
use crate::io::{SCRATCH_SIZE, Stream};
use crate::snapshot::Http2;

/// How long we wait for the peer's SETTINGS before we believe that it takes no WebSockets.
const SETTINGS_PATIENCE: Duration = Duration::from_secs(1);
/// Between two PINGs.
const PING_EVERY: Duration = Duration::from_secs(310);
const PONG_PATIENCE: Duration = Duration::from_secs(20);
/// Who was waited for so long in vain may be gone.
const SUSPICIOUS: Millis = 3_000;
/// What the head of an answer may take at most.
const HEAD_LIMIT: u32 = 64 * 1024;
/// Streams that we have reset and whose frames may still come.
const RESET_STREAMS: usize = 1024;

/// A connection, and how much of it is in use.
pub struct Trunk {
    requests: SendRequest<Bytes>,
    /// Streams at once that we want at most.
    most: usize,
    streams: Cell<usize>,
    /// It has had streams.
    used: Cell<bool>,
    retired: Cell<bool>,
    /// Since when it has had no streams, where it has none.
    quiet_since: Cell<Millis>,
}

/// A stream's place on a trunk, given back when dropped.
#[derive(Debug)]
pub struct Place {
    trunk: Rc<Trunk>,
    /// Since when it waits for an answer.
    waiting: Cell<Option<Millis>>,
    /// Whether others were there before: the peer may have closed the connection meanwhile.
    pub is_reused: bool,
}

impl Trunk {
    /// Begins to speak HTTP/2. None where the peer does not.
    pub async fn begin(stream: Stream, http2: &Http2) -> Option<Rc<Self>> {
        let transport = Transport::new(stream, Vec::new());
        let (requests, mut connection) = builder(http2).handshake(transport.clone()).await.ok()?;
        transport.defer();
        let pings = connection.ping_pong()?;
        let (settled, settles) = oneshot::channel();
        tokio::task::spawn_local(drive(connection, transport, pings, settled));
        // Else it is asked what there is to know now.
        let _ = timeout(SETTINGS_PATIENCE, settles).await;
        let (streams, used, retired) = (Cell::new(0), Cell::new(false), Cell::new(false));
        let (most, quiet_since) = (http2.streams as usize, Cell::new(clock::now()));
        let trunk = Self { requests, most, streams, used, retired, quiet_since };
        trunk.is_usable().then(|| Rc::new(trunk))
    }

    /// Whether something new may begin on it.
    pub fn is_usable(&self) -> bool {
        let ready = self.requests.clone().poll_ready(&mut Context::from_waker(Waker::noop()));
        !self.retired.get() && !matches!(ready, Poll::Ready(Err(_)))
    }

    /// Streams that are under way.
    pub fn streams(&self) -> usize {
        self.streams.get()
    }

    /// Streams that there may be at once: not quite as many as the peer says, which may think otherwise when they come.
    pub fn limit(&self) -> usize {
        match self.requests.current_max_send_streams() {
            0 => 0,
            peer => (peer / 5 * 4).max(1).min(self.most),
        }
    }

    /// Whether it has been without streams for so long.
    pub fn is_idle(&self, since: Millis) -> bool {
        self.streams.get() == 0 && self.quiet_since.get() <= since
    }

    /// Takes a place, whether there is one or not: see [`Trunk::limit`].
    pub fn take(self: &Rc<Self>) -> Place {
        self.streams.set(self.streams.get() + 1);
        let is_reused = self.used.replace(true);
        Place { trunk: self.clone(), waiting: Cell::new(None), is_reused }
    }
}

impl Place {
    /// Sends a request's head; `ended`: it has no body.
    pub fn open(&self, request: Request<()>, ended: bool) -> Result<(ResponseFuture, SendStream<Bytes>), h2::Error> {
        self.waiting.set(Some(clock::now()));
        // A clone each time: the original would remember a stream that waits to be opened, and take its wake-ups.
        self.trunk.requests.clone().send_request(request, ended)
    }

    /// Whether the peer takes WebSockets (RFC 8441 §3).
    pub fn takes_websockets(&self) -> bool {
        self.trunk.requests.is_extended_connect_protocol_enabled()
    }

    /// The answer's head has come, or none will.
    pub fn answered(&self) {
        self.waiting.set(None);
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let (trunk, now) = (&self.trunk, clock::now());
        trunk.streams.set(trunk.streams.get() - 1);
        trunk.quiet_since.set(now);
        if self.waiting.get().is_some_and(|since| now >= since + SUSPICIOUS) {
            trunk.retired.set(true);
        }
    }
}

impl fmt::Debug for Trunk {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Trunk({} streams)", self.streams.get())
    }
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

/// Until the connection has ended, or its peer has vanished: then dropping it tells its streams.
async fn drive(
    mut connection: Connection<Transport, Bytes>,
    transport: Transport,
    pings: PingPong,
    settled: oneshot::Sender<()>,
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
