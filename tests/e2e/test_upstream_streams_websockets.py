"""WebSockets to servers over HTTP/2 (RFC 8441) and HTTP/3 (RFC 9220), where the same is to be said of both: how they
are opened, what goes through, how they end."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.kit.bridge import KEY, attempt
from tests.e2e.kit.certificates import Authority
from tests.e2e.kit.frames import Peer, binary, close, text
from tests.e2e.kit.peers import running
from tests.e2e.kit.sites import route, site
from tests.e2e.kit.spoken import SPOKEN, Asked, Server, Spoken
from tests.e2e.kit.wire import dial
from tidegate.testing import Gateway


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("streams")
    Authority(directory).issue("here", "127.0.0.1")
    return directory


@pytest.fixture(params=SPOKEN, ids=lambda spoken: spoken.name)
def spoken(request: pytest.FixtureRequest) -> Spoken:
    found: Spoken = request.param
    return found


@contextlib.asynccontextmanager
async def spoken_site(spoken: Spoken, server: Server, files: Path, **upstream: Any) -> AsyncIterator[Gateway]:
    """One worker, so that all of its connections are in one pool."""
    taken = route("app", "app", websocket={"upstream_protocol": spoken.name})
    async with server:
        config = site(taken, upstreams={"app": spoken.upstream(server, **upstream)}, workers=1)
        async with running(config, directory=files) as gateway:
            yield gateway


@contextlib.asynccontextmanager
async def opened(gateway: Gateway, server: Server, *fields: str) -> AsyncIterator[tuple[Peer, Peer, Asked]]:
    """A WebSocket through the gateway: the client's end, the server's, and the server's stream."""
    async with dial(gateway.port()) as wire:
        await wire.send(attempt("/app", *fields))
        asked = await server.asked()
        far = asked.accept()
        head = await wire.head()
        assert head.status == 101, head
        yield Peer(wire, head, is_client=True), far, asked


async def fallbacks(gateway: Gateway) -> float:
    metrics = await asyncio.to_thread(gateway.metrics)
    return metrics.value("tidegate_endpoint_websocket_fallbacks_total", upstream="app")


# ---- what the server is asked, and what the client is told -----------------------------------------------------------


async def test_the_server_gets_an_extended_connect(spoken: Spoken, files: Path) -> None:
    server = spoken.server(files)
    async with spoken_site(spoken, server, files) as gateway, dial(gateway.port()) as wire:
        fields = ("Origin: https://a.test", "Cookie: a=1", "Sec-WebSocket-Protocol: chat.v1, chat.v2")
        await wire.send(attempt("/app/x?y=1", *fields, "Authorization: Bearer x", "X-Forwarded-For: 192.0.2.1"))
        asked = await server.asked()
        assert [asked.get(f":{name}") for name in ("method", "protocol", "scheme", "authority", "path")] == [
            "CONNECT",
            "websocket",
            spoken.scheme,
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


async def test_frames_go_both_ways(spoken: Spoken, files: Path) -> None:
    server = spoken.server(files)
    async with spoken_site(spoken, server, files) as gateway, opened(gateway, server) as (client, far, _):
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


async def test_deflate_is_negotiated_end_to_end(spoken: Spoken, files: Path) -> None:
    server = spoken.server(files)
    async with spoken_site(spoken, server, files) as gateway, dial(gateway.port()) as wire:
        await wire.send(attempt("/app", "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits"))
        asked = await server.asked()
        assert asked["sec-websocket-extensions"] == "permessage-deflate; client_max_window_bits"
        asked.accept(("sec-websocket-extensions", "permessage-deflate"))
        head = await wire.head()
        assert head.get("sec-websocket-extensions") == "permessage-deflate"


@pytest.mark.parametrize(
    "field", [("sec-websocket-protocol", "other"), ("sec-websocket-extensions", "permessage-deflate")], ids=str
)
async def test_what_was_not_offered_is_a_502(spoken: Spoken, files: Path, field: tuple[str, str]) -> None:
    server = spoken.server(files)
    async with spoken_site(spoken, server, files) as gateway, dial(gateway.port()) as wire:
        await wire.send(attempt("/app", "Sec-WebSocket-Protocol: chat"))
        asked = await server.asked()
        asked.accept(field)
        head, body = await wire.answer()
        assert (head.status, b"bad_handshake" in body) == (502, True)
        assert await asked.was_reset() == spoken.cancelled


@pytest.mark.parametrize("status", [302, 401, 403, 404, 429, 500, 503])
async def test_the_application_s_refusals_pass(spoken: Spoken, files: Path, status: int) -> None:
    server = spoken.server(files)
    async with spoken_site(spoken, server, files) as gateway, dial(gateway.port()) as wire:
        await wire.send(attempt("/app"))
        asked = await server.asked()
        asked.answer(status, ("x-why", "no"), ("location", "/login"))
        asked.push(b"not " + b"here" * 30_000, end=True)
        head, body = await wire.answer()
        assert (head.status, head.get("x-why"), body) == (status, "no", b"not " + b"here" * 30_000)
        await wire.ended()
        assert len(server.connections) == 1
        assert await fallbacks(gateway) == 0


async def test_the_log_says_what_was_spoken(spoken: Spoken, files: Path) -> None:
    server = spoken.server(files)
    async with spoken_site(spoken, server, files) as gateway:
        async with opened(gateway, server) as (client, far, asked):
            await client.send(close(1000))
            await far.expect(close(1000))
            await far.send(close(1000))
            asked.push(b"", end=True)
            await client.expect(close(1000))
        log = gateway.access_log()
        records = [await asyncio.to_thread(log.wait_for, event=event) for event in ("open", "close")]
    assert [(record["protocol"], record["upstream_protocol"]) for record in records] == [("h1", spoken.name)] * 2


# ---- how it ends -----------------------------------------------------------------------------------------------------


async def test_a_client_that_ends_is_the_end_of_a_direction(spoken: Spoken, files: Path) -> None:
    server = spoken.server(files)
    async with spoken_site(spoken, server, files) as gateway, opened(gateway, server) as (client, _, asked):
        client.wire.finish()
        await asked.ended()
        asked.push(b"", end=True)
        await client.wire.gone()


async def test_a_server_that_resets_is_an_upstream_lost(spoken: Spoken, files: Path) -> None:
    server = spoken.server(files)
    async with spoken_site(spoken, server, files) as gateway, opened(gateway, server) as (client, _, asked):
        asked.reset(spoken.internal)
        frame = await client.closed()
        assert (frame.code, frame.reason[:3]) == (1011, "gw:")


async def test_a_connection_that_is_lost_ends_its_websockets(spoken: Spoken, files: Path) -> None:
    server = spoken.server(files)
    async with spoken_site(spoken, server, files) as gateway, opened(gateway, server) as (client, _, asked):
        asked.connection.close_now()
        assert (await client.closed()).code == 1011
        async with opened(gateway, server) as (second, far, _):
            await second.send(text("again"))
            await far.expect(text("again"))


async def test_goaway_lets_live_ones_go_on(spoken: Spoken, files: Path) -> None:
    server = spoken.server(files)
    async with spoken_site(spoken, server, files) as gateway, opened(gateway, server) as (client, far, asked):
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


async def test_closing_one_touches_no_other(spoken: Spoken, files: Path) -> None:
    server = spoken.server(files)
    async with spoken_site(spoken, server, files) as gateway, opened(gateway, server) as (client, far, first):
        async with opened(gateway, server) as (other, _, second):
            assert first.connection is second.connection
            other.wire.reset()
            await second.was_reset()
        await client.send(text("still here"))
        await far.expect(text("still here"))


# ---- many on few connections -----------------------------------------------------------------------------------------


async def test_a_stalled_websocket_stalls_no_other(spoken: Spoken, files: Path) -> None:
    server = spoken.server(files)
    async with spoken_site(spoken, server, files) as gateway, opened(gateway, server) as (stalled, far, first):
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
