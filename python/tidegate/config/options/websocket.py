"""`websocket:` of a listener or a route."""

from typing import Annotated, Literal

from pydantic import Field

from tidegate.config import units
from tidegate.config.options.http import HttpVersion
from tidegate.config.options.values import (
    ByteRateLimit,
    CloseCode,
    Duration,
    Flag,
    Limit,
    Number,
    OptionalCloseCode,
    OptionalDuration,
    Options,
    OriginRules,
    PositiveDuration,
    RateLimit,
    Size,
    SizeLimit,
    Subprotocol,
    WordOr,
    items,
)

__all__ = ["CloseCodesOptions", "IdleOptions", "MessagesOptions", "PingOptions", "WebSocketOptions"]

Side = Literal["downstream", "upstream"]


class IdleOptions(Options):
    """When a connection that carries nothing is closed."""

    after: OptionalDuration = Field(None, description="Close when nothing was counted for this long.")
    counts: Literal["data", "any"] = Field(
        "data", description="What keeps a connection open: `data` frames, or `any` byte but our own pings."
    )


class PingOptions(Options):
    """Pings of our own, which find peers that are gone without a word."""

    every: PositiveDuration = Field(25_000, description="A side that was silent for this long is pinged.")
    timeout: PositiveDuration = Field(10_000, description="How long its pong may take; then the connection ends.")
    to: Annotated[tuple[Side, ...], items(at_least=1)] = Field(
        ("downstream",), description="Who is pinged: the client's side (`downstream`), the `upstream`, or both."
    )


class CloseCodesOptions(Options):
    """The Close codes that clients get from us."""

    upstream_lost: CloseCode = Field(1011, description="The upstream is gone without a Close.")
    drain: CloseCode = Field(1012, description="The gateway, the route or the upstream is being taken away.")
    idle: CloseCode = Field(1001, description="Nothing was counted for `idle.after`.")
    lifetime: CloseCode = Field(1001, description="`max_lifetime` is over.")
    rate: CloseCode = Field(4429, description="More messages than `messages` allows, with `over: close`.")


class MessagesOptions(Options):
    """How fast a client may send. What comes from the upstream is not limited."""

    rate: RateLimit = Field(None, description="Messages.")
    burst: Annotated[int, Field(ge=1, le=1_000_000_000), Number] | None = Field(
        None, description="Messages at once, before the rate holds; as many as `rate` names when left out."
    )
    bytes: ByteRateLimit = Field(None, description="Payload bytes of messages, as on the wire.")
    bytes_burst: Size | None = Field(
        None, description="Bytes at once, before the rate holds; as many as `bytes` names when left out."
    )
    control: RateLimit = Field(
        units.Rate(10, 1_000), description="Pings and pongs, which count for none of the others. A Close always passes."
    )
    over: Literal["delay", "drop", "close"] = Field(
        "delay",
        description="What becomes of a message too many: nothing more is read from the client until it is due "
        "(`delay`), it is left out (`drop`, which takes permessage-deflate away), or the connection ends (`close`, "
        "with 4429).",
    )


class WebSocketOptions(Options):
    """What a WebSocket may do. What a route leaves out comes from its listener, then from the defaults."""

    enabled: Flag = Field(True, description="Whether WebSockets are bridged; otherwise an attempt gets 403.")
    over: Annotated[tuple[HttpVersion, ...], items(at_least=1)] = Field(
        ("h1", "h2", "h3"),
        description="The HTTP versions that a client may open one over. Clients of HTTP/2 and HTTP/3 are told of it "
        "only where some route of the server name has that version here.",
    )
    upstream_protocol: Literal["auto", "h1", "h2", "h3"] | None = Field(
        None,
        description="What is spoken to the endpoints for WebSockets; what the upstream's `protocol` says when left "
        "out. An endpoint that takes none over `h2` or `h3` gets them over `h1`.",
    )
    frames: Literal["strict", "opaque"] = Field(
        "strict",
        description="`strict` checks every frame by RFC 6455; `opaque` passes bytes as they are: any draft, any "
        "private dialect, but no pings, message limits or Close frames of ours.",
    )
    deflate: Literal["pass", "off"] = Field(
        "pass", description="permessage-deflate end to end (`pass`), or its offer removed (`off`)."
    )
    origins: OriginRules = Field(
        None,
        description="Whose pages may open one: `any`, or a list of `same` (the host and port that the client asks "
        'for), `"null"` (sandboxed frames, local files) and origins such as `https://*.example.com:8443`, whose port '
        "may be `*`. Others get 403.",
    )
    missing_origin: Literal["allow", "refuse"] = Field(
        "allow", description="What becomes of clients that name no origin: none of them is a browser."
    )
    subprotocols: Annotated[tuple[Subprotocol, ...], items(at_least=1)] | None = Field(
        None, description="The subprotocols that may be offered to the upstream; all when left out."
    )
    idle: IdleOptions = Field(IdleOptions(), description="When a silent connection is closed.")
    ping: Annotated[PingOptions | None, WordOr({"never": None}, PingOptions)] = Field(
        PingOptions(), description="Pings of our own, or `never`."
    )
    max_lifetime: OptionalDuration = Field(None, description="Close when a connection is this old.")
    max_message: SizeLimit = Field(
        None, description="Payload bytes of one message, as on the wire; a larger one is closed with 1009."
    )
    max_frame: SizeLimit = Field(
        None, description="Payload bytes of one frame, as on the wire; a larger one is closed with 1009."
    )
    max_fragments: Limit = Field(None, description="Frames of one message; one of more is closed with 1009.")
    messages: Annotated[MessagesOptions | None, WordOr({"unlimited": None}, MessagesOptions)] = Field(
        None, description="How fast a client may send, or `unlimited`."
    )
    close_codes: CloseCodesOptions = Field(CloseCodesOptions(), description="The Close codes that clients get from us.")
    on_client_lost: OptionalCloseCode = Field(
        None, description="The Close code for the upstream when a client is gone without one; `never` sends none."
    )
    close_timeout: Duration = Field(2_000, description="How long the close handshake may take once our Close was sent.")
