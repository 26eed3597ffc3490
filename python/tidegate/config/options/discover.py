"""`discover:` of upstreams: endpoints that are found and not written. And `dns:`, where names are asked for."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from tidegate.config.options.values import (
    HeaderName,
    HeaderValue,
    ListUrl,
    LookedUpName,
    NameAndPort,
    NameServerValue,
    Options,
    PositiveDuration,
    Size,
    Text,
    listed,
    one_of,
)

__all__ = ["SOURCES", "DiscoverOptions", "DnsOptions"]

SOURCES = ("dns", "srv", "file", "http")


class DiscoverOptions(Options):
    """Where an upstream's endpoints are found; exactly one of `dns`, `srv`, `file` and `http`."""

    dns: NameAndPort | None = Field(
        None, description="`host:port`: an endpoint for each address (A and AAAA) of the name."
    )
    srv: LookedUpName | None = Field(
        None, description="`_chat._tcp.example.com`: an endpoint for each SRV record's name, port and weight."
    )
    file: Text | None = Field(
        None,
        description="A YAML or JSON file with a list as under `endpoints`; it is watched. Relative to the "
        "configuration.",
    )
    http: ListUrl | None = Field(None, description="A URL that answers with such a list.")
    scheme: Literal["http", "https", "tcp", "tls"] = Field(
        "http", description="What is spoken to the endpoints that say nothing of it: names, and `host:port` in a list."
    )
    every: PositiveDuration | None = Field(
        None,
        description="Ask again at the latest after this time. When left out, `dns` and `srv` as long as the answers "
        "are good for (1 s to 60 s), `http` 5 s.",
    )
    timeout: PositiveDuration = Field(5_000, description="How long an answer to `http` may take.")
    max_size: Size = Field(1 << 20, description="How large an answer to `http` may be.")
    ca: Text | None = Field(
        None, description="PEM file: the authorities trusted for `http`. The system's when left out."
    )
    headers: dict[HeaderName, HeaderValue] = Field({}, description="Sent with `http`, such as `Authorization`.")

    @model_validator(mode="after")
    def _one(self) -> "DiscoverOptions":
        one_of(self, SOURCES)
        return self


class DnsOptions(Options):
    """Where names of upstreams are asked for, after `/etc/hosts`."""

    servers: Annotated[tuple[NameServerValue, ...], listed()] = Field(
        (), description="Name servers: `10.0.0.2`, `127.0.0.1:5353`, `[::1]:53`. The system's when left out."
    )
