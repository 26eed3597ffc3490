//! What holds for HTTP on either side.

use serde::{Deserialize, Serialize};

/// A version of HTTP.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, PartialEq, Eq, Hash)]
#[serde(rename_all = "snake_case")]
pub enum HttpVersion {
    H1,
    H2,
    H3,
}

impl HttpVersion {
    /// In logs and metrics.
    pub const fn label(self) -> &'static str {
        match self {
            Self::H1 => "h1",
            Self::H2 => "h2",
            Self::H3 => "h3",
        }
    }
}

/// What a connection of HTTP/2 may take.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct Http2 {
    /// Streams at once.
    pub streams: u32,
    /// Bytes that a peer may send on a stream before it was read.
    pub window: u32,
    /// The same for all streams together; at least `streams` × `window`, so that stalled ones never starve the others.
    pub connection_window: u32,
}

/// Header edits: `remove`, then `set`, then `add`. Values are templates.
#[derive(Clone, Debug, Default, Deserialize, Serialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct Edits {
    pub set: Vec<(String, String)>,
    pub add: Vec<(String, String)>,
    pub remove: Vec<String>,
}
