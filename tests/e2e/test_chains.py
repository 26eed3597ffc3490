"""Two gateways in a row, with HTTP/2, in clear text and over TLS, or HTTP/3 between them: what one carries, two do."""

import asyncio
import contextlib
import random
import shutil
import signal
import socket
import tempfile
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import trustme
from websockets.asyncio.client import connect
from websockets.asyncio.server import ServerConnection, serve

from tests.e2e.kit.bridge import attempt
from tests.e2e.kit.frames import Op, Peer, binary, close, ping, text
from tests.e2e.kit.peers import accept, answer_close, frames, running
from tests.e2e.kit.sites import LOOPBACK, Config, site
from tests.e2e.kit.tcp import server as tcp_server
from tests.e2e.kit.tcp import vacant
from tests.e2e.kit.wire import Lanes, Play, Wire, dial, request_bytes
from tidegate.testing import Gateway, Record

CLIENT = "203.0.113.7"
PROXIED = f"PROXY TCP4 {CLIENT} 198.51.100.1 40000 8080\r\n".encode()
TLS = {"certificates": [{"cert": "site.pem", "key": "site.pem"}]}
BETWEEN = ("h2", "h2 over TLS", "h3")
LANES = 60


@dataclass(frozen=True)
class Chain:
    """client ─▶ outer ─▶ inner ─▶ server"""

    outer: Gateway
    inner: Gateway
    upstream: Play

    @contextlib.asynccontextmanager
    async def client(self) -> AsyncIterator[Wire]:
        async with dial(self.outer.port()) as wire:
            await wire.send(PROXIED)
            yield wire

    @contextlib.asynccontextmanager
    async def opened(self) -> AsyncIterator[tuple[Peer, Peer]]:
        """A WebSocket: the client's end, and the server's."""
        async with self.client() as wire:
            await wire.send(attempt("/chain"))
            server = await accept(await self.upstream.connection())
            head = await wire.head()
            assert head.status == 101, head
            yield Peer(wire, head, is_client=True), server

    async def logged(self, **fields: Any) -> tuple[Record, Record]:
        """What both say of the same thing."""
        waits = [asyncio.to_thread(each.access_log().wait_for, **fields) for each in (self.outer, self.inner)]
        first, second = await asyncio.gather(*waits)
        return first, second


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("chains")
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(made / "authority.pem"))
    certificate = authority.issue_cert("127.0.0.1", "localhost")
    certificate.private_key_and_cert_chain_pem.write_to_path(str(made / "site.pem"))
    return made


def inner_config(url: str, between: str, **more: Any) -> Config:
    listener: Config = {"bind": LOOPBACK, "trusted_proxies": ["127.0.0.0/8"]}
    listener |= {"http": ["h2"]} if between == "h2" else {"tls": TLS, "http": ["h1", "h2", "h3"]}
    return site({"name": "end", "to": "app"}, listeners={"edge": listener}, upstreams={"app": url}, workers=1, **more)


def outer_config(inner: Gateway, between: str, **more: Any) -> Config:
    scheme = "http" if between == "h2" else "https"
    upstream: Config = {"endpoints": [f"{scheme}://127.0.0.1:{inner.port()}"], "protocol": between[:2]}
    if scheme == "https":
        upstream["tls"] = {"ca": "authority.pem"}
    listener = {"bind": LOOPBACK, "proxy_protocol": {"from": ["127.0.0.0/8"]}}
    websocket = {"upstream_protocol": between[:2]}
    route = {"name": "way", "to": "inner", "websocket": websocket}
    return site(route, listeners={"edge": listener}, upstreams={"inner": upstream}, workers=1, **more)


def home(directory: Path) -> Path:
    """A directory for one gateway, with the files that it names."""
    made = Path(tempfile.mkdtemp(dir=directory))
    for file in directory.glob("*.pem"):
        shutil.copy(file, made)
    return made


@contextlib.asynccontextmanager
async def chained(inner: Config, between: str, directory: Path, **route: Any) -> AsyncIterator[tuple[Gateway, Gateway]]:
    """The outer one and the inner one."""
    async with running(inner, directory=home(directory)) as second:
        config = outer_config(second, between)
        config["routes"][0] |= route
        async with running(config, directory=home(directory)) as first:
            yield first, second


@pytest.fixture(params=BETWEEN)
async def chain(request: pytest.FixtureRequest, lanes: Lanes, directory: Path) -> AsyncIterator[Chain]:
    async with lanes.play() as upstream:
        url = f"http://127.0.0.1:{upstream.listener.getsockname()[1]}"
        async with chained(inner_config(url, request.param), request.param, directory) as (outer, inner):
            yield Chain(outer, inner, upstream)


# ---- requests -------------------------------------------------------------------------------------------------------


async def test_a_request_and_its_client(chain: Chain) -> None:
    up, down = random.Random(1).randbytes(200_000), random.Random(2).randbytes(200_000)
    async with chain.client() as client:
        await client.send(request_bytes("POST /x?y", "Transfer-Encoding: chunked", "TE: trailers", "Connection: TE"))
        await client.send(b"%x\r\n%s\r\n0\r\nX-Sum: 7\r\n\r\n" % (len(up), up))
        far = await chain.upstream.connection()
        asked = await far.head()
        assert await far.chunks() == (up, b"x-sum: 7\r\n")
        assert (asked.target, asked.get("X-Forwarded-For")) == ("/x?y", f"{CLIENT}, 127.0.0.1")
        await far.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-End\r\n\r\n")
        await far.send(b"%x\r\n%s\r\n0\r\nX-End: 8\r\n\r\n" % (len(down), down))
        assert (await client.head()).status == 200
        assert await client.chunks() == (down, b"x-end: 8\r\n")
    outer, inner = await chain.logged(event="request")
    assert (outer["client"], inner["client"]) == (CLIENT, CLIENT)
    assert outer["request_id"] == inner["request_id"] == asked.get("X-Request-ID")
    assert (outer["protocol"], outer["upstream_protocol"], inner["protocol"]) == (
        "h1",
        inner["protocol"],
        inner["protocol"],
    )


@pytest.mark.parametrize("between", BETWEEN)
async def test_a_refusal_of_the_inner_one(between: str, directory: Path) -> None:
    config = inner_config(vacant().replace("tcp", "http"), between)
    async with chained(config, between, directory) as (outer, _), dial(outer.port()) as client:
        await client.send(PROXIED + request_bytes("GET /"))
        head, body = await client.answer()
        assert (head.status, body.split(b":")[0]) == (502, b"connect_failed")


# ---- WebSockets -----------------------------------------------------------------------------------------------------


async def test_a_websocket_and_its_client(chain: Chain) -> None:
    large = random.Random(3).randbytes(300_000)
    async with chain.opened() as (client, server):
        assert server.head.get("X-Forwarded-For") == f"{CLIENT}, 127.0.0.1"
        for sent in (text("tide"), binary(large), ping(b"are you there")):
            await client.send(sent)
            await server.expect(sent)
            await server.send(sent)
            await client.expect(sent)
        await client.send(close(1000, "bye"))
        await server.expect(close(1000, "bye"))
        await server.send(close(1000, "bye"))
        await client.expect(close(1000, "bye"))
        await server.wire.close()
    outer, inner = await chain.logged(event="open")
    assert (outer["client"], inner["client"]) == (CLIENT, CLIENT)
    assert outer["upstream_protocol"] == inner["protocol"] != "h1"
    outer, inner = await chain.logged(event="close")
    assert (outer["cause"], outer["code"], inner["cause"], inner["code"]) == ("client", 1000, "client", 1000)
    assert outer["messages_in"] == inner["messages_in"] == 2


@pytest.mark.parametrize("code", [1000, 1001, 1008, 1011, 3000, 4999])
async def test_close_codes_from_both_sides(chain: Chain, code: int) -> None:
    async with chain.opened() as (client, server):
        await client.send(close(code, "from the client"))
        assert (await answer_close(server)).code == code
        await client.expect(close(code, "from the client"))
    async with chain.opened() as (client, server):
        await server.send(close(code, "from the server"))
        assert (await answer_close(client)).code == code
        await server.expect(close(code, "from the server"))


@pytest.mark.parametrize("between", BETWEEN)
async def test_permessage_deflate_between_the_ends(between: str, directory: Path) -> None:
    """With context takeover, so one lost or changed byte would break every message behind it."""
    agreed: list[list[str]] = []

    async def echo(connection: ServerConnection) -> None:
        agreed.append([extension.name for extension in connection.protocol.extensions])
        async for message in connection:
            await connection.send(message)

    words, chosen = ["tide", "gate", "lock", "sluice", "ebb"], random.Random(4)
    async with serve(echo, "127.0.0.1", 0) as server:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        async with chained(inner_config(url, between), between, directory) as (outer, _):
            raw = socket.create_connection(("127.0.0.1", outer.port()))
            raw.sendall(PROXIED)
            async with connect("ws://gateway.test/chain", sock=raw, proxy=None, max_size=None) as client:
                for _ in range(20):
                    message = " ".join(chosen.choices(words, k=chosen.choice([0, 1, 10, 5000])))
                    await client.send(message)
                    assert await client.recv() == message
    assert agreed == [["permessage-deflate"]]


async def test_the_server_s_refusal_with_its_body(chain: Chain) -> None:
    for status in (401, 403, 404, 503):
        async with chain.client() as client:
            await client.send(attempt("/chain"))
            far = await chain.upstream.connection()
            await far.head()
            answer = f"HTTP/1.1 {status} No\r\nContent-Length: 6\r\nX-Why: so\r\n\r\nreason"
            await far.send(answer.encode())
            head, body = await client.answer()
            assert (head.status, head.get("X-Why"), body) == (status, "so", b"reason")
            await client.ended()


async def test_what_is_lost_is_told_to_the_other_end(chain: Chain) -> None:
    async with chain.opened() as (client, server):
        client.wire.reset()
        assert [frame for frame in await frames(server) if frame.op != Op.CLOSE] == []
    outer, inner = await chain.logged(event="close")
    assert (outer["cause"], inner["cause"]) == ("client_lost", "client_lost")
    async with chain.opened() as (client, server):
        server.wire.reset()
        (told,) = [frame for frame in await frames(client) if frame.op == Op.CLOSE]
        assert (told.code, told.reason[:3]) == (1011, "gw:")


async def test_a_hundred_websockets(chain: Chain) -> None:
    async with contextlib.AsyncExitStack() as stack:
        pairs = [await stack.enter_async_context(chain.opened()) for _ in range(100)]
        for number, (client, server) in enumerate(pairs):
            await client.send(binary(b"%d" % number))
            await server.expect(binary(b"%d" % number))
        for number, (client, server) in reversed(list(enumerate(pairs))):
            await server.send(binary(b"%d" % number))
            await client.expect(binary(b"%d" % number))


async def test_a_drain_of_the_outer_one(chain: Chain) -> None:
    async with chain.opened() as (client, server):
        chain.outer.signal(signal.SIGTERM)
        told = await answer_close(client)
        assert told.code == 1012 and "gw: drain" in told.reason
        assert (await answer_close(server)).code == 1001
        assert await asyncio.to_thread(chain.outer.wait) == 0
    # The other one is none the wiser.
    assert (await asyncio.to_thread(chain.inner.admin, "/ready"))[0] == 200


async def test_a_drain_of_the_inner_one(chain: Chain) -> None:
    async with chain.opened() as (client, server):
        chain.inner.signal(signal.SIGTERM)
        told = await answer_close(client)
        assert told.code == 1012 and "gw: drain" in told.reason
        assert (await answer_close(server)).code == 1001
        assert await asyncio.to_thread(chain.inner.wait) == 0
    assert (await asyncio.to_thread(chain.outer.access_log().wait_for, event="close"))["cause"] == "upstream"
    async with chain.client() as client:
        await client.send(attempt("/chain"))
        assert (await client.head()).status == 502


# ---- tunnels --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("between", BETWEEN)
async def test_a_tunnel_that_ends_at_the_second(between: str, directory: Path) -> None:
    ends = {"match": {"method": "CONNECT"}, "upgrades": "connect", "tunnel": {"connect": "terminate"}}
    async with tcp_server() as (server, url):
        config = inner_config(url, between)
        config["routes"][0] |= ends
        async with chained(config, between, directory, upgrades="connect") as (outer, inner):
            chain = Chain(outer, inner, server)
            async with chain.client() as client:
                await client.send(request_bytes("CONNECT db.test:5432", host="db.test:5432") + b"first")
                assert (await client.head()).status == 200
                far = await server.connection()
                assert await far.exactly(5) == b"first"
                await far.send(b"answer")
                far.finish()
                assert await client.rest() == b"answer"
            first, second = await chain.logged(event="open")
            assert (first["client"], second["client"], second["host"]) == (CLIENT, CLIENT, "db.test:5432")
