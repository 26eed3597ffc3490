//! Which requests, and from which listeners.

use serde::{Deserialize, Serialize};

use super::{Action, Admission, Place};

#[derive(Clone, Debug, Deserialize, Serialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct Route {
    /// Unique: as written, or made from listener and match.
    pub name: String,
    pub place: Place,
    /// Where it listens, and with what WebSocket settings there.
    pub listeners: Vec<RouteListener>,
    #[serde(rename = "match")]
    pub matches: Match,
    /// Higher goes first, within one host.
    pub priority: i64,
    /// When nothing matches under this route's host, wider hosts are tried. True if any route of the host says so.
    pub fall_through: bool,
    pub action: Action,
    pub on_change: OnChange,
    pub admission: Admission,
}

#[derive(Clone, Debug, Deserialize, Serialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct RouteListener {
    /// Index into `listeners`.
    pub listener: usize,
    /// Index into `websockets`.
    pub websocket: usize,
    /// Bytes of a request's body; more is 413; `null` is unlimited.
    pub body_limit: Option<u64>,
}

#[derive(Clone, Copy, Debug, Deserialize, Serialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum OnChange {
    Keep,
    Drain,
}

#[derive(Clone, Debug, Deserialize, Serialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct Match {
    /// At least one.
    pub hosts: Vec<HostMatch>,
    pub path: PathMatch,
    /// Any when empty.
    pub methods: Vec<String>,
    pub headers: Vec<NamedTest>,
    pub query: Vec<NamedTest>,
}

/// Lower case, no port, no trailing dot.
#[derive(Clone, Debug, Deserialize, Serialize, PartialEq, Eq, Hash)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum HostMatch {
    Any,
    Exact(String),
    /// `*.example.com` is `.example.com`: one label or more before it.
    Suffix(String),
    /// `www.*` is `www.`.
    Prefix(String),
}

#[derive(Clone, Debug, Deserialize, Serialize, PartialEq, Eq, Hash)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum PathMatch {
    Any,
    Exact(String),
    /// Whole segments: `/ws` takes `/ws` and `/ws/x`, not `/wsx`.
    Prefix(String),
    /// Raw bytes: `/ws` takes `/wsx`.
    StartsWith(String),
    /// The whole path.
    Regex(String),
}

#[derive(Clone, Debug, Deserialize, Serialize, PartialEq, Eq, Hash)]
#[serde(deny_unknown_fields)]
pub struct NamedTest {
    /// A header's name (any case) or a query parameter's (exact).
    pub name: String,
    pub test: ValueTest,
}

#[derive(Clone, Debug, Deserialize, Serialize, PartialEq, Eq, Hash)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum ValueTest {
    Exact(String),
    Prefix(String),
    /// The whole value.
    Regex(String),
    /// Whether it is there at all.
    Present(bool),
    Not(Box<ValueTest>),
}
