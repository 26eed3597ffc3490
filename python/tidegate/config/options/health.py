"""`health:` of an upstream."""

import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, PlainSerializer, WithJsonSchema, model_validator

from tidegate.config.options.values import (
    HeaderName,
    HeaderValue,
    Number,
    Options,
    PositiveDuration,
    Share,
    Subprotocol,
    Text,
    fault,
    listed,
    one_of,
    show,
)

__all__ = ["GrpcCheckOptions", "HealthOptions", "HttpCheckOptions", "WebSocketCheckOptions"]

_KINDS = ("http", "tcp", "grpc", "websocket")
_PATH = re.compile(r"/[!-\"$-~]*")
_HOST = re.compile(r"[A-Za-z0-9._~%:\[\]-]+")
_STATUSES = re.compile(r"([1-5][0-9]{2})(?:-([1-5][0-9]{2}))?")
_OURS = (
    "host",
    "connection",
    "upgrade",
    "content-length",
    "transfer-encoding",
    "keep-alive",
    "te",
    "trailer",
    "expect",
)


def _path(value: str) -> str:
    if not value.startswith("/"):
        raise fault(f"the path '{value}' does not begin with '/'", f"did you mean '/{value}'?")
    if not _PATH.fullmatch(value):
        raise fault(f"the path '{value}' has characters that no request may have", "encode them: %20 is a space")
    return value


def _host(value: str) -> str:
    if not _HOST.fullmatch(value):
        raise fault(f"'{value}' is not a host", "expected a host such as chat.internal or chat.internal:9000")
    return value


def _headers(value: dict[str, str]) -> dict[str, str]:
    for name in value:
        if name.lower() == "host":
            raise fault("the check has a key for this header", "give 'host' beside 'headers'")
        if name.lower() in _OURS or name.lower().startswith("sec-websocket-"):
            raise fault(f"'{name}' is written by the gateway", "leave it out")
    return value


def _range(value: object) -> tuple[int, int]:
    text = str(value) if isinstance(value, int | str) and not isinstance(value, bool) else ""
    match = _STATUSES.fullmatch(text)
    first, last = (int(match[1]), int(match[2] or match[1])) if match else (0, 0)
    if not 200 <= first <= last:
        raise fault(f"expected a status from 200 to 599 or a range such as 200-399, found {show(value)}")
    return first, last


def _spelt(value: tuple[int, int]) -> str:
    return str(value[0]) if value[0] == value[1] else f"{value[0]}-{value[1]}"


def _by_path(value: object) -> object:
    """A path alone is a mapping with that path."""
    if isinstance(value, str):
        return {"path": value}
    if not isinstance(value, dict):
        raise fault(f"expected a path or a mapping with a path, found {show(value)}")
    return value


def _service(value: object) -> object:
    """`true` is the server as a whole, a text a service of it."""
    if value is True:
        return {}
    if isinstance(value, str):
        return {"service": value}
    if not isinstance(value, dict):
        raise fault(f"expected true, a service's name or a mapping, found {show(value)}")
    return value


def _only_true(value: object) -> object:
    if value is not True:
        raise fault(f"expected true, found {show(value)}", "leave it out, or write another kind of check")
    return value


CheckPath = Annotated[Text, AfterValidator(_path)]
CheckHost = Annotated[Text, AfterValidator(_host)]
CheckHeaders = Annotated[dict[HeaderName, HeaderValue], AfterValidator(_headers)]
_STATUS_SCHEMA: dict[str, Any] = {"anyOf": [{"type": "integer"}, {"type": "string", "examples": ["200-399"]}]}
Statuses = Annotated[
    tuple[Annotated[tuple[int, int], BeforeValidator(_range)], ...],
    listed(int | str),
    PlainSerializer(lambda value: [_spelt(each) for each in value]),
    WithJsonSchema({"anyOf": [*_STATUS_SCHEMA["anyOf"], {"type": "array", "items": _STATUS_SCHEMA}]}),
]


class HttpCheckOptions(Options):
    """A request, and which answers to it are good."""

    path: CheckPath = Field(description="What is asked for, with a query if need be.")
    method: Literal["GET", "HEAD"] = Field("GET", description="How.")
    host: CheckHost | None = Field(None, description="The Host; the endpoint's own when left out.")
    headers: CheckHeaders = Field({}, description="More headers, by name.")
    status: Statuses = Field(((200, 299),), description="Good statuses: one, a range such as `200-399`, or a list.")


class GrpcCheckOptions(Options):
    """A call of `grpc.health.v1.Health/Check`, whose answer must be SERVING."""

    service: Text = Field("", description="The service that is asked for; the server as a whole when left out.")
    host: CheckHost | None = Field(None, description="The `:authority`; the endpoint's own when left out.")


class WebSocketCheckOptions(Options):
    """A handshake that must succeed, a Ping that must get its Pong, and a Close that must be answered."""

    path: CheckPath = Field(description="Where the WebSocket is opened, with a query if need be.")
    host: CheckHost | None = Field(None, description="The Host; the endpoint's own when left out.")
    headers: CheckHeaders = Field({}, description="More headers, by name: `Origin`, or a token.")
    subprotocols: Annotated[tuple[Subprotocol, ...], listed()] = Field((), description="What is offered.")


class HealthOptions(Options):
    """How endpoints are checked: exactly one of `http`, `tcp`, `grpc` and `websocket`, and how often."""

    http: Annotated[
        HttpCheckOptions | None, BeforeValidator(_by_path, json_schema_input_type=str | HttpCheckOptions)
    ] = Field(None, description="A path, or `{path, method, host, headers, status}`: an answer of 200 to 299.")
    tcp: Annotated[Literal[True] | None, BeforeValidator(_only_true)] = Field(
        None, description="`true`: a connection, with TLS where the endpoint has it."
    )
    grpc: Annotated[
        GrpcCheckOptions | None,
        BeforeValidator(_service, json_schema_input_type=Literal[True] | str | GrpcCheckOptions),
    ] = Field(None, description="`true`, a service's name, or `{service, host}`: `grpc.health.v1.Health/Check`.")
    websocket: Annotated[
        WebSocketCheckOptions | None, BeforeValidator(_by_path, json_schema_input_type=str | WebSocketCheckOptions)
    ] = Field(
        None,
        description="A path, or `{path, host, headers, subprotocols}`: a real handshake, a Ping and its Pong, a Close.",
    )
    port: Annotated[int, Field(ge=1, le=65_535), Number] | None = Field(
        None, description="Ask another port of each endpoint's address; its own when left out."
    )
    every: PositiveDuration = Field(5_000, description="From the beginning of one check to that of the next.")
    jitter: Share = Field(10, description="How much shorter or longer each of these times may be, by chance.")
    timeout: PositiveDuration = Field(2_000, description="How long one check may take, from dialling to its end.")
    healthy: Annotated[int, Field(ge=1, le=1_000), Number] = Field(
        2, description="So many good ones in a row make an endpoint healthy again."
    )
    unhealthy: Annotated[int, Field(ge=1, le=1_000), Number] = Field(
        3, description="So many failed ones in a row make it unhealthy. The very first one decides alone."
    )

    @model_validator(mode="after")
    def _one(self) -> "HealthOptions":
        one_of(self, _KINDS)
        return self

    @property
    def kind(self) -> str:
        """Which of them it is."""
        return one_of(self, _KINDS)
