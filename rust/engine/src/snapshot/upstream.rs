//! Where connections go.

use std::net::IpAddr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::{Health, Http2, OnChange, PeerName, Place, UpstreamTls};

#[derive(Clone, Debug, Deserialize, Serialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct Upstream {
    pub name: String,
    pub place: Place,
    /// What is spoken to the endpoints.
    pub protocol: Protocol,
    pub http2: Http2,
    pub balance: Balance,
    pub endpoints: Vec<Endpoint>,
    pub limits: UpstreamLimits,
    /// What connections begin with, to name the client; `null` is nothing.
    pub proxy_protocol: Option<ProxyVersion>,
    pub connect_timeout: u64,
    pub liveness: Liveness,
    pub pool: Pool,
    /// `null`: never.
    pub eject: Option<Eject>,
    /// `null`: no checks.
    pub health: Option<Health>,
    /// How long an endpoint that is new, or healthy again, takes to come to its full share; `null`: no time.
    pub slow_start: Option<u64>,
    /// For the endpoints that want it; `null` when there are none.
    pub tls: Option<UpstreamTls>,
    /// The gateway's own zone; `null` is none.
    pub zone: Option<String>,
    /// What becomes of the live connections of an endpoint that has left.
    pub on_remove: OnChange,
}

/// What an upstream may have, over all workers.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct UpstreamLimits {
    /// Connections; `null` is unlimited.
    pub connections: Option<u64>,
    /// Exchanges that may wait for one.
    pub pending: u32,
}

/// What is spoken to endpoints.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, PartialEq, Eq, Hash)]
#[serde(rename_all = "snake_case")]
pub enum Protocol {
    /// What ALPN agrees on, HTTP/1.1 in clear text; for WebSockets HTTP/1.1, where it is spoken at all.
    Auto,
    H1,
    H2,
    H3,
}

/// A version of the PROXY protocol.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum ProxyVersion {
    V1,
    V2,
}

#[derive(Clone, Debug, Deserialize, Serialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum Balance {
    RoundRobin,
    Random,
    TwoChoices,
    LeastConnections,
    Hash(HashKey),
}

/// What stays with one endpoint.
#[derive(Clone, Debug, Deserialize, Serialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum HashKey {
    ClientIp,
    /// The first field of this name.
    Header(String),
    /// The first cookie of this name.
    Cookie(String),
    /// The first query parameter of this name.
    Query(String),
}

/// When an endpoint gets nothing for a while.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct Eject {
    /// So many in a row.
    pub failures: u32,
    /// How long the first time; twice as long each time that follows without an answer in between.
    #[serde(rename = "for")]
    pub lasts: u64,
    /// Percent of the endpoints that may be ejected at once.
    pub at_most: u8,
}

#[derive(Clone, Debug, Deserialize, Serialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct Endpoint {
    /// As written; with `target` it is the endpoint's identity across reloads.
    pub name: String,
    /// The Host for `host: upstream`: `10.0.0.5:9000`; `localhost` for unix sockets.
    pub host: String,
    pub target: Target,
    /// More than 0.
    pub weight: u32,
    /// 0 is wanted first.
    pub priority: u32,
    /// `null` is none that we know of.
    pub zone: Option<String>,
    /// Its host, when TLS is spoken to it; `null` is clear text.
    pub tls: Option<PeerName>,
}

#[derive(Clone, Debug, Deserialize, Serialize, PartialEq, Eq, Hash)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Target {
    Tcp(IpAddr, u16),
    Unix(PathBuf),
    /// A DNS name and port. The control plane resolves it and says the addresses by `set_endpoints`; until then
    /// this endpoint takes nothing.
    Name(String, u16),
}

/// Connections without an exchange, per worker and endpoint.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct Pool {
    /// Of HTTP/1.1, kept for the next request.
    pub idle: u32,
    pub idle_timeout: u64,
    /// Dialled ahead where there are fewer; of HTTP/1.1 they are among the idle ones.
    pub ready: u32,
}

/// How the kernel finds out that a peer has gone. For TCP.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct Liveness {
    /// `null` is never.
    pub keepalive: Option<Keepalive>,
    /// How long what was sent may stay unacknowledged; `null` leaves it to the kernel.
    pub user_timeout: Option<u64>,
}

/// Probes of a silent connection. Whole seconds.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct Keepalive {
    pub idle: u64,
    pub every: u64,
    pub probes: u32,
}
