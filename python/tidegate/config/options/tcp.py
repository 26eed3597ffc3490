"""`tcp:` of a listener."""

from typing import Annotated

from pydantic import Field, model_validator

from tidegate.config.options.split import Split
from tidegate.config.options.values import (
    Flag,
    Number,
    OptionalPositiveDuration,
    Options,
    PositiveDuration,
    fault,
    one_of,
)

__all__ = ["TcpOptions"]


class TcpOptions(Options):
    """Carry TCP, and no HTTP: exactly one of `to` and `echo`."""

    to: Split | None = Field(None, description="An upstream, or a split by weight: `{pg: 90, pg-next: 10}`.")
    echo: Flag = Field(False, description="`true` sends every byte back.")
    idle: OptionalPositiveDuration = Field(3_600_000, description="End a connection when nothing passed for this long.")
    max_lifetime: OptionalPositiveDuration = Field(None, description="End a connection when it is this old.")
    connect_timeout: PositiveDuration = Field(
        10_000, description="From the client's connection to one of the upstream's, over all endpoints that are tried."
    )
    attempts: Annotated[int, Field(ge=1, le=100), Number] | None = Field(
        None, description="How many endpoints are tried at most; each one once when left out."
    )

    @model_validator(mode="after")
    def _one(self) -> "TcpOptions":
        if one_of(self, ("to", "echo")) == "echo" and not self.echo:
            raise fault("'echo: false' says nothing of where connections go", "expected to: an upstream's name")
        return self
