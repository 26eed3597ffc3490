//! How endpoints are checked, and what follows from it.

use serde::{Deserialize, Serialize};

use super::Endpoint;

/// The health checks of an upstream.
#[derive(Clone, Debug, Deserialize, Serialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct Health {
    pub check: Check,
    /// Another port of the endpoint; `null` is its own.
    pub port: Option<u16>,
    /// How long one check may take.
    pub timeout: u64,
    /// When it is made, and how many decide: the control plane's affair.
    pub schedule: Schedule,
    /// Percent of the endpoints that must be usable, or all of them are used again; 0 is never.
    pub panic: u8,
}

/// What an endpoint is asked.
#[derive(Clone, Debug, Deserialize, Serialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum Check {
    Http(HttpCheck),
    /// A connection, with TLS where the endpoint wants it.
    Tcp,
    /// `grpc.health.v1.Health/Check`.
    Grpc(GrpcCheck),
    /// A handshake, a Ping and its Pong, and a Close.
    Websocket(WebSocketCheck),
}

#[derive(Clone, Debug, Deserialize, Serialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct HttpCheck {
    pub method: String,
    /// With the query.
    pub path: String,
    /// The Host; `null` is the endpoint's.
    pub host: Option<String>,
    pub headers: Vec<(String, String)>,
    /// The good statuses: ranges, both ends included.
    pub statuses: Vec<(u16, u16)>,
}

#[derive(Clone, Debug, Deserialize, Serialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct GrpcCheck {
    /// The service that is asked for; empty is the server as a whole.
    pub service: String,
    /// The `:authority`; `null` is the endpoint's.
    pub host: Option<String>,
}

#[derive(Clone, Debug, Deserialize, Serialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct WebSocketCheck {
    /// With the query.
    pub path: String,
    /// The Host; `null` is the endpoint's.
    pub host: Option<String>,
    pub headers: Vec<(String, String)>,
    /// What is offered.
    pub subprotocols: Vec<String>,
}

#[derive(Clone, Copy, Debug, Deserialize, Serialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct Schedule {
    pub every: u64,
    /// Percent of `every` by which each wait may be shorter or longer.
    pub jitter: u8,
    /// Good checks in a row that make an endpoint healthy again.
    pub healthy: u32,
    /// Failed ones in a row that make it unhealthy.
    pub unhealthy: u32,
}

/// What the control plane has found out about an endpoint.
#[derive(Clone, Debug, Deserialize, Serialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct Found {
    pub endpoint: Endpoint,
    /// `null`: nothing yet, and so it is taken for healthy.
    pub healthy: Option<bool>,
}
