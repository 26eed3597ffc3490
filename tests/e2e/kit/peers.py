"""Whole conversations of WebSocket peers, and a server that echoes for any number of them."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Mapping
from typing import Any

from tests.e2e.kit.bridge import attempt, switch
from tests.e2e.kit.frames import Frame, Op, Peer, binary, close, masked
from tests.e2e.kit.wire import Head, Play, Wire, dial, soon
from tidegate.testing import Gateway

__all__ = [
    "EchoServer",
    "accept",
    "answer_close",
    "dial_unix",
    "echoes",
    "frames",
    "leave",
    "open_peer",
    "play",
    "read_frame",
    "running",
    "upgrade",
]


async def echoes(peer: Peer, payload: bytes = b"tide") -> None:
    """Send a message to an echo and see it come back."""
    await peer.send(binary(payload))
    await peer.expect(binary(payload))


async def frames(peer: Peer) -> list[Frame]:
    """All frames that come until the stream ends between two of them; a reset ends it as well."""
    found = []
    while True:
        try:
            found.append(await peer.frame())
        except asyncio.IncompleteReadError as end:
            assert end.partial == b"", f"the stream ended within a frame: {end.partial!r}, after {found}"
            return found
        except ConnectionError:
            return found


async def answer_close(peer: Peer) -> Frame:
    """A Close must come next; answer it, see the end and nothing else, and end as well. Returns the Close."""
    frame = await peer.frame()
    assert frame.op == Op.CLOSE, frame
    await peer.send(frame)
    rest = await frames(peer)
    assert rest == [], f"after its Close came {rest}"
    await peer.wire.close()
    return frame


async def leave(peer: Peer, code: int = 1000) -> None:
    """The whole close handshake, from this end, and the end of the connection."""
    await peer.send(close(code))
    assert [frame.code for frame in await frames(peer) if frame.op == Op.CLOSE] == [code]
    await peer.wire.close()


async def accept(wire: Wire) -> Peer:
    """Read a handshake and answer it: a server's end."""
    head = await wire.head()
    await wire.send(switch(head))
    return Peer(wire, head, is_client=False)


async def upgrade(wire: Wire, path: str = "/", *fields: str) -> Peer:
    """A client's end over `wire`; fails when the answer is no 101."""
    await wire.send(attempt(path, *fields))
    head = await wire.head()
    assert head.status == 101, head
    return Peer(wire, head, is_client=True)


@contextlib.asynccontextmanager
async def dial_unix(path: str) -> AsyncIterator[Wire]:
    wire = Wire(*await soon(asyncio.open_unix_connection(path)))
    try:
        yield wire
    finally:
        await wire.close()


@contextlib.asynccontextmanager
async def open_peer(where: int | str, path: str = "/", *fields: str, **options: Any) -> AsyncIterator[Peer]:
    """A client's WebSocket to a port on loopback, or over the unix socket of that path."""
    async with dial_unix(where) if isinstance(where, str) else dial(where, **options) as wire:
        yield await upgrade(wire, path, *fields)


@contextlib.asynccontextmanager
async def play() -> AsyncIterator[tuple[Play, str]]:
    """A server whose part the test plays, and its URL."""
    listener = socket.create_server(("127.0.0.1", 0))
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    async with Play(listener, "/") as server:
        yield server, url


@contextlib.asynccontextmanager
async def running(config: Mapping[str, Any] | str, **options: Any) -> AsyncIterator[Gateway]:
    """A gateway process; the loop goes on while it starts and ends."""
    gateway = await asyncio.to_thread(Gateway(config, **options).__enter__)
    try:
        yield gateway
    finally:
        await asyncio.to_thread(gateway.__exit__)


class EchoServer:
    """Takes any number of WebSockets and sends back their messages, as long as the test likes.

    It notes what became of them: how many were `opened`, how many are `live`, and the `closes` that came.
    """

    def __init__(self, path: str | None = None) -> None:
        self.opened = 0
        self.closes: list[Frame] = []
        self._path = path
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def live(self) -> int:
        return len(self._tasks)

    @property
    def url(self) -> str:
        if self._path:
            return f"unix:{self._path}"
        return f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def __aenter__(self) -> "EchoServer":
        if self._path:
            self._server = await asyncio.start_unix_server(self._serve, self._path, backlog=4096)
        else:
            self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, backlog=4096)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task
        self._tasks.add(task)
        try:
            await self._echo(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass  # the other end is gone, or the test is over
        finally:
            self._tasks.discard(task)
            writer.close()
            with contextlib.suppress(ConnectionError, asyncio.CancelledError):
                await writer.wait_closed()

    async def _echo(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(switch(Head.parse(await reader.readuntil(b"\r\n\r\n"))))
        self.opened += 1
        while True:
            frame = await read_frame(reader)
            if frame.op != Op.PONG:
                op = Op.PONG if frame.op == Op.PING else frame.op
                writer.write(Frame(op, frame.payload, frame.fin, frame.rsv).encode(None))
                await writer.drain()
            if frame.op == Op.CLOSE:
                self.closes.append(frame)
                return


async def read_frame(reader: asyncio.StreamReader) -> Frame:
    """A client's frame, however long it takes to come."""
    first, second = await reader.readexactly(2)
    length = second & 0x7F
    if length >= 126:
        length = int.from_bytes(await reader.readexactly(2 if length == 126 else 8), "big")
    key = await reader.readexactly(4)
    return Frame(first & 0x0F, masked(await reader.readexactly(length), key), bool(first & 0x80), first & 0x70)
