"""Messages that come in odd pieces, stop in the middle, or say too much: what the suites of nginx, HAProxy and Envoy
check about them and no other test here does (docs/behaviours.md).
"""

import asyncio
from typing import Any

import pytest

from tests.e2e.kit.bridge import Bridge
from tests.e2e.kit.wire import Head, Wire, request_bytes

ROUTES: dict[str, dict[str, Any]] = {"plain": {}, "fixed": {"respond": {"status": 200, "body": "hello"}}}
SETTINGS = {"workers": 1}  # one pool, so that a kept connection is the one that is used next

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


async def slowly(wire: Wire, data: bytes) -> None:
    """Each byte in a segment of its own, as far as the kernel lets them go."""
    for at in range(len(data)):
        await wire.send(data[at : at + 1])
        await asyncio.sleep(0)


async def ask(bridge: Bridge, client: Wire, start: str, *fields: str, body: bytes = b"") -> tuple[Wire, Head]:
    """Sends a request for a path of its own; returns the server's side of it."""
    path = bridge.path("plain")
    await client.send(request_bytes(f"{start} {path}", *fields, body=body))
    return await bridge.asked(path)


# ---- in odd pieces --------------------------------------------------------------------------------------------------


async def test_a_whole_exchange_byte_by_byte(bridge: Bridge) -> None:
    path = bridge.path("plain")
    request = (
        request_bytes(f"POST {path}", "Transfer-Encoding: chunked") + b"3;a=b\r\nabc\r\n2\r\nde\r\n0\r\nX-T: 1\r\n\r\n"
    )
    answer = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n1\r\n!\r\n0\r\nX-U: 2\r\n\r\n"
    async with bridge.dial() as client:
        sending = asyncio.create_task(slowly(client, request))
        server, _ = await bridge.asked(path)
        assert await server.chunks() == (b"abcde", b"X-T: 1\r\n")
        await sending
        answering = asyncio.create_task(slowly(server, answer))
        assert (await client.head()).status == 200
        assert await client.chunks() == (b"ok!", b"X-U: 2\r\n")
        await answering


async def test_a_whole_exchange_in_one_segment_each(bridge: Bridge) -> None:
    async with bridge.dial() as client:
        path = bridge.path("plain")
        first = request_bytes(f"POST {path}/1", "Transfer-Encoding: chunked") + b"3\r\nabc\r\n0\r\n\r\n"
        second = request_bytes(f"POST {path}/2", "Content-Length: 2", body=b"de")
        await client.send(first + second)
        server, _ = await bridge.asked(f"{path}/1")
        assert (await server.chunks())[0] == b"abc"
        await server.send(OK)
        assert (await client.answer())[1] == b"ok"
        head = await server.head()
        assert (head.target, await server.body(head)) == (f"{path}/2", b"de")
        await server.send(OK)
        assert (await client.answer())[1] == b"ok"


# ---- kept connections -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "answer"),
    [
        ("HEAD", b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n"),
        ("HEAD", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"),
        ("GET", b"HTTP/1.1 304 Not Modified\r\nContent-Length: 100\r\n\r\n"),
        ("GET", b"HTTP/1.1 204 No Content\r\n\r\n"),
        ("GET", b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"),
        ("GET", b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX-T: 1\r\n\r\n"),
        ("DELETE", b"HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n"),
    ],
    ids=["head-length", "head-chunked", "304", "204", "empty", "trailers", "interim"],
)
async def test_a_connection_is_kept_behind_every_answer_whose_end_is_known(
    bridge: Bridge, method: str, answer: bytes
) -> None:
    async with bridge.dial() as client:
        server, _ = await ask(bridge, client, method)
        await server.send(answer)
        head = await client.head()
        while head.status < 200:
            head = await client.head()
        if method == "GET" and head.get("transfer-encoding"):
            assert await client.chunks() == (b"", b"X-T: 1\r\n")
        path = bridge.path("plain")
        await client.send(request_bytes(f"GET {path}"))
        assert (await server.head()).target == path, "on the same connection"
        await server.send(OK)
        assert (await client.answer())[1] == b"ok"


async def test_what_concerns_the_upstream_s_connection_alone_is_not_told_the_client(bridge: Bridge) -> None:
    async with bridge.dial() as client:
        server, _ = await ask(bridge, client, "GET")
        told = b"Connection: close\r\nKeep-Alive: timeout=1\r\nProxy-Connection: close\r\n"
        await server.send(b"HTTP/1.1 200 OK\r\n" + told + b"Content-Length: 2\r\n\r\nok")
        head, body = await client.answer()
        assert body == b"ok"
        assert head.names().isdisjoint({"connection", "keep-alive", "proxy-connection"})
        server, _ = await ask(bridge, client, "GET")  # the client's connection goes on
        await server.send(OK)
        assert (await client.answer())[1] == b"ok"


async def test_a_body_that_nobody_reads_is_not_the_next_request(bridge: Bridge) -> None:
    """Our own answer comes before the body: it is not waited for, and the connection ends."""
    smuggled = request_bytes("GET /fixed/smuggled")
    async with bridge.dial() as client:
        await client.send(request_bytes("POST /fixed", f"Content-Length: {len(smuggled)}", body=smuggled))
        head, body = await client.answer()
        assert (head.status, body, head.get("connection")) == (200, b"hello", "close")
        await client.ended()


async def test_a_client_that_still_sends_its_body_gets_our_answer_whole(bridge: Bridge) -> None:
    async with bridge.dial() as client:
        await client.send(request_bytes("POST /fixed", "Content-Length: 300000", body=b"x" * 200_000))
        head, body = await client.answer()
        assert (head.status, body) == (200, b"hello")
        client.push(b"x" * 100_000)
        await client.ended()


# ---- what stops in the middle ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "body"),
    [("Content-Length: 10", b"abc"), ("Transfer-Encoding: chunked", b"3\r\nabc\r\n")],
    ids=["length", "chunked"],
)
@pytest.mark.parametrize("reset", [False, True], ids=["fin", "rst"])
async def test_a_request_cut_short_is_cut_short(bridge: Bridge, fields: str, body: bytes, reset: bool) -> None:
    """The upstream must be able to tell it from a whole one."""
    async with bridge.dial() as client:
        server, head = await ask(bridge, client, "POST", fields, body=body)
        chunked = head.get("transfer-encoding") == "chunked"
        assert (await server.chunk() if chunked else await server.exactly(3)) == b"abc"
        if reset:
            client.reset()
        else:
            await client.close()
        await server.ended()


@pytest.mark.parametrize("reset", [False, True], ids=["fin", "rst"])
async def test_half_a_head_reaches_nobody(bridge: Bridge, reset: bool) -> None:
    async with bridge.dial() as client:
        path = bridge.path("plain")
        await client.send(request_bytes(f"GET {path}")[:-2])
        if reset:
            client.reset()
        else:
            client.finish()
            await client.ended()
    async with bridge.dial() as client:  # whatever was sent for the one before has come when this one is there
        await ask(bridge, client, "GET")
    assert not bridge.has_heard_of(path)


async def test_an_answer_until_the_end_that_is_reset_is_not_whole(bridge: Bridge) -> None:
    async with bridge.dial() as client:
        server, _ = await ask(bridge, client, "GET")
        await server.send(b"HTTP/1.1 200 OK\r\n\r\nabc")
        assert (await client.head()).get("transfer-encoding") == "chunked"
        assert await client.chunk() == b"abc"
        server.reset()
        await client.ended()  # and no last chunk


@pytest.mark.parametrize("reset", [False, True], ids=["fin", "rst"])
async def test_an_upstream_that_leaves_within_the_request_is_a_502(bridge: Bridge, reset: bool) -> None:
    async with bridge.dial() as client:
        server, _ = await ask(bridge, client, "POST", "Content-Length: 10", body=b"abc")
        assert await server.exactly(3) == b"abc"
        if reset:
            server.reset()
        else:
            await server.close()
        head, _ = await client.answer()
        assert (head.status, head.get("connection")) == (502, "close")
        await client.ended()


async def test_half_an_interim_answer_is_a_502(bridge: Bridge) -> None:
    async with bridge.dial() as client:
        server, _ = await ask(bridge, client, "GET")
        await server.send(b"HTTP/1.1 103 Early Hi")
        await server.close()
        assert (await client.answer())[0].status == 502


async def test_an_upstream_may_close_its_half_behind_its_answer(bridge: Bridge) -> None:
    async with bridge.dial() as client:
        server, _ = await ask(bridge, client, "GET")
        await server.send(OK)
        server.finish()
        assert (await client.answer())[1] == b"ok"
        await server.ended()
        server, _ = await ask(bridge, client, "GET")  # on a new connection
        await server.send(OK)
        assert (await client.answer())[1] == b"ok"


# ---- fields ---------------------------------------------------------------------------------------------------------


async def test_names_with_underscores_go_through(bridge: Bridge) -> None:
    async with bridge.dial() as client:
        server, head = await ask(bridge, client, "GET", "X_Tide: 1", "user_id: 2")
        assert (head.get("x_tide"), head.get("user_id")) == ("1", "2")
        await server.send(b"HTTP/1.1 200 OK\r\nset_tide: 3\r\nContent-Length: 0\r\n\r\n")
        assert (await client.head()).get("set_tide") == "3"


async def test_what_an_answer_repeats_is_repeated(bridge: Bridge) -> None:
    async with bridge.dial() as client:
        server, _ = await ask(bridge, client, "GET", "Accept: a", "Accept: b")
        fields = b"Date: 1\r\nDate: 2\r\nServer: a\r\nServer: b\r\nVary: x\r\nVary: y\r\n"
        await server.send(b"HTTP/1.1 200 OK\r\n" + fields + b"Content-Length: 0\r\n\r\n")
        head = await client.head()
        assert [head.all(name) for name in ("date", "server", "vary")] == [["1", "2"], ["a", "b"], ["x", "y"]]


async def test_a_fresh_answer_has_no_date_or_server_of_ours(bridge: Bridge) -> None:
    async with bridge.dial() as client:
        server, _ = await ask(bridge, client, "GET")
        await server.send(OK)
        head, _ = await client.answer()
        assert head.names().isdisjoint({"date", "server", "via"})
