//! What should run, as Python decided it: one immutable value, complete and resolved.
//!
//! `tidegate.snapshot.compile` writes it as JSON; [`crate::server::State`] is built from it. Nothing optional is left:
//! a `null` is a value (`never`, `off`, `unlimited`), not an absence. Names are ids where Rust looks things up often
//! (an index into the list named). Durations are milliseconds, sizes bytes.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use ipnet::IpNet;
use rustls::pki_types::ServerName;
use serde::{Deserialize, Serialize};

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

/// So many in so long, both more than 0.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct Rate {
    pub count: u32,
    pub per: u32,
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

/// How many WebSockets may be opened, and how many be open, together and by client address. Addresses of proxies that are
/// trusted count for none.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct Admission {
    /// Open at once; `null` is unlimited.
    pub websockets: Option<u64>,
    /// The same for each address.
    pub connections_per_ip: Option<u64>,
    pub handshakes: Option<Budget>,
    pub handshakes_per_ip: Option<Budget>,
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
pub struct Budget {
    /// At least 1.
    pub count: u64,
    /// Milliseconds, at least 1.
    pub per: u64,
    /// So many at once; at least 1.
    pub burst: u64,
}

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
    /// From the head of a plain request without a body to the head of its answer; with one, from any part of it that the
    /// upstream has taken. `null` is never.
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

/// Header edits: `remove`, then `set`, then `add`. Values are templates.
#[derive(Clone, Debug, Default, Deserialize, Serialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct Edits {
    pub set: Vec<(String, String)>,
    pub add: Vec<(String, String)>,
    pub remove: Vec<String>,
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
    pub rate: Option<Budget>,
    /// Payload bytes of messages, as on the wire.
    pub bytes: Option<Budget>,
    /// Pings and Pongs.
    pub control: Option<Budget>,
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
    /// For the endpoints that want it; `null` when there are none.
    pub tls: Option<UpstreamTls>,
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
