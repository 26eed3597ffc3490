"""The PROXY protocol: believed from named sources only, required from them, and the client it names is the client."""

import asyncio
import struct
from collections.abc import Iterator
from ipaddress import ip_address
from pathlib import Path

import pytest

from tests.e2e.kit.bridge import attempt
from tests.e2e.kit.certificates import Authority, client_context
from tests.e2e.kit.frames import Peer
from tests.e2e.kit.peers import dial_unix, echoes
from tests.e2e.kit.sites import LOOPBACK, route, site
from tests.e2e.kit.wire import Wire, dial, request_bytes, soon
from tidegate.testing import EchoUpstream, Gateway

TRUSTED, STRANGER = "127.0.0.1", "127.0.0.9"
V1 = b"PROXY TCP4 203.0.113.7 198.51.100.1 40000 443\r\n"
SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"


def v2(source: str = "203.0.113.7", command: int = 0x21, extra: bytes = b"") -> bytes:
    """A version 2 header for a TCP connection of `source`."""
    address = ip_address(source)
    family = 0x11 if address.version == 4 else 0x21
    destination = ip_address("198.51.100.1" if address.version == 4 else "2001:db8::1")
    body = address.packed + destination.packed + struct.pack(">HH", 40000, 443) + extra
    return SIGNATURE + bytes([command, family]) + struct.pack(">H", len(body)) + body


LOCAL = SIGNATURE + bytes([0x20, 0, 0, 0])


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("proxied")


@pytest.fixture(scope="module")
def authority(directory: Path) -> Authority:
    return Authority(directory)


@pytest.fixture(scope="module")
def upstream() -> Iterator[EchoUpstream]:
    with EchoUpstream() as server:
        yield server


@pytest.fixture(scope="module")
def gateway(directory: Path, authority: Authority, upstream: EchoUpstream) -> Iterator[Gateway]:
    proxied = {"proxy_protocol": {"from": [f"{TRUSTED}/32", "::1"]}, "timeouts": {"tls": "600ms"}}
    listeners = {
        "edge": {"bind": LOOPBACK, **proxied},
        "secure": {"bind": LOOPBACK, "tls": {"certificates": [authority.issue("site", "site.test")]}, **proxied},
        "open": {"bind": LOOPBACK},
        "believing": {"bind": LOOPBACK, "trusted_proxies": ["203.0.113.0/24"], **proxied},
        "dual": {"bind": "[::]:0", **proxied},
        "socket": {"bind": f"unix:{directory}/edge.sock", **proxied},
    }
    config = site(route("app", "app"), listeners=listeners, upstreams={"app": upstream.url})
    with Gateway(config, directory=directory) as running_gateway:
        yield running_gateway


async def forwarded_for(wire: Wire, path: str, upstream: EchoUpstream, *fields: str) -> str:
    """What the upstream is told of the client of a request on `wire`."""
    await wire.send(request_bytes(f"GET /app/{path}", *fields))
    head, _ = await wire.answer()
    assert head.status == 200
    record = await asyncio.to_thread(upstream.requests.wait_for, path=f"/app/{path}")
    value = record["headers"]["x-forwarded-for"]
    assert isinstance(value, str)
    return value


def failures(gateway: Gateway, listener: str = "edge", reason: str = "proxy_header") -> float:
    return gateway.metrics().value("tidegate_connections_failed_total", listener=listener, reason=reason)


@pytest.mark.parametrize(
    "name,header,client",
    [
        ("v1", V1, "203.0.113.7"),
        ("v1-6", b"PROXY TCP6 2001:db8::7 2001:db8::1 40000 443\r\n", "2001:db8::7"),
        ("v1-mapped", b"PROXY TCP6 ::ffff:203.0.113.8 ::ffff:198.51.100.1 40000 443\r\n", "203.0.113.8"),
        ("v1-unknown", b"PROXY UNKNOWN\r\n", TRUSTED),
        ("v2", v2(), "203.0.113.7"),
        ("v2-6", v2("2001:db8::9"), "2001:db8::9"),
        ("v2-tlvs", v2(extra=b"\x04\x00\x03abc"), "203.0.113.7"),
        ("v2-local", LOCAL, TRUSTED),
    ],
)
async def test_the_client_is_the_one_in_the_header(
    gateway: Gateway, upstream: EchoUpstream, name: str, header: bytes, client: str
) -> None:
    async with dial(gateway.port("edge")) as wire:
        await wire.send(header)
        assert await forwarded_for(wire, name, upstream) == client
        record = await asyncio.to_thread(gateway.access_log().wait_for, path=f"/app/{name}")
        assert record["client"] == client


@pytest.mark.parametrize("name,header", [("v1", V1), ("v2", v2())])
async def test_a_websocket(gateway: Gateway, upstream: EchoUpstream, name: str, header: bytes) -> None:
    async with dial(gateway.port("edge")) as wire:
        await wire.send(header + attempt(f"/app/ws-{name}"))
        head = await wire.head()
        assert head.status == 101
        await echoes(Peer(wire, head, is_client=True))
        record = await asyncio.to_thread(gateway.access_log().wait_for, event="open", path=f"/app/ws-{name}")
        assert record["client"] == "203.0.113.7"
        assert upstream.requests.wait_for(path=f"/app/ws-{name}")["headers"]["x-forwarded-for"] == "203.0.113.7"


@pytest.mark.parametrize("header", [V1, v2(), v2("2001:db8::9", extra=b"\x04\x00\x03abc")], ids=["v1", "v2", "v2-6"])
async def test_a_header_in_single_bytes(gateway: Gateway, header: bytes) -> None:
    async with dial(gateway.port("edge")) as wire:
        for byte in header:
            await wire.send(bytes([byte]))
            await asyncio.sleep(0)
        await wire.send(request_bytes("GET /nowhere"))
        assert (await wire.answer())[0].status == 404


async def test_all_in_one_segment(gateway: Gateway, upstream: EchoUpstream) -> None:
    async with dial(gateway.port("edge")) as wire:
        await wire.send(v2() + request_bytes("GET /app/one") + request_bytes("GET /app/two"))
        assert [(await wire.answer())[0].status for _ in range(2)] == [200, 200]


@pytest.mark.parametrize("header", [V1, v2("203.0.113.7")], ids=["v1", "v2"])
async def test_over_tls_the_header_goes_first(
    gateway: Gateway, upstream: EchoUpstream, directory: Path, authority: Authority, header: bytes
) -> None:
    reader, writer = await soon(asyncio.open_connection("127.0.0.1", gateway.port("secure")))
    writer.write(header)
    context = client_context(directory, authority)
    await soon(writer.start_tls(context, server_hostname="site.test"))
    wire = Wire(reader, writer)
    try:
        path = f"tls-{len(header)}"
        await wire.send(request_bytes(f"GET /app/{path}", host="site.test"))
        assert (await wire.answer())[0].status == 200
        told = await asyncio.to_thread(upstream.requests.wait_for, path=f"/app/{path}")
        assert told["headers"]["x-forwarded-for"] == "203.0.113.7"
        assert told["headers"]["x-forwarded-proto"] == "https"
    finally:
        await wire.close()


@pytest.mark.parametrize(
    "start",
    [
        request_bytes("GET /app/none"),
        b"PROXY TCP4 203.0.113.7 198.51.100.1 40000\r\n" + request_bytes("GET /app/short"),
        b"PROXY TCP4 203.0.113.7 198.51.100.1 040000 443\r\n" + request_bytes("GET /app/zero"),
        b"PROXY TCP5 203.0.113.7 198.51.100.1 40000 443\r\n",
        b"PROXY " + b"x" * 200,
        SIGNATURE + bytes([0x31, 0x11, 0, 12]) + bytes(12),
        SIGNATURE + bytes([0x21, 0x11, 0xFF, 0xFF]) + bytes(100),
        b"\x16\x03\x01",
    ],
    ids=["none", "short", "leading-zero", "family", "endless", "version", "too-long", "tls"],
)
async def test_a_missing_or_malformed_header_closes_and_is_counted(gateway: Gateway, start: bytes) -> None:
    before, seen = failures(gateway), len(gateway.access_log())
    async with dial(gateway.port("edge")) as wire:
        await wire.send(start)
        assert await wire.rest() == b""  # the peer is no client: it gets no answer
    assert failures(gateway) == before + 1
    assert len(gateway.access_log()) == seen


async def test_half_a_header_has_a_time(gateway: Gateway) -> None:
    before = failures(gateway, reason="timeout")
    async with dial(gateway.port("edge")) as wire:
        await wire.send(V1[:20])
        assert await wire.rest() == b""
    assert failures(gateway, reason="timeout") == before + 1


async def test_half_a_header_and_the_end(gateway: Gateway) -> None:
    before = failures(gateway)
    async with dial(gateway.port("edge")) as wire:
        await wire.send(v2()[:20])
        wire.finish()
        assert await wire.rest() == b""
    assert failures(gateway) == before + 1


async def test_others_need_none_and_may_send_none(gateway: Gateway, upstream: EchoUpstream) -> None:
    for listener, source in (("edge", STRANGER), ("open", TRUSTED)):
        async with dial(gateway.port(listener), local_addr=(source, 0)) as wire:
            path = f"direct-{listener}"
            assert await forwarded_for(wire, path, upstream, "X-Forwarded-For: 203.0.113.7") == source
        for header in (V1, v2()):
            async with dial(gateway.port(listener), local_addr=(source, 0)) as wire:
                await wire.send(header + request_bytes("GET /app/borrowed"))
                head, _ = await wire.answer()
                assert (head.status, head.get("connection")) == (400, "close")
                await wire.ended()
    assert upstream.requests.matching(path="/app/borrowed") == []


async def test_forwarded_headers_are_judged_by_the_client_in_the_header(
    gateway: Gateway, upstream: EchoUpstream
) -> None:
    claim = "X-Forwarded-For: 192.0.2.55"
    async with dial(gateway.port("edge")) as wire:
        await wire.send(V1)
        assert await forwarded_for(wire, "not-trusted", upstream, claim) == "203.0.113.7"
    async with dial(gateway.port("believing")) as wire:
        await wire.send(V1)
        assert await forwarded_for(wire, "trusted", upstream, claim) == "192.0.2.55, 203.0.113.7"
    record = await asyncio.to_thread(gateway.access_log().wait_for, path="/app/trusted")
    assert record["client"] == "192.0.2.55"


@pytest.mark.parametrize("host", [TRUSTED, "::1"])
async def test_sources_on_a_dual_stack(gateway: Gateway, upstream: EchoUpstream, host: str) -> None:
    async with dial(gateway.port("dual"), host) as wire:
        await wire.send(V1)
        assert await forwarded_for(wire, f"dual-{len(host)}", upstream) == "203.0.113.7"


async def test_a_unix_socket_has_no_source_to_name(gateway: Gateway, directory: Path) -> None:
    async with dial_unix(str(directory / "edge.sock")) as wire:
        await wire.send(request_bytes("GET /nowhere"))
        assert (await wire.answer())[0].status == 404
