"""`tcp:` of a listener."""

from typing import Annotated

from pydantic import BeforeValidator, Field, model_validator

from tidegate.config.options.split import Split
from tidegate.config.options.values import (
    Flag,
    Number,
    OptionalPositiveDuration,
    Options,
    PositiveDuration,
    ServerName,
    fault,
    one_of,
    show,
)

__all__ = ["TcpOptions"]


def _names(value: object) -> object:
    if not isinstance(value, dict) or not value:
        found = "an empty one" if value == {} else show(value)
        raise fault(f"expected a mapping of server names to upstreams, found {found}")
    return value


class TcpOptions(Options):
    """Carry TCP, and no HTTP: exactly one of `to`, `sni` and `echo`."""

    to: Split | None = Field(None, description="An upstream, or a split by weight: `{pg: 90, pg-next: 10}`.")
    sni: Annotated[dict[ServerName, Split] | None, BeforeValidator(_names)] = Field(
        None,
        description="TLS as it is, without being decrypted: by the server name that clients ask for, exact or "
        "`*.example.com` (one label), where it goes; `default` is for other names and for clients that name nobody.",
    )
    echo: Flag = Field(False, description="`true` sends every byte back.")
    idle: OptionalPositiveDuration = Field(3_600_000, description="End a connection when nothing passed for this long.")
    max_lifetime: OptionalPositiveDuration = Field(None, description="End a connection when it is this old.")
    connect_timeout: PositiveDuration = Field(
        10_000, description="From the client's connection to one of the upstream's, over all endpoints that are tried."
    )
    attempts: Annotated[int, Field(ge=1, le=100), Number] | None = Field(
        None, description="How many endpoints are tried at most; each one once when left out."
    )

    @property
    def upstreams(self) -> set[str]:
        """The names of all that connections may go to."""
        return {name for to in (self.to or {}, *(self.sni or {}).values()) for name in to}

    @model_validator(mode="after")
    def _one(self) -> "TcpOptions":
        if one_of(self, ("to", "sni", "echo")) == "echo" and not self.echo:
            raise fault("'echo: false' says nothing of where connections go", "expected to: an upstream's name")
        return self
