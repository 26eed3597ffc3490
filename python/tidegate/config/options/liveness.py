"""`keepalive:` and `user_timeout:`, of listeners and upstreams: how the kernel finds out that a peer has gone."""

from typing import Annotated

from pydantic import AfterValidator, Field

from tidegate.config.options.values import Number, OptionalPositiveDuration, Options, PositiveDuration, WordOr, fault
from tidegate.config.units import show_duration

__all__ = ["Keepalive", "KeepaliveOptions", "UserTimeout"]

LONGEST_PAUSE = 32_767_000
"""What Linux takes for TCP_KEEPIDLE and TCP_KEEPINTVL (tcp(7))."""
LONGEST_USER_TIMEOUT = (1 << 31) - 1
"""What it takes for TCP_USER_TIMEOUT, in milliseconds."""


def _pause(value: int) -> int:
    if value % 1000:
        raise fault(f"the kernel counts keepalive in whole seconds, and {show_duration(value)} is none")
    if value > LONGEST_PAUSE:
        raise fault(f"{show_duration(value)} is longer than the kernel takes", "expected 32767s at most")
    return value


def _user_timeout(value: int | None) -> int | None:
    if value is not None and value > LONGEST_USER_TIMEOUT:
        raise fault(f"{show_duration(value)} is longer than the kernel takes", "expected 24d at most, or never")
    return value


Pause = Annotated[PositiveDuration, AfterValidator(_pause)]


class KeepaliveOptions(Options):
    """Probes of TCP connections on which nothing comes."""

    idle: Pause = Field(60_000, description="The first one after so much silence.")
    every: Pause = Field(10_000, description="The next ones, while there is no answer.")
    probes: Annotated[int, Field(ge=1, le=127), Number] = Field(
        9,
        description="So many without an answer end the connection. Where there is a `user_timeout`, the kernel goes by "
        "that in place of counting.",
    )


Keepalive = Annotated[KeepaliveOptions | None, WordOr({"never": None}, KeepaliveOptions)]
UserTimeout = Annotated[OptionalPositiveDuration, AfterValidator(_user_timeout)]
