"""Attempts to open a WebSocket over any version of HTTP, on a listener that speaks them all, and their answers.

with everywhere({"chat": {"respond": "echo"}}) as gateway:
    async with attempts(gateway, "h3", "/chat", "Origin: https://a.test") as tried:
        assert tried.status == 403
"""

import contextlib
import tempfile
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import trustme

from tests.e2e.kit import http2, http3
from tests.e2e.kit.bridge import attempt
from tests.e2e.kit.frames import Peer
from tests.e2e.kit.sites import LOOPBACK, route, site
from tests.e2e.kit.wire import Head, Wire, dial
from tidegate.testing import Gateway

__all__ = ["PROTOCOLS", "Tried", "attempts", "everywhere"]

PROTOCOLS = ["h1", "h2", "h3"]
TLS = {"certificates": [{"cert": "site.pem", "key": "site.pem"}]}


@contextlib.contextmanager
def everywhere(routes: Mapping[str, Mapping[str, Any]], *, edge: Any = None, **more: Any) -> Iterator[Gateway]:
    """A gateway with a listener `edge` for h1, h2 and h3 and these routes, by name; `edge` is more of the listener."""
    with tempfile.TemporaryDirectory(prefix="tidegate-everywhere-") as name:
        directory = Path(name)
        certificate = trustme.CA().issue_cert(http2.HOST)
        certificate.private_key_and_cert_chain_pem.write_to_path(str(directory / "site.pem"))
        with Gateway(config(routes, edge, **more), directory=directory) as gateway:
            yield gateway


def config(routes: Mapping[str, Mapping[str, Any]], edge: Any = None, **more: Any) -> dict[str, Any]:
    """What `everywhere` runs, for reloads of it."""
    listener = {"bind": LOOPBACK, "tls": TLS, "http": PROTOCOLS, **(edge or {})}
    return site(*(route(name, **each) for name, each in routes.items()), listeners={"edge": listener}, **more)


@dataclass(frozen=True, slots=True)
class Tried:
    """What came of an attempt."""

    head: Head
    body: str
    """Of a refusal."""
    peer: Peer | None
    """The client's end, where it is open now."""
    wire: Wire | None
    """The whole connection, over HTTP/1.1."""

    @property
    def status(self) -> int:
        """As HTTP/1.1 has it: 101 says that it is open."""
        return 101 if self.peer else self.head.status

    @property
    def reason(self) -> str:
        return self.body.partition(":")[0]

    @property
    def open(self) -> Peer:
        assert self.peer is not None, f"{self.head.start}: {self.body}"
        return self.peer


@contextlib.asynccontextmanager
async def attempts(gateway: Gateway, protocol: str, path: str, *fields: str, **options: Any) -> AsyncIterator[Tried]:
    """One attempt on a connection of its own. `options` are those of the connection (`local_addr`)."""
    pairs = [(name.lower(), value) for name, value in (field.split(": ", 1) for field in fields)]
    port = gateway.port("edge")
    match protocol:
        case "h1":
            async with dial(port, ssl=http2.context(alpn=("http/1.1",)), server_hostname=http2.HOST, **options) as wire:
                await wire.send(attempt(path, *fields))
                head = await wire.head()
                body = "" if head.status == 101 else (await wire.body(head)).decode()
                peer = Peer(wire, head, is_client=True) if head.status == 101 else None
                yield Tried(head, body, peer, wire)
        case "h2":
            async with http2.dial(port, ssl=http2.context(), server_hostname=http2.HOST, **options) as client:
                yield await _tried(await client.connect(path, *pairs))
        case _:
            async with http3.dial(port) as client3:
                yield await _tried(await client3.connect_to(path, *pairs))


async def _tried(stream: http2.H2Stream | http3.H3Stream) -> Tried:
    head = await stream.head()
    if head.status == 200:
        return Tried(head, "", Peer(stream, head, is_client=True), None)
    return Tried(head, (await stream.body()).decode(), None, None)
