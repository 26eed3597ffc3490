"""Kept connections and their limits, request targets, and bodies that nobody holds."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator

import pytest

from tests.e2e.kit.wire import Lanes, Play, Wire, dial, request_bytes
from tidegate.testing import Gateway

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
KEPT = 2


LANES = 40


@pytest.fixture(scope="module")
def gateway(lanes: Lanes) -> Iterator[Gateway]:
    star = {"name": "star", "match": {"host": "star.test"}, "to": "lane0"}
    idle = {"name": "idle", "match": {"path": {"prefix": "/idle"}}, "to": "idle"}
    upstreams = lanes.upstreams(pool={"idle": KEPT, "idle_timeout": "60s"})
    brief = {"endpoints": upstreams["lane1"]["endpoints"], "pool": {"idle": 8, "idle_timeout": "300ms"}}
    config = {
        "workers": 1,  # one pool, so that connections can be counted
        "listeners": {"edge": {"bind": "127.0.0.1:0"}},
        "routes": [*lanes.routes(), star, idle],
        "upstreams": {**upstreams, "idle": brief},
    }
    with Gateway(config) as gateway:
        yield gateway


@pytest.fixture(scope="module")
def reserved(lanes: Lanes, gateway: Gateway) -> list[Play]:
    """Lanes 0 and 1, which other routes lead to as well."""
    return [lanes.play(), lanes.play()]


@pytest.fixture
async def upstream(lanes: Lanes, reserved: list[Play]) -> AsyncIterator[Play]:
    async with lanes.play() as upstream:
        yield upstream


# ---- pools ----------------------------------------------------------------------------------------------------------


async def test_a_pool_keeps_as_many_as_it_may(gateway: Gateway, upstream: Play) -> None:
    async with contextlib.AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(dial(gateway.port("edge"))) for _ in range(5)]
        servers = []
        for client in clients:
            await client.send(request_bytes(f"GET {upstream.prefix}"))
            servers.append(await upstream.connection())
            await servers[-1].head()
        for client, server in zip(clients, servers, strict=True):
            await server.send(OK)
            assert (await client.answer())[1] == b"ok"
        for server in servers[KEPT:]:
            await server.ended()
        for client, server in zip(clients, reversed(servers[:KEPT]), strict=False):
            await client.send(request_bytes(f"GET {upstream.prefix}"))
            await server.head()  # the last one that was kept is the first one that is used
        assert upstream.connections == 5


async def test_a_kept_connection_grows_old(client: Wire, reserved: list[Play]) -> None:
    async with reserved[1] as upstream:
        await client.send(request_bytes("GET /idle"))
        server = await upstream.connection()
        await server.head()
        await server.send(OK)
        assert (await client.answer())[1] == b"ok"
        await server.ended()
        await client.send(request_bytes("GET /idle"))
        server = await upstream.connection()
        await server.head()
        await server.send(OK)
        assert (await client.answer())[1] == b"ok"


async def test_an_upstream_of_http_1_0_may_keep_its_connection(client: Wire, upstream: Play) -> None:
    await client.send(request_bytes(f"GET {upstream.prefix}"))
    server = await upstream.connection()
    for _ in range(2):
        await server.head()
        await server.send(b"HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\nok")
        head, body = await client.answer()
        assert (head.start, head.get("connection"), body) == ("HTTP/1.1 200 OK", None, b"ok")
        await client.send(request_bytes(f"GET {upstream.prefix}"))
    assert upstream.connections == 1


async def test_an_upgrade_that_is_no_websocket_is_dropped(client: Wire, upstream: Play) -> None:
    """h2c would open a second protocol behind every rule of ours."""
    fields = ["Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABk"]
    await client.send(request_bytes(f"GET {upstream.prefix}", *fields))
    server = await upstream.connection()
    assert (await server.head()).names() & {"connection", "upgrade", "http2-settings"} == set()
    await server.send(OK)
    head, _ = await client.answer()
    assert (head.status, head.get("connection")) == (200, None)


# ---- targets --------------------------------------------------------------------------------------------------------


async def test_options_may_ask_about_the_whole_server(client: Wire, reserved: list[Play]) -> None:
    async with reserved[0] as upstream:
        for target in ("*", "http://star.test"):
            await client.send(request_bytes(f"OPTIONS {target}", host="star.test"))
            server = await upstream.connection()
            head = await server.head()
            assert (head.start, head.get("host")) == ("OPTIONS * HTTP/1.1", "star.test")
            await server.send(b"HTTP/1.1 204 No Content\r\nAllow: GET\r\nConnection: close\r\n\r\n")
            assert (await client.head()).get("allow") == "GET"


@pytest.mark.parametrize(
    ("start", "status", "reason"),
    [
        ("CONNECT gateway.test:443", 501, "connect_unsupported"),
        ("CONNECT /", 400, "connect_target"),
        ("GET *", 400, "target_form"),
        ("GET gateway.test:80", 400, "target_form"),
        ("GET gateway.test/", 400, "target_form"),
        ("OPTIONS *x", 400, "target_form"),
        ("GET ftp://gateway.test/", 400, "target_form"),
        ("GET http:///path", 400, "host_invalid"),
    ],
)
async def test_other_targets_are_refused(client: Wire, start: str, status: int, reason: str) -> None:
    await client.send(request_bytes(start))
    head, body = await client.answer()
    assert (head.status, body.split(b":")[0].decode(), head.get("connection")) == (status, reason, "close")
    await client.ended()


# ---- nothing is held ------------------------------------------------------------------------------------------------

TOO_MUCH = 256 << 20
"""More than the sockets of a connection can hold."""


async def taken(sending: Wire) -> int:
    """How many bytes go through before nobody takes more for a while."""
    piece = b"a" * (1 << 20)
    count = 0
    with contextlib.suppress(TimeoutError):
        while count < TOO_MUCH:
            async with asyncio.timeout(1):
                await sending.send(piece)
            count += len(piece)
    return count


def resident(gateway: Gateway) -> float:
    return gateway.metrics().value("process_resident_memory_bytes")


async def test_a_body_waits_for_its_upstream(gateway: Gateway, client: Wire, upstream: Play) -> None:
    await client.send(request_bytes(f"POST {upstream.prefix}", f"Content-Length: {TOO_MUCH}"))
    server = await upstream.connection()
    await server.head()
    server.pause()
    before = await asyncio.to_thread(resident, gateway)
    assert await taken(client) < TOO_MUCH / 4
    assert await asyncio.to_thread(resident, gateway) - before < 4 << 20
    client.reset()


async def test_an_answer_waits_for_its_client(gateway: Gateway, client: Wire, upstream: Play) -> None:
    await client.send(request_bytes(f"GET {upstream.prefix}"))
    server = await upstream.connection()
    await server.head()
    await server.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % TOO_MUCH)
    await client.head()
    client.pause()
    before = await asyncio.to_thread(resident, gateway)
    assert await taken(server) < TOO_MUCH / 4
    assert await asyncio.to_thread(resident, gateway) - before < 4 << 20
    server.reset()
    client.resume()
    await client.rest()
