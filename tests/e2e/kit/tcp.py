"""Servers and clients of plain TCP, whose parts a test plays."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from typing import Any

from tests.e2e.kit.wire import Play, Wire, dial

__all__ = ["bystander", "full", "is_reset", "named", "server", "through", "vacant"]


@contextlib.asynccontextmanager
async def server() -> AsyncIterator[tuple[Play, str]]:
    """A server whose part the test plays, and its endpoint."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=512)
    async with Play(listener, "") as play:
        yield play, f"tcp://127.0.0.1:{listener.getsockname()[1]}"


@contextlib.asynccontextmanager
async def through(port: int, play: Play, **options: Any) -> AsyncIterator[tuple[Wire, Wire]]:
    """A connection through the gateway: the client's end, and the server's. The client ends first."""
    async with dial(port, **options) as client:
        far = await play.connection()
        yield client, far
        await client.close()
        await far.close()


@contextlib.asynccontextmanager
async def named(name: str) -> AsyncIterator[str]:
    """A server that says its name and ends; its endpoint."""

    async def say(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(name.encode())
        writer.close()

    listening = await asyncio.start_server(say, "127.0.0.1", 0, backlog=512)
    try:
        yield f"tcp://127.0.0.1:{listening.sockets[0].getsockname()[1]}"
    finally:
        listening.close()


def vacant() -> str:
    """An endpoint where nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as held:
        return f"tcp://127.0.0.1:{held.getsockname()[1]}"


@contextlib.contextmanager
def full() -> Any:
    """An endpoint that takes no connection: one fills the queue that nobody accepts from, and the kernel drops the
    next SYN."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        for _ in range(3):
            filler = stack.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(listener.getsockname())
        yield f"tcp://127.0.0.1:{listener.getsockname()[1]}"


async def is_reset(wire: Wire) -> bool:
    """Whether the next thing that comes is a reset, and not the good end of the stream."""
    try:
        byte = await wire.exactly(1)
    except asyncio.IncompleteReadError:
        return False
    except ConnectionResetError:
        return True
    raise AssertionError(f"bytes came: {byte!r}")


async def bystander(port: int, host: str = "127.0.0.1", **options: Any) -> str:
    """What a server says by itself to a client that only listens."""
    async with dial(port, host, **options) as wire:
        return (await wire.rest()).decode()
