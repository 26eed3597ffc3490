"""Requests to servers over HTTP/2 (RFC 9113): what they are asked, what comes back, how connections are shared."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.kit.certificates import Authority
from tests.e2e.kit.h2server import Asked, H2Server
from tests.e2e.kit.peers import dial_unix, play, running
from tests.e2e.kit.secure import SecureServer, server_context
from tests.e2e.kit.sites import Config, route, site, until
from tests.e2e.kit.wire import Head, dial, request_bytes
from tidegate.testing import Gateway


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("h2-requests")
    Authority(directory).issue("here", "127.0.0.1")
    return directory


def config(endpoint: str, taken: Config | None = None, **upstream: Any) -> Config:
    """One worker, so that all of its connections are in one pool."""
    settings = {"endpoints": [endpoint], **upstream}
    if endpoint.startswith("https"):
        settings["tls"] = {"ca": "ca.pem"}
    return site(route("app", "app", **(taken or {})), upstreams={"app": settings}, workers=1)


@contextlib.asynccontextmanager
async def h2_site(server: H2Server, taken: Config | None = None, **upstream: Any) -> AsyncIterator[Gateway]:
    """By prior knowledge, in clear text."""
    async with server, running(config(server.url, taken, protocol="h2", **upstream)) as gateway:
        yield gateway


async def ask(gateway: Gateway, start: str = "GET /app", *fields: str, body: bytes = b"") -> tuple[Head, bytes]:
    async with dial(gateway.port()) as wire:
        await wire.send(request_bytes(start, *fields, body=body))
        return await wire.answer()


async def served(server: H2Server, body: bytes = b"done") -> Asked:
    """Answer the next request."""
    asked = await server.asked()
    asked.answer(200)
    asked.push(body, end=True)
    return asked


# ---- what is asked, and what is answered --------------------------------------------------------------------------


async def test_an_answer_of_nothing_has_a_length() -> None:
    """Over HTTP/2 the end comes with the head; over HTTP/1.1 nothing but a length would say so."""
    server = H2Server()
    async with h2_site(server) as gateway, dial(gateway.port()) as wire:
        for _ in range(2):
            await wire.send(request_bytes("GET /app"))
            asked = await server.asked()
            asked.answer(200, end=True)
            head = await wire.head()
            assert (head.status, head.get("content-length")) == (200, "0")


async def test_a_target_that_http_2_cannot_carry() -> None:
    server = H2Server()
    async with h2_site(server) as gateway:
        head, body = await ask(gateway, "GET /app/<b>")
        assert (head.status, b"HTTP/2" in body) == (400, True)
        assert server.requests.empty()


# ---- connections --------------------------------------------------------------------------------------------------


async def test_a_server_s_limit_is_kept() -> None:
    server = H2Server(streams=5)
    async with h2_site(server) as gateway:
        asking = [asyncio.create_task(ask(gateway)) for _ in range(12)]
        all_asked = [await server.asked() for _ in asking]
        assert max(connection.live for connection in server.connections) == 4
        for asked in all_asked:
            asked.answer(204, end=True)
        assert {head.status for head, _ in await asyncio.gather(*asking)} == {204}


async def dripping(asked: Asked) -> None:
    """Small pieces without end, each in a DATA frame of its own, as far as windows let them go."""
    while True:
        await asked.send(b"x" * 20)


async def test_slow_readers_of_small_frames_do_not_end_their_connection(tmp_path: Path) -> None:
    """What five windows take in frames of 20 bytes is a dozen times more than `h2` lets wait on this connection."""
    server, socket = H2Server(), str(tmp_path / "edge.sock")
    small = {"streams": 20, "window": "64KiB", "connection_window": "1280KiB"}
    async with server:
        settings = config(server.url, protocol="h2", http2=small) | {"listeners": {"edge": {"bind": f"unix:{socket}"}}}
        async with running(settings), contextlib.AsyncExitStack() as stack:
            clients = [await stack.enter_async_context(dial_unix(socket)) for _ in range(5)]
            all_asked = []
            for client in clients:
                client.pause()
                await client.send(request_bytes("GET /app"))
                all_asked.append(asked := await server.asked())
                asked.answer(200)
                stack.callback(asyncio.create_task(dripping(asked)).cancel)
            window = server.connections[0].h2.local_flow_control_window
            await until(lambda: all(window(asked.number) < 20 for asked in all_asked))
            assert [connection.goaway for connection in server.connections] == [None]
            for client in clients:
                client.resume()
                assert (await client.head()).status == 200
                content = b""
                while len(content) < 20_000:
                    content += await client.chunk()
                assert content.count(b"x") == len(content)


async def test_a_server_of_http_1_1_is_told_apart() -> None:
    async with play() as (server, url), running(config(url, protocol="h2")) as gateway:
        asking = asyncio.create_task(ask(gateway))
        wire = await server.connection()
        await wire.until(b"SM\r\n\r\n")
        await wire.send(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n")
        head, body = await asking
        assert (head.status, b"upstream_protocol" in body) == (502, True)


async def test_the_same_over_tls(files: Path) -> None:
    async with (
        SecureServer(server_context(files, "here")) as server,
        running(config(server.url, protocol="h2"), directory=files) as gateway,
    ):
        head, body = await ask(gateway)
        assert (head.status, b"upstream_protocol" in body) == (502, True)


# ---- auto ---------------------------------------------------------------------------------------------------------


async def test_auto_learns_by_alpn(files: Path) -> None:
    context = server_context(files, "here")
    context.set_alpn_protocols(["h2", "http/1.1"])
    server = H2Server(context)
    async with server, running(config(server.url), directory=files) as gateway:
        asking = [asyncio.create_task(ask(gateway)) for _ in range(30)]
        for _ in asking:
            assert (await served(server))[":scheme"] == "https"
        assert {head.status for head, _ in await asyncio.gather(*asking)} == {200}
        assert (len(server.connections), server.plain) == (1, [])
        log = gateway.access_log()
        record = await asyncio.to_thread(log.wait_for, event="request")
        assert (record["protocol"], record["upstream_protocol"]) == ("h1", "h2")


async def test_auto_is_h1_where_only_that_is_spoken(files: Path) -> None:
    async with (
        SecureServer(server_context(files, "here")) as server,
        running(config(server.url), directory=files) as gateway,
    ):
        for _ in range(3):
            assert (await ask(gateway))[0].status == 200
        assert server.connections == 1


async def test_auto_follows_a_server_that_changes(files: Path) -> None:
    context = server_context(files, "here")
    context.set_alpn_protocols(["http/1.1"])
    async with SecureServer(context) as server, running(config(server.url), directory=files) as gateway:
        assert (await ask(gateway))[0].status == 200
        port = server.port
        await server.__aexit__()
        context.set_alpn_protocols(["h2"])
        async with H2Server(context, port=port) as new:
            asking = asyncio.create_task(ask(gateway))
            await served(new)
            assert (await asking)[0].status == 200


async def test_auto_is_h1_in_clear_text() -> None:
    async with play() as (server, url), running(config(url)) as gateway:
        asking = asyncio.create_task(ask(gateway))
        wire = await server.connection()
        assert (await wire.head()).start == "GET /app HTTP/1.1"
        await wire.send(b"HTTP/1.1 204 No Content\r\n\r\n")
        assert (await asking)[0].status == 204
