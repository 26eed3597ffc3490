"""What clients of HTTP/2 may try: each is bounded, answered as RFC 9113 says, counted, and nobody else's trouble."""

import asyncio
import contextlib
import struct
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from tests.e2e.kit.http2 import HOST, ErrorCodes, H2Client, dial
from tests.e2e.kit.sites import LOOPBACK, site, until
from tests.e2e.kit.wire import Lanes, Play
from tidegate.testing import Gateway

ERRORS = "tidegate_http2_errors_total"
DATA, HEADERS, SETTINGS, PING, CONTINUATION = 0, 1, 4, 6, 9
END_HEADERS = 4


def frame(kind: int, payload: bytes = b"", stream: int = 0, flags: int = 0) -> bytes:
    return struct.pack("!IBI", len(payload) << 8 | kind, flags, stream) + payload


LANES = 10


@pytest.fixture(scope="module")
def gateway(lanes: Lanes) -> Iterator[Gateway]:
    config = site(
        *lanes.routes(),
        {"match": {"path": {"exact": "/fixed"}}, "respond": {"body": "hello"}},
        {"match": {"path": {"exact": "/large"}}, "respond": {"body": "x" * 500_000}},
        {"match": {"path": {"prefix": "/echo"}}, "respond": "echo"},
        listeners={"edge": {"bind": LOOPBACK, "http2": {"streams": 50}}},
    )
    with Gateway(config | {"upstreams": lanes.upstreams(), "workers": 1}) as gateway:
        yield gateway


@pytest.fixture
async def client(gateway: Gateway) -> AsyncIterator[H2Client]:
    async with dial(gateway.port()) as client:
        await client.settled()
        yield client


async def serves(client: H2Client) -> None:
    assert (await (await client.ask("GET", "/fixed")).answer())[1] == b"hello"


async def ended_for(client: H2Client, gateway: Gateway, code: ErrorCodes, before: float) -> None:
    """The connection is over for `code`, that was counted, and others are served."""
    assert (await client.goaway())[1] == code
    await until(lambda: errors(gateway, code) == before + 1)
    async with dial(gateway.port()) as other:
        await serves(other)


def errors(gateway: Gateway, code: ErrorCodes) -> float:
    return gateway.metrics().value(ERRORS, listener="edge", code=code.name.lower())


def resident(gateway: Gateway) -> int:
    """KiB of memory."""
    line = next(line for line in Path(f"/proc/{gateway.pid}/status").read_text().splitlines() if "VmRSS" in line)
    return int(line.split()[1])


async def test_rapid_resets(client: H2Client, gateway: Gateway, upstream: Play) -> None:
    """CVE-2023-44487, by a client that waits until each of its requests is under way."""
    before = errors(gateway, ErrorCodes.ENHANCE_YOUR_CALM)
    with contextlib.suppress(ConnectionError):
        for _ in range(12):
            streams = [await client.ask("GET", upstream.prefix) for _ in range(25)]
            await client.ping()
            for stream in streams:
                stream.reset()
            await client.ping()
    await ended_for(client, gateway, ErrorCodes.ENHANCE_YOUR_CALM, before)


async def test_resets_of_a_browser_that_leaves_a_page_are_no_abuse(client: H2Client, upstream: Play) -> None:
    for _ in range(3):
        streams = [await client.ask("GET", upstream.prefix) for _ in range(50)]
        await client.ping()
        for stream in streams:
            stream.reset()
        await client.ping()
    await serves(client)
    assert client.goaways == []


async def test_requests_that_are_reset_in_the_same_breath(client: H2Client, gateway: Gateway) -> None:
    before = errors(gateway, ErrorCodes.ENHANCE_YOUR_CALM)
    fields = [(":method", "GET"), (":scheme", "http"), (":authority", HOST), (":path", "/fixed")]
    data = b""
    for number in range(1, 401, 2):
        block = client.connection.encoder.encode(fields)
        data += frame(HEADERS, block, number, END_HEADERS) + frame(3, struct.pack("!I", 8), number)
    client.write(data)
    await ended_for(client, gateway, ErrorCodes.ENHANCE_YOUR_CALM, before)


async def test_endless_continuations(client: H2Client, gateway: Gateway) -> None:
    """CVE-2024-27316: a head that never ends."""
    before = errors(gateway, ErrorCodes.ENHANCE_YOUR_CALM)
    client.write(frame(HEADERS, b"", 1))
    for _ in range(100):
        client.write(frame(CONTINUATION, b"\x00\x01a\x01b" * 100, 1))
    await ended_for(client, gateway, ErrorCodes.ENHANCE_YOUR_CALM, before)


async def test_empty_data_without_end(client: H2Client, gateway: Gateway, upstream: Play) -> None:
    before = errors(gateway, ErrorCodes.ENHANCE_YOUR_CALM)
    fields = [(":method", "POST"), (":scheme", "http"), (":authority", HOST), (":path", upstream.prefix)]
    stream = client.open(fields)
    client.write(frame(DATA, b"", stream.number) * 500)
    await ended_for(client, gateway, ErrorCodes.ENHANCE_YOUR_CALM, before)


@pytest.mark.parametrize("kind", ["settings", "pings"])
async def test_floods_that_want_an_answer_each(gateway: Gateway, kind: str) -> None:
    """From a client that reads none of them: nothing more is read from it than it takes in answers."""
    one = frame(SETTINGS) if kind == "settings" else frame(PING, b"12345678")
    start = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(SETTINGS)
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port())
    try:
        writer.write(start)
        await reader.readexactly(9)
        writer.transport.pause_reading()  # type: ignore[attr-defined]
        async with dial(gateway.port()) as other:
            await serves(other)
            before = resident(gateway)
            for _ in range(64):
                writer.write(one * (1 << 14))
                await serves(other)
            assert resident(gateway) - before < 16 << 10
    finally:
        writer.transport.abort()


async def test_a_head_that_is_small_on_the_wire_and_huge_in_memory(client: H2Client) -> None:
    """HPACK: one large entry of the table, and three thousand times its index."""
    fields = [(":method", "GET"), (":scheme", "http"), (":authority", HOST), (":path", "/fixed")]
    block = (
        client.connection.encoder.encode(fields)
        + b"\x40\x01x\x7f"
        + bytes([0x80 | (3000 - 127) & 0x7F, (3000 - 127) >> 7])
    )
    block += b"a" * 3000 + b"\xbe" * 3000
    number = client.connection.get_next_available_stream_id()
    client.write(frame(HEADERS, block, number, END_HEADERS | 1))
    await client.ended()
    assert client.goaways and client.goaways[0][1] in (ErrorCodes.ENHANCE_YOUR_CALM, ErrorCodes.COMPRESSION_ERROR)


async def test_windows_of_nothing(gateway: Gateway) -> None:
    """Fifty answers that their client does not take, and then does."""
    async with dial(gateway.port(), {"initial_window_size": 0}) as client, dial(gateway.port()) as other:
        await serves(other)
        before = resident(gateway)
        streams = [await client.ask("GET", "/large") for _ in range(50)]
        for stream in streams:
            assert (await stream.head()).status == 200
        await serves(other)
        assert resident(gateway) - before < 64 << 10
        for stream in streams:
            client.connection.increment_flow_control_window(500_000, stream.number)
        client.flush()
        for stream in streams:
            assert len(await stream.body()) == 500_000


@pytest.mark.parametrize(
    "fields",
    [
        [(":method", "GET"), (":protocol", "websocket"), (":scheme", "http"), (":authority", HOST), (":path", "/echo")],
        [(":method", "CONNECT"), (":protocol", "websocket"), (":scheme", "http"), (":authority", HOST)],
        [(":method", "CONNECT"), (":protocol", "websocket"), (":authority", HOST), (":path", "/echo")],
        [(":method", "CONNECT"), (":scheme", "http"), (":authority", HOST), (":path", "/echo")],
        [(":method", "GET"), (":scheme", "http"), (":authority", HOST)],
        [(":method", "GET"), (":scheme", "http"), (":authority", HOST), (":path", "/echo"), ("connection", "close")],
        [(":method", "GET"), (":scheme", "http"), (":authority", HOST), (":path", "/echo"), ("te", "gzip")],
        [(":method", "GET"), (":scheme", "http"), (":authority", HOST), (":path", "/echo"), ("transfer-encoding", "x")],
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
async def test_malformed_heads_cost_their_stream_alone(client: H2Client, fields: list[tuple[str, str]]) -> None:
    assert await client.open(fields).was_reset() == ErrorCodes.PROTOCOL_ERROR
    await serves(client)
