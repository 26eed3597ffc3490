"""`upstreams:`."""

from collections import Counter
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, field_validator, model_validator

from tidegate.config.addresses import EXPECTED_ENDPOINT
from tidegate.config.options.discover import DiscoverOptions
from tidegate.config.options.health import HealthOptions
from tidegate.config.options.http import Http2Options
from tidegate.config.options.liveness import Keepalive, KeepaliveOptions, UserTimeout
from tidegate.config.options.values import (
    CookieName,
    Duration,
    Flag,
    HeaderName,
    HostName,
    Limit,
    Number,
    Options,
    Percent,
    PositiveDuration,
    Share,
    TargetValue,
    Text,
    WordOr,
    ZoneName,
    fault,
    items,
    one_of,
    show,
)

__all__ = [
    "BalanceOptions",
    "EjectOptions",
    "EndpointOptions",
    "HashOptions",
    "PoolOptions",
    "UpstreamLimitsOptions",
    "UpstreamOptions",
    "UpstreamTlsOptions",
]

_POLICIES = ("round_robin", "random", "least_connections", "two_choices")


class EndpointOptions(Options):
    """One server behind the gateway."""

    url: TargetValue = Field(
        description="`http://host:port` (80 when left out), `https://host:port` (443), `tcp://host:port`, "
        "`tls://host:port` or `unix:/path`."
    )
    weight: Annotated[int, Field(ge=1, le=1_000_000), Number] = Field(
        1, description="Its share, beside the other endpoints' weights."
    )
    priority: Annotated[int, Field(ge=0, le=65_535), Number] = Field(
        0, description="0 is wanted first; the next one is used when too few of those before it are usable."
    )
    zone: ZoneName | None = Field(
        None, description="Where it is. Those in the gateway's own `zone` are wanted first of each priority."
    )


def _endpoint(value: object) -> object:
    if isinstance(value, str):
        return {"url": value}
    if not isinstance(value, dict):
        raise fault(f"{EXPECTED_ENDPOINT}, or a mapping with a url, found {show(value)}")
    return value


Endpoint = Annotated[EndpointOptions, BeforeValidator(_endpoint, json_schema_input_type=str | EndpointOptions)]


class HashOptions(Options):
    """What stays with one endpoint; exactly one of these. Requests that lack it go by `least_connections`."""

    header: HeaderName | None = Field(None, description="The first header of this name.")
    cookie: CookieName | None = Field(None, description="The first cookie of this name.")
    query: Text | None = Field(None, description="The first query parameter of this name.")

    @model_validator(mode="after")
    def _one(self) -> "HashOptions":
        if not self.chosen[1]:
            raise fault("the name of the query parameter is empty")
        return self

    @property
    def chosen(self) -> tuple[str, str]:
        kind = one_of(self, ("header", "cookie", "query"))
        return kind, getattr(self, kind)


class BalanceOptions(Options):
    """Consistent hashing: what is equal goes to the same endpoint, as long as that can be used."""

    hash: Annotated[Literal["client_ip"] | HashOptions, WordOr({"client_ip": "client_ip"}, HashOptions)] = Field(
        description="`client_ip`, `{header: NAME}`, `{cookie: NAME}` or `{query: NAME}`."
    )


class EjectOptions(Options):
    """When an endpoint that fails gets nothing for a while."""

    failures: Annotated[int, Field(ge=1, le=1_000_000), Number] = Field(
        5,
        description="So many in a row: no connection, one that is lost before the answer, no answer in time, one that "
        "is no HTTP, or 502, 503 or 504.",
    )
    for_: PositiveDuration = Field(
        30_000,
        alias="for",
        description="How long; each time that follows without an answer in between twice as long, up to 8 times.",
    )
    at_most: Percent = Field(50, description="How many of the endpoints may be ejected at once, rounded down.")


class UpstreamLimitsOptions(Options):
    """What an upstream may have, over all workers."""

    connections: Limit = Field(
        None,
        description="Connections to all of its endpoints together, idle ones among them; one of HTTP/2 counts as one. "
        "Who comes when there are as many waits for one, first come, first served.",
    )
    pending: Annotated[int, Field(ge=0, le=1_000_000), Number] = Field(
        1_024, description="How many may wait; the next one is refused at once with 503, over TCP by a reset."
    )


class PoolOptions(Options):
    """Connections that carry nothing now, for each worker and endpoint."""

    idle: Annotated[int, Field(ge=0, le=100_000), Number] = Field(
        64, description="How many of HTTP/1.1 are kept for the next request; 0 keeps none."
    )
    idle_timeout: Duration = Field(60_000, description="How long.")
    ready: Annotated[int, Field(ge=0, le=1_000), Number] = Field(
        0, description="So many are dialled ahead: for TCP, and for requests over HTTP/1.1, where idle ones count."
    )


class UpstreamTlsOptions(Options):
    """TLS towards the endpoints that begin with `https://` or `tls://`."""

    server_name: HostName | None = Field(
        None,
        description="The name, or address, that certificates must be made for; a name is also sent as SNI. "
        "When left out, the host of each endpoint.",
    )
    ca: Text | None = Field(None, description="PEM file: the authorities that are trusted. The system's when left out.")
    cert: Text | None = Field(None, description="PEM file: the certificate that we show, then its chain.")
    key: Text | None = Field(None, description="PEM file: its private key.")
    verify: Flag = Field(True, description="`false` believes any certificate: anybody in between can read and change.")


class UpstreamOptions(Options):
    """A named group of endpoints behind the gateway."""

    endpoints: Annotated[tuple[Endpoint, ...], items(at_least=1)] = Field(
        (),
        description="`http://host:port`, `https://host:port`, `tcp://host:port` and `tls://host:port` (for "
        "listeners with `tcp`), `unix:/path`, or `{url, weight}`. Names are resolved again as they age. "
        "This or `discover`.",
    )
    discover: DiscoverOptions | None = Field(None, description="Where they are found. This or `endpoints`.")
    warm: Duration = Field(
        5_000,
        description="How long a start or a reload waits for the first endpoint of an upstream that is new, and for the "
        "first check of each; it goes on without.",
    )
    on_remove: Literal["keep", "drain"] = Field(
        "keep",
        description="Live WebSockets, TCP connections and tunnels of an endpoint that has left: they go on, or are "
        "ended like those of a route that has left.",
    )
    protocol: Literal["auto", "h1", "h2", "h3"] = Field(
        "auto",
        description="What is spoken to the endpoints. `auto`: over TLS what ALPN agrees on, `h1` in clear text; for "
        "WebSockets `h1`, and `h2` only where the endpoint speaks nothing else. `h3` needs `https://` endpoints.",
    )
    http2: Http2Options = Field(Http2Options(), description="What a connection of HTTP/2 or HTTP/3 may take.")
    balance: Annotated[
        Literal["round_robin", "random", "least_connections", "two_choices"] | BalanceOptions,
        WordOr({policy: policy for policy in _POLICIES}, BalanceOptions),
    ] = Field(
        "least_connections",
        description="Who gets the next request; or `{hash: …}`. Live WebSockets count as connections, also across "
        "reloads.",
    )
    eject: EjectOptions | None = Field(
        None, description="When an endpoint that fails gets nothing for a while; never when left out."
    )
    health: HealthOptions | None = Field(
        None, description="How endpoints are checked; one whose checks fail gets nothing new. No checks when left out."
    )
    panic: Share = Field(
        50,
        description="When fewer of the endpoints than this share are neither unhealthy nor ejected, all of them are "
        "used again; `0%` is never. Needs `health`.",
    )
    slow_start: Duration = Field(
        0,
        description="How long an endpoint that is new, or healthy again, takes to grow from a tenth of its share to "
        "all of it; `0s` is at once.",
    )
    proxy_protocol: Literal["v1", "v2"] | None = Field(
        None,
        description="Begin each connection with a PROXY header of this version, which names the client. Then no two "
        "clients share a connection. None when left out.",
    )
    tls: UpstreamTlsOptions = Field(
        UpstreamTlsOptions(), description="For endpoints that begin with `https://` or `tls://`."
    )
    limits: UpstreamLimitsOptions = Field(
        UpstreamLimitsOptions(), description="What it may have: connections, and who waits for one."
    )
    pool: PoolOptions = Field(PoolOptions(), description="Connections that are kept, and dialled ahead.")
    connect_timeout: PositiveDuration = Field(5_000, description="How long a connection to one endpoint may take.")
    keepalive: Keepalive = Field(KeepaliveOptions(), description="Probes of silent TCP connections; or `never`.")
    user_timeout: UserTimeout = Field(
        60_000,
        description="How long an endpoint may leave what was sent unacknowledged before the connection is given up; or "
        "`never`: then the kernel decides, after about 15 minutes.",
    )

    @field_validator("endpoints")
    @classmethod
    def _once(cls, value: tuple[EndpointOptions, ...]) -> tuple[EndpointOptions, ...]:
        spellings = [endpoint.url.spelling for endpoint in value]
        if twice := [spelling for spelling, count in Counter(spellings).items() if count > 1]:
            raise fault(f"the endpoint '{twice[0]}' is given twice", "give it a weight instead")
        return value
