//! What becomes of a request.

use serde::{Deserialize, Serialize};

use super::Edits;

#[derive(Clone, Debug, Deserialize, Serialize, PartialEq)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Action {
    Forward(Forward),
    Redirect(Redirect),
    Respond(Respond),
}

#[derive(Clone, Debug, Deserialize, Serialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct Forward {
    /// At least one; weights add up to more than 0.
    pub to: Vec<Share>,
    pub rewrite: Option<Rewrite>,
    pub host: HostHeader,
    pub request_headers: Edits,
    pub response_headers: Edits,
    /// From the head of a WebSocket attempt to the upstream's answer: name, connect and 101.
    pub handshake_timeout: u64,
    /// From the head of a plain request without a body to the head of its answer; with one, from any part of it that
    /// the upstream has taken. `null` is never.
    pub request_timeout: Option<u64>,
    pub retry: Retry,
    /// Calls of gRPC-Web go up as calls of gRPC.
    pub grpc_web: bool,
    /// `null`: none are opened here. In a box: few routes have any.
    pub tunnels: Option<Box<Tunnels>>,
}

/// Which tunnels may be opened, and how long they live.
#[derive(Clone, Debug, Deserialize, Serialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct Tunnels {
    /// Tokens of `Upgrade`, and of `:protocol`, in small letters; never `websocket`.
    pub upgrades: Vec<String>,
    /// `null`: CONNECT is not served.
    pub connect: Option<Connect>,
    /// How long nothing may pass; `null` is never too long.
    pub idle: Option<u64>,
    /// `null` is never.
    pub max_lifetime: Option<u64>,
}

/// Where a CONNECT ends.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum Connect {
    /// At another proxy: the endpoint gets a CONNECT too.
    Pass,
    /// Here: the endpoint gets the bytes.
    Terminate,
}

/// When another endpoint is asked.
#[derive(Clone, Debug, Deserialize, Serialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct Retry {
    /// Tries at most, the first included; `null` is each endpoint once.
    pub attempts: Option<u32>,
    /// When there is no connection.
    pub connect: bool,
    /// When the answer has one of these, and asking twice does no harm.
    pub statuses: Vec<u16>,
}

#[derive(Clone, Debug, Deserialize, Serialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct Share {
    /// Index into `upstreams`.
    pub upstream: usize,
    pub weight: u32,
}

#[derive(Clone, Debug, Deserialize, Serialize, PartialEq)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Rewrite {
    /// Replaces what the `prefix`, `starts_with` or `exact` of the match took.
    Prefix(String),
    /// Replaces what `pattern` matches in the path; `$1`, `${name}` in `to` are its groups.
    Regex { pattern: String, to: String },
}

#[derive(Clone, Debug, Deserialize, Serialize, PartialEq)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum HostHeader {
    /// The client's.
    Preserve,
    /// The endpoint's host and port as written.
    Upstream,
    /// A template.
    Set(String),
}

#[derive(Clone, Debug, Deserialize, Serialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct Redirect {
    /// A template.
    pub to: String,
    pub status: u16,
    pub headers: Edits,
}

#[derive(Clone, Debug, Deserialize, Serialize, PartialEq)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Respond {
    Fixed {
        status: u16,
        body: String,
        content_type: String,
        headers: Edits,
    },
    /// Sends a request's body, or a WebSocket's messages, back.
    Echo,
    /// 200 while ready, 503 from the first moment of a drain.
    Ready,
}
