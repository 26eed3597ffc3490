//! What should run, as Python decided it: one immutable value, complete and resolved.
//!
//! `tidegate.snapshot.compile` writes it as JSON; [`crate::server::State`] is built from it. Nothing optional is left:
//! a `null` is a value (`never`, `off`, `unlimited`), not an absence. Names are ids where Rust looks things up often
//! (an index into the list named). Durations are milliseconds, sizes bytes.

mod action;
mod health;
mod http;
mod limits;
mod listener;
mod route;
mod tls;
mod upstream;
mod websocket;

use serde::{Deserialize, Serialize};

pub use self::action::{Action, Connect, Forward, HostHeader, Redirect, Respond, Retry, Rewrite, Share, Tunnels};
pub use self::health::{Check, Found, GrpcCheck, Health, HttpCheck, Schedule, WebSocketCheck};
pub use self::http::{Edits, Http2, HttpVersion};
pub use self::limits::{Admission, Over, Rate};
pub use self::listener::{Access, Bind, Listener, ListenerLimits, Sni, Tcp, TcpTarget};
pub use self::route::{HostMatch, Match, NamedTest, OnChange, PathMatch, Route, RouteListener, ValueTest};
pub use self::tls::{Certificate, ClientAuth, PeerName, Tls, TlsRule, TlsVersion, Trust, UpstreamTls};
pub use self::upstream::{
    Balance, Eject, Endpoint, HashKey, Keepalive, Liveness, Pool, Protocol, ProxyVersion, Target, Upstream,
    UpstreamLimits,
};
pub use self::websocket::{
    CloseCodes, Deflate, Frames, IdleCounts, Messages, Origin, OriginList, OriginPort, Origins, OverMessages, Ping,
    WebSocket,
};

/// The version of this format. Both sides refuse another.
pub const FORMAT: u32 = 1;

/// Everything the engine runs from.
#[derive(Clone, Debug, Deserialize, Serialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct Snapshot {
    /// [`FORMAT`].
    pub format: u32,
    pub listeners: Vec<Listener>,
    /// In the order of the file.
    pub routes: Vec<Route>,
    pub upstreams: Vec<Upstream>,
    /// WebSocket settings, shared: [`RouteListener::websocket`] is an index into this list.
    pub websockets: Vec<WebSocket>,
    /// `null`: no access log.
    pub access_log: Option<AccessLog>,
    pub drain: Drain,
}

/// Where a part of the configuration was written.
#[derive(Clone, Debug, Deserialize, Serialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct Place {
    pub file: String,
    pub line: u32,
}

#[derive(Clone, Debug, Deserialize, Serialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct AccessLog {
    /// `stdout`, `stderr` or a file's path.
    pub path: String,
    pub format: LogFormat,
}

#[derive(Clone, Copy, Debug, Deserialize, Serialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum LogFormat {
    Json,
    Text,
}

#[derive(Clone, Copy, Debug, Deserialize, Serialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct Drain {
    pub delay: u64,
    pub window: u64,
    pub timeout: u64,
}
