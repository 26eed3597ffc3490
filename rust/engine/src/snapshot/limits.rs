//! How many, and how fast.

use serde::{Deserialize, Serialize};

/// How many WebSockets may be opened, and how many be open, together and by client address. Addresses of proxies that
/// are trusted count for none.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct Admission {
    /// Open at once; `null` is unlimited.
    pub websockets: Option<u64>,
    /// The same for each address.
    pub connections_per_ip: Option<u64>,
    pub handshakes: Option<Rate>,
    pub handshakes_per_ip: Option<Rate>,
    /// What becomes of one too many.
    pub over: Over,
    /// So many leading bits of an IPv6 address count as one address.
    pub ipv6_prefix: u8,
}

#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum Over {
    #[default]
    Refuse,
    /// The oldest one goes.
    Evict,
}

/// So many in a time, and so many at once.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, PartialEq, Eq, Hash)]
#[serde(deny_unknown_fields)]
pub struct Rate {
    /// At least 1.
    pub count: u64,
    /// Milliseconds, at least 1.
    pub per: u64,
    /// So many at once; at least 1.
    pub burst: u64,
}
