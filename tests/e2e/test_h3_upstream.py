"""Requests to servers over HTTP/3 (RFC 9114): what they are asked, what comes back, how connections are shared."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.kit.certificates import Authority
from tests.e2e.kit.h3server import Asked, H3Server
from tests.e2e.kit.http2 import HOST
from tests.e2e.kit.http2 import dial as dial_h2
from tests.e2e.kit.http3 import Code
from tests.e2e.kit.peers import running
from tests.e2e.kit.sites import Config, route, site, until
from tests.e2e.kit.wire import Head, dial, request_bytes
from tidegate.testing import Gateway


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("h3-requests")
    Authority(directory).issue("here", "127.0.0.1")
    Authority(directory, "other-ca").issue("stranger", "127.0.0.1")
    return directory


def config(endpoint: str, taken: Config | None = None, **upstream: Any) -> Config:
    """One worker, so that all of its connections are in one pool."""
    settings = {"endpoints": [endpoint], "protocol": "h3", "tls": {"ca": "ca.pem"}, **upstream}
    return site(route("app", "app", **(taken or {})), upstreams={"app": settings}, workers=1)


@contextlib.asynccontextmanager
async def h3_site(
    server: H3Server, files: Path, taken: Config | None = None, **upstream: Any
) -> AsyncIterator[Gateway]:
    async with server, running(config(server.url, taken, **upstream), directory=files) as gateway:
        yield gateway


async def ask(gateway: Gateway, start: str = "GET /app", *fields: str, body: bytes = b"") -> tuple[Head, bytes]:
    async with dial(gateway.port()) as wire:
        await wire.send(request_bytes(start, *fields, body=body))
        return await wire.answer()


async def served(server: H3Server, body: bytes = b"done") -> Asked:
    """Answer the next request."""
    asked = await server.asked()
    asked.answer(200)
    asked.push(body, end=True)
    return asked


# ---- what is asked, and what is answered --------------------------------------------------------------------------


async def test_a_target_that_http_3_cannot_carry(files: Path) -> None:
    server = H3Server(files)
    async with h3_site(server, files) as gateway:
        head, body = await ask(gateway, "GET /app/<b>")
        assert (head.status, b"target_character" in body) == (400, True)
        assert server.requests.empty()
        # The stream that was not used is used by the next one.
        asking = asyncio.create_task(ask(gateway))
        assert (await served(server)).number == 0
        assert (await asking)[0].status == 200


# ---- what ends early ----------------------------------------------------------------------------------------------


async def test_less_than_was_announced_is_no_whole_answer(files: Path) -> None:
    server = H3Server(files)
    async with h3_site(server, files) as gateway, dial(gateway.port()) as wire:
        await wire.send(request_bytes("GET /app"))
        asked = await server.asked()
        asked.answer(200, ("content-length", "10"))
        asked.push(b"half", end=True)
        assert (await wire.head()).get("content-length") == "10"
        assert await wire.exactly(4) == b"half"
        await wire.ended()


async def test_goaway_lets_those_before_it_be_served(files: Path) -> None:
    server = H3Server(files)
    async with h3_site(server, files) as gateway:
        asking = asyncio.create_task(ask(gateway))
        first = await server.asked()
        first.connection.go_away(60)
        # Seen when the next request takes another connection.
        while True:
            other = asyncio.create_task(ask(gateway))
            second = await served(server)
            assert (await other)[0].status == 200
            if second.connection is not first.connection:
                break
        first.answer(200)
        first.push(b"still", end=True)
        assert (await asking)[1] == b"still"
        # When nobody needs it any more it is closed, and says so.
        ending = await asyncio.wait_for(asyncio.shield(first.connection.ending), 10)
        assert ending.error_code == Code.NO_ERROR


# ---- servers that break the rules ---------------------------------------------------------------------------------


HEAD_200 = bytes.fromhex("01 03 0000 d9")
"""HEADERS with `:status: 200` (RFC 9204, entry 25 of the static table)."""

BROKEN = {
    "data first": (bytes.fromhex("00 01 61"), Code.FRAME_UNEXPECTED),
    "settings on a request's stream": (bytes.fromhex("04 00"), Code.FRAME_UNEXPECTED),
    "a frame of HTTP/2": (bytes.fromhex("06 00"), Code.FRAME_UNEXPECTED),
    "a push": (bytes.fromhex("05 01 00"), Code.ID_ERROR),
    "a dynamic table": (bytes.fromhex("01 03 0000 80"), Code.DECOMPRESSION_FAILED),
    "a status of letters": (bytes.fromhex("01 06 0000 5f 09 01 78"), None),
    "a head without a status": (bytes.fromhex("01 02 0000"), None),
    "two statuses": (bytes.fromhex("01 04 0000 d9 d9"), None),
    "a head that is too large": (bytes.fromhex("01 80020000"), None),
}


@pytest.mark.parametrize("name", BROKEN)
async def test_an_answer_that_is_none(files: Path, name: str) -> None:
    """A 502; the connection goes where the rules want it, and only there."""
    said, code = BROKEN[name]
    server = H3Server(files)
    async with h3_site(server, files) as gateway:
        asking = asyncio.create_task(ask(gateway))
        first = await server.asked()
        first.write(said, end=code is None and "too large" not in name)
        head, body = await asking
        assert (head.status, b"bad_response" in body) == (502, True), body
        if code is not None:
            ending = await asyncio.wait_for(asyncio.shield(first.connection.ending), 10)
            assert ending.error_code == code
        asking = asyncio.create_task(ask(gateway))
        assert ((await served(server)).connection is first.connection) == (code is None)
        assert (await asking)[0].status == 200


@pytest.mark.parametrize(
    "said,code",
    [("01 03 0000 80", Code.DECOMPRESSION_FAILED), ("05 01 00", Code.ID_ERROR), ("04 00", Code.FRAME_UNEXPECTED)],
    ids=["trailers with a dynamic table", "a push", "settings"],
)
async def test_what_may_not_follow_the_content(files: Path, said: str, code: Code) -> None:
    """The answer is cut, and its connection ends."""
    server = H3Server(files)
    async with h3_site(server, files) as gateway:
        asking = asyncio.create_task(ask(gateway))
        asked = await server.asked()
        asked.answer(200)
        asked.push(b"part")
        asked.write(bytes.fromhex(said), end=True)
        with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
            await asking
        ending = await asyncio.wait_for(asyncio.shield(asked.connection.ending), 10)
        assert ending.error_code == code


@pytest.mark.parametrize(
    "said,code",
    [
        ("0d 01 00", Code.FRAME_UNEXPECTED),
        ("07 01 05", Code.ID_ERROR),
        ("04 00", Code.FRAME_UNEXPECTED),
        ("03 01 00", Code.ID_ERROR),
    ],
    ids=["max_push_id", "goaway of no request", "settings again", "cancel_push"],
)
async def test_a_control_stream_that_breaks_the_rules(files: Path, said: str, code: int) -> None:
    server = H3Server(files)
    async with h3_site(server, files) as gateway:
        asking = asyncio.create_task(ask(gateway))
        asked = await server.asked()
        asked.connection.say(bytes.fromhex(said))
        ending = await asyncio.wait_for(asyncio.shield(asked.connection.ending), 10)
        assert ending.error_code == code
        # A GET on a connection of its own, which may have been read: once only.
        assert (await asking)[0].status == 502


async def test_streams_of_one_direction_that_mean_nothing(files: Path) -> None:
    server = H3Server(files)
    async with h3_site(server, files) as gateway:
        asking = asyncio.create_task(ask(gateway))
        asked = await server.asked()
        quic = asked.connection.quic
        quic.send_stream_data(quic.get_next_available_stream_id(is_unidirectional=True), b"\x21grease")
        asked.connection.transmit()
        asked.answer(204, end=True)
        assert (await asking)[0].status == 204
        asking = asyncio.create_task(ask(gateway))
        assert (await served(server)).connection is asked.connection
        await asking


# ---- connections --------------------------------------------------------------------------------------------------


async def test_what_a_server_lets_there_be_is_kept(files: Path) -> None:
    """The library lets there be 128 streams."""
    server = H3Server(files)
    async with h3_site(server, files, http2={"streams": 1000}) as gateway:
        asking = [asyncio.create_task(ask(gateway)) for _ in range(150)]
        all_asked = [await server.asked() for _ in asking]
        assert len(server.connections) == 2
        for asked in all_asked:
            asked.answer(204, end=True)
        assert {head.status for head, _ in await asyncio.gather(*asking)} == {204}


async def test_our_own_limit_is_kept(files: Path) -> None:
    server = H3Server(files)
    async with h3_site(server, files, http2={"streams": 5}) as gateway:
        asking = [asyncio.create_task(ask(gateway)) for _ in range(12)]
        all_asked = [await server.asked() for _ in asking]
        assert max(connection.live for connection in server.connections) == 5
        for asked in all_asked:
            asked.answer(204, end=True)
        assert {head.status for head, _ in await asyncio.gather(*asking)} == {204}


async def test_idle_connections_go(files: Path) -> None:
    server = H3Server(files)
    async with h3_site(server, files, pool={"idle_timeout": "1s"}) as gateway:
        asking = asyncio.create_task(ask(gateway))
        asked = await served(server)
        assert (await asking)[0].status == 200
        ending = await asyncio.wait_for(asyncio.shield(asked.connection.ending), 10)
        assert ending.error_code == Code.NO_ERROR


# ---- how a connection is made -------------------------------------------------------------------------------------


async def test_nobody_there_is_known_at_once(files: Path) -> None:
    """Not when `connect_timeout` is over: the next endpoint would be late."""
    server = H3Server(files)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind(("127.0.0.1", 0))
        nobody = f"https://127.0.0.1:{taken.getsockname()[1]}"
    async with server:
        settings = config(server.url, connect_timeout="60s", balance="round_robin")
        settings["upstreams"]["app"]["endpoints"] = [nobody, server.url]
        async with running(settings, directory=files) as gateway:
            for _ in range(2):
                asking = asyncio.create_task(ask(gateway))
                await served(server)
                assert (await asking)[0].status == 200
            failures = gateway.metrics().value("tidegate_endpoint_connect_failures_total", upstream="app")
            assert failures >= 1


async def test_a_server_that_is_silent_is_a_timeout(files: Path) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent:
        silent.bind(("127.0.0.1", 0))
        settings = config(f"https://127.0.0.1:{silent.getsockname()[1]}", connect_timeout="500ms")
        async with running(settings, directory=files) as gateway:
            head, body = await ask(gateway)
            assert (head.status, b"connect_timeout" in body) == (504, True)


@pytest.mark.parametrize(
    "tls,reason",
    [({"ca": "other-ca.pem"}, "authority"), ({"ca": "ca.pem", "server_name": "elsewhere.test"}, "name")],
    ids=["authority", "name"],
)
async def test_certificates_are_verified(files: Path, tls: Config, reason: str) -> None:
    server = H3Server(files)
    async with h3_site(server, files, tls=tls) as gateway:
        head, body = await ask(gateway)
        assert (head.status, b"upstream_tls" in body) == (502, True), body
        failures = "tidegate_endpoint_tls_failures_total"
        assert gateway.metrics().value(failures, upstream="app", reason=reason) == 1
        assert server.connections == []


async def test_a_server_that_speaks_something_else_over_quic(files: Path) -> None:
    server = H3Server(files, alpn=["doq"])
    async with h3_site(server, files) as gateway:
        head, body = await ask(gateway)
        assert (head.status, b"upstream_protocol" in body) == (502, True), body


async def test_a_server_that_comes_back_is_found_again(files: Path) -> None:
    server = H3Server(files)
    async with h3_site(server, files) as gateway:
        asking = asyncio.create_task(ask(gateway))
        await served(server)
        await asking
        await server.stop()
        await until(lambda: asyncio.run(ask(gateway))[0].status == 502)
        async with H3Server(files, port=server.port) as again:
            asking = asyncio.create_task(ask(gateway))
            await served(again)
            assert (await asking)[0].status == 200


# ---- gRPC ---------------------------------------------------------------------------------------------------------


async def test_calls_of_grpc(files: Path) -> None:
    """Both directions at once, and the outcome in trailers, as over HTTP/2 (PROTOCOL-HTTP2.md)."""
    server, message = H3Server(files), b"\0\0\0\0\5hello"
    async with h3_site(server, files) as gateway, dial_h2(gateway.port()) as client:
        pseudo = [(":method", "POST"), (":scheme", "http"), (":authority", HOST), (":path", "/app/say.Hello/Say")]
        fields = [("content-type", "application/grpc"), ("te", "trailers"), ("grpc-timeout", "9S")]
        call = client.open([*pseudo, *fields])
        asked = await server.asked()
        assert (asked["content-type"], asked["te"], asked["grpc-timeout"]) == ("application/grpc", "trailers", "9S")
        asked.answer(200, ("content-type", "application/grpc"))
        for _ in range(3):
            call.push(message)
            assert await asked.exactly(len(message)) == message
            asked.push(message)
            assert await call.exactly(len(message)) == message
        call.finish()
        await asked.ended()
        asked.push(b"", trailers=[("grpc-status", "5"), ("grpc-message", "none")])
        assert await call.body() == b""
        assert call.trailers == {"grpc-status": "5", "grpc-message": "none"}
