//! How an endpoint is reached: over which version of HTTP, by a connection that is there or by a new one.
//!
//! | wanted | `protocol` | over TLS | in clear text |
//! |---|---|---|---|
//! | requests | `auto` | what ALPN agrees on | HTTP/1.1 |
//! | | `h1`, `h2` | that one | that one |
//! | WebSockets | `auto` | HTTP/1.1; HTTP/2 where the server refuses that | HTTP/1.1 |
//! | | `h1` | HTTP/1.1 | HTTP/1.1 |
//! | | `h2` | HTTP/2; HTTP/1.1 where it takes none | the same |
//! | tunnels by CONNECT | `auto` | as WebSockets | HTTP/1.1 |
//! | | `h1`, `h2` | that one | that one |
//! | all | `h3` | HTTP/3; for WebSockets HTTP/1.1 where it takes none | never |
//!
//! What ALPN has agreed on is remembered for each endpoint, and so is for ten minutes that it takes no WebSockets over
//! HTTP/2 or HTTP/3.

use std::cell::{Cell, RefCell};
use std::sync::Arc;
use std::time::Duration;

use super::crossing::Crossing;
use super::dial::{Terms, dial, has_agreed_on_h2, introduce};
use super::pool::{self, BYTES, Kept, Owner};
use super::seats::{Seat, Served};
use super::trunk::{Place, Trunk};
use super::trunks::{Dialled, Found, Whom};
use super::{Endpoint, Link, Permit, Pools, Speaks, Upstream, quic};
use crate::error::{Refusal, refusal};
use crate::io::Stream;
use crate::log::Events;
use crate::snapshot::{HttpVersion, Protocol};
use crate::tls::{Alpn, ClientTls};

/// What an endpoint is wanted for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wish {
    Request {
        /// Whether a connection will do that was kept: its peer may have closed it.
        kept: bool,
    },
    /// `over` is what its route says; none leaves it to the upstream.
    WebSocket { over: Option<Protocol> },
    /// A tunnel by CONNECT, which every server of HTTP/2 may take.
    Connect,
    /// Bytes that are not looked at.
    Bytes,
}

/// A way to an endpoint.
#[derive(Debug)]
pub enum Reached {
    Link(Link),
    Crossing(Crossing),
}

impl Reached {
    /// What is spoken over it, in logs.
    pub fn protocol(&self) -> &'static str {
        match self {
            Self::Link(link) => link.protocol(),
            Self::Crossing(crossing) => crossing.version().label(),
        }
    }

    pub fn permit(&self) -> &Permit {
        match self {
            Self::Link(link) => &link.permit,
            Self::Crossing(crossing) => &crossing.permit,
        }
    }
}

/// What is to be spoken.
#[derive(Clone, Copy)]
enum Tongue {
    Any,
    H1,
    /// What ALPN agrees on.
    Either,
    /// Over a connection that many share.
    Shared {
        version: HttpVersion,
        or_h1: bool,
    },
}

/// What all tries of an exchange have in common.
#[derive(Clone, Copy, Debug)]
pub(super) struct Trip<'t> {
    pub pools: &'t Pools,
    pub events: &'t Events,
    pub introduction: Option<&'t Introduction>,
    /// How long it may wait for a seat; none where somebody else looks at the time.
    pub patience: Option<Duration>,
    pub seating: &'t Seating,
}

/// How an exchange stands with the seats of its upstream.
#[derive(Debug, Default)]
pub(super) struct Seating {
    /// Of a connection that came to nothing: it does for the next one.
    pub spare: RefCell<Option<Seat>>,
    /// Whether it waits for one: then nobody else is late.
    pub is_waiting: Cell<bool>,
    /// An answer that may be the client's after all has one: who waited for another as well could wait for itself.
    pub has_one: Cell<bool>,
}

/// What a connection begins with that names its client, and whose it is therefore.
#[derive(Clone, Debug)]
pub struct Introduction {
    pub header: Vec<u8>,
    pub owner: Owner,
}

/// An endpoint on the way to it.
struct Way<'w> {
    endpoint: &'w Arc<Endpoint>,
    tls: Option<&'w Arc<ClientTls>>,
    wish: Wish,
    trip: &'w Trip<'w>,
}

impl Upstream {
    /// A way to `endpoint`.
    pub(super) async fn connect(
        &self,
        endpoint: &Arc<Endpoint>,
        wish: Wish,
        trip: &Trip<'_>,
    ) -> Result<Reached, Refusal> {
        let way = Way { endpoint, tls: self.tls_to(endpoint), wish, trip };
        // The permit comes first, so that choices made while we dial see the load that is on its way.
        let permit = Permit::new(endpoint.clone());
        match self.tongue(&way) {
            Tongue::Any => self.dial_bytes(&way, permit).await,
            Tongue::H1 => self.over_h1(&way, permit).await,
            // In boxes: they are large, and whoever asks an endpoint of HTTP/1.1 would move the room for them about as
            // well.
            Tongue::Either => Box::pin(self.over_either(&way, permit)).await,
            Tongue::Shared { version, or_h1 } => Box::pin(self.over_trunk(&way, permit, version, or_h1)).await,
        }
    }

    pub(super) fn tls_to(&self, endpoint: &Endpoint) -> Option<&Arc<ClientTls>> {
        self.tls.as_ref().filter(|_| endpoint.tls.is_some())
    }

    fn tongue(&self, way: &Way<'_>) -> Tongue {
        if way.wish == Wish::Bytes {
            return Tongue::Any;
        }
        match self.protocol_of(way.wish) {
            Protocol::H1 => Tongue::H1,
            Protocol::H2 => shared(way, HttpVersion::H2),
            Protocol::H3 => shared(way, HttpVersion::H3),
            Protocol::Auto if !way.is_request() && way.endpoint.speaks() == Speaks::OnlyH2 => {
                Tongue::Shared { version: HttpVersion::H2, or_h1: false }
            }
            Protocol::Auto if !way.is_request() || way.tls.is_none() => Tongue::H1,
            Protocol::Auto => Tongue::Either,
        }
    }

    fn protocol_of(&self, wish: Wish) -> Protocol {
        match wish {
            Wish::Request { .. } | Wish::WebSocket { over: None } | Wish::Connect | Wish::Bytes => self.protocol,
            Wish::WebSocket { over: Some(protocol) } => protocol,
        }
    }

    async fn dial_bytes(&self, way: &Way<'_>, permit: Permit) -> Result<Reached, Refusal> {
        if let Some((stream, seat)) = self.ready(way).await {
            return Ok(way.link(stream, permit.seated(seat), false));
        }
        let (stream, seat) = self.dial(way, Alpn::Nothing).await?;
        Ok(way.link(stream, permit.seated(seat), false))
    }

    /// A connection for bytes that was dialled ahead, and has said who comes.
    async fn ready(&self, way: &Way<'_>) -> Option<(Stream, Seat)> {
        if self.pool.ready == 0 {
            return None;
        }
        let (endpoint, tls, _) = way.key();
        let Kept { stream, seat, .. } = way.trip.pools.take(&(endpoint, tls, BYTES))?;
        way.trip.pools.ahead.spent.notify_one();
        let Some(introduction) = way.trip.introduction else { return Some((stream, seat)) };
        match introduce(stream, way.endpoint, way.tls, Alpn::Nothing, &introduction.header, &self.terms).await {
            Ok(stream) => Some((stream, seat)),
            Err(_) => {
                way.trip.seating.spare.replace(Some(seat));
                None
            }
        }
    }

    async fn over_h1(&self, way: &Way<'_>, permit: Permit) -> Result<Reached, Refusal> {
        if let Some(kept) = way.kept() {
            return Ok(way.link(kept.stream, permit.seated(kept.seat), true));
        }
        let seat = match self.seat(way, way.may_be_kept()).await? {
            Served::Kept(kept) => return Ok(way.link(kept.stream, permit.seated(kept.seat), true)),
            Served::Seat(seat) => seat,
        };
        match self.dial_seated(way, Alpn::H1, seat).await {
            Ok((stream, seat)) => Ok(way.link(stream, permit.seated(seat), false)),
            Err(refusal) if refusal == refusal::UPSTREAM_PROTOCOL && self.protocol_of(way.wish) == Protocol::Auto => {
                way.endpoint.learn(Speaks::OnlyH2);
                Box::pin(self.over_trunk(way, permit, HttpVersion::H2, false)).await
            }
            Err(refusal) => Err(refusal),
        }
    }

    /// What ALPN agrees on; what it did last is looked for first.
    async fn over_either(&self, way: &Way<'_>, permit: Permit) -> Result<Reached, Refusal> {
        let trunks = &way.trip.pools.trunks;
        if way.endpoint.speaks() != Speaks::H1 {
            match trunks.place(self.whom(way, HttpVersion::H2), self.dial_trunk(way, Alpn::Either)).await? {
                Found::Place(place) => return Ok(crossing(place, permit, false)),
                Found::Stream(stream, seat) => return Ok(way.link(stream, permit.seated(seat), false)),
                Found::OnlyH1 => {}
            }
        }
        if let Some(kept) = way.kept() {
            return Ok(way.link(kept.stream, permit.seated(kept.seat), true));
        }
        let seat = match self.seat(way, way.may_be_kept()).await? {
            Served::Kept(kept) => return Ok(way.link(kept.stream, permit.seated(kept.seat), true)),
            Served::Seat(seat) => seat,
        };
        way.trip.seating.spare.replace(Some(seat));
        match self.dial_trunk(way, Alpn::Either).await? {
            Dialled::Stream(stream, seat) => Ok(way.link(stream, permit.seated(seat), false)),
            // It has changed its mind.
            Dialled::Trunk(trunk) => Ok(crossing(trunks.add(self.whom(way, HttpVersion::H2), trunk)?, permit, false)),
        }
    }

    /// Over a connection that is shared; where it takes no WebSockets, and HTTP/1.1 will do, over that.
    async fn over_trunk(
        &self,
        way: &Way<'_>,
        permit: Permit,
        version: HttpVersion,
        or_h1: bool,
    ) -> Result<Reached, Refusal> {
        let trunks = &way.trip.pools.trunks;
        let found = trunks.place(self.whom(way, version), self.dial_shared(way, version, or_h1)).await;
        match found {
            Ok(Found::Place(place)) if !way.needs_extended() || place.takes_websockets() => {
                Ok(crossing(place, permit, or_h1))
            }
            Ok(Found::Place(_)) if !or_h1 => Err(refusal::UPSTREAM_WEBSOCKET),
            Ok(Found::Stream(stream, seat)) => {
                way.endpoint.fall_back(version);
                Ok(way.link(stream, permit.seated(seat), false))
            }
            Ok(Found::Place(_) | Found::OnlyH1) => self.fall_back(permit, version, way.trip).await.map(Reached::Link),
            Err(refusal) if or_h1 && is_of_version(version, &refusal) => {
                self.fall_back(permit, version, way.trip).await.map(Reached::Link)
            }
            Err(refusal) => {
                // It may have come to speak something else.
                way.endpoint.learn(Speaks::Unknown);
                Err(refusal)
            }
        }
    }

    /// HTTP/1.1 to an endpoint that takes no WebSockets over this version, now and for a while.
    pub(super) async fn fall_back(
        &self,
        permit: Permit,
        version: HttpVersion,
        trip: &Trip<'_>,
    ) -> Result<Link, Refusal> {
        let endpoint = permit.endpoint().clone();
        let way = Way { endpoint: &endpoint, tls: self.tls_to(&endpoint), wish: Wish::WebSocket { over: None }, trip };
        let (stream, seat) = self.dial(&way, Alpn::H1).await?;
        endpoint.fall_back(version);
        Ok(way.own_link(stream, permit.seated(seat), false))
    }

    /// A new connection that has a seat.
    async fn dial(&self, way: &Way<'_>, alpn: Alpn) -> Result<(Stream, Seat), Refusal> {
        match self.seat(way, false).await? {
            Served::Seat(seat) => self.dial_seated(way, alpn, seat).await,
            Served::Kept(_) => Err(refusal::PENDING_FULL),
        }
    }

    async fn dial_seated(&self, way: &Way<'_>, alpn: Alpn, seat: Seat) -> Result<(Stream, Seat), Refusal> {
        let preamble = way.trip.introduction.map_or(&[][..], |introduction| &introduction.header);
        let liveness = self.terms.liveness.filter(|_| !way.is_watched_later(alpn));
        match dial(way.endpoint, way.tls, alpn, preamble, &Terms { liveness, ..self.terms }).await {
            Ok(stream) => Ok((stream, seat)),
            Err(refusal) => {
                way.trip.seating.spare.replace(Some(seat));
                Err(refusal)
            }
        }
    }

    /// A seat for a new connection; or a kept one in its place, where that will do.
    async fn seat(&self, way: &Way<'_>, or_kept: bool) -> Result<Served, Refusal> {
        let seat = way.trip.seating.spare.take().or_else(|| self.seats.take());
        match seat {
            Some(seat) => Ok(Served::Seat(seat)),
            // In a box: few need it.
            None => Box::pin(self.wait_for_seat(way, or_kept)).await,
        }
    }

    async fn wait_for_seat(&self, way: &Way<'_>, or_kept: bool) -> Result<Served, Refusal> {
        let Trip { pools, events, seating, patience, .. } = way.trip;
        pools.give_up_one(&self.seats);
        if let Some(seat) = self.seats.take() {
            return Ok(Served::Seat(seat));
        }
        if seating.has_one.get() {
            return Err(refusal::PENDING_FULL);
        }
        let place = or_kept.then(|| pools.place(way.key()));
        seating.is_waiting.set(true);
        let served = self.seats.wait(place, &pools.handed, *patience).await;
        seating.is_waiting.set(false);
        served.inspect_err(|refusal| {
            if *refusal == refusal::PENDING_FULL {
                self.seats.overflowed(&self.name, events);
            }
        })
    }

    fn whom<'w>(&'w self, way: &'w Way<'w>, version: HttpVersion) -> Whom<'w> {
        let (endpoint, tls, owner, websockets) = (way.endpoint, way.tls, way.owner(), !way.is_request());
        let (seats, caller, idle_timeout) = (&self.seats, way.trip.pools.caller(), self.pool.idle_timeout);
        Whom { endpoint, tls, owner, seats, caller, version, websockets, idle_timeout }
    }

    async fn dial_shared(&self, way: &Way<'_>, version: HttpVersion, or_h1: bool) -> Result<Dialled, Refusal> {
        if version != HttpVersion::H3 {
            return self.dial_trunk(way, if or_h1 { Alpn::Either } else { Alpn::H2 }).await;
        }
        if way.trip.introduction.is_some() {
            // There is no PROXY protocol over QUIC.
            return Err(refusal::UPSTREAM_PROTOCOL);
        }
        let Served::Seat(seat) = self.seat(way, false).await? else { return Err(refusal::PENDING_FULL) };
        let dialled = match quic::dial(way.endpoint, way.tls, &self.http2, self.terms.patience).await {
            Ok(dialled) => dialled,
            Err(refusal) => {
                way.trip.seating.spare.replace(Some(seat));
                return Err(refusal);
            }
        };
        let trunk = Trunk::begin_h3(dialled, &self.http2, !way.is_request(), seat).await;
        trunk.map(Dialled::Trunk).ok_or(refusal::UPSTREAM_PROTOCOL)
    }

    async fn dial_trunk(&self, way: &Way<'_>, alpn: Alpn) -> Result<Dialled, Refusal> {
        let (stream, seat) = self.dial(way, alpn).await?;
        let is_h2 = way.tls.is_none() || has_agreed_on_h2(&stream);
        if alpn == Alpn::Either {
            way.endpoint.learn(if is_h2 { Speaks::H2 } else { Speaks::H1 });
        }
        match (is_h2, alpn) {
            (true, _) => {
                let trunk = Trunk::begin(stream, &self.http2, seat).await;
                trunk.map(Dialled::Trunk).ok_or(refusal::UPSTREAM_PROTOCOL)
            }
            (false, Alpn::Either) => Ok(Dialled::Stream(stream, seat)),
            (false, _) => Err(refusal::UPSTREAM_PROTOCOL),
        }
    }
}

impl Way<'_> {
    fn is_request(&self) -> bool {
        matches!(self.wish, Wish::Request { .. })
    }

    /// Whether only an extended CONNECT will do (RFC 8441).
    fn needs_extended(&self) -> bool {
        matches!(self.wish, Wish::WebSocket { .. })
    }

    /// Whether the relay sees to the liveness of a connection, as it does where the connection is a WebSocket's own.
    fn is_watched_later(&self, alpn: Alpn) -> bool {
        self.needs_extended() && alpn == Alpn::H1
    }

    fn owner(&self) -> Option<&Owner> {
        self.trip.introduction.map(|introduction| &introduction.owner)
    }

    /// What kept connections to it are found by.
    fn key(&self) -> pool::Key {
        pool::key(self.endpoint, self.tls, self.owner())
    }

    /// Whether a connection of HTTP/1.1 will do that was kept.
    fn may_be_kept(&self) -> bool {
        matches!(self.wish, Wish::Request { kept: true })
    }

    fn kept(&self) -> Option<Kept> {
        let kept = self.may_be_kept().then(|| self.trip.pools.take(&self.key())).flatten()?;
        if kept.is_unused() {
            self.trip.pools.ahead.spent.notify_one();
        }
        Some(kept)
    }

    fn link(&self, stream: Stream, permit: Permit, reused: bool) -> Reached {
        Reached::Link(self.own_link(stream, permit, reused))
    }

    fn own_link(&self, stream: Stream, permit: Permit, reused: bool) -> Link {
        Link { stream, permit, tls: self.tls.cloned(), owner: self.owner().cloned(), reused }
    }
}

/// Over this version; WebSockets over HTTP/1.1 while the endpoint takes none.
fn shared(way: &Way<'_>, version: HttpVersion) -> Tongue {
    let is_websocket = matches!(way.wish, Wish::WebSocket { .. });
    if is_websocket && way.endpoint.has_fallen_back(version) {
        return Tongue::H1;
    }
    Tongue::Shared { version, or_h1: is_websocket }
}

/// Whether a failure may be that of this version alone: where nobody answers over UDP, somebody may over TCP.
fn is_of_version(version: HttpVersion, refusal: &Refusal) -> bool {
    let nobody = *refusal == refusal::CONNECT_FAILED || *refusal == refusal::CONNECT_TIMEOUT;
    *refusal == refusal::UPSTREAM_PROTOCOL || (nobody && version == HttpVersion::H3)
}

fn crossing(place: Place, permit: Permit, or_h1: bool) -> Reached {
    Reached::Crossing(Crossing { place, permit, or_h1 })
}
