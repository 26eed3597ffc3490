//! What holds for the WebSockets of a route.

use serde::{Deserialize, Serialize};

use super::{HostMatch, HttpVersion, Protocol, Rate};

#[derive(Clone, Debug, Deserialize, Serialize, PartialEq, Eq, Hash)]
#[serde(deny_unknown_fields)]
pub struct WebSocket {
    pub enabled: bool,
    /// The versions of HTTP that a client may open one over.
    pub over: Vec<HttpVersion>,
    /// What is spoken to the endpoints for them; `null` is what the upstream says.
    pub upstream_protocol: Option<Protocol>,
    pub frames: Frames,
    pub deflate: Deflate,
    pub origins: Origins,
    /// Those that may be offered upstream; `null` is all.
    pub subprotocols: Option<Vec<String>>,
    /// `null` is never.
    pub idle_after: Option<u64>,
    pub idle_counts: IdleCounts,
    pub ping: Option<Ping>,
    /// `null` is never.
    pub max_lifetime: Option<u64>,
    /// Bytes on the wire of one message's payload; `null` is unlimited.
    pub max_message: Option<u64>,
    /// The same of one frame.
    pub max_frame: Option<u64>,
    /// Frames of one message; `null` is unlimited.
    pub max_fragments: Option<u64>,
    /// How fast clients may send; `null` is unlimited.
    pub messages: Option<Messages>,
    pub close_codes: CloseCodes,
    /// The Close code for the upstream when the client is lost; `null` closes without one.
    pub on_client_lost: Option<u16>,
    /// How long the close handshake may take once our Close has left the queue.
    pub close_timeout: u64,
}

/// Whose pages may open WebSockets.
#[derive(Clone, Debug, Deserialize, Serialize, PartialEq, Eq, Hash)]
#[serde(deny_unknown_fields)]
pub struct Origins {
    /// `null`: everybody's.
    pub allow: Option<OriginList>,
    /// Whether clients may that name no origin.
    pub missing: bool,
}

#[derive(Clone, Debug, Deserialize, Serialize, PartialEq, Eq, Hash)]
#[serde(deny_unknown_fields)]
pub struct OriginList {
    /// The pages of the host and port that the client asks for.
    pub same: bool,
    /// The pages of nobody: `Origin: null`.
    pub null: bool,
    pub patterns: Vec<Origin>,
}

#[derive(Clone, Debug, Deserialize, Serialize, PartialEq, Eq, Hash)]
#[serde(deny_unknown_fields)]
pub struct Origin {
    /// Lower case.
    pub scheme: String,
    pub host: HostMatch,
    pub port: OriginPort,
}

#[derive(Clone, Copy, Debug, Deserialize, Serialize, PartialEq, Eq, Hash)]
#[serde(rename_all = "snake_case")]
pub enum OriginPort {
    Any,
    /// That of the scheme where the file says none; `null` where the scheme has none.
    Is(Option<u16>),
}

#[derive(Clone, Copy, Debug, Deserialize, Serialize, PartialEq, Eq, Hash)]
#[serde(rename_all = "snake_case")]
pub enum Frames {
    Strict,
    Opaque,
}

#[derive(Clone, Copy, Debug, Deserialize, Serialize, PartialEq, Eq, Hash)]
#[serde(rename_all = "snake_case")]
pub enum Deflate {
    Pass,
    Off,
}

#[derive(Clone, Copy, Debug, Deserialize, Serialize, PartialEq, Eq, Hash)]
#[serde(rename_all = "snake_case")]
pub enum IdleCounts {
    Data,
    Any,
}

#[derive(Clone, Copy, Debug, Deserialize, Serialize, PartialEq, Eq, Hash)]
#[serde(deny_unknown_fields)]
pub struct Ping {
    pub every: u64,
    pub timeout: u64,
    pub downstream: bool,
    pub upstream: bool,
}

/// How fast a client may send; `null` is unlimited.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, PartialEq, Eq, Hash)]
#[serde(deny_unknown_fields)]
pub struct Messages {
    pub rate: Option<Rate>,
    /// Payload bytes of messages, as on the wire.
    pub bytes: Option<Rate>,
    /// Pings and Pongs.
    pub control: Option<Rate>,
    pub over: OverMessages,
}

/// What becomes of a message too many.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, PartialEq, Eq, Hash)]
#[serde(rename_all = "snake_case")]
pub enum OverMessages {
    Delay,
    Drop,
    Close,
}

#[derive(Clone, Copy, Debug, Deserialize, Serialize, PartialEq, Eq, Hash)]
#[serde(deny_unknown_fields)]
pub struct CloseCodes {
    pub upstream_lost: u16,
    pub drain: u16,
    pub rate: u16,
    pub idle: u16,
    pub lifetime: u16,
}
