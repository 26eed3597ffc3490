"""Clients that ask for a tunnel, over each version of HTTP, in one way."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

from tests.e2e.kit import http2, http3, wire
from tests.e2e.kit.http2 import ErrorCodes, H2Stream
from tests.e2e.kit.http3 import H3Stream
from tests.e2e.kit.wire import Wire, request_bytes
from tidegate.testing import Gateway

__all__ = ["VERSIONS", "Mouth", "asking", "rest", "was_cut"]

VERSIONS = ("h1", "h2", "h3")

Mouth = Wire | H2Stream | H3Stream
"""The client's end of a tunnel: all of them have `head`, `send`, `exactly`, `finish` and `close`."""


@contextlib.asynccontextmanager
async def asking(
    gateway: Gateway, version: str, token: str, path: str = "/", host: str = http2.HOST, early: bytes = b""
) -> AsyncIterator[Mouth]:
    """Asks listener `tls` for a tunnel, over HTTP/1.1 `edge`, which half-closes: `connect` to `host`, or the protocol
    `token` at `path`. Sends `early` behind that, without waiting for the answer."""
    async with contextlib.AsyncExitStack() as stack:
        port = gateway.port("tls")
        mouth: Mouth
        if version == "h1":
            mouth = await stack.enter_async_context(wire.dial(gateway.port("edge")))
            await mouth.send(head_of(token, path, host) + early)
        elif version == "h2":
            options: dict[str, Any] = {"ssl": http2.context(), "server_hostname": http2.HOST}
            h2 = await stack.enter_async_context(http2.dial(port, **options))
            await h2.settled()
            mouth = h2.open(pseudo(token, path, host))
        else:
            h3 = await stack.enter_async_context(http3.dial(port))
            await h3.settled()
            mouth = h3.open(pseudo(token, path, host))
        if early and version != "h1":
            mouth.push(early)
        yield mouth
        await mouth.close()


def head_of(token: str, path: str, host: str) -> bytes:
    if token == "connect":
        return request_bytes(f"CONNECT {host}", host=host)
    return request_bytes(f"GET {path}", "Connection: Upgrade", f"Upgrade: {token}", host=host)


def pseudo(token: str, path: str, host: str) -> list[tuple[str, str]]:
    if token == "connect":
        return [(":method", "CONNECT"), (":authority", host)]
    others = [(":scheme", "https"), (":authority", host), (":path", path)]
    return [(":method", "CONNECT"), (":protocol", token), *others]


async def rest(mouth: Mouth) -> bytes:
    """What comes up to the good end of the tunnel; a reset is an error."""
    if isinstance(mouth, Wire):
        return await wire.soon(mouth._reader.read())
    return await mouth.body()


async def was_cut(mouth: Mouth) -> bool:
    """Whether the tunnel ends so that nobody takes what came for all; over HTTP/2 and HTTP/3 by CONNECT_ERROR."""
    if isinstance(mouth, H2Stream):
        return await mouth.was_reset() == ErrorCodes.CONNECT_ERROR
    if isinstance(mouth, H3Stream):
        return await mouth.was_reset() == http3.Code.CONNECT_ERROR
    try:
        await wire.soon(mouth._reader.read())
    except OSError:  # TLS without its end, or a reset
        return True
    except asyncio.IncompleteReadError:
        return False
    return False
