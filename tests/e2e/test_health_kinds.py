"""`health`: what endpoints are asked, by each kind of check, and which answers are good."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest

from tests.e2e.kit.bridge import switch
from tests.e2e.kit.certificates import Authority
from tests.e2e.kit.frames import Frame, Op, Peer, close, ping, pong, text
from tests.e2e.kit.h2server import H2Server
from tests.e2e.kit.h3server import H3Server
from tests.e2e.kit.peers import accept, play, running
from tests.e2e.kit.secure import SecureServer, server_context
from tests.e2e.kit.sites import Config, route, site, until
from tests.e2e.kit.wire import Head, Wire
from tidegate.testing import Gateway, Record

SELDOM = {"every": "1h", "timeout": "5s"}
"""The first check decides, and no other comes."""


def config(url: str, health: Config, **more: Any) -> Config:
    """A start that does not wait for checks: the test plays the server that answers them."""
    them = {"endpoints": [url], "health": health, "warm": "0s", **more}
    return site(route("it", "them"), upstreams={"them": them}, workers=1)


async def value(gateway: Gateway, name: str, **labels: str) -> float:
    return (await asyncio.to_thread(gateway.metrics)).value(f"tidegate_{name}", **labels)


async def is_well(gateway: Gateway) -> None:
    """A check was good, and none failed."""
    checks = "tidegate_health_checks_total"
    await until(lambda: gateway.metrics().value(checks, upstream="them") >= 1)
    assert not gateway.log().matching(event="endpoint_unhealthy"), "it is unhealthy"
    assert await value(gateway, "endpoint_healthy", upstream="them") == 1


async def why(gateway: Gateway) -> str:
    """Why a check failed."""
    record: Record = await asyncio.to_thread(gateway.log().wait_for, event="endpoint_unhealthy")
    assert await value(gateway, "endpoint_healthy", upstream="them") == 0
    return str(record["why"])


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("health")
    Authority(directory).issue("here", "127.0.0.1")
    Authority(directory, "other-ca").issue("stranger", "127.0.0.1")
    return directory


TLS = {"tls": {"ca": "ca.pem"}}

# ---- http ---------------------------------------------------------------------------------------------------------


async def test_what_a_request_says() -> None:
    async with play() as (server, url), running(config(url, {"http": "/healthz?deep=1", **SELDOM})) as gateway:
        wire = await server.connection()
        head = await wire.head()
        assert head.start == "GET /healthz?deep=1 HTTP/1.1"
        assert head.get("host") == url.removeprefix("http://")
        assert (head.get("user-agent") or "").startswith("tidegate/") and head.get("connection") == "close"
        assert head.names() == {"host", "user-agent", "connection"}
        await wire.send(b"HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n")
        await wire.ended()
        await is_well(gateway)


async def test_what_a_request_says_at_length() -> None:
    more = {"headers": {"X-Check": "yes", "user-agent": "me"}, "status": [301, "404-410"]}
    http = {"path": "/up", "method": "HEAD", "host": "app.internal:8000", **more}
    async with play() as (server, url), running(config(url, {"http": http, **SELDOM})) as gateway:
        wire = await server.connection()
        head = await wire.head()
        assert (head.start, head.get("host")) == ("HEAD /up HTTP/1.1", "app.internal:8000")
        assert (head.get("x-check"), head.get("user-agent")) == ("yes", "me")
        await wire.send(b"HTTP/1.1 404 Not Found\r\nContent-Length: 1000\r\n\r\n")
        await is_well(gateway)


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (b"HTTP/1.1 503 X\r\nContent-Length: 0\r\n\r\n", "HTTP 503"),
        (b"HTTP/1.1 302 X\r\nLocation: /login\r\nContent-Length: 0\r\n\r\n", "HTTP 302"),
        (b"HTTP/1.1 199 X\r\n\r\nHTTP/1.1 404 X\r\n\r\n", "HTTP 404"),
        (b"SSH-2.0-OpenSSH\r\n", "the status line is not valid"),
        (b"", "the connection was lost before the answer"),
        (None, "no answer within 0.3 s"),
    ],
    ids=["503", "redirect", "interim", "ssh", "lost", "silent"],
)
async def test_answers_that_are_not_good(answer: bytes | None, reason: str) -> None:
    health = {"http": "/", "every": "1h", "timeout": "300ms"}
    async with play() as (server, url), running(config(url, health)) as gateway:
        wire = await server.connection()
        await wire.head()
        if answer is not None:
            await wire.send(answer)
            wire.finish()
        found = await why(gateway)
        assert found == reason or (answer and answer.startswith(b"SSH") and not found.startswith("HTTP")), found


@pytest.mark.parametrize("way", ["prior knowledge", "alpn", "h3"])
async def test_over_what_the_upstream_speaks(files: Path, way: str) -> None:
    server: H2Server | H3Server
    more: Config = {}
    if way == "h3":
        server, more = H3Server(files), {"protocol": "h3", **TLS}
    elif way == "alpn":
        context = server_context(files, "here")
        context.set_alpn_protocols(["h2", "http/1.1"])
        server, more = H2Server(context), TLS
    else:
        server, more = H2Server(), {"protocol": "h2"}
    health = {"http": "/healthz", "every": "300ms", "unhealthy": 1, "healthy": 1}
    async with server, running(config(server.url, health, **more), directory=files) as gateway:
        asked = await server.asked()
        assert (asked[":method"], asked[":path"]) == ("GET", "/healthz")
        assert asked[":authority"] == server.url.removeprefix("https://").removeprefix("http://")
        assert "connection" not in asked.head.names()
        asked.answer(200, end=True)
        await is_well(gateway)
        again = await server.asked()
        assert again.connection is not asked.connection, "each has a connection of its own"
        again.answer(500, end=True)
        assert await why(gateway) == "HTTP 500"


async def test_another_port(files: Path) -> None:
    async with play() as (_, url), play() as (agent, checked):
        health = {"http": "/primary", "port": int(checked.rpartition(":")[2]), **SELDOM}
        async with running(config(url, health)) as gateway:
            wire = await agent.connection()
            assert (await wire.head()).get("host") == url.removeprefix("http://")
            await wire.send(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
            await is_well(gateway)
            assert await value(gateway, "endpoint_healthy", endpoint=url.removeprefix("http://")) == 1


# ---- tcp ----------------------------------------------------------------------------------------------------------


async def test_a_connection() -> None:
    async with play() as (server, url), running(config(url, {"tcp": True, **SELDOM})) as gateway:
        wire = await server.connection()
        await wire.send(b"220 a server that speaks first\r\n")
        await wire.ended()
        await is_well(gateway)


async def test_a_connection_with_tls(files: Path) -> None:
    for name, reason in (("here", None), ("stranger", "certificate")):
        async with SecureServer(server_context(files, name)) as server:
            more = {"tls": {"ca": "ca.pem"}}
            async with running(config(server.url, {"tcp": True, **SELDOM}, **more), directory=files) as gateway:
                if reason is None:
                    await is_well(gateway)
                else:
                    assert reason in await why(gateway)
                    assert await value(gateway, "endpoint_tls_failures_total", upstream="them") == 0


@pytest.mark.parametrize(
    ("version", "header"), [("v1", b"PROXY UNKNOWN\r\n"), ("v2", b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0")]
)
async def test_the_proxy_protocol_names_nobody(version: str, header: bytes) -> None:
    health = {"http": "/healthz", **SELDOM}
    async with play() as (server, url), running(config(url, health, proxy_protocol=version)) as gateway:
        wire = await server.connection()
        assert await wire.exactly(len(header)) == header
        assert (await wire.head()).target == "/healthz"
        await wire.send(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        await is_well(gateway)


# ---- grpc ---------------------------------------------------------------------------------------------------------


class HealthService(grpc.GenericRpcHandler):
    """`grpc.health.v1.Health`, in bytes."""

    def __init__(self, statuses: dict[str, int]) -> None:
        self.statuses = statuses

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler | None:
        known = details.method == "/grpc.health.v1.Health/Check"
        return grpc.unary_unary_rpc_method_handler(self.check) if known else None

    async def check(self, message: bytes, call: Any) -> bytes:
        name = message[2:].decode() if message else ""
        if name not in self.statuses:
            await call.abort(grpc.StatusCode.NOT_FOUND, "no such service")
        status = self.statuses[name]
        return bytes([0x08, status]) if status else b""


@contextlib.asynccontextmanager
async def calls(*handlers: grpc.GenericRpcHandler) -> AsyncIterator[str]:
    server = grpc.aio.server()
    server.add_generic_rpc_handlers(handlers)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        await server.stop(None)


@pytest.mark.parametrize(
    ("asks", "reason"),
    [
        (True, None),
        ("chat.v1", None),
        ({"service": "chat.v1"}, None),
        ("shop.v1", "NOT_SERVING"),
        ("odd.v1", "UNKNOWN"),
        ("none.v1", "gRPC status 5"),
    ],
    ids=str,
)
@pytest.mark.parametrize("protocol", ["h2", "auto"])
async def test_calls(asks: object, reason: str | None, protocol: str) -> None:
    service = HealthService({"": 1, "chat.v1": 1, "shop.v1": 2, "odd.v1": 0})
    async with calls(service) as url, running(config(url, {"grpc": asks, **SELDOM}, protocol=protocol)) as gateway:
        if reason is None:
            await is_well(gateway)
        else:
            assert await why(gateway) == reason


async def test_a_server_without_the_service_and_one_that_is_none() -> None:
    async with calls(HealthService({})) as url, running(config(url, {"grpc": True, **SELDOM})) as gateway:
        assert await why(gateway) == "gRPC status 5"
    async with calls() as url, running(config(url, {"grpc": True, **SELDOM})) as gateway:
        assert await why(gateway) == "gRPC status 12"


async def test_calls_over_http_3(files: Path) -> None:
    health = {"grpc": "chat.v1", "every": "200ms", "timeout": "5s", "unhealthy": 1}
    server = H3Server(files)
    async with server, running(config(server.url, health, protocol="h3", **TLS), directory=files) as gateway:
        asked = await server.asked()
        assert (asked[":method"], asked[":path"]) == ("POST", "/grpc.health.v1.Health/Check")
        assert (asked["content-type"], asked["te"]) == ("application/grpc", "trailers")
        assert await asked.body() == b"\0\0\0\0\x09\x0a\x07chat.v1"
        asked.answer(200, ("content-type", "application/grpc"))
        asked.push(b"\0\0\0\0\x02\x08\x01", trailers=[("grpc-status", "0")])
        await is_well(gateway)
        asked = await server.asked()
        asked.answer(200, ("content-type", "application/grpc"))
        asked.push(b"\0\0\0\0\x02\x08\x02", trailers=[("grpc-status", "0")])
        assert await why(gateway) == "NOT_SERVING"


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        (b"", "the answer has no message"),
        (b"\0\0\0\0\x09\x08", "the answer has no message"),
        (b"\1\0\0\0\x02\x08\x01", "the answer is no health check's"),
        (b"\0\xff\0\0\0\x08\x01", "the answer is no health check's"),
        (b"\0\0\0\0\x01\x0b", "the answer is no health check's"),
    ],
    ids=["none", "cut", "compressed", "huge", "malformed"],
)
async def test_messages_that_are_none(message: bytes, reason: str) -> None:
    async with H2Server() as server, running(config(server.url, {"grpc": True, **SELDOM})) as gateway:
        asked = await server.asked()
        asked.answer(200)
        asked.push(message, end=True)
        assert await why(gateway) == reason


# ---- websocket ----------------------------------------------------------------------------------------------------


async def answered(peer: Peer) -> None:
    """The rest of a good check: a Ping, its Pong, a Close, its answer, the end."""
    asked = await peer.frame()
    assert (asked.op, len(asked.payload)) == (Op.PING, 8)
    await peer.send(pong(asked.payload))
    ends = await peer.frame()
    assert (ends.op, ends.code) == (Op.CLOSE, 1000)
    await peer.send(ends)


async def test_a_websocket_is_opened_asked_and_closed() -> None:
    async with play() as (server, url), running(config(url, {"websocket": "/ws?check=1", **SELDOM})) as gateway:
        wire = await server.connection()
        peer = await accept(wire)
        assert (peer.head.target, peer.head.get("host")) == ("/ws?check=1", url.removeprefix("http://"))
        assert peer.head.get("sec-websocket-extensions") is None
        await answered(peer)
        await wire.ended()
        await is_well(gateway)


async def test_a_websocket_at_length() -> None:
    websocket = {
        "path": "/ws",
        "host": "chat.internal",
        "headers": {"Origin": "https://example.com"},
        "subprotocols": ["chat.v2", "chat.v1"],
    }
    async with play() as (server, url), running(config(url, {"websocket": websocket, **SELDOM})) as gateway:
        wire = await server.connection()
        head = await wire.head()
        assert (head.get("host"), head.get("origin")) == ("chat.internal", "https://example.com")
        assert head.get("sec-websocket-protocol") == "chat.v2, chat.v1"
        await wire.send(switch(head, "Sec-WebSocket-Protocol: chat.v1"))
        await answered(Peer(wire, head, is_client=False))
        await is_well(gateway)


async def test_what_a_server_says_meanwhile_is_passed_over() -> None:
    async with play() as (server, url), running(config(url, {"websocket": "/ws", **SELDOM})) as gateway:
        wire = await server.connection()
        head = await wire.head()
        peer = Peer(wire, head, is_client=False)
        said = peer.encode(text("welcome"), pong(b"unasked"), ping(b"you?"), Frame(Op.BINARY, bytes(100_000)))
        await wire.send(switch(head) + said)
        asked = await peer.frame()
        assert asked.op == Op.PING
        await peer.expect(pong(b"you?"))
        await peer.send(text("still here"), pong(asked.payload), text("more"))
        assert (await peer.frame()).code == 1000
        await peer.send(text("bye"), close(1000))
        await is_well(gateway)


Part = Callable[[Wire, Head, Peer], Awaitable[None]]


async def refuse(wire: Wire, head: Head, peer: Peer) -> None:
    await wire.send(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")


async def lie(wire: Wire, head: Head, peer: Peer) -> None:
    await wire.send(b"HTTP/1.1 101 X\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: no\r\n\r\n")


async def stay_silent(wire: Wire, head: Head, peer: Peer) -> None:
    await wire.send(switch(head))


async def give_another_pong(wire: Wire, head: Head, peer: Peer) -> None:
    await wire.send(switch(head))
    await peer.frame()
    await peer.send(pong(b"another"))


async def close_early(wire: Wire, head: Head, peer: Peer) -> None:
    await wire.send(switch(head) + peer.encode(close(1013, "too many")))


async def hang_up(wire: Wire, head: Head, peer: Peer) -> None:
    await wire.send(switch(head))
    await peer.frame()
    wire.reset()


async def never_close(wire: Wire, head: Head, peer: Peer) -> None:
    await wire.send(switch(head))
    await peer.send(pong((await peer.frame()).payload))


async def mask(wire: Wire, head: Head, peer: Peer) -> None:
    await wire.send(switch(head) + text("x").encode(b"mask"))


@pytest.mark.parametrize(
    ("part", "reason"),
    [
        (refuse, "HTTP 404"),
        (lie, "the upstream's 101 has a Sec-WebSocket-Accept that does not answer our key"),
        (stay_silent, "no pong within 0.4 s"),
        (give_another_pong, "no pong within 0.4 s"),
        (close_early, "closed with 1013 before its pong"),
        (hang_up, "the connection was lost before its pong"),
        (never_close, "no Close within 0.4 s"),
        (mask, None),
    ],
)
async def test_websockets_that_are_not_good(part: Part, reason: str | None) -> None:
    health = {"websocket": "/ws", "every": "1h", "timeout": "400ms"}
    async with play() as (server, url), running(config(url, health)) as gateway:
        wire = await server.connection()
        head = await wire.head()
        await part(wire, head, Peer(wire, head, is_client=False))
        found = await why(gateway)
        assert found == reason or (reason is None and "mask" in found), found


@pytest.mark.parametrize("way", ["h2", "h3"])
async def test_websockets_by_extended_connect(files: Path, way: str) -> None:
    server: H2Server | H3Server = H3Server(files) if way == "h3" else H2Server()
    more = {"protocol": way, **(TLS if way == "h3" else {})}
    health = {"websocket": "/ws", "every": "200ms", "timeout": "5s", "unhealthy": 1}
    async with server, running(config(server.url, health, **more), directory=files) as gateway:
        asked = await server.asked()
        assert (asked[":method"], asked[":protocol"], asked[":path"]) == ("CONNECT", "websocket", "/ws")
        await answered(asked.accept())
        await is_well(gateway)
        asked = await server.asked()
        asked.answer(503, end=True)
        assert await why(gateway) == "HTTP 503"


async def test_a_server_of_http_2_that_takes_no_websockets_is_asked_over_http_1(files: Path) -> None:
    """As its WebSockets are."""
    context = server_context(files, "here")
    context.set_alpn_protocols(["h2", "http/1.1"])
    async with H2Server(context, websockets=False) as server:
        health = {"websocket": "/ws", "every": "1h", "timeout": "400ms"}
        async with running(config(server.url, health, protocol="h2", **TLS), directory=files) as gateway:
            # Its HTTP/1.1 is an echo of bytes: it sends back a masked Ping.
            assert "mask" in await why(gateway)
            assert len(server.plain) == 1 and server.plain[0].startswith(b"GET /ws HTTP/1.1\r\n")
            assert await value(gateway, "endpoint_websocket_fallbacks_total", upstream="them") == 0
