"""A server that answers at once and keeps every byte that came, by connection, for a strict reader to judge."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from tests.e2e.kit.strict import Fault, Incomplete, Request, read_request

__all__ = ["Recorder", "Story"]


@dataclass
class Story:
    """One connection: the bytes that came, the requests in them, and what was no request."""

    received: bytes = b""
    requests: list[Request] = field(default_factory=list)
    left: bytes = b""
    """Bytes behind the last whole request."""
    fault: str = ""


class Recorder:
    """Use it as `asyncio.Protocol` factory; `ended` tells when no connection is left."""

    def __init__(self) -> None:
        self.stories: list[Story] = []
        self._open: set[_Connection] = set()
        self._idle = asyncio.Event()
        self._idle.set()

    def __call__(self) -> asyncio.Protocol:
        story = Story()
        self.stories.append(story)
        connection = _Connection(story, self._leave)
        self._open.add(connection)
        self._idle.clear()
        return connection

    async def close(self) -> None:
        """Ends the connections that the gateway keeps."""
        for connection in list(self._open):
            connection.abort()
        await self.ended()

    async def ended(self) -> None:
        async with asyncio.timeout(10):
            await self._idle.wait()

    def _leave(self, connection: "_Connection") -> None:
        self._open.discard(connection)
        if not self._open:
            self._idle.set()


class _Connection(asyncio.Protocol):
    def __init__(self, story: Story, leave: "Callable[[_Connection], None]") -> None:
        self._story, self._leave = story, leave

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        story = self._story
        story.received += data
        story.left += data
        while story.left and not story.fault:
            try:
                request, story.left = read_request(story.left)
            except Incomplete:
                return
            except Fault as fault:
                story.fault = str(fault)
                return
            story.requests.append(request)
            self._answer(request)

    def _answer(self, request: Request) -> None:
        body = b"" if request.method == b"HEAD" else request.target
        self._transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(request.target) + body)

    def connection_lost(self, error: Exception | None) -> None:
        self._leave(self)

    def abort(self) -> None:
        self._transport.abort()
