"""WebSockets to servers over HTTP/2 (RFC 8441): how they are opened, what goes through, when HTTP/1.1 takes over."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.kit.bridge import KEY, attempt
from tests.e2e.kit.certificates import Authority
from tests.e2e.kit.frames import Peer, binary, close, text
from tests.e2e.kit.h2server import Asked, ErrorCodes, H2Server
from tests.e2e.kit.peers import EchoServer, dial_unix, running
from tests.e2e.kit.secure import SecureServer, server_context
from tests.e2e.kit.sites import Config, route, site, until
from tests.e2e.kit.wire import Head, dial
from tidegate.testing import Gateway

OVER_H2 = {"upstream_protocol": "h2"}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("h2-upstream")
    Authority(directory).issue("here", "127.0.0.1")
    return directory


def config(endpoint: str, websocket: Config | None = None, **upstream: Any) -> Config:
    """One worker, so that all of its connections are in one pool."""
    settings = {"endpoints": [endpoint], "tls": {"ca": "ca.pem"}, **upstream}
    if not endpoint.startswith("https"):
        settings.pop("tls")
    taken = route("app", "app", websocket=OVER_H2 if websocket is None else websocket)
    return site(taken, upstreams={"app": settings}, workers=1)


@contextlib.asynccontextmanager
async def h2_site(server: H2Server, **settings: Any) -> AsyncIterator[Gateway]:
    async with server, running(config(server.url, **settings)) as gateway:
        yield gateway


@contextlib.asynccontextmanager
async def opened(gateway: Gateway, server: H2Server, *fields: str) -> AsyncIterator[tuple[Peer, Peer, Asked]]:
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


async def test_the_server_gets_an_extended_connect() -> None:
    server = H2Server()
    async with h2_site(server) as gateway, dial(gateway.port()) as wire:
        fields = ("Origin: https://a.test", "Cookie: a=1", "Sec-WebSocket-Protocol: chat.v1, chat.v2")
        await wire.send(attempt("/app/x?y=1", *fields, "Authorization: Bearer x", "X-Forwarded-For: 192.0.2.1"))
        asked = await server.asked()
        assert [asked.get(f":{name}") for name in ("method", "protocol", "scheme", "authority", "path")] == [
            "CONNECT",
            "websocket",
            "http",
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


async def test_frames_go_both_ways() -> None:
    server = H2Server()
    async with h2_site(server) as gateway, opened(gateway, server) as (client, far, _):
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


async def test_deflate_is_negotiated_end_to_end() -> None:
    server = H2Server()
    async with h2_site(server) as gateway, dial(gateway.port()) as wire:
        await wire.send(attempt("/app", "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits"))
        asked = await server.asked()
        assert asked["sec-websocket-extensions"] == "permessage-deflate; client_max_window_bits"
        asked.accept(("sec-websocket-extensions", "permessage-deflate"))
        head = await wire.head()
        assert head.get("sec-websocket-extensions") == "permessage-deflate"


@pytest.mark.parametrize(
    "field", [("sec-websocket-protocol", "other"), ("sec-websocket-extensions", "permessage-deflate")], ids=str
)
async def test_what_was_not_offered_is_a_502(field: tuple[str, str]) -> None:
    server = H2Server()
    async with h2_site(server) as gateway, dial(gateway.port()) as wire:
        await wire.send(attempt("/app", "Sec-WebSocket-Protocol: chat"))
        asked = await server.asked()
        asked.accept(field)
        head, body = await wire.answer()
        assert (head.status, b"bad_handshake" in body) == (502, True)
        assert await asked.was_reset() == ErrorCodes.CANCEL


@pytest.mark.parametrize("status", [302, 401, 403, 404, 429, 500, 503])
async def test_the_application_s_refusals_pass(status: int) -> None:
    server = H2Server()
    async with h2_site(server) as gateway, dial(gateway.port()) as wire:
        await wire.send(attempt("/app"))
        asked = await server.asked()
        asked.answer(status, ("x-why", "no"), ("location", "/login"))
        asked.push(b"not " + b"here" * 30_000, end=True)
        head, body = await wire.answer()
        assert (head.status, head.get("x-why"), body) == (status, "no", b"not " + b"here" * 30_000)
        await wire.ended()
        assert len(server.connections) == 1
        assert await fallbacks(gateway) == 0


async def test_the_log_says_h2() -> None:
    server = H2Server()
    async with h2_site(server) as gateway:
        async with opened(gateway, server) as (client, far, asked):
            await client.send(close(1000))
            await far.expect(close(1000))
            await far.send(close(1000))
            asked.push(b"", end=True)
            await client.expect(close(1000))
        log = gateway.access_log()
        records = [await asyncio.to_thread(log.wait_for, event=event) for event in ("open", "close")]
    assert [(record["protocol"], record["upstream_protocol"]) for record in records] == [("h1", "h2")] * 2


# ---- how it ends ----------------------------------------------------------------------------------------------------


async def test_a_client_that_ends_is_end_stream() -> None:
    server = H2Server()
    async with h2_site(server) as gateway, opened(gateway, server) as (client, _, asked):
        client.wire.finish()
        await asked.ended()
        asked.push(b"", end=True)
        await client.wire.gone()


async def test_a_server_that_resets_is_an_upstream_lost() -> None:
    server = H2Server()
    async with h2_site(server) as gateway, opened(gateway, server) as (client, _, asked):
        asked.reset(ErrorCodes.INTERNAL_ERROR)
        frame = await client.closed()
        assert (frame.code, frame.reason[:3]) == (1011, "gw:")


async def test_a_connection_that_is_lost_ends_its_websockets() -> None:
    server = H2Server()
    async with h2_site(server) as gateway, opened(gateway, server) as (client, _, asked):
        asked.connection.writer.transport.abort()
        assert (await client.closed()).code == 1011
        async with opened(gateway, server) as (second, far, _):
            await second.send(text("again"))
            await far.expect(text("again"))


async def test_goaway_lets_live_ones_go_on() -> None:
    server = H2Server()
    async with h2_site(server) as gateway, opened(gateway, server) as (client, far, asked):
        asked.connection.close(last=asked.number)
        await until(lambda: True)
        async with opened(gateway, server) as (second, second_far, other):
            assert other.connection is not asked.connection
            await second.send(text("new"))
            await second_far.expect(text("new"))
        await client.send(text("old"))
        await far.expect(text("old"))


async def test_closing_one_touches_no_other() -> None:
    server = H2Server()
    async with h2_site(server) as gateway, opened(gateway, server) as (client, far, first):
        async with opened(gateway, server) as (other, _, second):
            assert first.connection is second.connection
            other.wire.reset()
            await second.was_reset()
        await client.send(text("still here"))
        await far.expect(text("still here"))


# ---- many on few connections ----------------------------------------------------------------------------------------


async def test_websockets_share_connections_and_are_spread() -> None:
    server = H2Server(streams=100)
    async with h2_site(server) as gateway, contextlib.AsyncExitStack() as stack:
        pairs = [await stack.enter_async_context(opened(gateway, server)) for _ in range(60)]
        counts = sorted(connection.live for connection in server.connections)
        assert (len(counts), sum(counts)) == (3, 60), counts
        for number, (client, far, _) in enumerate(pairs):
            await client.send(text(str(number)))
            await far.expect(text(str(number)))


async def test_a_server_s_limit_is_kept() -> None:
    server = H2Server(streams=5)
    async with h2_site(server) as gateway, contextlib.AsyncExitStack() as stack:
        for _ in range(30):
            await stack.enter_async_context(opened(gateway, server))
        assert max(connection.live for connection in server.connections) == 4


async def test_a_stalled_websocket_stalls_no_other() -> None:
    server = H2Server()
    async with h2_site(server) as gateway, opened(gateway, server) as (stalled, far, first):
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
    """Small frames without end, each in a DATA frame of its own, as far as windows let them go."""
    while True:
        await peer.send(binary(b"x" * 20))


async def test_slow_readers_of_small_frames_do_not_end_their_connection(tmp_path: Path) -> None:
    """What five windows take in frames of 22 bytes is a dozen times more than `h2` lets wait on this connection."""
    server, socket = H2Server(), str(tmp_path / "edge.sock")
    small = {"streams": 20, "window": "64KiB", "connection_window": "1280KiB"}
    async with server:
        settings = config(server.url, http2=small) | {"listeners": {"edge": {"bind": f"unix:{socket}"}}}
        async with running(settings), contextlib.AsyncExitStack() as stack:
            clients = [await stack.enter_async_context(dial_unix(socket)) for _ in range(5)]
            asked = []
            for client in clients:
                await client.send(attempt("/app"))
                asked.append(await server.asked())
                far = asked[-1].accept()
                await client.head()
                client.pause()
                stack.callback(asyncio.create_task(flooding(far)).cancel)
            window = server.connections[0].h2.local_flow_control_window
            await until(lambda: all(window(each.number) < 22 for each in asked))
            assert [connection.goaway for connection in server.connections] == [None]
            for client in clients:
                client.resume()
                assert await client.exactly(22 * 1000) == binary(b"x" * 20).encode(None) * 1000


# ---- when HTTP/1.1 takes over ---------------------------------------------------------------------------------------


async def test_a_server_that_does_not_advertise_it_is_asked_over_h1(files: Path) -> None:
    context = server_context(files, "here")
    context.set_alpn_protocols(["h2", "http/1.1"])
    server = H2Server(context, websockets=False)
    async with server, running(config(server.url), directory=files) as gateway:
        for _ in range(3):
            assert (await told(gateway))[0].status == 101
        assert (len(server.connections), len(server.plain)) == (1, 3)
        assert server.requests.empty()
        assert await fallbacks(gateway) == 1


@pytest.mark.parametrize("refusal", [400, 405, 501, ErrorCodes.HTTP_1_1_REQUIRED, ErrorCodes.INTERNAL_ERROR], ids=str)
async def test_a_server_that_does_not_mean_it_is_asked_over_h1(files: Path, refusal: int) -> None:
    context = server_context(files, "here")
    context.set_alpn_protocols(["h2", "http/1.1"])
    server = H2Server(context)
    async with server, running(config(server.url), directory=files) as gateway:
        first = asyncio.create_task(told(gateway))
        asked = await server.asked()
        if isinstance(refusal, ErrorCodes):
            asked.reset(refusal)
        else:
            asked.answer(refusal, end=True)
        assert (await first)[0].status == 101
        assert (await told(gateway))[0].status == 101
        assert (server.requests.empty(), len(server.plain)) == (True, 2)
        assert await fallbacks(gateway) == 1


async def test_a_server_of_http_1_1_is_no_obstacle(files: Path) -> None:
    async with (
        SecureServer(server_context(files, "here")) as server,
        running(config(server.url), directory=files) as gateway,
    ):
        assert (await told(gateway))[0].status == 101
        assert (await told(gateway))[0].status == 101
        assert server.connections == 2
        assert await fallbacks(gateway) == 1


async def test_a_server_of_http_1_1_in_clear_text_is_no_obstacle() -> None:
    async with EchoServer() as server, running(config(server.url)) as gateway:
        assert (await told(gateway))[0].status == 101
        assert await fallbacks(gateway) == 1


# ---- auto -----------------------------------------------------------------------------------------------------------


async def test_auto_is_h1_where_it_is_spoken(files: Path) -> None:
    context = server_context(files, "here")
    context.set_alpn_protocols(["h2", "http/1.1"])
    server = H2Server(context)
    async with server, running(config(server.url, {}), directory=files) as gateway:
        assert (await told(gateway))[0].status == 101
        assert (len(server.connections), len(server.plain)) == (0, 1)


NO_APPLICATION_PROTOCOL = bytes.fromhex("15 0303 0002 02 78")
"""A fatal alert (RFC 7301 §3.2), which Python's `ssl` never sends."""


@contextlib.asynccontextmanager
async def only_h2(server: H2Server) -> AsyncIterator[str]:
    """The URL of a gate before `server` that lets only those in who offer h2."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        hello = await reader.read(1 << 16)
        if b"\x02h2" not in hello:
            writer.write(NO_APPLICATION_PROTOCOL)
            writer.close()
            return
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", server.port)
        far_writer.write(hello)
        with contextlib.suppress(ConnectionError):
            await asyncio.gather(pipe(reader, far_writer), pipe(far_reader, writer))

    gate = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"https://127.0.0.1:{gate.sockets[0].getsockname()[1]}"
    finally:
        gate.close()


async def pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(1 << 16):
        writer.write(data)
    writer.close()


async def test_auto_is_h2_where_nothing_else_is_spoken(files: Path) -> None:
    context = server_context(files, "here")
    context.set_alpn_protocols(["h2"])
    server = H2Server(context)
    async with server, only_h2(server) as url, running(config(url, {}), directory=files) as gateway:
        for _ in range(2):
            async with opened(gateway, server) as (client, far, _):
                await client.send(text("over h2"))
                await far.expect(text("over h2"))
        assert (len(server.connections), server.plain) == (1, [])
        assert await fallbacks(gateway) == 0


async def test_where_nothing_is_possible_the_client_hears_why(files: Path) -> None:
    context = server_context(files, "here")
    context.set_alpn_protocols(["h2"])
    server = H2Server(context, websockets=False)
    async with server, only_h2(server) as url, running(config(url, {}), directory=files) as gateway:
        head, body = await told(gateway)
        assert (head.status, b"upstream_websocket" in body) == (502, True)
