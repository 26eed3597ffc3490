//! TLS towards clients and towards upstreams.

use rustls::pki_types::ServerName;
use serde::{Deserialize, Serialize};

use super::HttpVersion;

/// TLS towards the client. PEM texts travel beside the snapshot: a value here is the key to look them up by.
#[derive(Clone, Debug, Deserialize, Serialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct Tls {
    /// At least one. The certificate for a server name is chosen by the names in it; the first one serves the rest.
    pub certificates: Vec<Certificate>,
    /// The rule for server names without one in `by_name`.
    pub rule: TlsRule,
    /// Rules by server name: exact (`a.example.com`) or one leading wildcard label (`*.example.com`), lower case.
    pub by_name: Vec<(String, TlsRule)>,
    /// What is spoken under a server name (as in `by_name`), where it is not what the listener says.
    pub protocols: Vec<(String, Vec<HttpVersion>)>,
}

#[derive(Clone, Debug, Deserialize, Serialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct Certificate {
    pub cert: String,
    pub key: String,
}

#[derive(Clone, Debug, Deserialize, Serialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct TlsRule {
    pub min_version: TlsVersion,
    pub client_auth: ClientAuth,
    /// PEM certificates of the authorities for client certificates; `null` only when `client_auth` is `off`.
    pub client_ca: Option<String>,
}

#[derive(Clone, Copy, Debug, Deserialize, Serialize, PartialEq, Eq)]
pub enum TlsVersion {
    #[serde(rename = "1.2")]
    V1_2,
    #[serde(rename = "1.3")]
    V1_3,
}

#[derive(Clone, Copy, Debug, Deserialize, Serialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum ClientAuth {
    Off,
    /// Asked for; verified when given.
    Request,
    Require,
}

/// TLS towards endpoints. PEM texts travel beside the snapshot.
#[derive(Clone, Debug, Deserialize, Serialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct UpstreamTls {
    /// What certificates must be made for; `null` is the host of each endpoint.
    pub server_name: Option<PeerName>,
    pub trust: Trust,
    /// What we show to servers that ask for it.
    pub certificate: Option<Certificate>,
}

/// Which certificates of servers are believed.
#[derive(Clone, Debug, Deserialize, Serialize, PartialEq)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Trust {
    /// Those of the authorities in this PEM text, which must all be usable.
    Ca(String),
    /// Those of the authorities in this PEM text, as far as they are usable.
    System(String),
    /// All.
    Anything,
}

/// A DNS name, or an address without brackets, that a server's certificate must be made for.
#[derive(Clone, Debug, Deserialize, Serialize, PartialEq, Eq)]
#[serde(try_from = "String", into = "String")]
pub struct PeerName(pub ServerName<'static>);

impl TryFrom<String> for PeerName {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let name = ServerName::try_from(text.as_str()).map(|name| name.to_owned());
        name.map(Self).map_err(|_| format!("{text:?} is neither a DNS name nor an address"))
    }
}

impl From<PeerName> for String {
    fn from(name: PeerName) -> Self {
        name.0.to_str().into_owned()
    }
}
