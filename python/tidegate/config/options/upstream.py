"""`upstreams:`."""

from collections import Counter
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, field_validator

from tidegate.config.options.values import (
    Duration,
    Flag,
    HostName,
    Number,
    Options,
    PositiveDuration,
    TargetValue,
    Text,
    fault,
    items,
    show,
)

__all__ = ["EndpointOptions", "PoolOptions", "UpstreamOptions", "UpstreamTlsOptions"]


class EndpointOptions(Options):
    """One server behind the gateway."""

    url: TargetValue = Field(
        description="`http://host:port` (80 when left out), `https://host:port` (443) or `unix:/path`."
    )
    weight: Annotated[int, Field(ge=1, le=1_000_000), Number] = Field(
        1, description="Its share, beside the other endpoints' weights."
    )


def _endpoint(value: object) -> object:
    if isinstance(value, str):
        return {"url": value}
    if not isinstance(value, dict):
        expected = "expected http://host:port, https://host:port, unix:/path or a mapping with url and weight"
        raise fault(f"{expected}, found {show(value)}")
    return value


Endpoint = Annotated[EndpointOptions, BeforeValidator(_endpoint, json_schema_input_type=str | EndpointOptions)]


class PoolOptions(Options):
    """Idle connections that are kept for the next request, for each worker and endpoint."""

    idle: Annotated[int, Field(ge=0, le=100_000), Number] = Field(64, description="How many; 0 keeps none.")
    idle_timeout: Duration = Field(60_000, description="How long.")


class UpstreamTlsOptions(Options):
    """TLS towards the endpoints that begin with `https://`."""

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
        description="`http://host:port`, `https://host:port`, `unix:/path`, or `{url, weight}`. Names are resolved "
        "again as they age."
    )
    protocol: Literal["auto", "h1"] = Field("auto", description="What is spoken to the endpoints; `auto` is h1.")
    balance: Literal["round_robin", "random", "least_connections", "two_choices"] = Field(
        "least_connections",
        description="Who gets the next request. Live WebSockets count as connections, also across reloads.",
    )
    tls: UpstreamTlsOptions = Field(UpstreamTlsOptions(), description="For endpoints that begin with `https://`.")
    pool: PoolOptions = Field(PoolOptions(), description="Idle connections that are kept.")
    connect_timeout: PositiveDuration = Field(5_000, description="How long a connection to one endpoint may take.")

    @field_validator("endpoints")
    @classmethod
    def _once(cls, value: tuple[EndpointOptions, ...]) -> tuple[EndpointOptions, ...]:
        spellings = [endpoint.url.spelling for endpoint in value]
        if twice := [spelling for spelling, count in Counter(spellings).items() if count > 1]:
            raise fault(f"the endpoint '{twice[0]}' is given twice", "give it a weight instead")
        return value
