"""WebSockets to servers over HTTP/2 (RFC 8441): how they are opened, what goes through, when HTTP/1.1 takes over."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.kit.bridge import attempt
from tests.e2e.kit.certificates import Authority
from tests.e2e.kit.frames import Peer, binary, text
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
