"""Servers that answer everything with their names, to see who was asked."""

import asyncio
import contextlib
import socket
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Self

from tests.e2e.kit.bridge import attempt, switch
from tests.e2e.kit.wire import Head, Wire, dial, request_bytes

__all__ = ["Mortal", "Named", "asked", "asked_often", "opened"]


class Named:
    """Answers a request with its name, and an attempt with a 101 that says it; then it holds the WebSocket.

    With another `status` than 200 it gives that answer to both. It notes how often it was `asked`. Requests for
    `/healthz` are apart: they have a status and a count of their own.
    """

    def __init__(self, name: str, listener: socket.socket) -> None:
        self.name = name
        self.connections = 0
        """How many were ever accepted."""
        self.status = 200
        self.asked = 0
        self.health = 200
        self.checked = 0
        self.live = 0
        """WebSockets that are open."""
        self._listener = listener
        self._writers: set[asyncio.StreamWriter] = set()
        self._server: asyncio.Server | None = None

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, sock=self._listener, limit=1 << 20)
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._server:
            self._server.close()
        for writer in self._writers:
            writer.transport.abort()
        await asyncio.sleep(0)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self._writers.add(writer)
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = Head.parse(await reader.readuntil(b"\r\n\r\n"))
                if head.target == "/healthz":
                    self.checked += 1
                    writer.write(b"HTTP/1.1 %d X\r\nContent-Length: 0\r\n\r\n" % self.health)
                    continue
                self.asked += 1
                if head.get("upgrade") and self.status == 200:
                    writer.write(switch(head, f"X-Name: {self.name}"))
                    await self._hold(reader)
                    break
                name = self.name.encode()
                await Wire(reader, writer).body(head)
                writer.write(b"HTTP/1.1 %d X\r\nContent-Length: %d\r\n\r\n%s" % (self.status, len(name), name))
        self._writers.discard(writer)
        writer.close()

    async def _hold(self, reader: asyncio.StreamReader) -> None:
        self.live += 1
        try:
            await reader.read()
        finally:
            self.live -= 1


class Mortal:
    """A `Named` that can die, with all of its connections, and come back: on a unix socket, which nobody else takes
    meanwhile."""

    def __init__(self, name: str, directory: Path) -> None:
        self.path = directory / f"{name}.sock"
        self.named: Named | None = None
        self._name = name

    @property
    def url(self) -> str:
        return f"unix:{self.path}"

    async def live(self) -> Named:
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(str(self.path))
        listener.listen(512)
        self.named = await Named(self._name, listener).__aenter__()
        return self.named

    async def die(self) -> None:
        if self.named:
            self.path.unlink()
            await self.named.__aexit__()
            self.named = None


async def asked(client: Wire, path: str, *fields: str) -> str:
    """The name of who answers a request; `502 reason` of a refusal."""
    await client.send(request_bytes(f"GET {path}", *fields))
    head, body = await client.answer()
    text = body.decode()
    return text if head.status == 200 else f"{head.status} {text.partition(':')[0]}"


async def asked_often(port: int, path: str, times: int, clients: int = 1) -> Counter[str]:
    """Who answers how many of so many requests, by several clients at once."""

    async def ask(count: int) -> Counter[str]:
        async with dial(port) as client:
            return Counter([await asked(client, path) for _ in range(count)])

    share, rest = divmod(times, clients)
    counts = await asyncio.gather(*(ask(share + (number < rest)) for number in range(clients)))
    return sum(counts, Counter[str]())


@contextlib.asynccontextmanager
async def opened(port: int, path: str) -> AsyncIterator[str]:
    """A WebSocket, by the name of its server; `502 reason` of a refusal."""
    async with dial(port) as client:
        await client.send(attempt(path))
        head = await client.head()
        if head.status == 101:
            yield head.get("x-name") or ""
        else:
            yield f"{head.status} {(await client.body(head)).decode().partition(':')[0]}"
