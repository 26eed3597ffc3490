"""`Config`: what the file means. Everything is merged, defaulted, looked up and read; nothing in it changes.

Parts that mean the same in the file and here (a path's comparison, a pool's size) keep their model from `options`;
a part that is put together from several places has a shape of its own.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tidegate.config.addresses import KINDS, SECURE, Bind, NameServer, Network
from tidegate.config.document import Document, KeyPath
from tidegate.config.options.admission import AdmissionOptions
from tidegate.config.options.gateway import AccessLogOptions, AdminOptions, DrainOptions
from tidegate.config.options.health import HealthOptions
from tidegate.config.options.http import Http2Options, HttpVersion
from tidegate.config.options.listener import AccessOptions, ListenerLimitsOptions, ListenerTimeoutsOptions
from tidegate.config.options.liveness import KeepaliveOptions
from tidegate.config.options.route import (
    EditsOptions,
    HeadersOptions,
    HostOptions,
    MatchOptions,
    RespondOptions,
    RetryOptions,
    RewriteOptions,
    RouteTimeoutsOptions,
)
from tidegate.config.options.upstream import (
    BalanceOptions,
    EjectOptions,
    EndpointOptions,
    PoolOptions,
    UpstreamLimitsOptions,
)
from tidegate.config.options.websocket import CloseCodesOptions, MessagesOptions, PingOptions
from tidegate.config.origins import OriginRule
from tidegate.errors import Place, Problem

__all__ = [
    "Certificate",
    "Config",
    "Discover",
    "Forward",
    "ListFile",
    "ListTerms",
    "ListUrl",
    "Listener",
    "Liveness",
    "Name",
    "NamedRule",
    "NamedShares",
    "Pem",
    "Redirect",
    "Respond",
    "Route",
    "RouteListener",
    "Service",
    "Tcp",
    "Tls",
    "TlsRule",
    "Tunnels",
    "Upstream",
    "UpstreamTls",
    "WebSocket",
]


@dataclass(frozen=True, slots=True)
class Pem:
    """A PEM file's content, kept out of logs and of the snapshot's JSON."""

    name: str
    content: bytes

    @property
    def id(self) -> str:
        """Names this content: the same file with other content has another id, so a new certificate is a change."""
        return f"{self.name}#{hashlib.sha256(self.content).hexdigest()[:16]}"

    def __repr__(self) -> str:
        return f"Pem({self.id})"


@dataclass(frozen=True, slots=True)
class Certificate:
    """A certificate with its chain, and its key."""

    cert: Pem
    key: Pem


@dataclass(frozen=True, slots=True)
class TlsRule:
    """What is asked of clients. `client_ca` is None only when `client_auth` is off."""

    min_version: Literal["1.2", "1.3"]
    client_auth: Literal["off", "request", "require"]
    client_ca: Pem | None


@dataclass(frozen=True, slots=True)
class Tls:
    """TLS towards the client."""

    certificates: tuple[Certificate, ...]
    rule: TlsRule
    by_name: tuple["NamedRule", ...]
    protocols: tuple[tuple[str, tuple[HttpVersion, ...]], ...]
    """HTTP versions by server name."""


@dataclass(frozen=True, slots=True)
class NamedRule:
    """The rule for one server name, in lower case."""

    name: str
    path: KeyPath
    rule: TlsRule


@dataclass(frozen=True, slots=True)
class NamedShares:
    """Where those go who ask for one server name, in lower case, or `default`."""

    name: str
    path: KeyPath
    to: tuple[tuple[str, int], ...]


@dataclass(frozen=True, slots=True)
class Tcp:
    """What becomes of the connections of a TCP listener."""

    to: tuple[tuple[str, int], ...] | None
    """Upstreams, by name and weight."""
    sni: tuple["NamedShares", ...] | None
    """By server name; without this and `to` every byte is sent back."""
    idle: int | None
    max_lifetime: int | None
    connect_timeout: int
    attempts: int | None


@dataclass(frozen=True, slots=True)
class Liveness:
    """How the kernel finds out that a peer has gone."""

    keepalive: KeepaliveOptions | None
    user_timeout: int | None


@dataclass(frozen=True, slots=True)
class Listener:
    """Sockets that accept connections."""

    name: str
    path: KeyPath
    binds: tuple[Bind, ...]
    tls: Tls | None
    http: tuple[HttpVersion, ...]
    http2: Http2Options
    tcp: Tcp | None
    """None: HTTP is spoken."""
    access: AccessOptions
    proxy_protocol: tuple[Network, ...]
    trusted_proxies: tuple[Network, ...]
    liveness: "Liveness"
    limits: ListenerLimitsOptions
    timeouts: ListenerTimeoutsOptions


@dataclass(frozen=True, slots=True)
class WebSocket:
    """The WebSocket settings of one route on one listener. Equal ones are one in the snapshot."""

    enabled: bool
    over: tuple[HttpVersion, ...]
    upstream_protocol: Literal["auto", "h1", "h2", "h3"] | None
    """None: what the upstream says."""
    frames: Literal["strict", "opaque"]
    deflate: Literal["pass", "off"]
    origins: tuple[OriginRule, ...] | None
    """None: those of all pages."""
    missing_origin: Literal["allow", "refuse"]
    subprotocols: tuple[str, ...] | None
    idle_after: int | None
    idle_counts: Literal["data", "any"]
    ping: PingOptions | None
    max_lifetime: int | None
    max_message: int | None
    max_frame: int | None
    max_fragments: int | None
    messages: MessagesOptions | None
    close_codes: CloseCodesOptions
    on_client_lost: int | None
    close_timeout: int


@dataclass(frozen=True, slots=True)
class RouteListener:
    """A listener that a route is on, by name, and what holds there."""

    listener: str
    websocket: WebSocket
    body_limit: int | None


@dataclass(frozen=True, slots=True)
class Tunnels:
    """Which tunnels may be opened on a route, and how long they live."""

    upgrades: tuple[str, ...]
    """Protocols, in small letters; `connect` is not among them."""
    connect: Literal["pass", "terminate"] | None
    """None: CONNECT is refused."""
    idle: int | None
    max_lifetime: int | None


@dataclass(frozen=True, slots=True)
class Forward:
    """To upstreams, by name and weight."""

    to: tuple[tuple[str, int], ...]
    rewrite: RewriteOptions | None
    host: Literal["preserve", "upstream"] | HostOptions
    headers: HeadersOptions
    timeouts: RouteTimeoutsOptions
    retry: RetryOptions
    tunnels: Tunnels | None
    grpc_web: bool | None
    """Whether calls of gRPC-Web go up as calls of gRPC; None: where the upstreams speak HTTP/2 or HTTP/3 alone."""

    @property
    def kind(self) -> Literal["http", "tcp"]:
        """What the endpoints must speak."""
        return "tcp" if self.tunnels and self.tunnels.connect == "terminate" else "http"


@dataclass(frozen=True, slots=True)
class Redirect:
    """Elsewhere."""

    to: str
    status: int
    headers: EditsOptions


@dataclass(frozen=True, slots=True)
class Respond:
    """An answer of the gateway's own."""

    answer: Literal["echo", "ready"] | RespondOptions
    headers: EditsOptions


@dataclass(frozen=True, slots=True)
class Route:
    """Which requests, and what becomes of them."""

    name: str
    path: KeyPath
    listeners: tuple[RouteListener, ...]
    match: MatchOptions
    priority: int
    fall_through: bool
    action: Forward | Redirect | Respond
    limits: AdmissionOptions
    on_change: Literal["keep", "drain"]


@dataclass(frozen=True, slots=True)
class UpstreamTls:
    """TLS towards the endpoints that want it."""

    server_name: str | None
    """None: the host of each endpoint."""
    trust: Pem | None
    """The authorities; None believes any certificate."""
    is_system: bool
    """Whether `trust` is what the system trusts: a part of it that cannot be read is then no error."""
    certificate: Certificate | None


@dataclass(frozen=True, slots=True)
class Name:
    """The addresses of a name, which stands among the endpoints."""

    scheme: str
    every: int | None


@dataclass(frozen=True, slots=True)
class Service:
    """The SRV records of a name."""

    name: str
    scheme: str
    every: int | None


@dataclass(frozen=True, slots=True)
class ListTerms:
    """What the endpoints of a list may be like."""

    scheme: str
    """Of those that say none. Its kind is that of all."""
    tls: bool
    """Whether TLS may be spoken to some."""
    only_tls: bool
    """Whether it must be spoken to all."""


@dataclass(frozen=True, slots=True)
class ListFile:
    """A file with a list of endpoints."""

    path: Path
    terms: ListTerms

    @property
    def scheme(self) -> str:
        return self.terms.scheme


@dataclass(frozen=True, slots=True)
class ListUrl:
    """A list of endpoints that an HTTP server has."""

    url: str
    terms: ListTerms
    every: int
    timeout: int
    max_size: int
    trust: Pem | None
    """The authorities; None in clear text."""
    headers: tuple[tuple[str, str], ...]

    @property
    def scheme(self) -> str:
        return self.terms.scheme


Discover = Name | Service | ListFile | ListUrl


@dataclass(frozen=True, slots=True)
class Upstream:
    """A named group of endpoints."""

    name: str
    path: KeyPath
    endpoints: tuple[EndpointOptions, ...]
    """Those that are written."""
    discover: Discover | None
    warm: int
    on_remove: Literal["keep", "drain"]
    protocol: Literal["auto", "h1", "h2", "h3"]
    http2: Http2Options
    balance: Literal["round_robin", "random", "least_connections", "two_choices"] | BalanceOptions
    eject: EjectOptions | None
    health: HealthOptions | None
    panic: int
    slow_start: int
    limits: UpstreamLimitsOptions
    pool: PoolOptions
    proxy_protocol: Literal["v1", "v2"] | None
    connect_timeout: int
    liveness: Liveness
    tls: UpstreamTls | None
    """None when no endpoint wants it."""

    @property
    def kinds(self) -> set[str]:
        """What its endpoints speak: `http`, `tcp`, or nothing in particular."""
        if self.discover is not None:
            return {KINDS[self.discover.scheme]}
        return {endpoint.url.kind for endpoint in self.endpoints} - {""}

    @property
    def is_secure(self) -> bool:
        """Whether TLS is spoken to all of its endpoints."""
        if self.discover is not None:
            return self.discover.scheme in SECURE
        return all(endpoint.url.tls for endpoint in self.endpoints)


@dataclass(frozen=True, slots=True)
class Config:
    """What one file means."""

    file: str
    """Its name, as it was asked for."""
    files: tuple[Path, ...]
    """Every file that was read: a change of one of them is a change of the configuration."""
    listeners: tuple[Listener, ...]
    routes: tuple[Route, ...]
    upstreams: tuple[Upstream, ...]
    admin: AdminOptions | None
    access_log: AccessLogOptions | None
    """Its path is absolute, or `stdout` or `stderr`."""
    drain: DrainOptions
    name_servers: tuple[NameServer, ...]
    """Where names are asked for; none: where the system asks."""
    zone: str | None
    """Where the gateway is."""
    workers: int | None
    """None: one for each core."""
    warnings: tuple[Problem, ...]
    document: Document

    def place(self, path: KeyPath) -> Place:
        """Where a part is written."""
        return self.document.place(path)
