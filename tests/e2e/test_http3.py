"""HTTP/3 from clients to servers of HTTP/1.1: requests, WebSockets, the end of connections, what is malformed."""

import asyncio
import signal
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import trustme

from tests.e2e.kit.frames import Peer, binary, close
from tests.e2e.kit.http2 import HOST, context
from tests.e2e.kit.http2 import dial as dial_h2
from tests.e2e.kit.http3 import Code, H3Client, H3Stream, dial
from tests.e2e.kit.peers import accept, echoes, frames
from tests.e2e.kit.sites import LOOPBACK, reload, route, site, until
from tests.e2e.kit.wire import Lanes, Play, request_bytes
from tests.e2e.kit.wire import dial as dial_h1
from tidegate.testing import Gateway


@pytest.fixture(scope="module")
def lanes() -> Iterator[Lanes]:
    lanes = Lanes(40)
    yield lanes
    lanes.close()


TLS = {"certificates": [{"cert": "site.pem", "key": "site.pem"}]}
EVERY: dict[str, Any] = {"bind": LOOPBACK, "tls": TLS, "http": ["h1", "h2", "h3"]}


def config(lanes: Lanes) -> dict[str, Any]:
    return {
        "workers": 1,
        "listeners": {
            "edge": {**EVERY, "limits": {"headers": "4KiB", "body": "1MiB"}, "timeouts": {"body": "300ms"}},
            "ruled": {**EVERY, "tls": {**TLS, "protocols": {"legacy.test": ["h1"]}}},
            "brief": {**EVERY, "timeouts": {"keep_alive": "1s"}},
            "closed": {**EVERY, "access": {"deny": ["127.0.0.0/8"]}},
            "without": {"bind": LOOPBACK, "tls": TLS},
        },
        "routes": [
            *lanes.routes(timeouts={"request": "30s"}),
            {"name": "echo", "match": {"path": {"prefix": "/echo"}}, "respond": "echo"},
            {"name": "old", "match": {"path": {"prefix": "/old"}}, "respond": "echo", "websocket": {"over": ["h1"]}},
            {"name": "fixed", "match": {"path": {"exact": "/fixed"}}, "respond": {"status": 200, "body": "hello"}},
        ],
        "upstreams": lanes.upstreams(),
        "drain": {"window": "1s", "timeout": "5s"},
    }


@pytest.fixture(scope="module")
def gateway(lanes: Lanes, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    directory = tmp_path_factory.mktemp("http3")
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(directory / "authority.pem"))
    certificate = authority.issue_cert(HOST, "legacy.test")
    certificate.private_key_and_cert_chain_pem.write_to_path(str(directory / "site.pem"))
    with Gateway(config(lanes), directory=directory) as gateway:
        yield gateway


@pytest.fixture
async def upstream(lanes: Lanes) -> AsyncIterator[Play]:
    async with lanes.play() as upstream:
        yield upstream


@pytest.fixture
async def client(gateway: Gateway) -> AsyncIterator[H3Client]:
    async with dial(gateway.port("edge")) as client:
        yield client


async def opened(client: H3Client, path: str = "/echo") -> Peer:
    stream = await client.connect_to(path)
    head = await stream.head()
    assert head.status == 200, head
    return Peer(stream, head, is_client=True)


# ---- how it begins --------------------------------------------------------------------------------------------------


async def test_the_certificate_is_the_listeners(gateway: Gateway) -> None:
    authority = str(gateway.directory / "authority.pem")
    async with dial(gateway.port("edge"), authority=authority) as client:
        assert (await (await client.ask("GET", "/fixed")).answer())[1] == b"hello"


async def test_other_answers_announce_it(gateway: Gateway) -> None:
    port = gateway.port("edge")
    options: dict[str, Any] = {"ssl": context(), "server_hostname": HOST}
    async with dial_h2(port, **options) as client:
        head, _ = await (await client.ask("GET", "/fixed")).answer()
        assert head.get("alt-svc") == f'h3=":{port}"; ma=86400'
    options["ssl"] = context(alpn=("http/1.1",))
    async with dial_h1(port, **options) as wire:
        await wire.send(request_bytes("GET /nowhere"))
        assert (await wire.answer())[0].get("alt-svc") == f'h3=":{port}"; ma=86400'
    async with dial_h1(gateway.port("without"), **options) as wire:
        await wire.send(request_bytes("GET /fixed"))
        assert (await wire.answer())[0].get("alt-svc") is None


async def test_a_server_name_may_speak_something_else(gateway: Gateway) -> None:
    async with dial(gateway.port("ruled")) as client:
        assert (await (await client.ask("GET", "/fixed")).answer())[1] == b"hello"
    async with dial(gateway.port("ruled"), server_name="legacy.test") as client:
        assert await client.ended() == Code.VERSION_FALLBACK
    options: dict[str, Any] = {"ssl": context(alpn=("http/1.1",)), "server_hostname": "legacy.test"}
    async with dial_h1(gateway.port("ruled"), **options) as wire:
        await wire.send(request_bytes("GET /fixed", host="legacy.test"))
        assert (await wire.answer())[0].get("alt-svc") is None


async def test_who_may_not_connect_is_refused(gateway: Gateway) -> None:
    with pytest.raises(ConnectionError):
        async with dial(gateway.port("closed")):
            pass


# ---- requests -------------------------------------------------------------------------------------------------------


async def test_a_request_and_its_answer(client: H3Client, upstream: Play) -> None:
    stream = await client.ask("GET", f"{upstream.prefix}/a?b=c", ("cookie", "a=1"), ("cookie", "b=2"))
    server = await upstream.connection()
    head = await server.head()
    assert (head.get("host"), head.get("cookie")) == (HOST, "a=1; b=2")
    assert (head.get("content-length"), head.get("transfer-encoding")) == (None, None)
    assert head.get("x-forwarded-proto") == "https"
    await server.send(b"HTTP/1.1 200 OK\r\nX-A: 1\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok")
    answered, body = await stream.answer()
    assert (answered.status, answered.get("x-a"), answered.get("connection"), body) == (200, "1", None, b"ok")


async def test_bodies_and_trailers_both_ways(client: H3Client, upstream: Play) -> None:
    pseudo = [(":method", "POST"), (":scheme", "https"), (":authority", HOST), (":path", upstream.prefix)]
    stream = client.open([*pseudo, ("te", "trailers")])
    stream.push(b"a part")
    server = await upstream.connection()
    head = await server.head()
    assert head.get("transfer-encoding") == "chunked"
    assert await server.until(b"a part\r\n") == b"6\r\na part\r\n"
    stream.end_with(x_end="up")
    assert await server.until(b"\r\n\r\n") == b"0\r\nx-end: up\r\n\r\n"
    await server.send(b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n")
    await server.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nsome\r\n")
    assert await stream.exactly(4) == b"some"
    await server.send(b"0\r\nX-End: down\r\n\r\n")
    assert await stream.body() == b""
    assert (stream.trailers, [head.status for head in stream.interim]) == ({"x-end": "down"}, [103])


async def test_large_bodies_both_ways(client: H3Client) -> None:
    body = bytes(range(256)) * 4000
    head, echoed = await (await client.ask("POST", "/echo", body=body)).answer()
    assert (head.status, echoed == body) == (200, True)


async def test_a_head_has_no_body(client: H3Client, upstream: Play) -> None:
    """Without a length: the test's client takes that of an answer to HEAD for a promise."""
    stream = await client.ask("HEAD", upstream.prefix)
    server = await upstream.connection()
    assert (await server.head()).start.startswith("HEAD ")
    await server.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    head, body = await stream.answer()
    assert (head.status, body) == (200, b"")


async def test_limits(client: H3Client, upstream: Play) -> None:
    head, _ = await (await client.ask("GET", "/fixed", ("x-long", "x" * 5000))).answer()
    assert head.status == 431
    stream = await client.ask("POST", "/echo", body=b"x" * ((1 << 20) + 1))
    assert (await stream.head()).status == 413
    assert (await (await client.ask("GET", "/fixed")).answer())[1] == b"hello"


async def test_an_answer_that_is_cut_is_a_reset(client: H3Client, upstream: Play) -> None:
    stream = await client.ask("GET", upstream.prefix)
    server = await upstream.connection()
    await server.head()
    await server.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf")
    assert await stream.exactly(4) == b"half"
    await server.close()
    assert await stream.was_reset() == Code.INTERNAL_ERROR


@pytest.mark.parametrize("when", ["before the answer", "in the answer", "in the body"])
async def test_a_client_that_resets_frees_the_server(client: H3Client, upstream: Play, when: str) -> None:
    pseudo = [(":method", "POST"), (":scheme", "https"), (":authority", HOST), (":path", upstream.prefix)]
    stream = client.open(pseudo, ended=when != "in the body")
    server = await upstream.connection()
    await server.head()
    if when == "in the answer":
        await server.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf")
        await stream.exactly(4)
    stream.reset()
    await server.gone()
    assert (await (await client.ask("GET", "/fixed")).answer())[1] == b"hello"


async def test_a_hundred_at_once(client: H3Client) -> None:
    streams = [await client.ask("POST", "/echo", body=b"%d" % index) for index in range(100)]
    for index, stream in enumerate(streams):
        assert (await stream.answer())[1] == b"%d" % index


async def test_the_log_says_h3(client: H3Client, gateway: Gateway) -> None:
    await (await client.ask("GET", "/fixed")).answer()
    record = await asyncio.to_thread(gateway.access_log().wait_for, event="request", protocol="h3", path="/fixed")
    assert (record["method"], record["host"], record["status"], record["client"]) == ("GET", HOST, 200, "127.0.0.1")


# ---- what is malformed ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "fields",
    [
        [(":method", "GET"), (":scheme", "https"), (":authority", HOST)],
        [(":method", "GET"), (":scheme", "https"), (":authority", HOST), (":path", "/"), ("connection", "close")],
        [(":method", "GET"), (":scheme", "https"), (":authority", HOST), (":path", "/"), (":protocol", "websocket")],
        [(":method", "CONNECT"), (":protocol", "websocket"), (":scheme", "https"), (":authority", HOST)],
    ],
)
async def test_a_malformed_request_ends_alone(client: H3Client, fields: list[tuple[str, str]]) -> None:
    assert await client.open(fields).was_reset() == Code.MESSAGE_ERROR
    assert (await (await client.ask("GET", "/fixed")).answer())[1] == b"hello"


async def test_a_length_that_is_not_true_is_malformed(client: H3Client, upstream: Play) -> None:
    stream = await client.ask("POST", upstream.prefix, ("content-length", "3"), body=b"four")
    await (await upstream.connection()).gone()
    assert await stream.was_reset() in (Code.MESSAGE_ERROR, Code.INTERNAL_ERROR)


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"\x00\x00", Code.FRAME_UNEXPECTED),  # DATA before HEADERS
        (b"\x04\x00", Code.FRAME_UNEXPECTED),  # SETTINGS on a request's stream
        (b"\x06\x00", Code.FRAME_UNEXPECTED),  # PING of HTTP/2
        (b"\x01\x03\x01\x00\x80", Code.DECOMPRESSION_FAILED),  # a dynamic table
    ],
)
async def test_frames_that_end_the_connection(client: H3Client, data: bytes, code: Code) -> None:
    client.raw().write(data)
    assert await client.ended() == code


async def test_unknown_frames_and_streams_are_passed_over(client: H3Client) -> None:
    number = client.quic.get_next_available_stream_id(is_unidirectional=True)
    client.quic.send_stream_data(number, b"\x21whatever", end_stream=True)
    stream = client.raw()
    stream.write(b"\x21\x03abc")
    stream.ask("GET", "/fixed")
    assert (await stream.answer())[1] == b"hello"


# ---- WebSockets -----------------------------------------------------------------------------------------------------


async def test_a_websocket(client: H3Client, gateway: Gateway, upstream: Play) -> None:
    stream = await client.connect_to(upstream.prefix)
    server = await accept(await upstream.connection())
    head = await stream.head()
    assert (head.status, head.get("sec-websocket-accept"), client.takes_websockets) == (200, None, True)
    peer = Peer(stream, head, is_client=True)
    await peer.send(binary(b"up"))
    await server.expect(binary(b"up"))
    await server.send(binary(b"down" * 50_000))
    await peer.expect(binary(b"down" * 50_000))
    await peer.send(close(1000))
    await server.send(await server.frame())
    assert [frame.code for frame in await frames(peer)] == [1000]
    log = gateway.access_log()
    record = await asyncio.to_thread(log.wait_for, event="close", protocol="h3")
    assert (record["cause"], record["code"]) == ("client", 1000)


async def test_a_hundred_websockets_and_one_that_is_cancelled(client: H3Client) -> None:
    peers = [await opened(client) for _ in range(90)]
    for index, peer in enumerate(peers):
        await echoes(peer, b"%d" % index)
    assert isinstance(peers[0].wire, H3Stream)
    peers[0].wire.reset()
    for peer in peers[1:]:
        await echoes(peer)


async def test_a_client_that_resets_is_lost(client: H3Client, gateway: Gateway, upstream: Play) -> None:
    stream = await client.connect_to(upstream.prefix)
    server = await accept(await upstream.connection())
    await stream.head()
    stream.reset()
    await server.wire.gone()
    await asyncio.to_thread(gateway.access_log().wait_for, event="close", protocol="h3", cause="client_lost")


async def test_a_server_that_is_lost_cancels_the_stream(client: H3Client, upstream: Play) -> None:
    stream = await client.connect_to(upstream.prefix)
    server = await accept(await upstream.connection())
    peer = Peer(stream, await stream.head(), is_client=True)
    server.wire.reset()
    assert all(frame.op == 8 for frame in await frames(peer))


async def test_heads_that_find_no_room_in_the_window(gateway: Gateway, upstream: Play) -> None:
    """Nothing follows the head that would push it out: it must go by itself when there is room."""
    async with dial(gateway.port("edge"), max_data=16_384) as client:
        await client.settled()
        client.pause()
        flooded = await opened(client)
        await flooded.send(binary(b"x" * 20_000))
        await client.full()
        stream = await client.connect_to(upstream.prefix)
        server = await accept(await upstream.connection())
        log = gateway.access_log()
        await asyncio.to_thread(log.wait_for, event="open", protocol="h3", path=upstream.prefix)
        asking = await client.ask("GET", upstream.prefix)
        asked = await upstream.connection()
        await asked.head()
        await asked.send(b"HTTP/1.1 103 Early Hints\r\n\r\n")
        async with dial(gateway.port("edge")) as other:
            assert (await (await other.ask("GET", "/fixed")).answer())[1] == b"hello"
        client.resume()
        await flooded.expect(binary(b"x" * 20_000))
        await until(lambda: [head.status for head in asking.interim] == [103])
        head = await stream.head()
        assert head.status == 200
        await Peer(stream, head, is_client=True).send(binary(b"up"))
        await server.expect(binary(b"up"))


async def test_another_protocol(client: H3Client) -> None:
    assert (await (await client.connect_to("/echo", protocol="connect-udp")).answer())[0].status == 501


async def test_a_route_that_takes_none_over_h3(client: H3Client) -> None:
    assert await (await client.connect_to("/old")).was_reset() == Code.VERSION_FALLBACK
    await echoes(await opened(client))


# ---- the end of connections -----------------------------------------------------------------------------------------


async def test_an_idle_connection_is_ended(gateway: Gateway) -> None:
    async with dial(gateway.port("brief")) as client:
        assert (await (await client.ask("GET", "/fixed")).answer())[1] == b"hello"
        assert await client.ended() == Code.NO_ERROR
        assert client.goaways == [(1 << 62) - 4, 4]


@pytest.fixture
def certified(tmp_path: Path) -> Path:
    certificate = trustme.CA().issue_cert(HOST)
    certificate.private_key_and_cert_chain_pem.write_to_path(str(tmp_path / "site.pem"))
    return tmp_path


async def test_without_h3_in_the_next_configuration(certified: Path) -> None:
    """The endpoint goes, what is under way goes on; and it can come back."""
    with_h3 = site(route("echo", respond="echo"), listeners={"edge": EVERY})
    without = site(route("echo", respond="echo"), listeners={"edge": {**EVERY, "http": ["h1"]}})
    with Gateway(with_h3, directory=certified) as gateway:
        async with dial(gateway.port("edge")) as client:
            peer = await opened(client)
            await reload(gateway, without)
            await until(lambda: len(client.goaways) == 2)
            await echoes(peer)
            with pytest.raises(ConnectionError):
                async with dial(gateway.port("edge")):
                    pass
            await peer.send(close(1000))
            assert [frame.code for frame in await frames(peer)] == [1000]
            assert await client.ended() == Code.NO_ERROR
        await until(lambda: gateway.metrics().value("tidegate_worker_connections") == 0)
        await reload(gateway, with_h3)
        async with dial(gateway.port("edge")) as client:
            await echoes(await opened(client))


async def test_a_drain(certified: Path) -> None:
    described = site(route("echo", respond="echo"), listeners={"edge": EVERY})
    with Gateway(described, directory=certified) as gateway:
        async with dial(gateway.port("edge")) as client:
            peer = await opened(client)
            await echoes(peer)
            gateway.signal(signal.SIGTERM)
            closing = await peer.frame()
            assert closing.code == 1012
            await peer.send(closing)
            assert await client.ended() == Code.NO_ERROR
            assert client.goaways[0] == (1 << 62) - 4
        assert await asyncio.to_thread(gateway.wait) == 0
