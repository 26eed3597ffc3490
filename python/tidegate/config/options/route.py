"""`routes:`."""

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, field_validator, model_validator

from tidegate.config.options.admission import AdmissionOptions
from tidegate.config.options.split import Split
from tidegate.config.options.tunnel import TunnelOptions
from tidegate.config.options.values import (
    Flag,
    HeaderName,
    HeaderValue,
    HostPattern,
    Method,
    Number,
    OptionalPositiveDuration,
    Options,
    PositiveDuration,
    RouteName,
    SizeLimit,
    Text,
    UpgradeToken,
    WordOr,
    fault,
    items,
    listed,
    one_of,
    show,
)
from tidegate.config.options.websocket import WebSocketOptions

__all__ = [
    "EditsOptions",
    "HeadersOptions",
    "HostOptions",
    "MatchOptions",
    "PathOptions",
    "RedirectOptions",
    "RespondOptions",
    "RetryOptions",
    "RewriteOptions",
    "RouteLimitsOptions",
    "RouteOptions",
    "RouteTimeoutsOptions",
    "TestOptions",
]

_PATHS = ("exact", "prefix", "starts_with", "regex")
_TESTS = ("exact", "prefix", "regex", "present", "not")


class PathOptions(Options):
    """How a path is compared; exactly one of these. Without any, every path matches."""

    exact: Text | None = Field(None, description="This path.")
    prefix: Text | None = Field(None, description="Whole segments: `/ws` takes `/ws` and `/ws/x`, not `/wsx`.")
    starts_with: Text | None = Field(None, description="Raw bytes: `/ws` takes `/wsx` too.")
    regex: Text | None = Field(None, description="A regular expression for the whole path.")

    @model_validator(mode="after")
    def _one(self) -> "PathOptions":
        kind, value = self.chosen
        if kind != "regex" and not value.startswith("/"):
            raise fault(f"the path '{value}' does not begin with '/'", f"did you mean '/{value}'?")
        if any(character in value for character in "?#") and kind != "regex":
            raise fault(f"the path '{value}' has a '?' or '#'", "a query is matched by match.query")
        return self

    @property
    def chosen(self) -> tuple[str, str]:
        kind = one_of(self, _PATHS)
        return kind, getattr(self, kind)


def _path(value: object) -> object:
    if isinstance(value, str):
        hint = f"write {{prefix: {value}}} for it and all below, {{exact: {value}}} for it alone"
        raise fault(f"'{value}' does not say how it is compared", hint)
    return value


class TestOptions(Options):
    """How a header's or a query parameter's value is compared; exactly one of these."""

    __test__ = False  # pytest takes classes of this name for its own

    exact: Text | None = Field(None, description="This value.")
    prefix: Text | None = Field(None, description="Values that begin with this.")
    regex: Text | None = Field(None, description="A regular expression for the whole value.")
    present: Flag | None = Field(None, description="Whether it is there at all.")
    not_: "Test | None" = Field(None, alias="not", description="The opposite of another test.")

    @model_validator(mode="after")
    def _one(self) -> "TestOptions":
        _ = self.chosen
        return self

    @property
    def chosen(self) -> tuple[str, Any]:
        kind = one_of(self, ("exact", "prefix", "regex", "present", "not_"))
        return kind.rstrip("_"), getattr(self, kind)


def _test(value: object) -> object:
    if isinstance(value, str):
        return {"exact": value}
    if not isinstance(value, dict):
        quoted = f'write it in quotes: "{show(value)}"' if isinstance(value, int | float) else ""
        raise fault(f"expected a value or a mapping with one of {', '.join(_TESTS)}, found {show(value)}", quoted)
    return value


Test = Annotated[TestOptions, BeforeValidator(_test, json_schema_input_type=str | TestOptions)]


class MatchOptions(Options):
    """Which requests a route takes; all of it must fit."""

    host: Annotated[tuple[HostPattern, ...], listed()] = Field(
        ("*",), description="`chat.example.com`, `*.example.com`, `www.*` or `*`, or a list of them."
    )
    path: Annotated[PathOptions | None, BeforeValidator(_path, json_schema_input_type=PathOptions)] = Field(
        None, description="The path; every one when left out."
    )
    method: Annotated[tuple[Method, ...], listed()] = Field((), description="A method or a list; all when left out.")
    headers: dict[HeaderName, Test] = Field({}, description="Headers by name: a value, or how it is compared.")
    query: dict[str, Test] = Field({}, description="Query parameters by name: a value, or how it is compared.")


class RewriteOptions(Options):
    """A new path for the upstream: `prefix`, or `regex` with `to`."""

    prefix: Text | None = Field(None, description="Replaces what the match's prefix, starts_with or exact took.")
    regex: Text | None = Field(None, description="A regular expression; what it finds in the path is replaced by `to`.")
    to: Text | None = Field(None, description="The replacement; `$1` and `$${name}` are the groups of `regex`.")

    @model_validator(mode="after")
    def _one(self) -> "RewriteOptions":
        kind = one_of(self, ("prefix", "regex"))
        if (kind == "regex") != ("to" in self.written):
            raise fault("'regex' and 'to' belong together")
        if self.prefix is not None and not self.prefix.startswith("/"):
            raise fault(f"the path '{self.prefix}' does not begin with '/'", f"did you mean '/{self.prefix}'?")
        return self


class HostOptions(Options):
    """The Host header that the upstream sees."""

    set: HeaderValue = Field(description="A template: `chat.internal`, `{header.x-tenant}.internal`.")


class EditsOptions(Options):
    """Changes to headers: `remove` first, then `set`, then `add`. Values are templates (`{client.ip}`)."""

    set: dict[HeaderName, HeaderValue] = Field({}, description="Headers that have this value, whatever was there.")
    add: dict[HeaderName, HeaderValue] = Field({}, description="Headers that are added to what is there.")
    remove: Annotated[tuple[HeaderName, ...], items()] = Field((), description="Headers that are taken away.")


class HeadersOptions(Options):
    """Changes to headers on their way."""

    request: EditsOptions = Field(EditsOptions(), description="Towards the upstream.")
    response: EditsOptions = Field(EditsOptions(), description="Towards the client.")


class RedirectOptions(Options):
    """An answer that sends the client elsewhere."""

    to: Text = Field(description="The `Location`, a template.")
    status: Literal[301, 302, 303, 307, 308] = Field(302, description="The status.")

    @field_validator("to")
    @classmethod
    def _location(cls, value: str) -> str:
        if not value or not value.isprintable() or " " in value:
            raise fault("expected an address without spaces and line breaks")
        return value


class RespondOptions(Options):
    """An answer of the gateway's own."""

    status: Annotated[int, Field(ge=200, le=599), Number] = Field(200, description="The status.")
    body: Text = Field("", description="The body.")
    content_type: HeaderValue = Field("text/plain; charset=utf-8", description="Its `Content-Type`.")


class RouteTimeoutsOptions(Options):
    """How long an upstream may take. Neither counts once a WebSocket or a tunnel is open."""

    handshake: PositiveDuration = Field(
        10_000,
        description="From a WebSocket attempt, or a request for a tunnel, to the upstream's answer, all tries "
        "together.",
    )
    request: OptionalPositiveDuration = Field(
        60_000,
        description="From a plain request to the head of its answer, all tries together; while a body goes up, from "
        "each part of it that the upstream takes.",
    )


class RouteLimitsOptions(AdmissionOptions):
    """What clients of a route may take."""

    body: SizeLimit = Field(1 << 30, description="Bytes of a request's body; what is left out comes from the listener.")


_Cause = Literal["connect"] | Annotated[int, Field(ge=500, le=599)]


def _retry_causes(value: object) -> object:
    """`connect` and statuses, each once."""
    for index, cause in enumerate(value if isinstance(value, tuple) else ()):
        is_status = isinstance(cause, int) and not isinstance(cause, bool) and 500 <= cause <= 599
        if cause != "connect" and not is_status:
            raise fault(f"expected connect or a status from 500 to 599, found {show(cause)}")
        if cause in value[:index]:  # type: ignore[index] # a tuple, as there is something in it
            raise fault(f"{show(cause)} is given twice")
    return value


class RetryOptions(Options):
    """When another endpoint is asked, before the client has an answer."""

    attempts: Annotated[int, Field(ge=1, le=100), Number] | None = Field(
        None, description="How many tries at most, the first included; each endpoint once when left out."
    )
    on: Annotated[tuple[_Cause, ...], BeforeValidator(_retry_causes), listed(_Cause)] = Field(
        ("connect",),
        description="`connect`: there was no connection, and nothing was sent. A status from 500 to 599: the answer "
        "has it, and the request is a WebSocket attempt, or has no body and an idempotent method.",
    )


class RouteOptions(Options):
    """Which requests, and what becomes of them: exactly one of `to`, `redirect` and `respond`."""

    name: RouteName | None = Field(
        None,
        description="Unique: the route's identity in logs, metrics and reloads; else made from listeners and match.",
    )
    listeners: Annotated[tuple[Text, ...], listed()] | None = Field(None, description="Where; all when left out.")
    match: MatchOptions = Field(MatchOptions(), description="Which requests; all when left out.")
    priority: Annotated[int, Field(ge=-(1 << 31), le=1 << 31), Number] = Field(
        0, description="Within one host a higher one goes first, whatever else the matches say."
    )
    fall_through: Flag = Field(
        False, description="When no route of this host fits, wider hosts (`*.example.com`, `*`) are tried."
    )
    websocket: WebSocketOptions = Field(WebSocketOptions(), description="What is left out comes from the listener.")
    upgrades: Annotated[tuple[UpgradeToken, ...], listed()] = Field(
        (),
        description="Which tunnels may be opened: `connect`, and protocols as `Upgrade` names them (`spdy/3.1`, "
        "`tcp`); none when left out.",
    )
    tunnel: TunnelOptions = Field(TunnelOptions(), description="What holds for tunnels.")
    grpc_web: Flag | None = Field(
        None,
        description="Translate calls of gRPC-Web, from browsers, to gRPC; left out, it is done where all that `to` "
        "names speak HTTP/2 or HTTP/3 by their `protocol`.",
    )
    rewrite: RewriteOptions | None = Field(None, description="A new path for the upstream.")
    host: Annotated[
        Literal["preserve", "upstream"] | HostOptions,
        WordOr({"preserve": "preserve", "upstream": "upstream"}, HostOptions),
    ] = Field("preserve", description="The Host for the upstream: the client's, the endpoint's, or `{set: template}`.")
    headers: HeadersOptions = Field(HeadersOptions(), description="Changes to headers on their way.")
    to: Split | None = Field(None, description="An upstream, or a split by weight: `{chat: 90, chat-canary: 10}`.")
    redirect: RedirectOptions | None = Field(None, description="Send the client elsewhere.")
    respond: Annotated[
        Literal["echo", "ready"] | RespondOptions | None,
        WordOr({"echo": "echo", "ready": "ready"}, RespondOptions),
    ] = Field(
        None,
        description="Answer here: `{status, body}`; `echo` sends bodies and messages back; `ready` is 200, and 503 "
        "while draining.",
    )
    limits: RouteLimitsOptions = Field(RouteLimitsOptions(), description="What clients may take.")
    timeouts: RouteTimeoutsOptions = Field(RouteTimeoutsOptions(), description="How long an upstream may take.")
    retry: RetryOptions = Field(RetryOptions(), description="When another endpoint is asked.")
    on_change: Literal["keep", "drain"] = Field(
        "keep", description="What a reload that changes this route does to its live connections."
    )
