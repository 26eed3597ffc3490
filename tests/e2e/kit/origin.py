"""A server for any mix of clients: it echoes WebSockets, answers plain requests, counts both, dies and comes back."""

import asyncio
import contextlib
import socket
from typing import Self
from urllib.parse import parse_qs, urlsplit

from tests.e2e.kit.bridge import switch
from tests.e2e.kit.frames import Frame, Op, masked
from tests.e2e.kit.wire import Head

__all__ = ["Origin", "read_frame"]

PIECE = b"tide" * 4096
ENDINGS = (ConnectionError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, asyncio.CancelledError)


class Origin:
    """`?size=N` asks for so many bytes, and `?cut=1` for half of them and a reset. A WebSocket that says `close 4001`
    is closed with that code, and one that says `die` is reset."""

    def __init__(self) -> None:
        self.connections = 0
        """How many were ever accepted."""
        self.websockets: set[str] = set()
        """The targets of those that were opened; each target should be used once."""
        self.requests = 0
        self._tasks: dict[asyncio.Task[None], asyncio.StreamWriter] = {}
        with socket.create_server(("127.0.0.1", 0)) as reserved:
            self.port: int = reserved.getsockname()[1]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def live(self) -> int:
        return len(self._tasks)

    async def __aenter__(self) -> Self:
        await self.rise()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.die()

    async def rise(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port, backlog=4096, limit=1 << 20)

    async def die(self) -> None:
        """No more is accepted, and all connections are reset."""
        self._server.close()
        for task, writer in list(self._tasks.items()):
            writer.transport.abort()
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task
        self._tasks[task] = writer
        self.connections += 1
        try:
            while await self._exchange(reader, writer):
                pass
        except ENDINGS:
            pass  # the other end is gone, or this one is dying
        finally:
            self._tasks.pop(task)
            writer.close()
            with contextlib.suppress(*ENDINGS):
                await writer.wait_closed()

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Whether the connection goes on."""
        head = Head.parse(await reader.readuntil(b"\r\n\r\n"))
        if head.get("upgrade"):
            self.websockets.add(head.target)
            writer.write(switch(head))
            await self._echo(reader, writer)
            return False
        await _skip_body(reader, head)
        self.requests += 1
        wanted = parse_qs(urlsplit(head.target).query)
        size, cut = int(wanted.get("size", ["0"])[0]), "cut" in wanted
        writer.write(f"HTTP/1.1 200 OK\r\nContent-Length: {size}\r\n\r\n".encode())
        for sent in range(0, size // 2 if cut else size, len(PIECE)):
            writer.write(PIECE[: size - sent])
            await writer.drain()
        if cut:
            writer.transport.abort()
        return not cut

    async def _echo(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            frame = await read_frame(reader)
            if frame.op == Op.TEXT and frame.payload == b"die":
                writer.transport.abort()
                return
            if frame.op == Op.TEXT and frame.payload.startswith(b"close "):
                frame = Frame(Op.CLOSE, int(frame.payload[6:]).to_bytes(2, "big"))
            if frame.op != Op.PONG:
                op = Op.PONG if frame.op == Op.PING else frame.op
                writer.write(Frame(op, frame.payload, frame.fin, frame.rsv).encode(None))
                await writer.drain()
            if frame.op == Op.CLOSE:
                return


async def _skip_body(reader: asyncio.StreamReader, head: Head) -> None:
    if head.get("transfer-encoding") == "chunked":
        while size := int(await reader.readuntil(b"\r\n"), 16):
            await reader.readexactly(size + 2)
        await reader.readuntil(b"\r\n")
    left = int(head.get("content-length") or 0)
    while left:
        left -= len(await reader.readexactly(min(left, 1 << 16)))


async def read_frame(reader: asyncio.StreamReader) -> Frame:
    """Of either side, however long it takes to come."""
    first, second = await reader.readexactly(2)
    length = second & 0x7F
    if length >= 126:
        length = int.from_bytes(await reader.readexactly(2 if length == 126 else 8), "big")
    key = await reader.readexactly(4) if second & 0x80 else None
    payload = await reader.readexactly(length)
    return Frame(first & 0x0F, masked(payload, key) if key else payload, bool(first & 0x80), first & 0x70)
