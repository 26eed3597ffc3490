"""WebSockets to servers over HTTP/3 (RFC 9220): how they are opened, what goes through, when HTTP/1.1 takes over."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.kit.bridge import KEY, attempt
from tests.e2e.kit.certificates import Authority
from tests.e2e.kit.frames import Peer, binary, close, text
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


# ---- what the server is asked, and what the client is told ----------------------------------------------------------


async def test_the_server_gets_an_extended_connect(files: Path) -> None:
    server = H3Server(files)
    async with h3_site(server, files) as gateway, dial(gateway.port()) as wire:
        fields = ("Origin: https://a.test", "Cookie: a=1", "Sec-WebSocket-Protocol: chat.v1, chat.v2")
        await wire.send(attempt("/app/x?y=1", *fields, "Authorization: Bearer x", "X-Forwarded-For: 192.0.2.1"))
        asked = await server.asked()
        assert [asked.get(f":{name}") for name in ("method", "protocol", "scheme", "authority", "path")] == [
            "CONNECT",
            "websocket",
            "https",
            "gateway.test",
            "/app/x?y=1",
        ]
        assert asked["origin"] == "https://a.test"
        assert asked["cookie"] == "a=1"
        assert asked["authorization"] == "Bearer x"
        assert asked["sec-websocket-version"] == "13"
        assert asked["sec-websocket-protocol"] == "chat.v1, chat.v2"
        assert not {"host", "connection", "upgrade", "sec-websocket-key"} & asked.head.names()
        asked.accept(("sec-websocket-protocol", "chat.v2"), ("set-cookie", "b=2"))
        head = await wire.head()
        assert (head.status, head.get("sec-websocket-protocol"), head.get("set-cookie")) == (101, "chat.v2", "b=2")
        assert KEY and head.get("sec-websocket-accept") == "+mKC4huknIfMGJFOzclP9fO058g="


async def test_frames_go_both_ways(files: Path) -> None:
    server = H3Server(files)
    async with h3_site(server, files) as gateway, opened(gateway, server) as (client, far, _):
        for size in (0, 1, 125, 126, 65_535, 65_536, 300_000):
            await client.send(binary(b"u" * size))
            await far.expect(binary(b"u" * size))
            await far.send(binary(b"d" * size))
            await client.expect(binary(b"d" * size))
        await client.send(close(4001, "bye"))
        await far.expect(close(4001, "bye"))
        await far.send(close(4001))
        far.wire.push(b"", end=True)  # type: ignore[call-arg]
        await client.expect(close(4001))
        await client.wire.ended()


async def test_deflate_is_negotiated_end_to_end(files: Path) -> None:
    server = H3Server(files)
    async with h3_site(server, files) as gateway, dial(gateway.port()) as wire:
        await wire.send(attempt("/app", "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits"))
        asked = await server.asked()
        assert asked["sec-websocket-extensions"] == "permessage-deflate; client_max_window_bits"
        asked.accept(("sec-websocket-extensions", "permessage-deflate"))
        head = await wire.head()
        assert head.get("sec-websocket-extensions") == "permessage-deflate"


@pytest.mark.parametrize(
    "field", [("sec-websocket-protocol", "other"), ("sec-websocket-extensions", "permessage-deflate")], ids=str
)
async def test_what_was_not_offered_is_a_502(files: Path, field: tuple[str, str]) -> None:
    server = H3Server(files)
    async with h3_site(server, files) as gateway, dial(gateway.port()) as wire:
        await wire.send(attempt("/app", "Sec-WebSocket-Protocol: chat"))
        asked = await server.asked()
        asked.accept(field)
        head, body = await wire.answer()
        assert (head.status, b"bad_handshake" in body) == (502, True)
        assert await asked.was_reset() == Code.REQUEST_CANCELLED


@pytest.mark.parametrize("status", [302, 401, 403, 404, 429, 500, 503])
async def test_the_application_s_refusals_pass(files: Path, status: int) -> None:
    server = H3Server(files)
    async with h3_site(server, files) as gateway, dial(gateway.port()) as wire:
        await wire.send(attempt("/app"))
        asked = await server.asked()
        asked.answer(status, ("x-why", "no"), ("location", "/login"))
        asked.push(b"not " + b"here" * 30_000, end=True)
        head, body = await wire.answer()
        assert (head.status, head.get("x-why"), body) == (status, "no", b"not " + b"here" * 30_000)
        await wire.ended()
        assert len(server.connections) == 1
        assert await fallbacks(gateway) == 0


async def test_the_log_says_h3(files: Path) -> None:
    server = H3Server(files)
    async with h3_site(server, files) as gateway:
        async with opened(gateway, server) as (client, far, asked):
            await client.send(close(1000))
            await far.expect(close(1000))
            await far.send(close(1000))
            asked.push(b"", end=True)
            await client.expect(close(1000))
        log = gateway.access_log()
        records = [await asyncio.to_thread(log.wait_for, event=event) for event in ("open", "close")]
    assert [(record["protocol"], record["upstream_protocol"]) for record in records] == [("h1", "h3")] * 2


# ---- how it ends ----------------------------------------------------------------------------------------------------


async def test_a_client_that_ends_is_the_end_of_a_direction(files: Path) -> None:
    server = H3Server(files)
    async with h3_site(server, files) as gateway, opened(gateway, server) as (client, _, asked):
        client.wire.finish()
        await asked.ended()
        asked.push(b"", end=True)
        await client.wire.gone()


async def test_a_server_that_resets_is_an_upstream_lost(files: Path) -> None:
    server = H3Server(files)
    async with h3_site(server, files) as gateway, opened(gateway, server) as (client, _, asked):
        asked.reset(Code.INTERNAL_ERROR)
        frame = await client.closed()
        assert (frame.code, frame.reason[:3]) == (1011, "gw:")


async def test_a_connection_that_is_lost_ends_its_websockets(files: Path) -> None:
    server = H3Server(files)
    async with h3_site(server, files) as gateway, opened(gateway, server) as (client, _, asked):
        asked.connection.close_now()
        assert (await client.closed()).code == 1011
        async with opened(gateway, server) as (second, far, _):
            await second.send(text("again"))
            await far.expect(text("again"))


async def test_goaway_lets_live_ones_go_on(files: Path) -> None:
    server = H3Server(files)
    async with h3_site(server, files) as gateway, opened(gateway, server) as (client, far, asked):
        asked.connection.go_away(60)
        # Seen when the next one takes another connection.
        for _ in range(14):
            async with opened(gateway, server) as (second, second_far, other):
                await second.send(text("new"))
                await second_far.expect(text("new"))
            if other.connection is not asked.connection:
                break
        assert other.connection is not asked.connection
        await client.send(text("old"))
        await far.expect(text("old"))


async def test_closing_one_touches_no_other(files: Path) -> None:
    server = H3Server(files)
    async with h3_site(server, files) as gateway, opened(gateway, server) as (client, far, first):
        async with opened(gateway, server) as (other, _, second):
            assert first.connection is second.connection
            other.wire.reset()
            await second.was_reset()
        await client.send(text("still here"))
        await far.expect(text("still here"))


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


async def test_a_stalled_websocket_stalls_no_other(files: Path) -> None:
    server = H3Server(files)
    async with h3_site(server, files) as gateway, opened(gateway, server) as (stalled, far, first):
        stalled.wire.pause()
        flood = asyncio.create_task(flooding(far))
        async with opened(gateway, server) as (client, other, second):
            assert first.connection is second.connection
            for _ in range(50):
                await other.send(binary(b"d" * 10_000))
                await client.expect(binary(b"d" * 10_000))
        flood.cancel()
        stalled.wire.reset()


async def flooding(peer: Peer) -> None:
    """Frames without end, many more than the windows let go."""
    for _ in range(4000):
        await peer.send(binary(b"x" * 4000))
        await asyncio.sleep(0)


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
