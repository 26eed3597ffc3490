"""What is spoken to a server over HTTP/2 or HTTP/3, for tests that say the same of both.

server = spoken.server(directory)
async with server, running(site(..., upstreams={"app": spoken.upstream(server)}), directory=directory) as gateway:
    asked = await server.asked()
"""

from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import Any, Literal

from tests.e2e.kit import h2server, h3server
from tests.e2e.kit.h2server import ErrorCodes, H2Server
from tests.e2e.kit.h3server import H3Server
from tests.e2e.kit.http3 import Code
from tests.e2e.kit.sites import Config

__all__ = ["SPOKEN", "Asked", "Server", "Spoken"]

Server = H2Server | H3Server
Asked = h2server.Asked | h3server.Asked


@dataclass(frozen=True)
class Spoken:
    """A version of HTTP, and its names for why a stream is reset."""

    name: Literal["h2", "h3"]
    scheme: Literal["http", "https"]
    cancelled: IntEnum
    internal: IntEnum
    refused: IntEnum
    others: tuple[IntEnum, ...]
    """Codes that say nothing good of a request."""

    def server(self, directory: Path) -> Server:
        """With the certificate `here` of `directory`, over HTTP/2 in clear text, by prior knowledge."""
        return H2Server() if self.name == "h2" else H3Server(directory)

    def upstream(self, server: Server, **more: Any) -> Config:
        """The settings of an upstream with this server."""
        tls = {"tls": {"ca": "ca.pem"}} if self.scheme == "https" else {}
        return {"endpoints": [server.url], **tls, **more}


SPOKEN = (
    Spoken(
        "h2",
        "http",
        ErrorCodes.CANCEL,
        ErrorCodes.INTERNAL_ERROR,
        ErrorCodes.REFUSED_STREAM,
        (ErrorCodes.ENHANCE_YOUR_CALM,),
    ),
    Spoken(
        "h3",
        "https",
        Code.REQUEST_CANCELLED,
        Code.INTERNAL_ERROR,
        Code.REQUEST_REJECTED,
        (Code.VERSION_FALLBACK,),
    ),
)
