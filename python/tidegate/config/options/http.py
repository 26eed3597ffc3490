"""`http:` and `http2:`, of listeners and upstreams."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from tidegate.config.options.values import Number, Options, Size, fault
from tidegate.config.units import show_size

__all__ = ["Http2Options", "HttpVersion"]

HttpVersion = Literal["h1", "h2", "h3"]

LARGEST_WINDOW = (1 << 31) - 1
"""RFC 9113 §6.9.1."""
USUAL_CONNECTION_WINDOW = 8 << 20


class Http2Options(Options):
    """What a connection of HTTP/2 may take, and one of HTTP/3."""

    streams: Annotated[int, Field(ge=1, le=10_000), Number] = Field(
        100, description="Requests and WebSockets on one connection at once."
    )
    window: Size = Field(64 << 10, description="Bytes that a peer may send on a stream before they were passed on.")
    connection_window: Size | None = Field(
        None,
        description="The same for all streams of a connection together; at least `streams` × `window`, so that stalled "
        "streams never starve the others. `8MiB` when left out, or what they need.",
    )

    @property
    def whole_window(self) -> int:
        """The connection's window, given or not."""
        return self.connection_window or max(USUAL_CONNECTION_WINDOW, self.streams * self.window)

    @model_validator(mode="after")
    def _windows(self) -> "Http2Options":
        needed = self.streams * self.window
        if self.window < 1 << 10:
            raise fault("the window is out of range", "expected 1KiB or more")
        if needed > LARGEST_WINDOW:
            raise fault(f"{self.streams} streams with a window of {show_size(self.window)} are more than 2GiB together")
        if self.connection_window is not None and not needed <= self.connection_window <= LARGEST_WINDOW:
            message = f"the connection's window is smaller than {self.streams} streams of {show_size(self.window)}"
            raise fault(message, f"expected {show_size(needed)} to 2047MiB")
        return self
