"""HTTP/1.1 as bytes on a socket, from either side, and a server that a test plays itself.

Nothing is interpreted more than a test asks for: `head` reads up to the empty line, `body` by the framing that the head
tells. Every wait has a limit, so that a test that waits for what never comes fails where it waits.
"""

import asyncio
import contextlib
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Awaitable
from dataclasses import dataclass, field
from typing import Any, Self, TypeVar

__all__ = ["Head", "Lanes", "Play", "Wire", "dial", "request_bytes"]

LIMIT = 10.0
"""Seconds that any one step may take."""

T = TypeVar("T")


async def soon(step: Awaitable[T]) -> T:
    async with asyncio.timeout(LIMIT):
        return await step


@dataclass(frozen=True, slots=True)
class Head:
    """A request's or response's head as it stood on the wire."""

    start: str
    fields: tuple[tuple[str, str], ...]

    @classmethod
    def parse(cls, text: bytes) -> "Head":
        start, *lines = text.decode("latin-1").removesuffix("\r\n\r\n").split("\r\n")
        pairs = (line.partition(":") for line in lines)
        return cls(start, tuple((name, value.strip()) for name, _, value in pairs))

    @property
    def status(self) -> int:
        return int(self.start.split(" ")[1])

    @property
    def method(self) -> str:
        return self.start.split(" ")[0]

    @property
    def target(self) -> str:
        return self.start.split(" ")[1]

    def all(self, name: str) -> list[str]:
        return [value for each, value in self.fields if each.lower() == name.lower()]

    def get(self, name: str) -> str | None:
        """The value of the only field of this name; None when there is none."""
        values = self.all(name)
        assert len(values) <= 1, f"{name} is repeated: {values}"
        return values[0] if values else None

    def names(self) -> set[str]:
        return {name.lower() for name, _ in self.fields}


class Wire:
    """One connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    async def send(self, data: bytes) -> None:
        self._writer.write(data)
        await soon(self._writer.drain())

    def push(self, data: bytes) -> None:
        """Like `send`, but does not wait until the peer has taken it."""
        self._writer.write(data)

    async def until(self, end: bytes) -> bytes:
        return await soon(self._reader.readuntil(end))

    async def exactly(self, count: int) -> bytes:
        return await soon(self._reader.readexactly(count))

    async def head(self) -> Head:
        return Head.parse(await self.until(b"\r\n\r\n"))

    async def chunk(self) -> bytes:
        """The next chunk's content; empty for the last one, whose trailers are left for `until`."""
        size = int((await self.until(b"\r\n")).split(b";")[0], 16)
        if size == 0:
            return b""
        content = await self.exactly(size)
        assert await self.exactly(2) == b"\r\n"
        return content

    async def chunks(self) -> tuple[bytes, bytes]:
        """A whole chunked body, and its trailers as they stood there."""
        content = b""
        while chunk := await self.chunk():
            content += chunk
        trailers = b""
        while (line := await self.until(b"\r\n")) != b"\r\n":
            trailers += line
        return content, trailers

    async def body(self, head: Head) -> bytes:
        """What follows `head` by its own framing."""
        if head.get("transfer-encoding") == "chunked":
            return (await self.chunks())[0]
        length = head.get("content-length")
        if length is not None:
            return await self.exactly(int(length))
        return await self.rest() if head.start.startswith("HTTP/") else b""

    async def answer(self) -> tuple[Head, bytes]:
        head = await self.head()
        return head, b"" if head.status in (204, 304) else await self.body(head)

    async def rest(self) -> bytes:
        """Everything up to the end of the stream, which a reset is as well."""
        with contextlib.suppress(ConnectionError):
            return await soon(self._reader.read())
        return b""

    async def ended(self) -> None:
        """Waits for the peer's end; fails when bytes come before it."""
        rest = await self.rest()
        assert rest == b"", rest

    async def gone(self) -> None:
        """Waits for the peer's end, however long that takes, whatever comes before it."""
        with contextlib.suppress(ConnectionError):
            while await self._reader.read(4096):
                pass

    @property
    def ports(self) -> tuple[int, int]:
        """Ours, and the peer's."""
        return self._writer.get_extra_info("sockname")[1], self._writer.get_extra_info("peername")[1]

    def finish(self) -> None:
        """End our sending (FIN), and go on reading."""
        self._writer.write_eof()

    def pause(self) -> None:
        """Take nothing off the socket, until `resume`."""
        self._writer.transport.pause_reading()  # type: ignore[attr-defined] # streams read from such transports

    def resume(self) -> None:
        self._writer.transport.resume_reading()  # type: ignore[attr-defined]

    def reset(self) -> None:
        """End the connection with an RST."""
        raw: socket.socket = self._writer.get_extra_info("socket")
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._writer.transport.abort()

    async def close(self) -> None:
        self._writer.close()
        with contextlib.suppress(ConnectionError, ssl.SSLError, TimeoutError):
            await soon(self._writer.wait_closed())


@contextlib.asynccontextmanager
async def dial(port: int, host: str = "127.0.0.1", **options: Any) -> AsyncIterator[Wire]:
    """A client's connection."""
    wire = Wire(*await soon(asyncio.open_connection(host, port, **options)))
    try:
        yield wire
    finally:
        await wire.close()


def request_bytes(start: str, *fields: str, body: bytes = b"", host: str = "gateway.test") -> bytes:
    """A request: `GET /path`, then whole lines; Host goes first and can be left out with `host=""`."""
    if "HTTP/" not in start:
        start += " HTTP/1.1"
    lines = [start, *([f"Host: {host}"] if host else []), *fields, "", ""]
    return "\r\n".join(lines).encode("latin-1") + body


@dataclass
class Play:
    """A server whose part the test plays: it takes connections one by one and says what it likes on them."""

    listener: socket.socket
    prefix: str
    """The path prefix that the gateway routes here."""
    connections: int = 0
    """How many were ever accepted."""
    _waiting: asyncio.Queue[Wire] = field(default_factory=asyncio.Queue)
    _all: list[Wire] = field(default_factory=list)
    _server: asyncio.Server | None = None

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._take, sock=self.listener, limit=1 << 20)
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._server:
            self._server.close()
        for wire in self._all:
            await wire.close()

    async def connection(self) -> Wire:
        """The next connection that the gateway opens."""
        return await soon(self._waiting.get())

    @property
    def all(self) -> list[Wire]:
        """Those that were ever accepted."""
        return list(self._all)

    @property
    def unexpected(self) -> int:
        """Connections that nobody has asked for yet."""
        return self._waiting.qsize()

    async def _take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        wire = Wire(reader, writer)
        self._all.append(wire)
        self._waiting.put_nowait(wire)


class Lanes:
    """Sockets that are bound before the gateway starts, so that each test of a module gets an upstream of its own."""

    def __init__(self, count: int) -> None:
        self._sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
        self._next = iter(range(count))

    def upstreams(self, **settings: Any) -> dict[str, Any]:
        return {f"lane{number}": {"endpoints": [self._url(number)], **settings} for number in self._numbers()}

    def routes(self, **settings: Any) -> list[dict[str, Any]]:
        """`/lane3/…` goes to lane 3."""
        return [
            {"name": f"lane{number}", "match": {"path": {"prefix": f"/lane{number}"}}, "to": f"lane{number}"} | settings
            for number in self._numbers()
        ]

    def play(self) -> Play:
        """The next lane, for one test."""
        number = next(self._next)
        return Play(self._sockets[number], f"/lane{number}")

    def close(self) -> None:
        for each in self._sockets:
            each.close()

    def _numbers(self) -> range:
        return range(len(self._sockets))

    def _url(self, number: int) -> str:
        return f"http://127.0.0.1:{self._sockets[number].getsockname()[1]}"
