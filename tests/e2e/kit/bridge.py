"""A gateway with a server behind all of its routes whose part the test plays, and WebSockets between the two.

A test module says `ROUTES`, the settings of its routes by name, and takes the fixture `bridge`:

    ROUTES = {"plain": {}, "bare": {"websocket": {"deflate": "off"}}}

    async def test_it(bridge: Bridge) -> None:
        async with bridge.open("plain") as (client, server):
            await client.send(text("hello"))
            await server.expect(text("hello"))
"""

import asyncio
import base64
import contextlib
import hashlib
import itertools
import socket
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Self

from tests.e2e.kit import http2, http3
from tests.e2e.kit.certificates import Authority
from tests.e2e.kit.frames import Peer
from tests.e2e.kit.wire import Head, Wire, dial, request_bytes, soon
from tidegate.testing import Gateway, Record

__all__ = ["ACCEPT", "KEY", "UPGRADE", "Bridge", "Pair", "Pier", "attempt", "build_pier", "switch"]

KEY = "dfQAy9mlQ0EjD5MmvvsZaQ=="
ACCEPT = "+mKC4huknIfMGJFOzclP9fO058g="

UPGRADE = ("Upgrade: websocket", "Connection: Upgrade", f"Sec-WebSocket-Key: {KEY}", "Sec-WebSocket-Version: 13")

_serial = itertools.count(1)


def attempt(path: str, *fields: str, drop: str = "", start: str = "") -> bytes:
    """A good request for a WebSocket, without the fields named in `drop`, and with these."""
    dropped = drop.lower().split()
    kept = [line for line in UPGRADE if line.partition(":")[0].lower() not in dropped]
    return request_bytes(start or f"GET {path}", *kept, *fields)


def accept_of(key: str) -> str:
    digest = hashlib.sha1(key.encode() + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest()
    return base64.b64encode(digest).decode()


def switch(request: Head, *fields: str, drop: str = "") -> bytes:
    """The 101 that answers `request`, without the fields named in `drop`, and with these."""
    accept = accept_of(request.get("sec-websocket-key") or "")
    lines = ["Upgrade: websocket", "Connection: Upgrade", f"Sec-WebSocket-Accept: {accept}"]
    kept = [line for line in lines if line.partition(":")[0].lower() not in drop.lower().split()]
    return "\r\n".join(["HTTP/1.1 101 Switching Protocols", *kept, *fields, "", ""]).encode("latin-1")


class Pair(NamedTuple):
    client: Peer
    server: Peer


@dataclass(frozen=True, slots=True)
class Pier:
    """What stays for a module: the gateway, and the socket of the server behind it."""

    gateway: Gateway
    listener: socket.socket


@contextlib.contextmanager
def build_pier(
    routes: Mapping[str, Mapping[str, Any]],
    upstreams: Mapping[str, Any] | None = None,
    secure: Path | None = None,
    **settings: Any,
) -> Iterator[Pier]:
    """With a directory, `secure`, there is a listener for HTTP/3 too."""
    listeners: dict[str, Any] = {"edge": {"bind": "127.0.0.1:0"}}
    if secure:
        certificate = Authority(secure).issue("here", http2.HOST)
        listeners["secure"] = {"bind": "127.0.0.1:0", "tls": {"certificates": [certificate]}, "http": ["h1", "h3"]}
    with socket.create_server(("127.0.0.1", 0), backlog=512) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        config = {
            "listeners": listeners,
            "routes": [_route(name, route) for name, route in routes.items()],
            "upstreams": {"server": {"endpoints": [url]}, **(upstreams or {})},
        }
        with Gateway(config | settings, directory=secure) as gateway:
            yield Pier(gateway, listener)


def _route(name: str, route: Mapping[str, Any]) -> dict[str, Any]:
    action = {} if route.keys() & {"to", "respond", "redirect"} else {"to": "server"}
    return {"name": name, "match": {"path": {"prefix": f"/{name}"}}, **action, **route}


class Bridge:
    """The module's gateway, and its server for the length of one test.

    Every request has a path of its own, so what an earlier test left behind is never taken for an answer.
    """

    def __init__(self, pier: Pier, protocol: str = "h1") -> None:
        self.gateway = pier.gateway
        self._protocol = protocol
        self._listener = pier.listener
        self._asked: dict[str, asyncio.Queue[tuple[Wire, Head]]] = {}
        self._writers: list[asyncio.StreamWriter] = []
        self._server: asyncio.Server | None = None

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._take, sock=self._listener.dup(), limit=1 << 20)
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._server:
            self._server.close()
        for writer in self._writers:
            writer.transport.abort()
        await asyncio.sleep(0)

    def path(self, route: str) -> str:
        """One that no other request has."""
        return f"/{route}/{next(_serial)}"

    def dial(self) -> contextlib.AbstractAsyncContextManager[Wire]:
        return dial(self.gateway.port("edge"))

    async def asked(self, path: str) -> tuple[Wire, Head]:
        """The server's connection on which the gateway asks for `path`, and the request's head."""
        return await soon(self._queue(path).get())

    def has_heard_of(self, path: str) -> bool:
        """Whether any request has come for `path` or what is below it."""
        return any(asked.startswith(path) for asked in self._asked)

    @contextlib.asynccontextmanager
    async def open(
        self,
        route: str,
        *fields: str,
        answer: tuple[str, ...] = (),
        client_early: bytes = b"",
        server_early: bytes = b"",
        path: str = "",
    ) -> AsyncIterator[Pair]:
        """A WebSocket: `fields` go with its request, `answer` with the 101, and the bytes behind them at once."""
        path = path or self.path(route)
        if self._protocol != "h1":
            async with self._open_stream(path, fields, answer, client_early, server_early) as pair:
                yield pair
            return
        async with self.dial() as client:
            await client.send(attempt(path, *fields) + client_early)
            server, request = await self.asked(path)
            await server.send(switch(request, *answer) + server_early)
            answered = await client.head()
            assert answered.status == 101, answered
            yield Pair(Peer(client, answered, is_client=True), Peer(server, request, is_client=False))

    @contextlib.asynccontextmanager
    async def _open_stream(
        self, path: str, fields: tuple[str, ...], answer: tuple[str, ...], client_early: bytes, server_early: bytes
    ) -> AsyncIterator[Pair]:
        """A connection of HTTP/2 or HTTP/3 with this one WebSocket."""
        pairs = [(name.lower(), value) for name, value in (field.split(": ", 1) for field in fields)]
        async with contextlib.AsyncExitStack() as stack:
            stream: http2.H2Stream | http3.H3Stream
            if self._protocol == "h2":
                h2 = await stack.enter_async_context(http2.dial(self.gateway.port("edge")))
                stream = await h2.connect(path, *pairs)
            else:
                h3 = await stack.enter_async_context(http3.dial(self.gateway.port("secure")))
                stream = await h3.connect_to(path, *pairs)
            if client_early:
                stream.push(client_early)
            server, request = await self.asked(path)
            await server.send(switch(request, *answer) + server_early)
            answered = await stream.head()
            assert answered.status == 200, answered
            yield Pair(Peer(stream, answered, is_client=True), Peer(server, request, is_client=False))

    async def logged(self, event: str, path: str) -> Record:
        """The access log's record of this event."""
        return await asyncio.to_thread(self.gateway.access_log().wait_for, event=event, path=path)

    async def ended(self, pair: Pair) -> Record:
        """The access log's record of the end."""
        return await self.logged("close", pair.server.head.target)

    async def count(self, name: str, **labels: str) -> float:
        """What a metric says now."""
        return (await asyncio.to_thread(self.gateway.metrics)).value(name, **labels)

    def _queue(self, path: str) -> asyncio.Queue[tuple[Wire, Head]]:
        return self._asked.setdefault(path, asyncio.Queue())

    async def _take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.append(writer)
        wire = Wire(reader, writer)
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError, TimeoutError):
            head = await wire.head()
            self._queue(head.target).put_nowait((wire, head))
