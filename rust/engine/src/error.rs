//! What goes wrong, whose fault it is, and what to answer: one table for all of it.

use std::fmt;

/// A part of a snapshot that cannot be built.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// JSON pointer into the snapshot: `/routes/3/match/path`.
    pub pointer: String,
    pub message: String,
}

impl Fault {
    pub fn new(pointer: impl Into<String>, message: impl Into<String>) -> Self {
        Self { pointer: pointer.into(), message: message.into() }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.pointer, self.message)
    }
}

/// A request that gets an answer of our own, before any 101.
///
/// `reason` is the stable id that logs, metrics and answers carry; `text` tells a person.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal {
    pub status: u16,
    pub reason: &'static str,
    pub text: &'static str,
    /// Seconds after which it makes sense to ask again; 0 where nobody knows.
    pub retry_after: u32,
}

impl Refusal {
    pub const fn new(status: u16, reason: &'static str, text: &'static str) -> Self {
        Self { status, reason, text, retry_after: (status == 503) as u32 }
    }

    /// The same, where asking makes sense again in so many milliseconds.
    pub fn after(self, milliseconds: u64) -> Self {
        let seconds = u32::try_from(milliseconds.div_ceil(1000)).unwrap_or(u32::MAX);
        Self { retry_after: seconds.max(1), ..self }
    }
}

/// The table: everything that ends an exchange before its answer. Parsers and handshake checks add their own rows,
/// each with its status and reason (`http::BadHead`, `ws::handshake::Refusal`).
pub mod refusal {
    use super::Refusal;

    pub const NO_ROUTE: Refusal = Refusal::new(404, "no_route", "no route takes this request");
    pub const WEBSOCKET_DISABLED: Refusal =
        Refusal::new(403, "websocket_disabled", "WebSockets are not enabled on this route");
    pub const ORIGIN: Refusal =
        Refusal::new(403, "origin_refused", "pages of this origin may not open WebSockets here");
    pub const TOO_MANY_CONNECTIONS: Refusal =
        Refusal::new(429, "too_many_connections", "this address has too many WebSockets open");
    pub const TOO_MANY_HANDSHAKES: Refusal =
        Refusal::new(429, "too_many_handshakes", "this address opens WebSockets too often");
    pub const ROUTE_FULL: Refusal = Refusal::new(503, "route_full", "too many WebSockets are open on this route");
    pub const ROUTE_BUSY: Refusal = Refusal::new(503, "route_busy", "too many WebSockets are opened on this route");
    pub const LISTENER_FULL: Refusal =
        Refusal::new(503, "listener_full", "too many WebSockets are open on this listener");
    pub const LISTENER_BUSY: Refusal =
        Refusal::new(503, "listener_busy", "too many WebSockets are opened on this listener");
    pub const MISDIRECTED: Refusal =
        Refusal::new(421, "misdirected", "this connection was made for another server name; open a new one");
    pub const HEAD_TIMEOUT: Refusal = Refusal::new(408, "head_timeout", "the request head took too long");
    pub const HTTP_1_OFF: Refusal =
        Refusal::new(505, "http_1_off", "HTTP/1.1 is not spoken on this listener, only HTTP/2");
    /// Said by a reset, not by an answer.
    pub const HTTP_1_1_REQUIRED: Refusal =
        Refusal::new(505, "http_1_1_required", "WebSockets of this route are opened over HTTP/1.1");
    pub const OPAQUE_OVER_H2: Refusal =
        Refusal::new(501, "opaque_over_h2", "this route takes private dialects of WebSockets, which need HTTP/1.1");
    pub const BODY_TIMEOUT: Refusal =
        Refusal::new(408, "body_timeout", "the next part of the request body took too long");
    pub const BODY_CUT: Refusal = Refusal::new(400, "bad_body", "the request body is malformed");
    pub const BODY_TOO_LARGE: Refusal =
        Refusal::new(413, "body_too_large", "the request body is larger than this route takes");
    pub const NO_ENDPOINT: Refusal = Refusal::new(503, "no_endpoint", "the upstream has no endpoint to send this to");
    pub const NO_HEALTHY_ENDPOINT: Refusal =
        Refusal::new(503, "no_healthy_endpoint", "the health checks of all endpoints of the upstream fail");
    pub const CONNECT_FAILED: Refusal = Refusal::new(502, "connect_failed", "no endpoint accepted a connection");
    pub const CONNECT_TIMEOUT: Refusal = Refusal::new(504, "connect_timeout", "no endpoint accepted in time");
    pub const UPSTREAM_TLS: Refusal =
        Refusal::new(502, "upstream_tls", "there is no TLS connection to any endpoint of the upstream");
    pub const UPSTREAM_PROTOCOL: Refusal =
        Refusal::new(502, "upstream_protocol", "the upstream does not speak the version of HTTP that is asked of it");
    pub const UPSTREAM_WEBSOCKET: Refusal = Refusal::new(
        502,
        "upstream_websocket",
        "the upstream speaks nothing but HTTP/2 and takes no WebSockets over it (RFC 8441)",
    );
    pub const HANDSHAKE_TIMEOUT: Refusal =
        Refusal::new(504, "handshake_timeout", "the upstream did not answer the handshake in time");
    pub const REQUEST_TIMEOUT: Refusal = Refusal::new(504, "request_timeout", "the upstream did not answer in time");
    pub const BAD_HANDSHAKE: Refusal =
        Refusal::new(502, "bad_handshake", "the upstream's answer to the handshake is not valid");
    pub const BAD_RESPONSE: Refusal = Refusal::new(502, "bad_response", "the upstream's answer is malformed");
    pub const UPSTREAM_LOST: Refusal =
        Refusal::new(502, "upstream_lost", "the upstream closed the connection before it answered");
    pub const PENDING_FULL: Refusal =
        Refusal::new(503, "pending_full", "the upstream has all connections that it may, and too many wait for one");
    pub const PENDING_TIMEOUT: Refusal = Refusal::new(
        503,
        "pending_timeout",
        "the upstream has all connections that it may, and none came free in time",
    );
    pub const OVERLOAD: Refusal = Refusal::new(503, "overload", "the gateway has no room for another connection");
    pub const LISTENER_GONE: Refusal =
        Refusal::new(503, "listener_gone", "the address this connection came through is being taken away");
    pub const NOT_READY: Refusal = Refusal::new(503, "draining", "the gateway is draining");
}

/// Why a WebSocket ended. One for every end; the label is the value in logs and metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Cause {
    Client,
    Upstream,
    ClientLost,
    UpstreamLost,
    Idle,
    PingTimeout,
    Lifetime,
    Drain,
    Reload,
    ProtocolError,
    MessageTooBig,
    Rate,
    Evicted,
    Killed,
    Internal,
}

impl Cause {
    pub const fn label(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Upstream => "upstream",
            Self::ClientLost => "client_lost",
            Self::UpstreamLost => "upstream_lost",
            Self::Idle => "idle",
            Self::PingTimeout => "ping_timeout",
            Self::Lifetime => "lifetime",
            Self::Drain => "drain",
            Self::Reload => "reload",
            Self::ProtocolError => "protocol_error",
            Self::MessageTooBig => "message_too_big",
            Self::Rate => "rate",
            Self::Evicted => "evicted",
            Self::Killed => "killed",
            Self::Internal => "internal",
        }
    }
}
