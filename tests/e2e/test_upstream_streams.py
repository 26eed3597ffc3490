"""Requests to servers over HTTP/2 (RFC 9113) and HTTP/3 (RFC 9114), where the same is to be said of both: what they are
asked, what comes back, how connections are shared."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.kit.certificates import Authority
from tests.e2e.kit.peers import running
from tests.e2e.kit.sites import Config, route, site
from tests.e2e.kit.spoken import SPOKEN, Asked, Server, Spoken
from tests.e2e.kit.wire import Head, dial, request_bytes
from tidegate.testing import Gateway


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("streams")
    Authority(directory).issue("here", "127.0.0.1")
    return directory


@pytest.fixture(params=SPOKEN, ids=lambda spoken: spoken.name)
def spoken(request: pytest.FixtureRequest) -> Spoken:
    found: Spoken = request.param
    return found


@contextlib.asynccontextmanager
async def spoken_site(
    spoken: Spoken, server: Server, files: Path, taken: Config | None = None, **upstream: Any
) -> AsyncIterator[Gateway]:
    """One worker, so that all of its connections are in one pool."""
    async with server:
        upstreams = {"app": spoken.upstream(server, protocol=spoken.name, **upstream)}
        config = site(route("app", "app", **(taken or {})), upstreams=upstreams, workers=1)
        async with running(config, directory=files) as gateway:
            yield gateway


async def ask(gateway: Gateway, start: str = "GET /app", *fields: str, body: bytes = b"") -> tuple[Head, bytes]:
    async with dial(gateway.port()) as wire:
        await wire.send(request_bytes(start, *fields, body=body))
        return await wire.answer()


async def served(server: Server, body: bytes = b"done") -> Asked:
    """Answer the next request."""
    asked = await server.asked()
    asked.answer(200)
    asked.push(body, end=True)
    return asked


# ---- what is asked, and what is answered -----------------------------------------------------------------------------


async def test_a_request_and_its_answer(spoken: Spoken, files: Path) -> None:
    server = spoken.server(files)
    async with spoken_site(spoken, server, files) as gateway:
        fields = ("Cookie: a=1", "X-Team: Blue", "Connection: close, X-Gone", "Keep-Alive: 1", "TE: trailers, deflate")
        asking = asyncio.create_task(ask(gateway, "GET /app/x?y=%20z", *fields))
        asked = await server.asked()
        assert [asked.get(f":{name}") for name in ("method", "scheme", "authority", "path")] == [
            "GET",
            spoken.scheme,
            "gateway.test",
            "/app/x?y=%20z",
        ]
        assert (asked["cookie"], asked["x-team"], asked["te"]) == ("a=1", "Blue", "trailers")
        assert asked["x-forwarded-for"] == "127.0.0.1"
        assert not {"host", "connection", "keep-alive"} & asked.head.names()
        await asked.ended()
        asked.answer(201, ("x-served-by", "it"), ("set-cookie", "a=1"), ("set-cookie", "b=2"))
        asked.push(b"made", end=True)
        head, body = await asking
        assert (head.start, head.get("x-served-by"), body) == ("HTTP/1.1 201 Created", "it", b"made")
        assert head.all("set-cookie") == ["a=1", "b=2"]
        record = await asyncio.to_thread(gateway.access_log().wait_for, event="request")
        assert (record["protocol"], record["upstream_protocol"]) == ("h1", spoken.name)


@pytest.mark.parametrize("sized", [True, False], ids=["sized", "chunked"])
async def test_bodies_go_both_ways(spoken: Spoken, files: Path, sized: bool) -> None:
    content = bytes(range(256)) * 12_000
    server = spoken.server(files)
    async with spoken_site(spoken, server, files) as gateway, dial(gateway.port()) as wire:
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


async def test_trailers_go_both_ways(spoken: Spoken, files: Path) -> None:
    server = spoken.server(files)
    async with spoken_site(spoken, server, files) as gateway, dial(gateway.port()) as wire:
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


async def test_an_answer_begins_while_the_body_goes_up(spoken: Spoken, files: Path) -> None:
    server = spoken.server(files)
    async with spoken_site(spoken, server, files) as gateway, dial(gateway.port()) as wire:
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


async def test_interim_answers_come_first(spoken: Spoken, files: Path) -> None:
    server = spoken.server(files)
    async with spoken_site(spoken, server, files) as gateway, dial(gateway.port()) as wire:
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
async def test_answers_without_a_body(spoken: Spoken, files: Path, method: str, status: int) -> None:
    server = spoken.server(files)
    async with spoken_site(spoken, server, files) as gateway, dial(gateway.port()) as wire:
        for with_head in (True, False):
            await wire.send(request_bytes(f"{method} /app"))
            asked = await server.asked()
            asked.answer(status, *([("content-length", "9")] if method == "HEAD" else []), end=with_head)
            if not with_head:
                asked.push(b"", end=True)
            head = await wire.head()
            assert (head.status, head.get("content-length")) == (status, "9" if method == "HEAD" else None)
        assert len(server.connections) == 1


# ---- what ends early -------------------------------------------------------------------------------------------------


async def test_a_client_that_leaves_cancels_its_stream(spoken: Spoken, files: Path) -> None:
    server = spoken.server(files)
    async with spoken_site(spoken, server, files) as gateway, dial(gateway.port()) as wire:
        await wire.send(request_bytes("GET /app"))
        asked = await server.asked()
        wire.reset()
        assert await asked.was_reset() == spoken.cancelled
        serving = asyncio.create_task(ask(gateway))
        await served(server)
        assert (await serving)[0].status == 200
        assert len(server.connections) == 1


async def test_a_reset_before_the_answer_is_a_502(spoken: Spoken, files: Path) -> None:
    server = spoken.server(files)
    async with spoken_site(spoken, server, files) as gateway:
        for code in (spoken.internal, spoken.cancelled, *spoken.others):
            asking = asyncio.create_task(ask(gateway))
            (await server.asked()).reset(code)
            head, body = await asking
            assert (head.status, b"upstream_lost" in body) == (502, True), code
            assert server.requests.empty()


async def test_a_reset_within_the_answer_cuts_it(spoken: Spoken, files: Path) -> None:
    server = spoken.server(files)
    async with spoken_site(spoken, server, files) as gateway, dial(gateway.port()) as wire:
        await wire.send(request_bytes("GET /app"))
        asked = await server.asked()
        asked.answer(200)
        asked.push(b"half")
        assert (await wire.head()).status == 200
        assert await wire.chunk() == b"half"
        asked.reset(spoken.internal)
        await wire.ended()


async def test_a_rejected_stream_is_asked_again(spoken: Spoken, files: Path) -> None:
    """Nothing was done (RFC 9113 §8.7, RFC 9114 §4.1.1), so even a POST is; but not for ever."""
    server = spoken.server(files)
    async with spoken_site(spoken, server, files) as gateway:
        asking = asyncio.create_task(ask(gateway, "POST /app"))
        (await server.asked()).reset(spoken.refused)
        await served(server, b"at last")
        assert (await asking)[1] == b"at last"
        asking = asyncio.create_task(ask(gateway, "POST /app"))
        for _ in range(2):
            (await server.asked()).reset(spoken.refused)
        assert (await asking)[0].status == 502


async def test_what_goaway_leaves_out_is_asked_again_elsewhere(spoken: Spoken, files: Path) -> None:
    server = spoken.server(files)
    async with spoken_site(spoken, server, files) as gateway:
        asking = asyncio.create_task(ask(gateway, "POST /app"))
        first = await server.asked()
        first.connection.go_away(first.number)
        second = await served(server, b"elsewhere")
        assert (await asking)[1] == b"elsewhere"
        assert second.connection is not first.connection


async def test_a_connection_that_was_lost_meanwhile_is_replaced(spoken: Spoken, files: Path) -> None:
    server = spoken.server(files)
    async with spoken_site(spoken, server, files) as gateway:
        for _ in range(3):
            asking = asyncio.create_task(ask(gateway))
            asked = await served(server)
            assert (await asking)[0].status == 200
            asked.connection.close_now()
        assert len(server.connections) == 3


async def test_a_server_that_says_nothing_gets_no_more_on_that_connection(spoken: Spoken, files: Path) -> None:
    server = spoken.server(files)
    async with spoken_site(spoken, server, files, {"timeouts": {"request": "4s"}}) as gateway:
        head, _ = await ask(gateway)
        assert head.status == 504
        silent = await server.asked()
        asking = asyncio.create_task(ask(gateway))
        answered = await served(server)
        assert (await asking)[0].status == 200
        assert answered.connection is not silent.connection


# ---- connections -----------------------------------------------------------------------------------------------------


async def test_requests_share_a_connection(spoken: Spoken, files: Path) -> None:
    server = spoken.server(files)
    async with spoken_site(spoken, server, files) as gateway:
        asking = [asyncio.create_task(ask(gateway)) for _ in range(50)]
        for _ in asking:
            await served(server)
        assert {head.status for head, _ in await asyncio.gather(*asking)} == {200}
        assert len(server.connections) == 1


async def test_a_slow_reader_stalls_no_other(spoken: Spoken, files: Path) -> None:
    server = spoken.server(files)
    async with spoken_site(spoken, server, files) as gateway, dial(gateway.port()) as slow:
        slow.pause()
        await slow.send(request_bytes("GET /app/slow"))
        flood = await server.asked()
        flood.answer(200)
        flood.push(b"x" * ((64 if spoken.name == "h2" else 16) << 20))
        for _ in range(20):
            asking = asyncio.create_task(ask(gateway))
            await served(server, b"y" * 100_000)
            assert len((await asking)[1]) == 100_000
        assert len(server.connections) == 1
        slow.reset()
        assert await flood.was_reset() == spoken.cancelled
