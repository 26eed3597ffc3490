//! A connection to an endpoint that many exchanges share, each on a stream of its own: of HTTP/2 ([`super::h2`]) or of
//! HTTP/3 ([`super::h3`]).
//!
//! Nothing new begins on a trunk whose peer has said GOAWAY, or let a stream wait beyond its time: it goes when its
//! last stream does.

use std::cell::Cell;
use std::fmt;
use std::future::poll_fn;
use std::io;
use std::rc::Rc;

use bytes::Bytes;
use http::Request;
use quinn::{Connection, Endpoint};

use super::seats::Seat;
use super::{h2, h3};
use crate::io::Stream;
use crate::io::clock::{self, Millis};
use crate::snapshot::{Http2, HttpVersion};

/// Who was waited for so long in vain may be gone.
const SUSPICIOUS: Millis = 3_000;

/// A connection, and how much of it is in use.
pub struct Trunk {
    carrier: Carrier,
    /// Streams at once that we want at most.
    most: usize,
    streams: Cell<usize>,
    /// It has had streams.
    used: Cell<bool>,
    retired: Cell<bool>,
    /// Since when it has had no streams, where it has none.
    quiet_since: Cell<Millis>,
}

enum Carrier {
    H2(h2::Carrier),
    H3(h3::Carrier),
}

/// A stream, from the head of its request to the head of its answer.
pub enum Opened {
    H2(h2::Opened),
    H3(Box<h3::Opened>),
}

/// A stream's place on a trunk, given back when dropped.
pub struct Place {
    trunk: Rc<Trunk>,
    /// The stream itself, until it is used, where it must be opened before it is.
    lane: Cell<Option<h3::Lane>>,
    /// Since when it waits for an answer.
    waiting: Cell<Option<Millis>>,
    /// Whether others were there before: the peer may have closed the connection meanwhile.
    pub is_reused: bool,
}

impl Trunk {
    /// Begins to speak HTTP/2. None where the peer does not.
    pub async fn begin(stream: Stream, http2: &Http2, seat: Seat) -> Option<Rc<Self>> {
        h2::Carrier::begin(stream, http2, seat).await.and_then(|carrier| Self::new(Carrier::H2(carrier), http2))
    }

    /// Begins to speak HTTP/3; `websockets`: it must be known whether the peer takes them. None where it does not.
    pub async fn begin_h3(
        (endpoint, connection): (Endpoint, Connection),
        http2: &Http2,
        websockets: bool,
        seat: Seat,
    ) -> Option<Rc<Self>> {
        let carrier = h3::Carrier::begin(endpoint, connection, websockets, seat).await?;
        Self::new(Carrier::H3(carrier), http2)
    }

    fn new(carrier: Carrier, http2: &Http2) -> Option<Rc<Self>> {
        let (streams, used, retired) = (Cell::new(0), Cell::new(false), Cell::new(false));
        let (most, quiet_since) = (http2.streams as usize, Cell::new(clock::now()));
        let trunk = Self { carrier, most, streams, used, retired, quiet_since };
        trunk.is_usable().then(|| Rc::new(trunk))
    }

    /// Whether something new may begin on it.
    pub fn is_usable(&self) -> bool {
        let is_alive = match &self.carrier {
            Carrier::H2(carrier) => carrier.is_usable(),
            Carrier::H3(carrier) => carrier.is_usable(),
        };
        !self.retired.get() && is_alive
    }

    /// Streams that are under way.
    pub fn streams(&self) -> usize {
        self.streams.get()
    }

    /// Streams that there may be at once. What a peer of HTTP/3 says of that shows when one is taken.
    pub fn limit(&self) -> usize {
        match &self.carrier {
            Carrier::H2(carrier) => carrier.limit(self.most),
            Carrier::H3(_) => self.most,
        }
    }

    /// Whether it has been without streams for so long.
    pub fn is_idle(&self, since: Millis) -> bool {
        self.streams.get() == 0 && self.quiet_since.get() <= since
    }

    /// Takes a place, whatever [`Trunk::limit`] says; none where the peer lets there be none.
    pub fn take(self: &Rc<Self>) -> Option<Place> {
        let lane = match &self.carrier {
            Carrier::H2(_) => None,
            Carrier::H3(carrier) => Some(carrier.lane()?),
        };
        self.streams.set(self.streams.get() + 1);
        let is_reused = self.used.replace(true);
        Some(Place { trunk: self.clone(), lane: Cell::new(lane), waiting: Cell::new(None), is_reused })
    }
}

impl Place {
    /// Sends a request's head; `ended`: it has no body. None where the connection is lost.
    pub fn open(&self, request: Request<()>, ended: bool) -> Option<Opened> {
        self.waiting.set(Some(clock::now()));
        match &self.trunk.carrier {
            Carrier::H2(carrier) => carrier.open(request, ended).map(Opened::H2),
            Carrier::H3(carrier) => carrier.open(self.lane.take()?, &request, ended).map(Box::new).map(Opened::H3),
        }
    }

    /// Whether the peer takes WebSockets.
    pub fn takes_websockets(&self) -> bool {
        match &self.trunk.carrier {
            Carrier::H2(carrier) => carrier.takes_websockets(),
            Carrier::H3(carrier) => carrier.takes_websockets(),
        }
    }

    /// What is spoken there.
    pub fn version(&self) -> HttpVersion {
        match &self.trunk.carrier {
            Carrier::H2(_) => HttpVersion::H2,
            Carrier::H3(_) => HttpVersion::H3,
        }
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
        if let (Carrier::H3(carrier), Some(lane)) = (&trunk.carrier, self.lane.take()) {
            carrier.give_back(lane);
        }
    }
}

impl Opened {
    /// Sends a body that is small enough for one frame, and ends our direction.
    pub async fn send_all(&mut self, body: Bytes) -> io::Result<()> {
        match self {
            Self::H2(opened) => {
                opened.send.send_data(body, true).map_err(|_| io::Error::from(io::ErrorKind::BrokenPipe))
            }
            Self::H3(opened) => {
                poll_fn(|cx| opened.send.poll_write(cx, &body)).await?;
                poll_fn(|cx| opened.send.poll_finish(cx)).await
            }
        }
    }
}

impl fmt::Debug for Trunk {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Trunk({} streams)", self.streams.get())
    }
}

impl fmt::Debug for Place {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Place({:?})", self.trunk)
    }
}
