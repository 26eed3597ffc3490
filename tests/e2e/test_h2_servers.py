"""A server that others wrote, Hypercorn, behind the gateway over HTTP/2, for clients of both versions."""

import asyncio
import contextlib
import os
import socket
from collections.abc import AsyncIterator
from typing import Any

import hypercorn.asyncio
import hypercorn.config
import pytest

from tests.e2e.kit import http2
from tests.e2e.kit.bridge import attempt
from tests.e2e.kit.frames import Op, Peer, binary, close, text
from tests.e2e.kit.peers import running
from tests.e2e.kit.sites import route, site
from tests.e2e.kit.wire import dial, request_bytes
from tidegate.testing import Gateway

CLIENTS = pytest.mark.parametrize("version", ["h1", "h2"])


async def application(scope: Any, receive: Any, send: Any) -> None:
    """ASGI: it echoes."""
    if scope["type"] == "websocket":
        return await echo(scope, receive, send)
    if scope["type"] != "http":
        return
    body = b""
    while (message := await receive()).get("more_body"):
        body += message["body"]
    body += message["body"]
    version = scope["http_version"].encode()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"x-version", version)]})
    await send({"type": "http.response.body", "body": body})


async def echo(scope: Any, receive: Any, send: Any) -> None:
    await receive()
    if scope["path"].endswith("/forbidden"):
        return await send({"type": "websocket.close"})
    await send({"type": "websocket.accept", "subprotocol": next(iter(scope["subprotocols"]), None)})
    while (message := await receive())["type"] == "websocket.receive":
        await send({"type": "websocket.send", "bytes": message.get("bytes"), "text": message.get("text")})


@contextlib.asynccontextmanager
async def served() -> AsyncIterator[Gateway]:
    listener = socket.create_server(("127.0.0.1", 0))
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    settings = hypercorn.config.Config()
    settings.bind, settings.loglevel = [f"fd://{os.dup(listener.fileno())}"], "ERROR"
    stop = asyncio.Event()
    serving = asyncio.create_task(hypercorn.asyncio.serve(application, settings, shutdown_trigger=stop.wait))  # type: ignore[arg-type]
    try:
        upstreams = {"app": {"endpoints": [url], "protocol": "h2"}}
        async with running(site(route("app", "app"), upstreams=upstreams)) as gateway:
            yield gateway
    finally:
        stop.set()
        await serving
        listener.close()


@contextlib.asynccontextmanager
async def asked(gateway: Gateway, version: str, path: str) -> AsyncIterator[Peer]:
    """A client's end, whatever the answer was."""
    if version == "h1":
        async with dial(gateway.port()) as wire:
            await wire.send(attempt(path, "Sec-WebSocket-Protocol: chat"))
            yield Peer(wire, await wire.head(), is_client=True)
    else:
        async with http2.dial(gateway.port()) as client:
            stream = await client.connect(path, ("sec-websocket-protocol", "chat"))
            yield Peer(stream, await stream.head(), is_client=True)  # type: ignore[arg-type]


@CLIENTS
async def test_websockets(version: str) -> None:
    async with served() as gateway:
        for _ in range(3):
            async with asked(gateway, version, "/app") as peer:
                assert peer.head.status == (101 if version == "h1" else 200)
                assert peer.head.get("sec-websocket-protocol") == "chat"
                for size in (1, 126, 70_000):
                    await peer.send(binary(b"x" * size), text("é" * size))
                    await peer.expect(binary(b"x" * size), text("é" * size))
                await peer.send(close(1000))
                frame = await peer.frame()
                assert (frame.op, frame.code) == (Op.CLOSE, 1000)
        record = await asyncio.to_thread(gateway.access_log().wait_for, event="close")
        assert (record["protocol"], record["upstream_protocol"], record["code"]) == (version, "h2", 1000)


@CLIENTS
async def test_a_refusal(version: str) -> None:
    async with served() as gateway, asked(gateway, version, "/app/forbidden") as peer:
        assert peer.head.status == 403


@CLIENTS
async def test_requests(version: str) -> None:
    content = bytes(range(256)) * 4000
    async with served() as gateway:
        if version == "h1":
            async with dial(gateway.port()) as wire:
                await wire.send(request_bytes("POST /app", f"Content-Length: {len(content)}", body=content))
                head, body = await wire.answer()
        else:
            async with http2.dial(gateway.port()) as client:
                head, body = await (await client.ask("POST", "/app", body=content)).answer()
        assert (head.status, head.get("x-version"), body == content) == (200, "2", True)
