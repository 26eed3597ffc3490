"""Tunnels: CONNECT and upgrades to other protocols, over each version of HTTP, to endpoints of HTTP/1.1, HTTP/2,
HTTP/3 and TCP."""

import asyncio
import contextlib
import http.client
import random
import signal
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.kit.certificates import Authority
from tests.e2e.kit.h2server import ErrorCodes, H2Server
from tests.e2e.kit.h3server import H3Server
from tests.e2e.kit.http2 import HOST, context
from tests.e2e.kit.http2 import dial as dial_h2
from tests.e2e.kit.http3 import Code
from tests.e2e.kit.peers import running
from tests.e2e.kit.sites import LOOPBACK, Config, reload, site, until
from tests.e2e.kit.tcp import server as tcp_server
from tests.e2e.kit.tcp import vacant
from tests.e2e.kit.tunnels import VERSIONS, asking, rest, was_cut
from tests.e2e.kit.wire import Head, Lanes, Play, Wire, dial, request_bytes
from tidegate.testing import Gateway, Record

TLS = {"certificates": [{"cert": "here.pem", "key": "here.key"}]}
TRUSTED = {"ca": "ca.pem"}
LISTENERS: dict[str, Any] = {
    "edge": {"bind": LOOPBACK},
    "tls": {"bind": LOOPBACK, "tls": TLS, "http": ["h1", "h2", "h3"]},
}
LANES = 60
SMUGGLED = request_bytes("GET /secret/smuggled")

every_version = pytest.mark.parametrize("version", VERSIONS)
every_kind = pytest.mark.parametrize("token", ["connect", "spdy/3.1"])


def config(lanes: Lanes) -> Config:
    routes = []
    for lane in lanes.routes(upgrades=["spdy/3.1", "TCP"], tunnel={"idle": "10s"}, timeouts={"handshake": "2s"}):
        name = lane["name"]
        routes += [lane, {**lane, "name": f"to-{name}", "match": {"host": f"{name}.test"}, "upgrades": "connect"}]
    fixed = {"name": "secret", "match": {"path": {"prefix": "/secret"}}, "respond": {"status": 200, "body": "secret"}}
    plain = {"name": "plain", "match": {"host": "plain.test"}, "to": "lane0"}
    return site(*routes, fixed, plain, listeners=LISTENERS, workers=1) | {"upstreams": lanes.upstreams()}


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("tunnels")
    Authority(made).issue("here", HOST, "127.0.0.1")
    return made


@pytest.fixture(scope="module")
def gateway(lanes: Lanes, directory: Path) -> Iterator[Gateway]:
    with Gateway(config(lanes), directory=directory) as gateway:
        yield gateway


async def logged(gateway: Gateway, **fields: object) -> Record:
    return await asyncio.to_thread(gateway.access_log().wait_for, **fields)


async def count(gateway: Gateway, name: str, **labels: str) -> float:
    return (await asyncio.to_thread(gateway.metrics)).value(name, **labels)


def host(upstream: Play, token: str = "connect") -> str:
    """Where a CONNECT to this lane goes; other upgrades go by their path."""
    return f"{upstream.prefix[1:]}.test:7000" if token == "connect" else HOST


def opening(asked: Head) -> bytes:
    """A server's yes."""
    if asked.method == "CONNECT":
        return b"HTTP/1.1 200 Connection established\r\n\r\n"
    return (
        f"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: {asked.get('Upgrade')}\r\n\r\n".encode()
    )


# ---- bytes ----------------------------------------------------------------------------------------------------------


@every_version
@every_kind
async def test_bytes_both_ways_and_what_is_told_of_them(
    gateway: Gateway, upstream: Play, version: str, token: str
) -> None:
    up, down = random.Random(1).randbytes(1 << 18), random.Random(2).randbytes(1 << 18)
    lane = upstream.prefix[1:]
    name = lane if token != "connect" else f"to-{lane}"
    async with asking(gateway, version, token, f"{upstream.prefix}/x?y", host(upstream, token)) as client:
        far = await upstream.connection()
        asked = await far.head()
        expected = (host(upstream), "CONNECT") if token == "connect" else (f"{upstream.prefix}/x?y", "GET")
        assert (asked.target, asked.method) == expected
        assert (asked.get("Host"), asked.get("Upgrade")) == (
            host(upstream, token),
            None if token == "connect" else token,
        )
        await far.send(opening(asked) + b"hello")
        answer = await client.head()
        assert answer.status == (101 if version == "h1" and token != "connect" else 200)
        assert answer.get("X-Request-ID") == asked.get("X-Request-ID")
        assert await client.exactly(5) == b"hello"
        opened = await logged(gateway, event="open", route=name)
        assert (opened["upgrade"], opened["protocol"], opened["status"]) == (token, version, answer.status)
        assert opened["upstream_protocol"] == "h1"
        both = asyncio.gather(client.send(up), far.send(down), far.exactly(len(up)), client.exactly(len(down)))
        _, _, came_up, came_down = await both
        assert (came_up, came_down) == (up, down)
        labels = {"route": name, "listener": opened["listener"], "upstream": lane, "protocol": version}
        assert await count(gateway, "tidegate_tunnel_connections", **labels) == 1
        (shown,) = [each for each in await asyncio.to_thread(gateway.connections) if each.get("route") == name]
        assert (shown["upgrade"], shown["bytes"]["to_client"]) == (token, len(down) + 5)
        client.finish()
        assert await far.rest() == b""
        await far.close()
        assert await rest(client) == b""
    closed = await logged(gateway, event="close", route=name)
    assert closed["connection"] == opened["connection"]
    assert (closed["cause"], closed["bytes_in"], closed["bytes_out"]) == ("client", len(up), len(down) + 5)
    assert await count(gateway, "tidegate_tunnel_connections", **labels) == 0
    assert await count(gateway, "tidegate_tunnel_closed_total", **labels, cause="client") == 1
    assert await count(gateway, "tidegate_tunnel_bytes_total", route=name, direction="to_upstream") == len(up)
    assert await count(gateway, "tidegate_http_requests_total", route=name) == 0


async def test_the_host_of_connect_needs_no_certificate(gateway: Gateway, upstream: Play) -> None:
    options: dict[str, Any] = {"ssl": context(alpn=("http/1.1",)), "server_hostname": HOST}
    async with dial(gateway.port("tls"), **options) as client:
        await client.send(request_bytes(f"CONNECT {host(upstream)}", host=host(upstream)))
        far = await upstream.connection()
        await far.send(opening(await far.head()))
        assert (await client.head()).status == 200


@every_version
async def test_one_end_of_sending_leaves_the_other_direction(gateway: Gateway, upstream: Play, version: str) -> None:
    async with asking(gateway, version, "connect", host=host(upstream)) as client:
        far = await upstream.connection()
        await far.send(opening(await far.head()))
        await client.head()
        await client.send(b"question")
        client.finish()
        assert await far.rest() == b"question"
        await far.send(b"answer")
        assert await client.exactly(6) == b"answer"


@every_version
async def test_a_lost_endpoint_is_no_good_end(gateway: Gateway, upstream: Play, version: str) -> None:
    async with asking(gateway, version, "connect", host=host(upstream)) as client:
        far = await upstream.connection()
        await far.send(opening(await far.head()) + b"part")
        await client.head()
        assert await client.exactly(4) == b"part"
        far.reset()
        assert await was_cut(client)
    assert (await logged(gateway, event="close", route=f"to-{upstream.prefix[1:]}"))["cause"] == "upstream_lost"


@every_version
@every_kind
async def test_nothing_goes_on_before_the_answer(gateway: Gateway, upstream: Play, version: str, token: str) -> None:
    async with asking(gateway, version, token, upstream.prefix, host(upstream, token), early=b"too soon") as client:
        far = await upstream.connection()
        asked = await far.head()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.3):
                await far.exactly(1)
        await far.send(opening(asked))
        assert await far.exactly(8) == b"too soon"
        await client.head()


@every_version
async def test_a_client_that_leaves_before_the_answer(gateway: Gateway, upstream: Play, version: str) -> None:
    async with asking(gateway, version, "connect", host=host(upstream)) as client:
        far = await upstream.connection()
        await far.head()
        await client.close()
        await far.ended()
    assert (await logged(gateway, event="request", route=f"to-{upstream.prefix[1:]}"))["reason"] == "client_lost"


# ---- what does not open one -----------------------------------------------------------------------------------------


@every_version
@every_kind
async def test_another_answer_is_the_clients_and_the_end(
    gateway: Gateway, upstream: Play, version: str, token: str
) -> None:
    async with asking(gateway, version, token, upstream.prefix, host(upstream, token), early=SMUGGLED) as client:
        far = await upstream.connection()
        await far.head()
        await far.send(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\nX-Why: so\r\n\r\nno")
        head = await client.head()
        assert (head.status, head.get("X-Why"), await client.exactly(2)) == (403, "so", b"no")
        assert await rest(client) == b""  # and no answer to what stood behind the head
        await far.ended()


@every_version
async def test_a_200_is_no_switch(gateway: Gateway, upstream: Play, version: str) -> None:
    async with asking(gateway, version, "tcp", upstream.prefix, early=SMUGGLED) as client:
        far = await upstream.connection()
        await far.head()
        await far.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        # To a client of HTTP/2 a 200 would say that its tunnel is open.
        assert (await client.head()).status == (200 if version == "h1" else 502)
        await far.ended()


@pytest.mark.parametrize(
    "fields",
    [
        "Connection: Upgrade\r\nUpgrade: spdy/3.1\r\n",
        "Connection: Upgrade\r\nUpgrade: tcp, spdy/3.1\r\n",
        "Connection: Upgrade\r\nUpgrade: tcp\r\nUpgrade: tcp\r\n",
        "Connection: Upgrade\r\n",
        "Upgrade: tcp\r\n",
        "Connection: Upgrade\r\nUpgrade: tcp\r\nContent-Length: 5\r\n",
        "Connection: Upgrade\r\nUpgrade: websocket\r\n",
    ],
)
async def test_a_101_that_says_it_wrongly(gateway: Gateway, upstream: Play, fields: str) -> None:
    async with dial(gateway.port("edge")) as client:
        await client.send(request_bytes(f"GET {upstream.prefix}", "Connection: Upgrade", "Upgrade: tcp") + SMUGGLED)
        far = await upstream.connection()
        await far.head()
        await far.send(f"HTTP/1.1 101 Switching Protocols\r\n{fields}\r\nevil".encode())
        head, body = await client.answer()
        assert head.status == 502 and body.startswith(b"bad_handshake"), body
        await client.ended()
        await far.ended()


async def test_a_101_answers_no_connect(gateway: Gateway, upstream: Play) -> None:
    async with asking(gateway, "h1", "connect", host=host(upstream)) as client:
        far = await upstream.connection()
        await far.head()
        await far.send(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\nevil")
        assert (await client.head()).status == 502


@every_version
async def test_connect_is_refused_where_no_route_takes_it(gateway: Gateway, version: str) -> None:
    for host in ("plain.test:443", "nobody.test:443"):
        async with asking(gateway, version, "connect", host=host, early=SMUGGLED) as client:
            assert (await client.head()).status == 501
            assert b"secret" not in await rest(client)
    refusal = await logged(gateway, event="refusal", reason="connect_unsupported", protocol=version)
    assert (refusal["method"], refusal["host"]) == ("CONNECT", "plain.test:443")


async def test_a_route_s_own_answer_is_no_place_to_connect_to(gateway: Gateway) -> None:
    async with dial(gateway.port("edge")) as client:
        await client.send(request_bytes("CONNECT gateway.test:1", host="gateway.test:1") + SMUGGLED)
        head, body = await client.answer()
        assert head.status == 501 and body.startswith(b"connect_unsupported")
        await client.ended()


async def test_connect_has_no_body(gateway: Gateway, upstream: Play) -> None:
    for field in ("Content-Length: 5", "Transfer-Encoding: chunked"):
        async with dial(gateway.port("edge")) as client:
            await client.send(request_bytes(f"CONNECT {host(upstream)}", field, host=host(upstream)) + b"hello")
            head, body = await client.answer()
            assert head.status == 400 and body.startswith(b"connect_body"), body
            await client.ended()
    assert upstream.connections == 0


async def test_a_token_that_is_not_allowed_is_plain_http(gateway: Gateway, upstream: Play) -> None:
    async with dial(gateway.port("edge")) as client:
        await client.send(request_bytes(f"GET {upstream.prefix}", "Connection: Upgrade", "Upgrade: h2c, other/1"))
        far = await upstream.connection()
        asked = await far.head()
        assert not asked.names() & {"upgrade", "connection"}
        await far.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        assert (await client.answer())[1] == b"ok"
        await client.send(request_bytes("GET /secret"))  # it goes on, as behind any request
        assert (await client.answer())[1] == b"secret"


@pytest.mark.parametrize("version", ["h2", "h3"])
async def test_a_protocol_that_is_not_allowed_over_streams(gateway: Gateway, upstream: Play, version: str) -> None:
    async with asking(gateway, version, "other/1", upstream.prefix) as client:
        assert (await client.head()).status == 501
    assert upstream.connections == 0


async def test_only_what_is_allowed_is_offered(gateway: Gateway, upstream: Play) -> None:
    async with dial(gateway.port("edge")) as client:
        fields = ("Connection: keep-alive, Upgrade", "Upgrade: h2c, TCP", "Upgrade: SPDY/3.1", "HTTP2-Settings: x")
        await client.send(request_bytes(f"GET {upstream.prefix}", *fields))
        far = await upstream.connection()
        asked = await far.head()
        assert (asked.get("Upgrade"), asked.get("Connection")) == ("TCP, SPDY/3.1", "Upgrade")
        assert "http2-settings" not in asked.names()
        await far.send(b"HTTP/1.1 101 x\r\nConnection: upgrade\r\nUpgrade: spdy/3.1\r\n\r\n")
        assert (await client.head()).get("Upgrade") == "spdy/3.1"
    assert (await logged(gateway, event="open", route=upstream.prefix[1:]))["upgrade"] == "spdy/3.1"


async def test_an_upgrade_with_a_body_as_docker_asks_for_it(gateway: Gateway, upstream: Play) -> None:
    async with dial(gateway.port("edge")) as client:
        fields = ("Connection: Upgrade", "Upgrade: tcp", "Transfer-Encoding: chunked")
        await client.send(request_bytes(f"POST {upstream.prefix}/exec", *fields, body=b"4\r\n{..}\r\n0\r\n\r\nstdin"))
        far = await upstream.connection()
        asked = await far.head()
        assert (asked.method, asked.get("Content-Length"), asked.get("Transfer-Encoding")) == ("POST", "4", None)
        assert await far.exactly(4) == b"{..}"
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.3):
                await far.exactly(1)
        await far.send(opening(asked))
        assert await far.exactly(5) == b"stdin"
        assert (await client.head()).status == 101


async def test_a_body_that_is_too_long_to_wait_for(gateway: Gateway, upstream: Play) -> None:
    async with dial(gateway.port("edge")) as client:
        fields = ("Connection: Upgrade", "Upgrade: tcp", f"Content-Length: {1 << 17}")
        await client.send(request_bytes(f"POST {upstream.prefix}", *fields, body=bytes(1 << 17)))
        assert (await client.head()).status == 413
    assert upstream.connections == 0


async def test_a_server_that_says_nothing(gateway: Gateway, upstream: Play) -> None:
    async with asking(gateway, "h1", "connect", host=host(upstream)) as client:
        await upstream.connection()
        assert (await client.head()).status == 504


# ---- ends of ours ---------------------------------------------------------------------------------------------------


def alone(upstream: Play, **route: Any) -> Config:
    url = f"http://127.0.0.1:{upstream.listener.getsockname()[1]}"
    return site({"name": "way", "upgrades": ["connect", "tcp"], "to": "app"} | route, upstreams={"app": url})


@pytest.fixture
async def behind(lanes: Lanes) -> AsyncIterator[Play]:
    async with lanes.play() as upstream:
        yield upstream


async def tunnel(gateway: Gateway, upstream: Play, client: Wire) -> Wire:
    await client.send(request_bytes("CONNECT way.test:1", host="way.test:1"))
    far = await upstream.connection()
    await far.send(opening(await far.head()))
    assert (await client.head()).status == 200
    return far


@pytest.mark.parametrize(("limit", "cause"), [("idle", "idle"), ("max_lifetime", "lifetime")])
async def test_limits(behind: Play, limit: str, cause: str) -> None:
    async with running(alone(behind, tunnel={limit: "300ms"})) as gateway, dial(gateway.port()) as client:
        far = await tunnel(gateway, behind, client)
        await client.ended()
        await far.ended()
        assert (await logged(gateway, event="close"))["cause"] == cause


async def test_a_drain_leaves_a_tunnel_for_as_long_as_it_may(behind: Play) -> None:
    config = alone(behind) | {"drain": {"window": "200ms", "timeout": "2s"}}
    async with running(config) as gateway, dial(gateway.port()) as client:
        far = await tunnel(gateway, behind, client)
        gateway.signal(signal.SIGTERM)
        await until(lambda: gateway.admin("/ready")[0] == 503)
        await client.send(b"still")
        assert await far.exactly(5) == b"still"
        await client.ended()
        assert (await logged(gateway, event="close"))["cause"] == "drain"
        assert await asyncio.to_thread(gateway.wait) == 0


async def test_a_reload_ends_the_tunnels_of_a_route_that_is_gone(behind: Play) -> None:
    before = alone(behind)
    async with running(before) as gateway, dial(gateway.port()) as client:
        far = await tunnel(gateway, behind, client)
        await reload(gateway, before | {"workers": 3})
        await client.send(b"still")
        assert await far.exactly(5) == b"still"
        await reload(gateway, alone(behind, name="other"))
        await client.ended()
        assert (await logged(gateway, event="close"))["cause"] == "reload"


# ---- to other kinds of endpoints ------------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def in_front_of(spoken: str, directory: Path) -> AsyncIterator[tuple[Gateway, H2Server | H3Server]]:
    """A gateway, and a server of HTTP/2 or HTTP/3 behind it."""
    async with H2Server() if spoken == "h2" else H3Server(directory) as server:
        upstream = {"endpoints": [server.url], "protocol": spoken} | ({"tls": TRUSTED} if spoken == "h3" else {})
        taken = {"upgrades": ["connect", "spdy/3.1"], "to": "app"}
        config = site(taken, upstreams={"app": upstream}, listeners=LISTENERS)
        async with running(config, directory=directory) as gateway:
            yield gateway, server


every_stream = pytest.mark.parametrize("spoken", ["h2", "h3"])


@every_version
@every_kind
@every_stream
async def test_endpoints_of_streams(directory: Path, version: str, token: str, spoken: str) -> None:
    authority, path = ("db.test:5432", None) if token == "connect" else (HOST, "/x")
    async with in_front_of(spoken, directory) as (gateway, server):
        async with asking(gateway, version, token, "/x", authority) as client:
            asked = await server.asked()
            assert (asked[":method"], asked[":authority"], asked.get(":path")) == ("CONNECT", authority, path)
            assert asked.get(":protocol") == (None if token == "connect" else token)
            asked.answer(200, ("x-from", "server"))
            head = await client.head()
            assert head.get("x-from") == "server"
            await client.send(b"up")
            assert await asked.exactly(2) == b"up"
            await asked.send(b"down")
            assert await client.exactly(4) == b"down"
            asked.reset(ErrorCodes.CONNECT_ERROR if spoken == "h2" else Code.CONNECT_ERROR)
            assert await was_cut(client)
        assert (await logged(gateway, event="open"))["upstream_protocol"] == spoken
        assert (await logged(gateway, event="close"))["cause"] == "upstream_lost"


@every_version
@every_stream
async def test_ends_at_endpoints_of_streams(directory: Path, version: str, spoken: str) -> None:
    """Each direction by itself, and a client that is lost."""
    up, down = random.Random(3).randbytes(1 << 18), random.Random(4).randbytes(1 << 18)
    async with in_front_of(spoken, directory) as (gateway, server):
        async with asking(gateway, version, "connect", host="db.test:5432", early=b"first") as client:
            asked = await server.asked()
            asked.answer(200)
            assert (await client.head()).status == 200
            assert await asked.exactly(5) == b"first"
            _, _, came_up, came_down = await asyncio.gather(
                client.send(up), asked.send(down), asked.exactly(len(up)), client.exactly(len(down))
            )
            assert (came_up, came_down) == (up, down)
            client.finish()
            await asked.ended()
            asked.push(b"last", end=True)
            assert await rest(client) == b"last"
        assert (await logged(gateway, event="close"))["cause"] == "client"
        async with asking(gateway, version, "connect", host="db.test:5432") as client:
            asked = await server.asked()
            asked.answer(200)
            assert (await client.head()).status == 200
            client.reset()
            assert await asked.was_reset() == (ErrorCodes if spoken == "h2" else Code).CONNECT_ERROR
        assert (await logged(gateway, event="close", cause="client_lost"))["upstream_protocol"] == spoken


@every_version
@every_kind
@every_stream
async def test_endpoints_of_streams_that_refuse(directory: Path, version: str, token: str, spoken: str) -> None:
    authority = "db.test:5432" if token == "connect" else HOST
    async with (
        in_front_of(spoken, directory) as (gateway, server),
        asking(gateway, version, token, "/x", authority) as client,
    ):
        asked = await server.asked()
        asked.answer(403, ("content-length", "2"), ("x-why", "so"))
        asked.push(b"no", end=True)
        head = await client.head()
        assert (head.status, head.get("x-why"), await client.exactly(2)) == (403, "so", b"no")


async def test_what_only_http_1_1_can_ask(lanes: Lanes) -> None:
    async with lanes.play() as upstream:
        url = f"http://127.0.0.1:{upstream.listener.getsockname()[1]}"
        upstreams = {"app": {"endpoints": [url], "protocol": "h2"}}
        config = site({"upgrades": "tcp", "to": "app"}, upstreams=upstreams)
        async with running(config) as gateway, dial(gateway.port()) as client:
            await client.send(request_bytes("POST /", "Connection: Upgrade", "Upgrade: tcp", "Content-Length: 0"))
            far = await upstream.connection()
            asked = await far.head()
            assert (asked.method, asked.get("Upgrade")) == ("POST", "tcp")
            await far.send(opening(asked))
            assert (await client.head()).status == 101


TERMINATED = {"match": {"method": "CONNECT"}, "upgrades": "connect", "tunnel": {"connect": "terminate"}, "to": "app"}


@every_version
async def test_the_bytes_alone(directory: Path, version: str) -> None:
    async with tcp_server() as (server, url):
        config = site(TERMINATED, upstreams={"app": url}, listeners=LISTENERS)
        async with running(config, directory=directory) as gateway:
            async with asking(gateway, version, "connect", host="db.test:5432", early=b"first") as client:
                assert (await client.head()).status == 200
                far = await server.connection()
                assert await far.exactly(5) == b"first"
                await far.send(b"down")
                assert await client.exactly(4) == b"down"
            opened = await logged(gateway, event="open")
            assert (opened["upstream_protocol"], opened["host"], opened["method"]) == ("tcp", "db.test:5432", "CONNECT")


async def test_the_bytes_alone_behind_a_proxy_header() -> None:
    async with tcp_server() as (server, url):
        upstreams = {"app": {"endpoints": [url], "proxy_protocol": "v1"}}
        async with running(site(TERMINATED, upstreams=upstreams)) as gateway, dial(gateway.port()) as client:
            await client.send(request_bytes("CONNECT db.test:1", host="db.test:1"))
            assert (await client.head()).status == 200
            far = await server.connection()
            await client.send(b"x")
            named = b"PROXY TCP4 127.0.0.1 127.0.0.1 %d %d\r\n" % client.ports
            assert await far.until(b"\r\n") == named
            assert await far.exactly(1) == b"x"


async def test_nobody_takes_the_bytes() -> None:
    async with running(site(TERMINATED, upstreams={"app": vacant()})) as gateway, dial(gateway.port()) as client:
        await client.send(request_bytes("CONNECT db.test:1", host="db.test:1") + SMUGGLED)
        head, body = await client.answer()
        assert head.status == 502 and body.startswith(b"connect_failed")
        await client.ended()
        await client.close()
        async with dial(gateway.port()) as other:
            await other.send(request_bytes("GET /"))
            assert (await other.answer())[0].status == 404  # the route takes nothing but CONNECT


async def test_a_host_that_the_route_sets(lanes: Lanes) -> None:
    async with lanes.play() as upstream:
        route = {"host": {"set": "{header.x-to}"}}
        async with running(alone(upstream, **route)) as gateway:
            for asked_for, expected in (("inner.test", "inner.test:7"), ("inner.test:8", "inner.test:8")):
                async with dial(gateway.port()) as client:
                    await client.send(request_bytes("CONNECT way.test:7", f"X-To: {asked_for}", host="way.test:7"))
                    far = await upstream.connection()
                    asked = await far.head()
                    assert (asked.target, asked.get("Host")) == (expected, expected)
            for evil in ("a b", "inner.test:8 HTTP/1.1", "/x", ""):
                async with dial(gateway.port()) as client:
                    await client.send(request_bytes("CONNECT way.test:7", f"X-To: {evil}", host="way.test:7"))
                    head, body = await client.answer()
                    assert head.status == 400 and body.startswith(b"host_invalid"), (evil, body)


def test_a_real_client_to_a_real_server() -> None:
    """Python's own client of CONNECT, through a tunnel that ends at a gateway of its own."""
    inner = site({"respond": {"status": 200, "body": "through"}})
    with Gateway(inner) as server:
        outer = site(TERMINATED, upstreams={"app": f"tcp://127.0.0.1:{server.port()}"})
        with Gateway(outer) as gateway:
            connection = http.client.HTTPConnection("127.0.0.1", gateway.port(), timeout=10)
            connection.set_tunnel("inner.test", 8080)
            for _ in range(2):
                connection.request("GET", "/x")
                answer = connection.getresponse()
                assert (answer.status, answer.read()) == (200, b"through")
            connection.close()


async def test_extended_connect_is_offered_for_tunnels_alone(lanes: Lanes) -> None:
    async with lanes.play() as upstream:
        for upgrades, expected in (("tcp", True), ("connect", False)):
            config = alone(upstream, upgrades=upgrades, websocket={"enabled": False})
            async with running(config) as gateway, dial_h2(gateway.port()) as client:
                await client.settled()
                assert client.takes_websockets is expected
