"""`listeners:`."""

from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from tidegate.config.options.admission import AdmissionOptions
from tidegate.config.options.http import Http2Options, HttpVersion
from tidegate.config.options.liveness import Keepalive, KeepaliveOptions, UserTimeout
from tidegate.config.options.tcp import TcpOptions
from tidegate.config.options.values import (
    BindValue,
    Duration,
    Limit,
    NetworkValue,
    Number,
    OptionalPositiveDuration,
    Options,
    PositiveDuration,
    RateLimit,
    ServerName,
    Size,
    SizeLimit,
    Text,
    fault,
    items,
    listed,
)
from tidegate.config.options.websocket import WebSocketOptions

__all__ = ["AccessOptions", "CertificateOptions", "ListenerOptions", "TlsOptions", "TlsRuleOptions"]

TlsVersion = Literal["1.2", "1.3"]
ClientAuth = Literal["off", "request", "require"]


class CertificateOptions(Options):
    """A certificate with its chain, and its key."""

    cert: Text = Field(description="PEM file: the certificate first, then its chain. Relative to the configuration.")
    key: Text = Field(description="PEM file: the private key.")


class TlsRuleOptions(Options):
    """What one server name asks of its clients. What is left out comes from the listener's `tls`."""

    min_version: TlsVersion = Field("1.2", description="The oldest TLS version that is spoken.")
    client_auth: ClientAuth = Field(
        "off",
        description="Client certificates: `off`, `request` (verified when given) or `require`; `require` when left out "
        "beside a `client_ca`.",
    )
    client_ca: Text | None = Field(None, description="PEM file: the authorities that client certificates come from.")


class TlsOptions(TlsRuleOptions):
    """TLS towards the client."""

    certificates: Annotated[tuple[CertificateOptions, ...], items(at_least=1)] = Field(
        description="Chosen by the names in them; the first one serves clients that name none or another."
    )
    by_name: dict[ServerName, TlsRuleOptions] = Field({}, description="Other rules for single server names.")
    protocols: dict[ServerName, Annotated[tuple[HttpVersion, ...], items(at_least=1)]] = Field(
        {}, description="Other HTTP versions than `http` says, for single server names."
    )


class ProxyProtocolOptions(Options):
    """PROXY protocol, version 1 and 2."""

    from_: Annotated[tuple[NetworkValue, ...], items(at_least=1)] = Field(
        alias="from", description="Sources that must begin with a PROXY header; from others one is a bad request."
    )


class AccessOptions(Options):
    """Which clients may connect. The longest network that has a client's address decides."""

    allow: Annotated[tuple[NetworkValue, ...], items()] | None = Field(
        None, description="Who may; everybody who is not in `deny` when left out."
    )
    deny: Annotated[tuple[NetworkValue, ...], items()] = Field((), description="Who may not.")

    @model_validator(mode="after")
    def _not_both(self) -> "AccessOptions":
        if both := [network for network in self.deny if network in (self.allow or ())]:
            raise fault(f"'{both[0]}' is both allowed and denied")
        return self


class ListenerLimitsOptions(AdmissionOptions):
    """What clients of a listener may take."""

    connections: Limit = Field(None, description="Connections open at once; the next ones wait to be accepted.")
    connections_per_ip: Limit = Field(
        None,
        description="WebSockets that one client address has open at once; one too many gets 429, or see `over`. On a "
        "listener with `tcp`: its connections; one too many is reset. Addresses of trusted proxies count for none.",
    )
    connection_rate: RateLimit = Field(
        None,
        description="New connections, such as `100/s` or `600/m`; as many as it names may come at once. One over it is "
        "reset.",
    )
    body: SizeLimit = Field(
        1 << 30, description="Bytes of a request's body; more is answered with 413. For the routes of this listener."
    )
    tls_handshakes: Annotated[int, Field(ge=1, le=1_000_000), Number] = Field(
        2_000, description="TLS handshakes at once; the next ones wait for `timeouts.tls_queue`."
    )
    headers: Size = Field(32 << 10, description="Bytes of a request's head; more is answered with 431.")

    @field_validator("headers")
    @classmethod
    def _bounds(cls, value: int) -> int:
        if not 1 << 10 <= value <= 1 << 20:
            raise fault("the limit for heads is out of range", "expected 1KiB to 1MiB")
        return value


class ListenerTimeoutsOptions(Options):
    """How long clients of a listener may take."""

    head: PositiveDuration = Field(10_000, description="From a request's first byte to the end of its head.")
    body: OptionalPositiveDuration = Field(60_000, description="From one part of a request's body to the next.")
    keep_alive: Duration = Field(75_000, description="From an answer to the next request on the same connection.")
    tls: PositiveDuration = Field(10_000, description="For a TLS handshake, and for a PROXY header.")
    tls_queue: PositiveDuration = Field(
        5_000, description="The part of `tls` that a handshake may wait for its turn when there are many."
    )


class ListenerOptions(Options):
    """Sockets that accept connections, and what is spoken on them."""

    bind: Annotated[tuple[BindValue, ...], listed()] = Field(
        description="`host:port`, `[::]:port` (IPv4 too) or `unix:/path`, or a list of them. Port 0 takes a free one."
    )
    tls: TlsOptions | None = Field(None, description="TLS towards the client; clear text when left out.")
    http: Annotated[tuple[HttpVersion, ...], items(at_least=1)] = Field(
        ("h1", "h2"),
        description="The HTTP versions that are offered: over TLS by ALPN, in clear text by a client's first bytes. "
        "`h3` takes the same port over UDP, and other answers announce it.",
    )
    http2: Http2Options = Field(Http2Options(), description="What a connection of HTTP/2 may take, and one of HTTP/3.")
    websocket: WebSocketOptions = Field(WebSocketOptions(), description="For the routes of this listener.")
    tcp: TcpOptions | None = Field(None, description="Carry TCP; HTTP when left out.")
    access: AccessOptions = Field(AccessOptions(), description="Which clients may connect, by address.")
    proxy_protocol: ProxyProtocolOptions | None = Field(None, description="Read PROXY headers; off when left out.")
    trusted_proxies: Annotated[tuple[NetworkValue, ...], items()] = Field(
        (), description="Whose `Forwarded` and `X-Forwarded-*` headers are believed."
    )
    keepalive: Keepalive = Field(KeepaliveOptions(), description="Probes of silent TCP connections; or `never`.")
    user_timeout: UserTimeout = Field(
        60_000,
        description="How long a client may leave what was sent unacknowledged before its connection is given up; or "
        "`never`: then the kernel decides, after about 15 minutes.",
    )
    limits: ListenerLimitsOptions = Field(ListenerLimitsOptions(), description="What clients may take.")
    timeouts: ListenerTimeoutsOptions = Field(ListenerTimeoutsOptions(), description="How long clients may take.")
