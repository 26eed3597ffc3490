"""WebSockets to servers over HTTP/3 (RFC 9220): how they are opened, what goes through, when HTTP/1.1 takes over."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.kit.bridge import attempt
from tests.e2e.kit.certificates import Authority
from tests.e2e.kit.frames import Peer, text
from tests.e2e.kit.h2server import H2Server
from tests.e2e.kit.h3server import Asked, H3Server
from tests.e2e.kit.http3 import Code
from tests.e2e.kit.peers import running
from tests.e2e.kit.secure import SecureServer, server_context
from tests.e2e.kit.sites import Config, route, site
from tests.e2e.kit.wire import Head, dial
from tidegate.testing import Gateway

OVER_H3 = {"upstream_protocol": "h3"}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("h3-upstream")
    Authority(directory).issue("here", "127.0.0.1")
    return directory


def config(endpoint: str, websocket: Config | None = None, **upstream: Any) -> Config:
    """One worker, so that all of its connections are in one pool."""
    settings = {"endpoints": [endpoint], "tls": {"ca": "ca.pem"}, **upstream}
    taken = route("app", "app", websocket=OVER_H3 if websocket is None else websocket)
    return site(taken, upstreams={"app": settings}, workers=1)


@contextlib.asynccontextmanager
async def h3_site(server: H3Server, files: Path, **settings: Any) -> AsyncIterator[Gateway]:
    async with server, running(config(server.url, **settings), directory=files) as gateway:
        yield gateway


@contextlib.asynccontextmanager
async def opened(gateway: Gateway, server: H3Server, *fields: str) -> AsyncIterator[tuple[Peer, Peer, Asked]]:
    """A WebSocket through the gateway: the client's end, the server's, and the server's stream."""
    async with dial(gateway.port()) as wire:
        await wire.send(attempt("/app", *fields))
        asked = await server.asked()
        far = asked.accept()
        head = await wire.head()
        assert head.status == 101, head
        yield Peer(wire, head, is_client=True), far, asked


async def told(gateway: Gateway, *fields: str) -> tuple[Head, bytes]:
    async with dial(gateway.port()) as wire:
        await wire.send(attempt("/app", *fields))
        head = await wire.head()
        return head, b"" if head.status == 101 else await wire.body(head)


async def fallbacks(gateway: Gateway) -> float:
    metrics = await asyncio.to_thread(gateway.metrics)
    return metrics.value("tidegate_endpoint_websocket_fallbacks_total", upstream="app")


# ---- many on few connections ----------------------------------------------------------------------------------------


async def test_websockets_share_connections_and_are_spread(files: Path) -> None:
    server = H3Server(files)
    async with h3_site(server, files, http2={"streams": 100}) as gateway, contextlib.AsyncExitStack() as stack:
        pairs = [await stack.enter_async_context(opened(gateway, server)) for _ in range(60)]
        counts = sorted(connection.live for connection in server.connections)
        assert (len(counts), sum(counts)) == (3, 60), counts
        for number, (client, far, _) in enumerate(pairs):
            await client.send(text(str(number)))
            await far.expect(text(str(number)))


# ---- when HTTP/1.1 takes over ---------------------------------------------------------------------------------------


async def test_a_server_that_does_not_advertise_it_is_asked_over_h1(files: Path) -> None:
    server = H3Server(files, websockets=False, h1=True)
    async with server, running(config(server.url), directory=files) as gateway:
        for _ in range(3):
            assert (await told(gateway))[0].status == 101
        assert (len(server.connections), len(server.plain)) == (1, 3)
        assert server.requests.empty()
        assert await fallbacks(gateway) == 1


@pytest.mark.parametrize("refusal", [400, 405, 501, Code.VERSION_FALLBACK, Code.INTERNAL_ERROR], ids=str)
async def test_a_server_that_does_not_mean_it_is_asked_over_h1(files: Path, refusal: int) -> None:
    server = H3Server(files, h1=True)
    async with server, running(config(server.url), directory=files) as gateway:
        first = asyncio.create_task(told(gateway))
        asked = await server.asked()
        if isinstance(refusal, Code):
            asked.reset(refusal)
        else:
            asked.answer(refusal, end=True)
        assert (await first)[0].status == 101
        assert (await told(gateway))[0].status == 101
        assert (server.requests.empty(), len(server.plain)) == (True, 2)
        assert await fallbacks(gateway) == 1


async def test_a_server_of_http_1_1_is_no_obstacle(files: Path) -> None:
    """Nobody has its port of UDP."""
    async with (
        SecureServer(server_context(files, "here")) as server,
        running(config(server.url), directory=files) as gateway,
    ):
        assert (await told(gateway))[0].status == 101
        assert (await told(gateway))[0].status == 101
        assert server.connections == 2
        assert await fallbacks(gateway) == 1


async def test_a_server_that_speaks_something_else_over_quic_is_no_obstacle(files: Path) -> None:
    server = H3Server(files, h1=True, alpn=["doq"])
    async with server, running(config(server.url), directory=files) as gateway:
        assert (await told(gateway))[0].status == 101
        assert await fallbacks(gateway) == 1


async def test_a_server_that_is_down_is_asked_over_h3_again(files: Path) -> None:
    """Only what HTTP/1.1 has carried is remembered."""
    server = H3Server(files)
    async with server, running(config(server.url), directory=files) as gateway:
        await server.stop()
        head, body = await told(gateway)
        assert (head.status, b"connect_failed" in body) == (502, True)
        assert await fallbacks(gateway) == 0
        async with H3Server(files, port=server.port) as again, opened(gateway, again) as (client, far, _):
            await client.send(text("back"))
            await far.expect(text("back"))


async def test_where_nothing_is_possible_the_client_hears_why(files: Path) -> None:
    server = H3Server(files, websockets=False)
    async with h3_site(server, files) as gateway:
        head, body = await told(gateway)
        assert (head.status, b"connect_failed" in body) == (502, True)


async def test_versions_are_remembered_apart(files: Path) -> None:
    """What an endpoint refuses over HTTP/3 says nothing of HTTP/2."""
    context = server_context(files, "here")
    context.set_alpn_protocols(["h2", "http/1.1"])
    quic = H3Server(files, websockets=False)
    async with quic, H2Server(context, port=quic.port) as server:
        settings = config(server.url)
        settings["routes"].append(route("other", "app", websocket={"upstream_protocol": "h2"}))
        async with running(settings, directory=files) as gateway, dial(gateway.port()) as wire:
            assert (await told(gateway))[0].status == 101
            assert (len(server.plain), await fallbacks(gateway)) == (1, 1)
            await wire.send(attempt("/other"))
            (await server.asked()).accept()
            assert (await wire.head()).status == 101
