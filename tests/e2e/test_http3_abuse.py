"""What clients of HTTP/3 may try: each is bounded, answered as RFC 9114 and RFC 9204 say, counted, and nobody else's
trouble."""

import asyncio
import contextlib
import datetime
import socket
import ssl
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import trustme
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import QuicConnection
from aioquic.quic.packet import QuicErrorCode

from tests.e2e.kit.http2 import HOST
from tests.e2e.kit.http3 import Code, H3Client, dial
from tests.e2e.kit.sites import LOOPBACK, reload, route, site, until
from tests.e2e.kit.wire import Lanes, Play
from tidegate.testing import Gateway

ERRORS = "tidegate_http3_errors_total"
EXCESSIVE_LOAD = 0x107
TLS = {"certificates": [{"cert": "site.pem", "key": "site.pem"}]}
EVERY: dict[str, Any] = {"bind": LOOPBACK, "tls": TLS, "http": ["h1", "h2", "h3"]}
LANES = 12


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("http3-abuse")
    certificate = trustme.CA().issue_cert(HOST)
    certificate.private_key_and_cert_chain_pem.write_to_path(str(directory / "site.pem"))
    return directory


@pytest.fixture(scope="module")
def gateway(lanes: Lanes, files: Path) -> Iterator[Gateway]:
    config = site(
        *lanes.routes(),
        {"match": {"path": {"exact": "/fixed"}}, "respond": {"body": "hello"}},
        {"match": {"path": {"exact": "/large"}}, "respond": {"body": "x" * 500_000}},
        {"match": {"path": {"prefix": "/echo"}}, "respond": "echo"},
        listeners={
            "edge": {**EVERY, "http2": {"streams": 50}, "limits": {"headers": "16KiB"}},
            "few": {**EVERY, "limits": {"connections": 2}},
            "closed": {**EVERY, "access": {"deny": ["127.0.0.0/8"]}},
        },
    )
    with Gateway(config | {"upstreams": lanes.upstreams(), "workers": 1}, directory=files) as gateway:
        yield gateway


@pytest.fixture
async def client(gateway: Gateway) -> AsyncIterator[H3Client]:
    async with dial(gateway.port("edge")) as client:
        await client.settled()
        yield client


async def serves(client: H3Client) -> None:
    assert (await (await client.ask("GET", "/fixed")).answer())[1] == b"hello"


def errors(gateway: Gateway, code: str) -> float:
    return gateway.metrics().value(ERRORS, listener="edge", code=code)


async def ended_for(client: H3Client, gateway: Gateway, code: int, label: str, before: float) -> None:
    """The connection is over for `code`, that was counted, and others are served."""
    assert await client.ended() == code
    await until(lambda: errors(gateway, label) == before + 1)
    async with dial(gateway.port("edge")) as other:
        await serves(other)


def resident(gateway: Gateway) -> int:
    """KiB of memory."""
    line = next(line for line in Path(f"/proc/{gateway.pid}/status").read_text().splitlines() if "VmRSS" in line)
    return int(line.split()[1])


# ---- requests that are not meant ------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["both directions", "its own direction"])
async def test_rapid_resets(client: H3Client, gateway: Gateway, upstream: Play, how: str) -> None:
    """CVE-2023-44487, by a client that waits until each of its requests is under way."""
    before = errors(gateway, "excessive_load")
    pseudo = [(":method", "POST"), (":scheme", "https"), (":authority", HOST), (":path", upstream.prefix)]
    with contextlib.suppress(ConnectionError, TimeoutError):
        for _ in range(12):
            streams = [client.open(pseudo) for _ in range(25)]
            await serves(client)
            for stream in streams:
                if how == "both directions":
                    stream.reset()
                else:
                    client.quic.reset_stream(stream.number, Code.REQUEST_CANCELLED)
            await serves(client)
    await ended_for(client, gateway, EXCESSIVE_LOAD, "excessive_load", before)


async def test_resets_of_a_browser_that_leaves_a_page_are_no_abuse(client: H3Client, upstream: Play) -> None:
    for _ in range(4):
        streams = [await client.ask("GET", upstream.prefix) for _ in range(40)]
        await serves(client)
        for stream in streams:
            stream.reset()
        await serves(client)
    assert client.ending is None


async def test_requests_that_are_reset_before_their_head(client: H3Client, gateway: Gateway) -> None:
    before = errors(gateway, "excessive_load")
    with contextlib.suppress(ConnectionError, TimeoutError):
        for _ in range(14):
            for _ in range(20):
                stream = client.raw()
                stream.write(b"\x01\x40\x50")
                stream.reset()
            await serves(client)
    await ended_for(client, gateway, EXCESSIVE_LOAD, "excessive_load", before)


async def test_requests_that_make_us_reset_them(client: H3Client, gateway: Gateway) -> None:
    """CVE-2025-8671: each is malformed, and so ours to end."""
    before = errors(gateway, "excessive_load")
    with contextlib.suppress(ConnectionError, TimeoutError):
        for _ in range(14):
            streams = [client.open([(":method", "GET"), (":scheme", "https")]) for _ in range(20)]
            for stream in streams:
                assert await stream.was_reset() == Code.MESSAGE_ERROR
    await ended_for(client, gateway, EXCESSIVE_LOAD, "excessive_load", before)


@pytest.mark.parametrize("frame", [b"\x00\x00", b"\x21\x01\x00"], ids=["empty data", "unknown"])
async def test_frames_that_bring_nothing(client: H3Client, gateway: Gateway, upstream: Play, frame: bytes) -> None:
    before = errors(gateway, "excessive_load")
    pseudo = [(":method", "POST"), (":scheme", "https"), (":authority", HOST), (":path", upstream.prefix)]
    client.open(pseudo).write(frame * 1100)
    await ended_for(client, gateway, EXCESSIVE_LOAD, "excessive_load", before)


# ---- heads ----------------------------------------------------------------------------------------------------------


def section(*lines: bytes) -> bytes:
    """A HEADERS frame of a GET of `/fixed`, with these field lines behind its own."""
    payload = b"\x00\x00\xd1\xd7" + b"\x50\x0c" + HOST.encode() + b"\x51\x06/fixed" + b"".join(lines)
    return b"\x01" + (0x80000000 | len(payload)).to_bytes(4, "big") + payload


async def test_a_head_that_is_small_on_the_wire_and_huge_in_memory(client: H3Client, gateway: Gateway) -> None:
    """QPACK: thousands of times one byte, each of which stands for a field."""
    before = resident(gateway)
    for _ in range(20):
        stream = client.raw()
        stream.write(section(b"\xff\x15" * 7000))  # x-frame-options: sameorigin? whatever the table has there
        stream.finish()
        assert (await stream.head()).status == 431
    assert resident(gateway) - before < 16 << 10
    await serves(client)


async def test_a_head_packed_by_huffman(client: H3Client) -> None:
    """Five bits for a letter: a head within the limit on the wire that is none unpacked."""
    packed = b"\x1f" * 5 * 2600  # 0x00011 is `a`: eight of them in five bytes
    bits = "".join("00011" for _ in range(8 * 2600))
    packed = int(bits, 2).to_bytes(len(bits) // 8, "big")
    length = 127, len(packed) - 127
    value = bytes([0x80 | length[0], 0x80 | length[1] & 0x7F, length[1] >> 7])
    stream = client.raw()
    stream.write(section(b"\x23x-a" + value + packed))
    stream.finish()
    assert (await stream.head()).status == 431
    await serves(client)


async def test_a_section_that_never_ends(client: H3Client) -> None:
    """Longer than any that we take, and announced as such: it is answered before it has come."""
    stream = client.raw()
    stream.write(b"\x01\xc0\x00\x00\x00\x40\x00\x00\x00" + b"\x00" * 1000)
    assert (await stream.head()).status == 431
    await serves(client)


@pytest.mark.parametrize(
    ("payload", "code", "label"),
    [
        (b"\x00\x00\x80", 0x200, "decompression_failed"),  # the dynamic table
        (b"\x01\x00", 0x200, "decompression_failed"),  # as many insertions
        (b"\x00\x00\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", 0x200, "decompression_failed"),  # an integer
        (b"\x00\x00\x51\x7f\xff\xff\x01", 0x200, "decompression_failed"),  # a text that is not there
        (b"\x00\x00\x51\x81\x00", 0x200, "decompression_failed"),  # padding of Huffman
    ],
    ids=["table", "insertions", "integer", "text", "huffman"],
)
async def test_sections_that_are_none(
    client: H3Client, gateway: Gateway, payload: bytes, code: int, label: str
) -> None:
    before = errors(gateway, label)
    client.raw().write(b"\x01" + bytes([len(payload)]) + payload)
    await ended_for(client, gateway, code, label, before)


async def test_trailers_that_are_none(client: H3Client, gateway: Gateway, upstream: Play) -> None:
    before = errors(gateway, "decompression_failed")
    pseudo = [(":method", "POST"), (":scheme", "https"), (":authority", HOST), (":path", upstream.prefix)]
    stream = client.open(pseudo)
    stream.push(b"content")
    stream.write(b"\x01\x03\x00\x00\x80")
    stream.finish()
    await ended_for(client, gateway, Code.DECOMPRESSION_FAILED, "decompression_failed", before)


@pytest.mark.parametrize(
    "fields",
    [
        [
            (":method", "GET"),
            (":protocol", "websocket"),
            (":scheme", "https"),
            (":authority", HOST),
            (":path", "/echo"),
        ],
        [(":method", "CONNECT"), (":protocol", "websocket"), (":scheme", "https"), (":authority", HOST)],
        [(":method", "CONNECT"), (":protocol", "websocket"), (":authority", HOST), (":path", "/echo")],
        [(":method", "CONNECT"), (":scheme", "https"), (":authority", HOST), (":path", "/echo")],
        [(":method", "GET"), (":scheme", "https"), (":authority", HOST)],
        [(":method", "GET"), (":scheme", "https"), (":authority", HOST), (":path", "/echo"), ("connection", "close")],
        [(":method", "GET"), (":scheme", "https"), (":authority", HOST), (":path", "/echo"), ("te", "gzip")],
        [
            (":method", "GET"),
            (":scheme", "https"),
            (":authority", HOST),
            (":path", "/echo"),
            ("transfer-encoding", "x"),
        ],
    ],
    ids=[
        "protocol-without-connect",
        "no-path",
        "no-scheme",
        "path-without-protocol",
        "path",
        "connection",
        "te",
        "coding",
    ],
)
async def test_malformed_heads_cost_their_stream_alone(client: H3Client, fields: list[tuple[str, str]]) -> None:
    assert await client.open(fields).was_reset() == Code.MESSAGE_ERROR
    await serves(client)


# ---- frames and streams in wrong places -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "code", "label"),
    [
        (b"\x03\x01\x00", 0x105, "frame_unexpected"),  # CANCEL_PUSH
        (b"\x05\x01\x00", 0x105, "frame_unexpected"),  # PUSH_PROMISE
        (b"\x07\x01\x00", 0x105, "frame_unexpected"),  # GOAWAY
        (b"\x0d\x01\x00", 0x105, "frame_unexpected"),  # MAX_PUSH_ID
        (b"\x09\x00", 0x105, "frame_unexpected"),  # CONTINUATION of HTTP/2
    ],
    ids=["cancel_push", "push_promise", "goaway", "max_push_id", "continuation"],
)
async def test_frames_on_a_request_s_stream(
    client: H3Client, gateway: Gateway, data: bytes, code: int, label: str
) -> None:
    before = errors(gateway, label)
    client.raw().write(data)
    await ended_for(client, gateway, code, label, before)


@pytest.mark.parametrize(
    ("data", "code", "label"),
    [
        (b"\x04\x00", 0x105, "frame_unexpected"),  # SETTINGS once more
        (b"\x00\x00", 0x105, "frame_unexpected"),  # DATA
        (b"\x01\x00", 0x105, "frame_unexpected"),  # HEADERS
        (b"\x06\x00", 0x105, "frame_unexpected"),  # PING of HTTP/2
        (b"\x03\x01\x00", 0x108, "id_error"),  # CANCEL_PUSH of no push
        (b"\x07\x02\x00\x00", 0x106, "frame_error"),  # GOAWAY with a byte too many
        (b"\x0d\x80\x01\x00\x00", 0x107, "excessive_load"),  # a long one
    ],
    ids=["settings", "data", "headers", "ping", "cancel_push", "goaway", "long"],
)
async def test_frames_on_the_control_stream(
    client: H3Client, gateway: Gateway, data: bytes, code: int, label: str
) -> None:
    before = errors(gateway, label)
    control = client.http._local_control_stream_id
    assert control is not None
    client.quic.send_stream_data(control, data)
    client.transmit()
    await ended_for(client, gateway, code, label, before)


@pytest.mark.parametrize(
    ("data", "code", "label"),
    [
        (b"\x01", 0x103, "stream_creation_error"),  # pushes come from servers
        (b"\x00\x04\x00", 0x103, "stream_creation_error"),  # a second control stream
        (b"\x02", 0x103, "stream_creation_error"),  # a second encoder's
    ],
    ids=["push", "control", "encoder"],
)
async def test_streams_of_one_direction(client: H3Client, gateway: Gateway, data: bytes, code: int, label: str) -> None:
    before = errors(gateway, label)
    client.quic.send_stream_data(client.quic.get_next_available_stream_id(is_unidirectional=True), data)
    client.transmit()
    await ended_for(client, gateway, code, label, before)


async def test_a_control_stream_that_ends(client: H3Client, gateway: Gateway) -> None:
    before = errors(gateway, "closed_critical_stream")
    control = client.http._local_control_stream_id
    assert control is not None
    client.quic.send_stream_data(control, b"", end_stream=True)
    client.transmit()
    await ended_for(client, gateway, Code.CLOSED_CRITICAL_STREAM, "closed_critical_stream", before)


async def test_an_encoder_that_fills_a_table(client: H3Client, gateway: Gateway) -> None:
    before = errors(gateway, "encoder_stream_error")
    encoder = client.http._local_encoder_stream_id
    assert encoder is not None
    client.quic.send_stream_data(encoder, b"\x3f\xe1\x1f" + b"\x41a\x01b" * 1000)
    client.transmit()
    await ended_for(client, gateway, Code.ENCODER_STREAM_ERROR, "encoder_stream_error", before)


async def test_unknown_streams_are_stopped(client: H3Client) -> None:
    """As many as come, one after the other; eight at once is all there may be."""
    for _ in range(30):
        number = client.quic.get_next_available_stream_id(is_unidirectional=True)
        client.quic.send_stream_data(number, b"\x21" + b"x" * 100, end_stream=True)
        await serves(client)


async def test_more_streams_than_there_may_be(client: H3Client, gateway: Gateway) -> None:
    """Past all that the client knows of limits: an error of QUIC (RFC 9000 §4.6)."""
    before = errors(gateway, "transport")
    client.quic._remote_max_streams_bidi = 10_000
    client.quic.send_stream_data(4 * 50, b"\x01")
    client.transmit()
    assert await client.ended() == QuicErrorCode.STREAM_LIMIT_ERROR
    await until(lambda: errors(gateway, "transport") == before + 1)
    async with dial(gateway.port("edge")) as other:
        await serves(other)


# ---- windows --------------------------------------------------------------------------------------------------------


async def test_windows_of_nothing(gateway: Gateway) -> None:
    """Fifty answers that their client does not take, and then does."""
    async with dial(gateway.port("edge"), max_stream_data=1024) as client, dial(gateway.port("edge")) as other:
        await serves(other)
        before = resident(gateway)
        asking = [await client.ask("GET", "/large") for _ in range(50)]
        client.paused.update(stream.number for stream in asking)
        await serves(other)
        assert resident(gateway) - before < 64 << 10
        client.paused.clear()
        for stream in asking:
            client.quic._streams[stream.number].max_stream_data_local = 1 << 20
        client.transmit()
        for stream in asking:
            assert len(await stream.body()) == 500_000


async def test_a_control_stream_without_a_window(gateway: Gateway) -> None:
    """Ours: nothing can be said of the connection, so there is none."""
    before = errors(gateway, "stream_creation_error")
    async with dial(gateway.port("edge"), max_stream_data=0) as client:
        await ended_for(client, gateway, Code.STREAM_CREATION_ERROR, "stream_creation_error", before)


async def test_a_slow_reader_holds_up_nobody(client: H3Client, gateway: Gateway, upstream: Play) -> None:
    slow = await client.ask("GET", upstream.prefix)
    client.paused.add(slow.number)
    server = await upstream.connection()
    await server.head()
    await server.send(b"HTTP/1.1 200 OK\r\nContent-Length: 16777216\r\n\r\n")
    before = resident(gateway)
    sending = asyncio.create_task(pour(server))
    for _ in range(20):
        await serves(client)
    assert not sending.done()
    assert resident(gateway) - before < 8 << 10
    slow.reset()
    await server.gone()
    await sending


async def pour(server: Any) -> None:
    with contextlib.suppress(ConnectionError, TimeoutError):
        for _ in range(256):
            await server.send(b"x" * 65536)


# ---- how connections begin ------------------------------------------------------------------------------------------


def initial() -> bytes:
    """The first datagram of a client that does not go on."""
    configuration = QuicConfiguration(is_client=True, alpn_protocols=["h3"], server_name=HOST)
    configuration.verify_mode = ssl.CERT_NONE
    connection = QuicConnection(configuration=configuration)
    connection.connect(("127.0.0.1", 1), now=0.0)
    (datagram, _), *_ = connection.datagrams_to_send(now=0.0)
    return datagram


async def test_where_many_begin_clients_show_their_address(gateway: Gateway) -> None:
    """RFC 9000 §8.1.2: by a Retry, which costs no state; clients that answer it are served."""
    port = gateway.port("edge")
    with contextlib.ExitStack() as stack:
        for _ in range(120):
            half = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
            half.sendto(initial(), ("127.0.0.1", port))
        retries = "tidegate_quic_retries_total"
        await until(lambda: gateway.metrics().value(retries, listener="edge") > 0)
        async with dial(port) as client:
            assert client.quic._retry_count == 1
            await serves(client)


async def test_no_more_is_sent_than_three_times_what_came(tmp_path: Path) -> None:
    """RFC 9000 §8.1: whoever gives somebody else's address gets them no flood, however large the certificate is."""
    authority = trustme.CA()
    large = authority.issue_cert(HOST, *[f"name-{number:04}.{'x' * 40}.test" for number in range(200)])
    large.private_key_and_cert_chain_pem.write_to_path(str(tmp_path / "site.pem"))
    described = site(route("echo", respond="echo"), listeners={"edge": EVERY})
    with Gateway(described, directory=tmp_path) as gateway, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as victim:
        datagram = initial()
        victim.sendto(datagram, ("127.0.0.1", gateway.port("edge")))
        received = await asyncio.to_thread(everything, victim)
        assert 2 * len(datagram) < received <= 3 * len(datagram)


def everything(victim: socket.socket) -> int:
    """Bytes that come until nothing has come for a while: longer than the first retransmissions take."""
    total, end = 0, datetime.datetime.now() + datetime.timedelta(seconds=4)
    while (left := (end - datetime.datetime.now()).total_seconds()) > 0:
        victim.settimeout(left)
        try:
            total += len(victim.recv(65536))
        except TimeoutError:
            break
    return total


async def test_the_limit_of_connections(gateway: Gateway) -> None:
    port = gateway.port("few")
    failed = "tidegate_connections_failed_total"
    async with dial(port) as first:
        async with dial(port) as second:
            await serves(first)
            await serves(second)
            with pytest.raises(ConnectionError):
                async with dial(port):
                    pass
            assert gateway.metrics().value(failed, listener="few", reason="connections") == 1
        # One has gone, and gives its place back.
        await until(lambda: gateway.metrics().value("tidegate_connections", address=f"udp:127.0.0.1:{port}") == 1)
        async with dial(port) as third:
            await serves(third)
        await serves(first)


async def test_who_may_not_connect_is_logged(gateway: Gateway) -> None:
    with pytest.raises(ConnectionError):
        async with dial(gateway.port("closed")):
            pass
    record = await asyncio.to_thread(gateway.access_log().wait_for, reason="access_denied", listener="closed")
    assert (record["protocol"], record["client"]) == ("h3", "127.0.0.1")


async def test_a_listener_that_goes_gives_its_port_back(files: Path) -> None:
    """Of TCP at once; of UDP when its last connection has ended."""
    stays = {"stays": {"bind": LOOPBACK}}
    with Gateway(site(route("echo", respond="echo"), listeners={"edge": EVERY, **stays}), directory=files) as gateway:
        port = gateway.port("edge")
        async with dial(port) as client:
            stream = await client.connect_to("/echo")
            assert (await stream.head()).status == 200
            await reload(gateway, site(route("echo", respond="echo"), listeners=stays))
            with pytest.raises(OSError):
                taken(port)
            # The Close that it is told of, and its answer, end it.
            closing = await stream.exactly(2)
            assert closing[0] == 0x88
            stream.push(bytes([0x88, 0x82, 0, 0, 0, 0, 0x03, 0xE8]))
            assert await client.ended() == Code.NO_ERROR
        await until(lambda: is_free(port))


def taken(port: int) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", port))


def is_free(port: int) -> bool:
    try:
        taken(port)
    except OSError:
        return False
    return True
