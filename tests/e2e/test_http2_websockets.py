"""WebSockets over HTTP/2 (RFC 8441) to servers of HTTP/1.1: who may open one, what goes on, and how each ends alone.

That frames, limits, pings and ends are the same as over HTTP/1.1 is shown by the suites of the relay, which run over
both.
"""

import asyncio
import contextlib
import signal
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trustme

from tests.e2e.kit.bridge import Bridge, Pair, switch
from tests.e2e.kit.frames import Frame, Op, Peer, binary, close, text
from tests.e2e.kit.http2 import HOST, ErrorCodes, H2Client, H2Stream, context, dial
from tests.e2e.kit.peers import EchoServer, running
from tests.e2e.kit.sites import LOOPBACK, reload, route, site, until
from tests.e2e.kit.wire import Wire
from tidegate.testing import Gateway

CLIENTS = ["h2"]
ROUTES = {
    "plain": {},
    "named": {"websocket": {"subprotocols": ["chat.v2"]}},
    "off": {"websocket": {"enabled": False}},
    "old": {"websocket": {"over": ["h1"]}},
    "private": {"websocket": {"frames": "opaque"}},
    "fixed": {"respond": {"status": 200, "body": "hello"}},
    "echo": {"respond": "echo"},
    "silent": {"websocket": {"ping": "never"}},
}
HANDSHAKES = "tidegate_websocket_handshakes_total"


async def opened(client: H2Client, path: str = "/echo", *fields: tuple[str, str]) -> Peer:
    """A WebSocket on this connection."""
    stream = await client.connect(path, *fields)
    head = await stream.head()
    assert head.status == 200, head
    return Peer(stream, head, is_client=True)


def stream_of(peer: Peer) -> H2Stream:
    assert isinstance(peer.wire, H2Stream)
    return peer.wire


# ---- who may ---------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def named(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """Some hosts take WebSockets over HTTP/2, others do not."""
    directory = tmp_path_factory.mktemp("named")
    certificate = trustme.CA().issue_cert("*.test", "b.deep.test")
    certificate.private_key_and_cert_chain_pem.write_to_path(str(directory / "site.pem"))
    tls = {"certificates": [{"cert": "site.pem", "key": "site.pem"}]}

    def on(host: str, **more: Any) -> dict[str, Any]:
        return {"match": {"host": host}, "respond": "echo", **more}

    config = site(
        on("yes.test", listeners=["edge"]),
        on("*.deep.test", listeners=["edge"]),
        on("old.test", listeners=["edge"], websocket={"over": ["h1"]}),
        on("off.test", listeners=["edge"], websocket={"enabled": False}),
        on("private.test", listeners=["edge"], websocket={"frames": "opaque"}),
        {"match": {"host": "page.test"}, "listeners": ["edge"], "respond": {"body": "hello"}},
        on("*", listeners=["never"]),
        listeners={
            "edge": {"bind": LOOPBACK, "tls": tls},
            "never": {"bind": LOOPBACK, "websocket": {"over": ["h1"]}},
        },
    )
    with Gateway(config, directory=directory) as gateway:
        yield gateway


@pytest.mark.parametrize(
    ("host", "said"),
    [
        ("yes.test", True),
        ("b.deep.test", True),
        ("old.test", False),
        ("off.test", False),
        ("private.test", False),
        ("page.test", False),
    ],
)
async def test_it_is_told_where_some_route_of_the_server_name_takes_it(named: Gateway, host: str, said: bool) -> None:
    async with dial(named.port("edge"), ssl=context(), server_hostname=host) as client:
        await client.settled()
        assert client.takes_websockets == said


async def test_a_listener_may_have_none(named: Gateway) -> None:
    async with dial(named.port("never")) as client:
        await client.settled()
        assert not client.takes_websockets


async def test_who_comes_anyway_is_turned_away_and_no_sibling_with_it(bridge: Bridge) -> None:
    async with dial(bridge.gateway.port()) as client:
        stream = await client.connect(bridge.path("old"))
        assert await stream.was_reset() == ErrorCodes.HTTP_1_1_REQUIRED
        peer = await opened(client)
        await peer.send(text("still here"))
        await peer.expect(text("still here"))


@pytest.mark.parametrize(
    ("route", "fields", "protocol", "status", "reason"),
    [
        ("plain", [("sec-websocket-version", "8")], "websocket", 400, "websocket_version"),
        (
            "plain",
            [("sec-websocket-version", "13"), ("sec-websocket-version", "13")],
            "websocket",
            400,
            "websocket_ver",
        ),
        ("plain", [("content-length", "5")], "websocket", 400, "websocket_body"),
        ("plain", [], "connect-udp", 501, "protocol_unsupported"),
        ("off", [], "websocket", 403, "websocket_disabled"),
        ("off", [("sec-websocket-version", "8")], "websocket", 403, "websocket_disabled"),
        ("private", [], "websocket", 501, "opaque_over_h2"),
        ("nowhere", [], "websocket", 404, "no_route"),
        ("fixed", [], "websocket", 200, "hello"),
    ],
)
async def test_the_table(
    bridge: Bridge, route: str, fields: list[tuple[str, str]], protocol: str, status: int, reason: str
) -> None:
    async with dial(bridge.gateway.port()) as client:
        stream = await client.connect(bridge.path(route), *fields, protocol=protocol)
        head, body = await stream.answer()
        assert (head.status, body.decode()[: len(reason)]) == (status, reason)


# ---- the handshake ---------------------------------------------------------------------------------------------------


async def test_what_travels(bridge: Bridge) -> None:
    fields = [
        "Origin: https://a.test",
        "Cookie: a=1",
        "Authorization: Bearer x",
        "Sec-WebSocket-Protocol: chat.v1, chat.v2",
    ]
    offer = "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits"
    answer = ("Sec-WebSocket-Protocol: chat.v2", "Sec-WebSocket-Extensions: permessage-deflate", "Set-Cookie: b=2")
    async with bridge.open("named", *fields, offer, answer=answer) as (client, server):
        asked = server.head
        assert asked.start.startswith("GET /named/")
        assert asked.get("host") == HOST
        assert [asked.get(name) for name in ("origin", "cookie", "authorization")] == [
            "https://a.test",
            "a=1",
            "Bearer x",
        ]
        assert asked.get("sec-websocket-protocol") == "chat.v2"
        assert asked.get("sec-websocket-extensions") == "permessage-deflate; client_max_window_bits"
        assert (asked.get("sec-websocket-version"), len(asked.get("sec-websocket-key") or "")) == ("13", 24)
        assert client.head.get("sec-websocket-protocol") == "chat.v2"
        assert client.head.get("sec-websocket-extensions") == "permessage-deflate"
        assert client.head.get("set-cookie") == "b=2"
        assert not {"upgrade", "connection", "sec-websocket-accept"} & client.head.names()
    async with bridge.open("plain") as (_, other):
        assert other.head.get("sec-websocket-key") != asked.get("sec-websocket-key")


async def test_what_is_sent_ahead_waits_for_the_answer(bridge: Bridge) -> None:
    async with bridge.open("plain", client_early=Frame(Op.TEXT, b"early").encode(b"mask")) as (client, server):
        await server.expect(text("early"))
        await server.send(text("late"))
        await client.expect(text("late"))


@pytest.mark.parametrize(
    ("answer", "status", "body"),
    [
        (b"HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: Basic\r\nContent-Length: 3\r\n\r\nwho", 401, b"who"),
        (b"HTTP/1.1 302 Found\r\nLocation: /b\r\nContent-Length: 0\r\n\r\n", 302, b""),
        (b"HTTP/1.1 500 Oh\r\nTransfer-Encoding: chunked\r\n\r\n2\r\noh\r\n0\r\n\r\n", 500, b"oh"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", 502, b"bad_handshake"),
        (b"HTTP/1.1 204 No Content\r\n\r\n", 502, b"bad_handshake"),
        (b"HTTP/1.1 101 Switching\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n", 502, b"bad_handshake"),
    ],
)
async def test_other_answers(bridge: Bridge, answer: bytes, status: int, body: bytes) -> None:
    path = bridge.path("plain")
    async with dial(bridge.gateway.port()) as client:
        stream = await client.connect(path)
        server, _ = await bridge.asked(path)
        await server.send(answer)
        head, content = await stream.answer()
        assert (head.status, content[: len(body)]) == (status, body)
        if status < 502:
            assert content == body


async def test_a_client_that_leaves_before_the_answer(bridge: Bridge) -> None:
    path = bridge.path("plain")
    async with dial(bridge.gateway.port()) as client:
        stream = await client.connect(path)
        server, _ = await bridge.asked(path)
        stream.reset()
        await server.gone()
        record = await bridge.logged("request", path)
        assert (record["status"], record["protocol"]) == (499, "h2")


async def test_log_and_metrics_say_h2(bridge: Bridge) -> None:
    before = await bridge.count(HANDSHAKES, protocol="h2", status="200", route="plain")
    async with bridge.open("plain") as pair:
        path = pair.server.head.target
        opening = await bridge.logged("open", path)
        assert (opening["protocol"], opening["upstream_protocol"], opening["status"]) == ("h2", "h1", 200)
        assert await bridge.count("tidegate_websocket_connections", protocol="h2", route="plain") == 1
        await pair.client.send(close(1000))
        await pair.server.expect(close(1000))
        await pair.server.send(close(1000))
        await pair.client.expect(close(1000))
    ended = await bridge.logged("close", path)
    assert (ended["protocol"], ended["code"], ended["connection"]) == ("h2", 1000, opening["connection"])
    assert await bridge.count(HANDSHAKES, protocol="h2", status="200", route="plain") == before + 1


# ---- many on one connection ------------------------------------------------------------------------------------------


async def test_a_hundred_on_one_connection_each_ends_alone(bridge: Bridge) -> None:
    async with dial(bridge.gateway.port()) as client:
        peers = [await opened(client, f"/echo/{index}") for index in range(100)]
        for index, peer in enumerate(peers):
            await peer.send(text(f"hello {index}"))
        for index, peer in enumerate(peers):
            await peer.expect(text(f"hello {index}"))
        for index, peer in enumerate(peers[:50]):
            if index % 2:
                stream_of(peer).reset()
            else:
                await peer.send(close(1000))
                await peer.expect(close(1000))
                await peer.wire.ended()
                stream_of(peer).finish()
        for index, peer in enumerate(peers[50:]):
            await peer.send(binary(b"%d" % index))
            await peer.expect(binary(b"%d" % index))
        assert client.goaways == []


async def test_a_stalled_one_holds_up_none_of_its_siblings(bridge: Bridge) -> None:
    """Its server sends without end, and its client takes nothing; and the other way round."""
    paths = [bridge.path("plain") for _ in range(2)]
    async with dial(bridge.gateway.port()) as client:
        streams = [await client.connect(path) for path in paths]
        pairs = []
        for path, stream in zip(paths, streams, strict=True):
            server, request = await bridge.asked(path)
            await server.send(switch(request))
            pairs.append(
                Pair(Peer(stream, await stream.head(), is_client=True), Peer(server, request, is_client=False))
            )
        streams[0].pause()
        pairs[0].server.wire.push(pairs[0].server.encode(binary(b"x" * (8 << 20))))
        pairs[1].server.wire.pause()
        streams[1].push(pairs[1].client.encode(binary(b"y" * (8 << 20))))
        siblings = [await opened(client, f"/echo/{index}") for index in range(20)]
        for _ in range(5):
            for peer in siblings:
                await peer.send(binary(b"z" * 10_000))
            for peer in siblings:
                await peer.expect(binary(b"z" * 10_000))
        streams[0].resume()
        pairs[1].server.wire.resume()
        await pairs[0].client.expect(binary(b"x" * (8 << 20)))
        await pairs[1].server.expect(binary(b"y" * (8 << 20)))


async def test_two_hundred_slow_ones_with_small_frames_do_not_end_the_connection(tmp_path: Path) -> None:
    """Small DATA frames that nobody takes are counted against the whole connection, by the library below. A unix socket
    is full after some hundred of them."""
    streams, each = 200, 700
    slow = SlowServer(str(tmp_path / "slow.sock"))
    listeners = {"edge": {"bind": LOOPBACK, "http2": {"streams": 250}}}
    routes = [route("slow", "slow"), route("echo", respond="echo")]
    config = site(*routes, listeners=listeners, upstreams={"slow": f"unix:{slow.path}"})
    async with slow, running(config) as gateway, dial(gateway.port()) as client:
        peers = [await opened(client, f"/slow/{index}") for index in range(streams)]
        frame = peers[0].encode(binary(b"tide"))
        for _ in range(each):
            for peer in peers:
                number = stream_of(peer).number
                client.write(struct.pack("!IBI", len(frame) << 8, 0, number) + frame)
            await client.drain()
        await client.ping()
        sibling = await opened(client, "/echo")
        await sibling.send(text("still here"))
        await sibling.expect(text("still here"))
        assert client.goaways == []
        slow.resume()
        await until(lambda: slow.received == streams * each * len(frame), 30)


class SlowServer:
    """Takes WebSockets, and reads nothing of them until it is told to."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.received = 0
        self._resumed = asyncio.Event()
        self._writers: list[asyncio.StreamWriter] = []

    async def __aenter__(self) -> None:
        self._server = await asyncio.start_unix_server(self._serve, self.path, backlog=4096)

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for writer in self._writers:
            writer.transport.abort()

    def resume(self) -> None:
        self._resumed.set()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.append(writer)
        wire = Wire(reader, writer)
        request = await wire.head()
        wire.pause()
        await wire.send(switch(request))
        await self._resumed.wait()
        wire.resume()
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(1 << 16):
                self.received += len(data)


# ---- ends ------------------------------------------------------------------------------------------------------------


async def test_a_close_handshake_ends_with_end_stream_on_both_sides(bridge: Bridge) -> None:
    async with bridge.open("plain") as pair:
        await pair.client.send(close(4001, "bye"))
        await pair.server.expect(close(4001, "bye"))
        await pair.server.send(close(4001, "bye"))
        await pair.server.wire.close()
        await pair.client.expect(close(4001, "bye"))
        await pair.client.wire.ended()
        stream = stream_of(pair.client)
        stream.finish()
        record = await bridge.ended(pair)
        assert (record["cause"], record["code"]) == ("client", 4001)
        await stream.client.ping()
        assert stream.code is None, "END_STREAM and then a reset is a failure to browsers"


async def test_a_client_s_reset_is_a_lost_client(bridge: Bridge) -> None:
    async with bridge.open("plain") as pair:
        stream_of(pair.client).reset()
        await pair.server.wire.ended()
        assert (await bridge.ended(pair))["cause"] == "client_lost"


async def test_end_stream_without_a_close_is_a_lost_client(bridge: Bridge) -> None:
    async with bridge.open("plain") as pair:
        stream_of(pair.client).finish()
        await pair.server.wire.ended()
        assert (await bridge.ended(pair))["cause"] == "client_lost"


async def test_a_connection_that_is_lost_loses_all_of_its_clients(bridge: Bridge) -> None:
    paths = [bridge.path("plain") for _ in range(3)]
    async with dial(bridge.gateway.port()) as client:
        servers = []
        for path in paths:
            stream = await client.connect(path)
            server, request = await bridge.asked(path)
            await server.send(switch(request))
            await stream.head()
            servers.append(server)
    for path, server in zip(paths, servers, strict=True):
        await server.ended()
        assert (await bridge.logged("close", path))["cause"] == "client_lost"


async def test_a_lost_server_is_a_close_and_end_stream(bridge: Bridge) -> None:
    async with bridge.open("plain") as pair:
        pair.server.wire.reset()
        frame = await pair.client.frame()
        assert (frame.op, frame.code) == (Op.CLOSE, 1011)
        await pair.client.send(frame)
        await pair.client.wire.ended()
        assert (await bridge.ended(pair))["cause"] == "upstream_lost"


async def test_a_drain_says_goaway_and_closes_each() -> None:
    async with EchoServer() as server:
        config = site(route("ws", "server"), upstreams={"server": server.url})
        async with running(config) as gateway, dial(gateway.port()) as client:
            peers = [await opened(client, f"/ws/{index}") for index in range(5)]
            gateway.signal(signal.SIGTERM)
            assert await client.goaway() == ((1 << 31) - 1, ErrorCodes.NO_ERROR)
            for peer in peers:
                frame = await peer.frame()
                assert (frame.op, frame.code) == (Op.CLOSE, 1012)
                await peer.send(frame)
                await peer.wire.ended()
                stream_of(peer).finish()
            await client.ended()
            assert await asyncio.to_thread(gateway.wait) == 0


async def test_a_reload_drains_what_has_lost_its_route_and_leaves_the_others() -> None:
    async with EchoServer() as server:
        both = [route("gone", "server"), route("stay", "server")]
        upstreams = {"server": server.url}
        async with running(site(*both, upstreams=upstreams)) as gateway, dial(gateway.port()) as client:
            gone, stay = await opened(client, "/gone"), await opened(client, "/stay")
            listeners = {"edge": {"bind": LOOPBACK}}
            await reload(gateway, site(both[1], upstreams=upstreams, listeners=listeners))
            frame = await gone.frame()
            assert (frame.op, frame.code) == (Op.CLOSE, 1012)
            await gone.send(frame)
            await gone.wire.ended()
            await stay.send(text("still here"))
            await stay.expect(text("still here"))
            assert client.goaways == []
            await until(lambda: gateway.metrics().value("tidegate_websocket_connections", route="stay") == 1)
