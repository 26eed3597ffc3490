"""The part of `limits:`, of listeners and routes, that says how many WebSockets there may be."""

from typing import Annotated, Literal

from pydantic import Field

from tidegate.config.options.values import Limit, Number, Options, RateLimit

__all__ = ["AdmissionOptions"]


class AdmissionOptions(Options):
    """How many WebSockets may be open, and be opened."""

    websockets: Limit = Field(None, description="WebSockets open at once; one too many gets 503, or see `over`.")
    connections_per_ip: Limit = Field(
        None,
        description="WebSockets that one client address has open at once; one too many gets 429, or see `over`. "
        "Addresses of trusted proxies count for none.",
    )
    handshakes: RateLimit = Field(None, description="Attempts to open a WebSocket; more get 503.")
    handshakes_per_ip: RateLimit = Field(None, description="Attempts by one client address; more get 429.")
    over: Literal["refuse", "evict"] = Field(
        "refuse",
        description="What becomes of a WebSocket over `websockets` or `connections_per_ip`: it is refused, or the "
        "oldest that counts together with it is closed for it.",
    )
    ipv6_prefix: Annotated[int, Field(ge=1, le=128), Number] = Field(
        64, description="So many leading bits of an IPv6 address count as one address."
    )
