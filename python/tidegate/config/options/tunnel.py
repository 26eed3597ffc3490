"""`tunnel:` of a route."""

from typing import Literal

from pydantic import Field

from tidegate.config.options.values import OptionalPositiveDuration, Options

__all__ = ["TunnelOptions"]


class TunnelOptions(Options):
    """The tunnels that `upgrades` allows: bytes that nobody here looks at."""

    connect: Literal["pass", "terminate"] = Field(
        "pass",
        description="Where a CONNECT ends: `pass` sends the upstream, another proxy, a CONNECT too; `terminate` ends "
        "it here and the upstream, whose endpoints are `tcp://` or `tls://`, gets the bytes.",
    )
    idle: OptionalPositiveDuration = Field(3_600_000, description="End a tunnel when nothing passed for this long.")
    max_lifetime: OptionalPositiveDuration = Field(None, description="End a tunnel when it is this old.")
