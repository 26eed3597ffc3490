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

use std::sync::Arc;

use super::crossing::Crossing;
use super::dial::{dial, has_agreed_on_h2};
use super::trunk::{Place, Trunk};
use super::trunks::{Dialled, Found, Whom};
use super::{Endpoint, Link, Permit, Pools, Speaks, Upstream, quic};
use crate::error::{Refusal, refusal};
use crate::io::Stream;
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

/// An endpoint on the way to it.
struct Way<'w> {
    endpoint: &'w Arc<Endpoint>,
    tls: Option<&'w Arc<ClientTls>>,
    wish: Wish,
    /// What a connection for bytes begins with.
    preamble: &'w [u8],
}

impl Upstream {
    /// A way to `endpoint`.
    pub(super) async fn connect(
        &self,
        endpoint: &Arc<Endpoint>,
        pools: &Pools,
        wish: Wish,
        preamble: &[u8],
    ) -> Result<Reached, Refusal> {
        let tls = self.tls.as_ref().filter(|_| endpoint.tls.is_some());
        let way = Way { endpoint, tls, wish, preamble };
        // The permit comes first, so that choices made while we dial see the load that is on its way.
        let permit = Permit::new(endpoint.clone());
        match self.tongue(&way) {
            Tongue::Any => self.dial_bytes(&way, permit).await,
            Tongue::H1 => self.over_h1(&way, pools, permit).await,
            // In boxes: they are large, and whoever asks an endpoint of HTTP/1.1 would move the room for them about as well.
            Tongue::Either => Box::pin(self.over_either(&way, pools, permit)).await,
            Tongue::Shared { version, or_h1 } => Box::pin(self.over_trunk(&way, pools, permit, version, or_h1)).await,
        }
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
        let stream = dial(way.endpoint, way.tls, Alpn::Nothing, way.preamble, &self.terms).await?;
        Ok(way.link(stream, permit, false))
    }

    async fn over_h1(&self, way: &Way<'_>, pools: &Pools, permit: Permit) -> Result<Reached, Refusal> {
        if let Some(stream) = way.kept(pools) {
            return Ok(way.link(stream, permit, true));
        }
        match dial(way.endpoint, way.tls, Alpn::H1, &[], &self.terms).await {
            Ok(stream) => Ok(way.link(stream, permit, false)),
            Err(refusal) if refusal == refusal::UPSTREAM_PROTOCOL && self.protocol_of(way.wish) == Protocol::Auto => {
                way.endpoint.learn(Speaks::OnlyH2);
                Box::pin(self.over_trunk(way, pools, permit, HttpVersion::H2, false)).await
            }
            Err(refusal) => Err(refusal),
        }
    }

    /// What ALPN agrees on; what it did last is looked for first.
    async fn over_either(&self, way: &Way<'_>, pools: &Pools, permit: Permit) -> Result<Reached, Refusal> {
        if way.endpoint.speaks() != Speaks::H1 {
            match pools.trunks.place(self.whom(way, HttpVersion::H2), self.dial_trunk(way, Alpn::Either)).await? {
                Found::Place(place) => return Ok(crossing(place, permit, false)),
                Found::Stream(stream) => return Ok(way.link(stream, permit, false)),
                Found::OnlyH1 => {}
            }
        }
        if let Some(stream) = way.kept(pools) {
            return Ok(way.link(stream, permit, true));
        }
        match self.dial_trunk(way, Alpn::Either).await? {
            Dialled::Stream(stream) => Ok(way.link(stream, permit, false)),
            // It has changed its mind.
            Dialled::Trunk(trunk) => {
                Ok(crossing(pools.trunks.add(self.whom(way, HttpVersion::H2), trunk)?, permit, false))
            }
        }
    }

    /// Over a connection that is shared; where it takes no WebSockets, and HTTP/1.1 will do, over that.
    async fn over_trunk(
        &self,
        way: &Way<'_>,
        pools: &Pools,
        permit: Permit,
        version: HttpVersion,
        or_h1: bool,
    ) -> Result<Reached, Refusal> {
        let found = pools.trunks.place(self.whom(way, version), self.dial_shared(way, version, or_h1)).await;
        match found {
            Ok(Found::Place(place)) if !way.needs_extended() || place.takes_websockets() => {
                Ok(crossing(place, permit, or_h1))
            }
            Ok(Found::Place(_)) if !or_h1 => Err(refusal::UPSTREAM_WEBSOCKET),
            Ok(Found::Stream(stream)) => {
                way.endpoint.fall_back(version);
                Ok(way.link(stream, permit, false))
            }
            Ok(Found::Place(_) | Found::OnlyH1) => self.fall_back(permit, version).await.map(Reached::Link),
            Err(refusal) if or_h1 && is_of_version(version, &refusal) => {
                self.fall_back(permit, version).await.map(Reached::Link)
            }
            Err(refusal) => {
                // It may have come to speak something else.
                way.endpoint.learn(Speaks::Unknown);
                Err(refusal)
            }
        }
    }

    /// HTTP/1.1 to an endpoint that takes no WebSockets over this version, now and for a while.
    pub(super) async fn fall_back(&self, permit: Permit, version: HttpVersion) -> Result<Link, Refusal> {
        let endpoint = permit.endpoint();
        let tls = self.tls.as_ref().filter(|_| endpoint.tls.is_some());
        let stream = dial(endpoint, tls, Alpn::H1, &[], &self.terms).await?;
        endpoint.fall_back(version);
        Ok(Link { stream, permit, tls: tls.cloned(), reused: false })
    }

    fn whom<'w>(&self, way: &Way<'w>, version: HttpVersion) -> Whom<'w> {
        let (endpoint, tls, websockets) = (way.endpoint, way.tls, !way.is_request());
        Whom { endpoint, tls, version, websockets, idle_timeout: self.pool.idle_timeout }
    }

    async fn dial_shared(&self, way: &Way<'_>, version: HttpVersion, or_h1: bool) -> Result<Dialled, Refusal> {
        if version != HttpVersion::H3 {
            return self.dial_trunk(way, if or_h1 { Alpn::Either } else { Alpn::H2 }).await;
        }
        let dialled = quic::dial(way.endpoint, way.tls, &self.http2, self.terms.patience).await?;
        let trunk = Trunk::begin_h3(dialled, &self.http2, !way.is_request()).await;
        trunk.map(Dialled::Trunk).ok_or(refusal::UPSTREAM_PROTOCOL)
    }

    async fn dial_trunk(&self, way: &Way<'_>, alpn: Alpn) -> Result<Dialled, Refusal> {
        let stream = dial(way.endpoint, way.tls, alpn, &[], &self.terms).await?;
        let is_h2 = way.tls.is_none() || has_agreed_on_h2(&stream);
        if alpn == Alpn::Either {
            way.endpoint.learn(if is_h2 { Speaks::H2 } else { Speaks::H1 });
        }
        match (is_h2, alpn) {
            (true, _) => Trunk::begin(stream, &self.http2).await.map(Dialled::Trunk).ok_or(refusal::UPSTREAM_PROTOCOL),
            (false, Alpn::Either) => Ok(Dialled::Stream(stream)),
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

    /// A connection of HTTP/1.1 that was kept.
    fn kept(&self, pools: &Pools) -> Option<Stream> {
        matches!(self.wish, Wish::Request { kept: true }).then(|| pools.take(self.endpoint, self.tls)).flatten()
    }

    fn link(&self, stream: Stream, permit: Permit, reused: bool) -> Reached {
        Reached::Link(Link { stream, permit, tls: self.tls.cloned(), reused })
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
