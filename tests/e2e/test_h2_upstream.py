"""Requests to servers over HTTP/2 (RFC 9113): what they are asked, what comes back, how connections are shared."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.kit.certificates import Authority
from tests.e2e.kit.h2server import Asked, ErrorCodes, H2Server
from tests.e2e.kit.peers import dial_unix, play, running
from tests.e2e.kit.secure import SecureServer, server_context
from tests.e2e.kit.sites import Config, route, site, until
from tests.e2e.kit.wire import Head, dial, request_bytes
from tidegate.testing import Gateway


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("h2-requests")
    Authority(directory).issue("here", "127.0.0.1")
    return directory


def config(endpoint: str, taken: Config | None = None, **upstream: Any) -> Config:
    """One worker, so that all of its connections are in one pool."""
    settings = {"endpoints": [endpoint], **upstream}
    if endpoint.startswith("https"):
        settings["tls"] = {"ca": "ca.pem"}
    return site(route("app", "app", **(taken or {})), upstreams={"app": settings}, workers=1)


@contextlib.asynccontextmanager
async def h2_site(server: H2Server, taken: Config | None = None, **upstream: Any) -> AsyncIterator[Gateway]:
    """By prior knowledge, in clear text."""
    async with server, running(config(server.url, taken, protocol="h2", **upstream)) as gateway:
        yield gateway


async def ask(gateway: Gateway, start: str = "GET /app", *fields: str, body: bytes = b"") -> tuple[Head, bytes]:
    async with dial(gateway.port()) as wire:
        await wire.send(request_bytes(start, *fields, body=body))
        return await wire.answer()


async def served(server: H2Server, body: bytes = b"done") -> Asked:
    """Answer the next request."""
    asked = await server.asked()
    asked.answer(200)
    asked.push(body, end=True)
    return asked


# ---- what is asked, and what is answered --------------------------------------------------------------------------


async def test_a_request_and_its_answer() -> None:
    server = H2Server()
    async with h2_site(server) as gateway:
        fields = ("Cookie: a=1", "X-Team: Blue", "Connection: close, X-Gone", "Keep-Alive: 1", "TE: trailers, deflate")
        asking = asyncio.create_task(ask(gateway, "GET /app/x?y=%20z", *fields))
        asked = await server.asked()
        assert [asked.get(f":{name}") for name in ("method", "scheme", "authority", "path")] == [
            "GET",
            "http",
            "gateway.test",
            "/app/x?y=%20z",
        ]
        assert (asked["cookie"], asked["x-team"], asked["te"]) == ("a=1", "Blue", "trailers")
        assert asked["x-forwarded-for"] == "127.0.0.1"
        assert not {"host", "connection", "keep-alive"} & asked.head.names()
        await asked.ended()
        asked.answer(201, ("x-served-by", "h2"), ("set-cookie", "a=1"), ("set-cookie", "b=2"))
        asked.push(b"made", end=True)
        head, body = await asking
        assert (head.start, head.get("x-served-by"), body) == ("HTTP/1.1 201 Created", "h2", b"made")
        assert head.all("set-cookie") == ["a=1", "b=2"]


@pytest.mark.parametrize("sized", [True, False], ids=["sized", "chunked"])
async def test_bodies_go_both_ways(sized: bool) -> None:
    content = bytes(range(256)) * 12_000
    server = H2Server()
    async with h2_site(server) as gateway, dial(gateway.port()) as wire:
        length = f"Content-Length: {len(content)}" if sized else "Transfer-Encoding: chunked"
        text = content if sized else b"%x\r\n" % len(content) + content + b"\r\n0\r\n\r\n"
        wire.push(request_bytes("POST /app", length, body=text))
        asked = await server.asked()
        assert asked.get("content-length") == (str(len(content)) if sized else None)
        assert await asked.body() == content
        asked.answer(200, *([("content-length", str(len(content)))] if sized else []))
        asked.push(content, end=True)
        head, body = await wire.answer()
        assert (body == content, head.get("transfer-encoding")) == (True, None if sized else "chunked")


async def test_trailers_go_both_ways() -> None:
    server = H2Server()
    async with h2_site(server) as gateway, dial(gateway.port()) as wire:
        await wire.send(request_bytes("POST /app", "Transfer-Encoding: chunked", "Trailer: X-Sum"))
        await wire.send(b"2\r\nhi\r\n0\r\nX-Sum: 7\r\n\r\n")
        asked = await server.asked()
        assert await asked.body() == b"hi"
        assert asked.trailers == {"x-sum": "7"}
        asked.answer(200)
        asked.push(b"ho", trailers=[("grpc-status", "0"), ("x-more", "yes")])
        head = await wire.head()
        assert head.status == 200
        content, trailers = await wire.chunks()
        assert (content, trailers) == (b"ho", b"grpc-status: 0\r\nx-more: yes\r\n")


async def test_an_answer_begins_while_the_body_goes_up() -> None:
    server = H2Server()
    async with h2_site(server) as gateway, dial(gateway.port()) as wire:
        await wire.send(request_bytes("POST /app", "Transfer-Encoding: chunked"))
        asked = await server.asked()
        asked.answer(200)
        assert (await wire.head()).status == 200
        for number in range(5):
            await wire.send(b"1\r\n%d\r\n" % number)
            assert await asked.exactly(1) == b"%d" % number
            asked.push(b"<%d>" % number)
            assert await wire.chunk() == b"<%d>" % number
        await wire.send(b"0\r\n\r\n")
        await asked.ended()
        asked.push(b"", end=True)
        assert await wire.chunk() == b""


async def test_interim_answers_come_first() -> None:
    server = H2Server()
    async with h2_site(server) as gateway, dial(gateway.port()) as wire:
        await wire.send(request_bytes("POST /app", "Content-Length: 2", "Expect: 100-continue"))
        asked = await server.asked()
        asked.answer(103, ("link", "</a.css>"))
        asked.answer(100)
        early = await wire.head()
        assert (early.status, early.get("link")) == (103, "</a.css>")
        assert (await wire.head()).status == 100
        await wire.send(b"ok")
        assert await asked.body() == b"ok"
        asked.answer(204, end=True)
        assert (await wire.head()).status == 204


@pytest.mark.parametrize("method,status", [("HEAD", 200), ("GET", 204), ("GET", 304)])
async def test_answers_without_a_body(method: str, status: int) -> None:
    server = H2Server()
    async with h2_site(server) as gateway, dial(gateway.port()) as wire:
        for _ in range(2):
            await wire.send(request_bytes(f"{method} /app"))
            asked = await server.asked()
            asked.answer(status, *([("content-length", "9")] if method == "HEAD" else []))
            asked.push(b"", end=True)
            head = await wire.head()
            assert (head.status, head.get("content-length")) == (status, "9" if method == "HEAD" else None)


async def test_an_answer_of_nothing_has_a_length() -> None:
    """Over HTTP/2 the end comes with the head; over HTTP/1.1 nothing but a length would say so."""
    server = H2Server()
    async with h2_site(server) as gateway, dial(gateway.port()) as wire:
        for _ in range(2):
            await wire.send(request_bytes("GET /app"))
            asked = await server.asked()
            asked.answer(200, end=True)
            head = await wire.head()
            assert (head.status, head.get("content-length")) == (200, "0")


async def test_a_target_that_http_2_cannot_carry() -> None:
    server = H2Server()
    async with h2_site(server) as gateway:
        head, body = await ask(gateway, "GET /app/<b>")
        assert (head.status, b"HTTP/2" in body) == (400, True)
        assert server.requests.empty()


# ---- what ends early ----------------------------------------------------------------------------------------------


async def test_a_client_that_leaves_cancels_its_stream() -> None:
    server = H2Server()
    async with h2_site(server) as gateway, dial(gateway.port()) as wire:
        await wire.send(request_bytes("GET /app"))
        asked = await server.asked()
        wire.reset()
        assert await asked.was_reset() == ErrorCodes.CANCEL
        serving = asyncio.create_task(ask(gateway))
        await served(server)
        assert (await serving)[0].status == 200
        assert len(server.connections) == 1


@pytest.mark.parametrize("code", [ErrorCodes.INTERNAL_ERROR, ErrorCodes.CANCEL, ErrorCodes.ENHANCE_YOUR_CALM])
async def test_a_reset_before_the_answer_is_a_502(code: ErrorCodes) -> None:
    server = H2Server()
    async with h2_site(server) as gateway:
        asking = asyncio.create_task(ask(gateway))
        (await server.asked()).reset(code)
        head, body = await asking
        assert (head.status, b"upstream_lost" in body) == (502, True)
        assert server.requests.empty()


async def test_a_reset_within_the_answer_cuts_it() -> None:
    server = H2Server()
    async with h2_site(server) as gateway, dial(gateway.port()) as wire:
        await wire.send(request_bytes("GET /app"))
        asked = await server.asked()
        asked.answer(200)
        asked.push(b"half")
        assert (await wire.head()).status == 200
        assert await wire.chunk() == b"half"
        asked.reset(ErrorCodes.INTERNAL_ERROR)
        await wire.ended()


async def test_a_refused_stream_is_asked_again() -> None:
    """Nothing was done (RFC 9113 §8.7), so even a POST is; but not for ever."""
    server = H2Server()
    async with h2_site(server) as gateway:
        asking = asyncio.create_task(ask(gateway, "POST /app"))
        (await server.asked()).reset(ErrorCodes.REFUSED_STREAM)
        await served(server, b"at last")
        assert (await asking)[1] == b"at last"
        asking = asyncio.create_task(ask(gateway, "POST /app"))
        for _ in range(2):
            (await server.asked()).reset(ErrorCodes.REFUSED_STREAM)
        assert (await asking)[0].status == 502


async def test_what_goaway_leaves_out_is_asked_again_elsewhere() -> None:
    server = H2Server()
    async with h2_site(server) as gateway:
        asking = asyncio.create_task(ask(gateway, "POST /app"))
        first = await server.asked()
        first.connection.close(last=0)
        second = await served(server, b"elsewhere")
        assert (await asking)[1] == b"elsewhere"
        assert second.connection is not first.connection


async def test_a_connection_that_was_lost_meanwhile_is_replaced() -> None:
    server = H2Server()
    async with h2_site(server) as gateway:
        for _ in range(3):
            asking = asyncio.create_task(ask(gateway))
            asked = await served(server)
            assert (await asking)[0].status == 200
            asked.connection.writer.transport.abort()
        assert len(server.connections) == 3


async def test_a_server_that_says_nothing_gets_no_more_on_that_connection() -> None:
    server = H2Server()
    async with h2_site(server, {"timeouts": {"request": "4s"}}) as gateway:
        head, _ = await ask(gateway)
        assert head.status == 504
        silent = await server.asked()
        asking = asyncio.create_task(ask(gateway))
        answered = await served(server)
        assert (await asking)[0].status == 200
        assert answered.connection is not silent.connection


# ---- connections --------------------------------------------------------------------------------------------------


async def test_requests_share_a_connection() -> None:
    server = H2Server()
    async with h2_site(server) as gateway:
        asking = [asyncio.create_task(ask(gateway)) for _ in range(50)]
        for _ in asking:
            await served(server)
        assert {head.status for head, _ in await asyncio.gather(*asking)} == {200}
        assert len(server.connections) == 1


async def test_a_server_s_limit_is_kept() -> None:
    server = H2Server(streams=5)
    async with h2_site(server) as gateway:
        asking = [asyncio.create_task(ask(gateway)) for _ in range(12)]
        all_asked = [await server.asked() for _ in asking]
        assert max(connection.live for connection in server.connections) == 4
        for asked in all_asked:
            asked.answer(204, end=True)
        assert {head.status for head, _ in await asyncio.gather(*asking)} == {204}


async def test_a_slow_reader_stalls_no_other() -> None:
    server = H2Server()
    async with h2_site(server) as gateway, dial(gateway.port()) as slow:
        slow.pause()
        await slow.send(request_bytes("GET /app/slow"))
        flood = await server.asked()
        flood.answer(200)
        flood.push(b"x" * (64 << 20))
        for _ in range(20):
            asking = asyncio.create_task(ask(gateway))
            await served(server, b"y" * 100_000)
            assert len((await asking)[1]) == 100_000
        assert len(server.connections) == 1
        slow.reset()
        assert await flood.was_reset() == ErrorCodes.CANCEL


async def dripping(asked: Asked) -> None:
    """Small pieces without end, each in a DATA frame of its own, as far as windows let them go."""
    while True:
        await asked.send(b"x" * 20)


async def test_slow_readers_of_small_frames_do_not_end_their_connection(tmp_path: Path) -> None:
    """What five windows take in frames of 20 bytes is a dozen times more than `h2` lets wait on this connection."""
    server, socket = H2Server(), str(tmp_path / "edge.sock")
    small = {"streams": 20, "window": "64KiB", "connection_window": "1280KiB"}
    async with server:
        settings = config(server.url, protocol="h2", http2=small) | {"listeners": {"edge": {"bind": f"unix:{socket}"}}}
        async with running(settings), contextlib.AsyncExitStack() as stack:
            clients = [await stack.enter_async_context(dial_unix(socket)) for _ in range(5)]
            all_asked = []
            for client in clients:
                client.pause()
                await client.send(request_bytes("GET /app"))
                all_asked.append(asked := await server.asked())
                asked.answer(200)
                stack.callback(asyncio.create_task(dripping(asked)).cancel)
            window = server.connections[0].h2.local_flow_control_window
            await until(lambda: all(window(asked.number) < 20 for asked in all_asked))
            assert [connection.goaway for connection in server.connections] == [None]
            for client in clients:
                client.resume()
                assert (await client.head()).status == 200
                content = b""
                while len(content) < 20_000:
                    content += await client.chunk()
                assert content.count(b"x") == len(content)


async def test_a_server_of_http_1_1_is_told_apart() -> None:
    async with play() as (server, url), running(config(url, protocol="h2")) as gateway:
        asking = asyncio.create_task(ask(gateway))
        wire = await server.connection()
        await wire.until(b"SM\r\n\r\n")
        await wire.send(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n")
        head, body = await asking
        assert (head.status, b"upstream_protocol" in body) == (502, True)


async def test_the_same_over_tls(files: Path) -> None:
    async with (
        SecureServer(server_context(files, "here")) as server,
        running(config(server.url, protocol="h2"), directory=files) as gateway,
    ):
        head, body = await ask(gateway)
        assert (head.status, b"upstream_protocol" in body) == (502, True)


# ---- auto ---------------------------------------------------------------------------------------------------------


async def test_auto_learns_by_alpn(files: Path) -> None:
    context = server_context(files, "here")
    context.set_alpn_protocols(["h2", "http/1.1"])
    server = H2Server(context)
    async with server, running(config(server.url), directory=files) as gateway:
        asking = [asyncio.create_task(ask(gateway)) for _ in range(30)]
        for _ in asking:
            assert (await served(server))[":scheme"] == "https"
        assert {head.status for head, _ in await asyncio.gather(*asking)} == {200}
        assert (len(server.connections), server.plain) == (1, [])
        log = gateway.access_log()
        record = await asyncio.to_thread(log.wait_for, event="request")
        assert (record["protocol"], record["upstream_protocol"]) == ("h1", "h2")


async def test_auto_is_h1_where_only_that_is_spoken(files: Path) -> None:
    async with (
        SecureServer(server_context(files, "here")) as server,
        running(config(server.url), directory=files) as gateway,
    ):
        for _ in range(3):
            assert (await ask(gateway))[0].status == 200
        assert server.connections == 1


async def test_auto_follows_a_server_that_changes(files: Path) -> None:
    context = server_context(files, "here")
    context.set_alpn_protocols(["http/1.1"])
    async with SecureServer(context) as server, running(config(server.url), directory=files) as gateway:
        assert (await ask(gateway))[0].status == 200
        port = server.port
        await server.__aexit__()
        context.set_alpn_protocols(["h2"])
        async with H2Server(context, port=port) as new:
            asking = asyncio.create_task(ask(gateway))
            await served(new)
            assert (await asking)[0].status == 200


async def test_auto_is_h1_in_clear_text() -> None:
    async with play() as (server, url), running(config(url)) as gateway:
        asking = asyncio.create_task(ask(gateway))
        wire = await server.connection()
        assert (await wire.head()).start == "GET /app HTTP/1.1"
        await wire.send(b"HTTP/1.1 204 No Content\r\n\r\n")
        assert (await asking)[0].status == 204
