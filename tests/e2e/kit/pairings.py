"""Clients and servers of every version of HTTP with one face, for tests that are the same whatever is spoken on either
side of the gateway.

async with Versions(directory) as versions, versions.dial("h3") as client:
    call = await client.ask("POST", "/h2/path")
    asked = await versions.asked("h2", "/h2/path")

A server called `h2 twice` is a second gateway, which is spoken to over HTTP/2, and an HTTP/1.1 server behind it.
"""

import asyncio
import contextlib
import shutil
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, Self

from tests.e2e.kit import http2, http3
from tests.e2e.kit.bridge import attempt, switch
from tests.e2e.kit.certificates import Authority
from tests.e2e.kit.frames import Peer
from tests.e2e.kit.h2server import H2Server
from tests.e2e.kit.h3server import H3Server
from tests.e2e.kit.peers import running
from tests.e2e.kit.secure import server_context
from tests.e2e.kit.sites import LOOPBACK, route
from tests.e2e.kit.wire import Head, Wire, dial, request_bytes, soon
from tidegate.testing import Gateway

__all__ = ["CLIENTS", "SERVERS", "Asked", "Call", "Client", "Versions"]

CLIENTS = ("h1", "h2", "h3")
SERVERS = ("h1", "h2", "h3", "h2 twice", "h3 twice")

Field = tuple[str, str]


class Call(Protocol):
    """A request of a client."""

    trailers: dict[str, str] | None

    async def send(self, data: bytes) -> None: ...
    def push(self, data: bytes) -> None: ...
    def finish(self) -> None: ...
    def end_with(self, **trailers: str) -> None: ...
    def reset(self) -> None: ...
    def pause(self) -> None: ...
    async def head(self) -> Head: ...
    async def exactly(self, count: int) -> bytes: ...
    async def body(self) -> bytes: ...


class Asked(Protocol):
    """The same at the server."""

    head: Head
    trailers: dict[str, str] | None

    def answer(self, status: int, *fields: Field, end: bool = False) -> None: ...
    def push(self, data: bytes, *, end: bool = False, trailers: Sequence[Field] = ()) -> None: ...
    async def send(self, data: bytes) -> None: ...
    def reset(self) -> None: ...
    async def body(self) -> bytes: ...
    async def exactly(self, count: int) -> bytes: ...
    async def was_reset(self) -> object: ...
    def accept(self, *fields: Field) -> Peer: ...


class Message:
    """A body of HTTP/1.1 from either side, in chunks where nothing else was said."""

    def __init__(self, wire: Wire) -> None:
        self.wire = wire
        self.trailers: dict[str, str] | None = None
        self._received = b""

    def _push(self, data: bytes) -> None:
        if data:
            self.wire.push(b"%x\r\n%b\r\n" % (len(data), data))

    def _finish(self, trailers: Sequence[Field]) -> None:
        lines = "".join(f"{name}: {value}\r\n" for name, value in trailers)
        self.wire.push(f"0\r\n{lines}\r\n".encode())

    async def _take(self, head: Head) -> bool:
        """More of the body; false at its end."""
        if head.get("transfer-encoding") != "chunked":
            return False
        if chunk := await self.wire.chunk():
            self._received += chunk
            return True
        lines = []
        while (line := await self.wire.until(b"\r\n")) != b"\r\n":
            lines.append(line.decode().strip().split(": ", 1))
        if lines:
            self.trailers = {name.lower(): value for name, value in lines}
        return False

    async def _body(self, head: Head) -> bytes:
        if head.get("content-length") or head.get("transfer-encoding") is None:
            return await self.wire.body(head)
        while await self._take(head):
            pass
        taken, self._received = self._received, b""
        return taken

    async def _exactly(self, head: Head, count: int) -> bytes:
        while len(self._received) < count:
            assert await self._take(head), "the body has ended"
        taken, self._received = self._received[:count], self._received[count:]
        return taken

    def reset(self) -> None:
        self.wire.reset()


class H1Call(Message):
    """Of a client of HTTP/1.1."""

    answered: Head | None = None

    async def send(self, data: bytes) -> None:
        self._push(data)

    def push(self, data: bytes) -> None:
        self._push(data)

    def finish(self) -> None:
        self._finish(())

    def end_with(self, **trailers: str) -> None:
        self._finish([(name.replace("_", "-"), value) for name, value in trailers.items()])

    def pause(self) -> None:
        self.wire.pause()

    async def head(self) -> Head:
        self.answered = self.answered or await self.wire.head()
        return self.answered

    async def body(self) -> bytes:
        return await self._body(await self.head())

    async def exactly(self, count: int) -> bytes:
        return await self._exactly(await self.head(), count)


class H1Asked(Message):
    """At a server of HTTP/1.1. The connection ends with the answer."""

    def __init__(self, wire: Wire, head: Head) -> None:
        super().__init__(wire)
        self.head = head

    def answer(self, status: int, *fields: Field, end: bool = False) -> None:
        how = ("Content-Length", "0") if end else ("Transfer-Encoding", "chunked")
        lines = [f"{name}: {value}\r\n" for name, value in (*fields, how, ("Connection", "close"))]
        self.wire.push(f"HTTP/1.1 {status} Any\r\n{''.join(lines)}\r\n".encode())

    def push(self, data: bytes, *, end: bool = False, trailers: Sequence[Field] = ()) -> None:
        self._push(data)
        if end or trailers:
            self._finish(trailers)

    async def send(self, data: bytes) -> None:
        self._push(data)

    async def body(self) -> bytes:
        return await self._body(self.head)

    async def exactly(self, count: int) -> bytes:
        return await self._exactly(self.head, count)

    async def was_reset(self) -> object:
        await soon(self.wire.gone())
        return None

    def accept(self, *fields: Field) -> Peer:
        self.wire.push(switch(self.head, *[f"{name}: {value}" for name, value in fields]))
        return Peer(self.wire, self.head, is_client=False)


class H1Server:
    """On a free port, in clear text."""

    def __init__(self) -> None:
        self.requests: asyncio.Queue[H1Asked] = asyncio.Queue()
        self._writers: list[asyncio.StreamWriter] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, limit=1 << 22, backlog=512)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for writer in self._writers:
            writer.transport.abort()
        await asyncio.sleep(0)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.append(writer)
        wire = Wire(reader, writer)
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError, TimeoutError):
            self.requests.put_nowait(H1Asked(wire, await wire.head()))


class Client:
    """Of one version: many streams on one connection, or over HTTP/1.1 a connection for each."""

    def __init__(self, version: str, port: int, stack: contextlib.AsyncExitStack) -> None:
        self.version, self._port, self._stack = version, port, stack
        self._h2: http2.H2Client
        self._h3: http3.H3Client

    async def begin(self) -> Self:
        if self.version == "h2":
            options = {"ssl": http2.context(), "server_hostname": http2.HOST}
            self._h2 = await self._stack.enter_async_context(http2.dial(self._port, **options))
        elif self.version == "h3":
            self._h3 = await self._stack.enter_async_context(http3.dial(self._port))
        return self

    async def wire(self) -> Wire:
        options = {"ssl": http2.context(alpn=("http/1.1",)), "server_hostname": http2.HOST}
        return await self._stack.enter_async_context(dial(self._port, **options))

    async def ask(self, method: str, path: str, *fields: Field, ended: bool = False) -> Call:
        """A request; what it has of a body follows, unless it is `ended`."""
        if self.version == "h1":
            wire = await self.wire()
            lines = [f"{name}: {value}" for name, value in fields]
            await wire.send(
                request_bytes(f"{method} {path}", *lines, *([] if ended else ["Transfer-Encoding: chunked"]))
            )
            return H1Call(wire)
        pseudo = [(":method", method), (":scheme", "https"), (":authority", http2.HOST), (":path", path)]
        if self.version == "h2":
            await self._h2.settled()
            return self._h2.open([*pseudo, *fields], ended=ended)
        return self._h3.open([*pseudo, *fields], ended=ended)

    async def attempt(self, path: str, *fields: Field) -> Call | Wire:
        """The beginning of a WebSocket."""
        if self.version == "h2":
            return await self._h2.connect(path, *fields)
        if self.version == "h3":
            return await self._h3.connect_to(path, *fields)
        wire = await self.wire()
        await wire.send(attempt(path, *[f"{name}: {value}" for name, value in fields]))
        return wire


class Versions:
    """A gateway with a server of each version behind it, one route and upstream for each: `/h2`, `/h2-twice`. More
    routes of the same kind come by `kinds`: their names, and what they say of WebSockets."""

    def __init__(self, directory: Path, kinds: Mapping[str, Mapping[str, Any]] | None = None) -> None:
        self._directory, self._kinds = directory, kinds or {}
        Authority(directory).issue("here", "127.0.0.1", http2.HOST)
        context = server_context(directory, "here")
        context.set_alpn_protocols(["h2"])
        self.servers = {"h1": H1Server(), "h2": H2Server(context), "h3": H3Server(directory), "twice": H1Server()}
        self._stack = contextlib.AsyncExitStack()
        self._waiting: dict[str, asyncio.Queue[Asked]] = {}
        self._tasks: list[asyncio.Task[None]] = []
        self.gateway: Gateway
        self.second: Gateway

    async def __aenter__(self) -> Self:
        for server in self.servers.values():
            await self._stack.enter_async_context(server)
            self._tasks.append(asyncio.create_task(self._hand_out(server.requests)))
        edge = {
            "bind": LOOPBACK,
            "http": ["h1", "h2", "h3"],
            "tls": {"certificates": [{"cert": "here.pem", "key": "here.key"}]},
            "http2": {"streams": 300, "window": "64KiB", "connection_window": "32MiB"},
            "websocket": {"ping": "never"},
        }
        # In a directory of its own, as each gateway watches the file in its own.
        second = shutil.copytree(self._directory, self._directory / "second")
        trusting = edge | {"trusted_proxies": ["127.0.0.0/8"]}
        self.second = await self._run(second, trusting, [], {"twice": {"endpoints": [self.servers["twice"].url]}})
        names = {f"{server.replace(' ', '-')}": server for server in SERVERS}
        routes = [
            route(f"{name}{kind and '-' + kind}", name, websocket=dict(settings))
            for name in names
            for kind, settings in {"": {}, **self._kinds}.items()
        ]
        upstreams = {name: self._upstream(server) for name, server in names.items()}
        self.gateway = await self._run(self._directory, edge, routes, upstreams)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _run(
        self, directory: Path, edge: dict[str, Any], routes: list[Any], upstreams: Mapping[str, Any]
    ) -> Gateway:
        settings = {
            "workers": 1,
            "listeners": {"edge": edge},
            "routes": routes or [{"name": name, "to": name} for name in upstreams],
            "upstreams": upstreams,
            "drain": {"window": "1s", "timeout": "5s"},
        }
        return await self._stack.enter_async_context(running(settings, directory=directory))

    def _upstream(self, server: str) -> dict[str, Any]:
        version, _, twice = server.partition(" ")
        url = f"https://127.0.0.1:{self.second.port('edge')}" if twice else self.servers[version].url
        tls = {"tls": {"ca": "ca.pem"}} if url.startswith("https") else {}
        return {"endpoints": [url], "protocol": version, "http2": {"streams": 300, "connection_window": "32MiB"}, **tls}

    async def _hand_out(self, requests: asyncio.Queue[Any]) -> None:
        while True:
            asked = await requests.get()
            self._queue(asked.head.target).put_nowait(asked)

    def _queue(self, path: str) -> asyncio.Queue[Asked]:
        return self._waiting.setdefault(path, asyncio.Queue())

    async def asked(self, path: str) -> Asked:
        """What the server behind `path` is asked for it."""
        return await soon(self._queue(path).get())

    @contextlib.asynccontextmanager
    async def dial(self, version: str) -> AsyncIterator[Client]:
        async with contextlib.AsyncExitStack() as stack:
            yield await Client(version, self.gateway.port("edge"), stack).begin()

    async def open(
        self, client: Client, path: str, *fields: Field, answer: Sequence[Field] = ()
    ) -> tuple[Peer, Peer, Asked]:
        """A WebSocket: both of its ends, and the server's stream."""
        stream = await client.attempt(path, *fields)
        asked = await self.asked(path)
        far = asked.accept(*answer)
        head = await stream.head()
        assert head.status == (101 if client.version == "h1" else 200), head
        return Peer(stream, head, is_client=True), far, asked  # type: ignore[arg-type] # all of them send and read
