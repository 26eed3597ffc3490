"""The top of the file."""

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, PlainSerializer, WithJsonSchema

from tidegate.config.addresses import bind
from tidegate.config.options.discover import DnsOptions
from tidegate.config.options.listener import ListenerOptions
from tidegate.config.options.route import RouteOptions
from tidegate.config.options.upstream import UpstreamOptions
from tidegate.config.options.values import BindValue, Duration, Options, Text, WordOr, ZoneName, fault, items, show

__all__ = ["AccessLogOptions", "AdminOptions", "DrainOptions", "GatewayOptions"]

MOST_WORKERS = 1024


class AdminOptions(Options):
    """The gateway's own HTTP side: metrics, state, `/ready` and `/live` (which need no token)."""

    bind: BindValue = Field(bind("127.0.0.1:9900"), description="Where it listens. Beyond loopback it needs a `token`.")
    token: Text | None = Field(None, description="What callers send as `Authorization: Bearer …`.")


class AccessLogOptions(Options):
    """One line for each request, and for each WebSocket's open, close and refusal."""

    path: Text = Field("stdout", description="`stdout`, `stderr` or a file. Relative to the configuration.")
    format: Literal["json", "text"] = Field("json", description="How a line looks.")


class DrainOptions(Options):
    """How the gateway ends, on SIGTERM."""

    delay: Duration = Field(0, description='From "not ready" to the last accepted connection.')
    window: Duration = Field(15_000, description="Close frames are spread evenly over this time.")
    timeout: Duration = Field(25_000, description="What is left by then is cut.")


def _workers(value: object) -> int | None:
    if value == "auto":
        return None
    text = str(value)
    if isinstance(value, bool) or not (text.isascii() and text.isdigit()) or not 1 <= int(text[:9]) <= MOST_WORKERS:
        raise fault(f"expected 'auto' or a number from 1 to {MOST_WORKERS}, found {show(value)}")
    return int(text)


Workers = Annotated[
    int | None,
    BeforeValidator(_workers),
    PlainSerializer(lambda value: "auto" if value is None else value),
    WithJsonSchema({"anyOf": [{"const": "auto"}, {"type": "integer", "minimum": 1}]}, mode="validation"),
]


class GatewayOptions(Options):
    """A gateway."""

    listeners: dict[str, ListenerOptions] = Field(description="By name: where connections come in.")
    routes: Annotated[tuple[RouteOptions, ...], items()] = Field((), description="Which request goes where.")
    upstreams: dict[str, UpstreamOptions] = Field({}, description="By name: the servers behind the gateway.")
    admin: Annotated[AdminOptions | None, WordOr({"off": None}, AdminOptions)] = Field(
        AdminOptions(), description="The gateway's own HTTP side, or `off`."
    )
    access_log: Annotated[AccessLogOptions | None, WordOr({"off": None}, AccessLogOptions)] = Field(
        AccessLogOptions(), description="The access log, or `off`."
    )
    drain: DrainOptions = Field(DrainOptions(), description="How the gateway ends.")
    dns: DnsOptions = Field(DnsOptions(), description="Where names of upstreams are asked for.")
    zone: ZoneName | None = Field(
        None,
        description="Where this gateway is: endpoints in the same zone are wanted first. `${ZONE}` is a good value.",
    )
    workers: Workers = Field(None, description="Threads that move bytes; `auto` is one for each core.")
