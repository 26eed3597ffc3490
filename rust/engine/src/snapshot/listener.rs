//! Where connections come in.

use std::net::SocketAddr;
use std::path::PathBuf;

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::{Admission, Http2, HttpVersion, Liveness, Place, Rate, Share, Tls};

#[derive(Clone, Debug, Deserialize, Serialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct Listener {
    pub name: String,
    pub place: Place,
    pub binds: Vec<Bind>,
    /// `null`: clear text.
    pub tls: Option<Tls>,
    /// What is spoken, at least one.
    pub http: Vec<HttpVersion>,
    pub http2: Http2,
    /// Sources that must begin with a PROXY protocol header; from others a header is a bad request. Empty: off.
    pub proxy_protocol: Vec<IpNet>,
    pub access: Access,
    /// `null`: HTTP is spoken.
    pub tcp: Option<Tcp>,
    /// Whose `Forwarded` and `X-Forwarded-*` headers are believed.
    pub trusted_proxies: Vec<IpNet>,
    pub liveness: Liveness,
    pub limits: ListenerLimits,
    pub admission: Admission,
    /// How long a head may take, from the first byte of the connection or of the request.
    pub head_timeout: u64,
    /// How long a body may pause; `null` is never.
    pub body_timeout: Option<u64>,
    /// How long a kept-alive connection may wait for its next request.
    pub keep_alive: u64,
    /// How long a TLS handshake (and a PROXY header) may take.
    pub tls_timeout: u64,
    /// How much of that a TLS handshake may wait for its turn.
    pub tls_queue: u64,
}

/// Which clients may connect. The longest network with the client's address decides.
#[derive(Clone, Debug, Deserialize, Serialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct Access {
    /// `null`: everybody who is not in `deny`.
    pub allow: Option<Vec<IpNet>>,
    pub deny: Vec<IpNet>,
}

/// What becomes of the connections of a TCP listener.
#[derive(Clone, Debug, Deserialize, Serialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct Tcp {
    pub target: TcpTarget,
    /// How long nothing may pass; `null` is never too long.
    pub idle: Option<u64>,
    /// `null` is never.
    pub max_lifetime: Option<u64>,
    /// From the client's connection to the upstream's, over all tries.
    pub connect_timeout: u64,
    /// Endpoints tried at most; `null` is each once.
    pub attempts: Option<u32>,
}

#[derive(Clone, Debug, Deserialize, Serialize, PartialEq)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum TcpTarget {
    /// At least one; weights add up to more than 0.
    To(Vec<Share>),
    Sni(Sni),
    /// Every byte comes back.
    Echo,
}

/// TLS that is passed on as it is, by the server name in the ClientHello.
#[derive(Clone, Debug, Deserialize, Serialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct Sni {
    /// Exact (`a.example.com`) or one leading wildcard label (`*.example.com`), lower case.
    pub names: Vec<(String, Vec<Share>)>,
    /// For other names, and for clients that name nobody; `null`: they get an alert.
    pub default: Option<Vec<Share>>,
}

impl TcpTarget {
    /// All shares of upstreams.
    pub fn shares(&self) -> impl Iterator<Item = &Share> {
        let (to, sni) = match self {
            Self::To(shares) => (Some(shares), None),
            Self::Sni(sni) => (sni.default.as_ref(), Some(sni)),
            Self::Echo => (None, None),
        };
        let named = sni.into_iter().flat_map(|sni| &sni.names).flat_map(|(_, shares)| shares);
        to.into_iter().flatten().chain(named)
    }
}

/// A socket to listen on.
#[derive(Clone, Debug, Deserialize, Serialize, PartialEq, Eq, Hash)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Bind {
    /// `0.0.0.0:80`, or `[::]:80`, which takes IPv4 too.
    Tcp(SocketAddr),
    Unix(PathBuf),
}

#[derive(Clone, Debug, Deserialize, Serialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct ListenerLimits {
    /// Connections open at once; `null` is unlimited.
    pub connections: Option<u64>,
    /// New connections; `null` is unlimited.
    pub connection_rate: Option<Rate>,
    /// Bytes of a request head; more is 431.
    pub headers: u32,
    /// TLS handshakes at once; more wait.
    pub tls_handshakes: u32,
}
