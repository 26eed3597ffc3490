"""How much, and how slowly: what a client and an upstream may take, and what is said when they take more."""

import asyncio
import contextlib
from collections.abc import Iterator

import pytest

from tests.e2e.kit.wire import Head, Lanes, Play, Wire, dial, request_bytes
from tidegate.testing import Gateway

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


LANES = 50


@pytest.fixture(scope="module")
def gateway(lanes: Lanes) -> Iterator[Gateway]:
    roomy = {"name": "roomy", "match": {"path": {"prefix": "/roomy"}}, "limits": {"body": "2KiB"}, "respond": "echo"}
    config = {
        "workers": 1,
        "listeners": {
            "edge": {
                "bind": "127.0.0.1:0",
                "limits": {"headers": "4KiB", "body": "1KiB"},
                "timeouts": {"body": "400ms"},
            },
            "open": {"bind": "127.0.0.1:0", "limits": {"body": "unlimited"}},
        },
        "routes": [
            *lanes.routes(timeouts={"request": "700ms"}),
            roomy,
            {"name": "echo", "match": {"path": {"prefix": "/echo"}}, "respond": "echo"},
            {"name": "fixed", "match": {"path": {"exact": "/fixed"}}, "respond": {"body": "hello"}},
        ],
        "upstreams": lanes.upstreams(),
    }
    with Gateway(config) as gateway:
        yield gateway


async def refused(client: Wire, status: int, reason: str) -> Head:
    """A refusal must come, and then the end."""
    head, body = await client.answer()
    assert (head.status, body.split(b":")[0].decode(), head.get("connection")) == (status, reason, "close")
    await client.ended()
    return head


async def recorded(gateway: Gateway, upstream: Play, status: int, reason: str) -> None:
    """The access log and the metric say it too."""
    route = upstream.prefix.removeprefix("/")
    record = await asyncio.to_thread(gateway.access_log().wait_for, route=route, status=status)
    assert record["reason"] == reason
    metrics = await asyncio.to_thread(gateway.metrics)
    assert metrics.value("tidegate_http_failed_total", route=route, reason=reason) == 1
    assert metrics.value("tidegate_http_requests_total", route=route, status=str(status)) == 1


# ---- size -----------------------------------------------------------------------------------------------------------


async def test_a_head_may_be_as_large_as_its_limit_and_not_larger(gateway: Gateway) -> None:
    frame = len(request_bytes("GET /fixed", "X: "))
    for size, status in ((4096, 200), (4097, 431)):
        async with dial(gateway.port("edge")) as client:
            await client.send(request_bytes("GET /fixed", "X: " + "a" * (size - frame)))
            if status == 200:
                assert (await client.answer())[1] == b"hello"
            else:
                await refused(client, 431, "head_too_large")


async def test_too_many_fields_are_a_431(client: Wire) -> None:
    await client.send(request_bytes("GET /fixed", *["X: 1"] * 100))
    await refused(client, 431, "too_many_fields")


async def test_a_target_that_is_too_long_is_a_414(client: Wire) -> None:
    await client.send(request_bytes("GET /fixed?" + "a" * 2048))
    await refused(client, 414, "first_line_too_long")


async def test_a_body_that_says_it_is_too_large_is_not_asked_for(
    gateway: Gateway, client: Wire, upstream: Play
) -> None:
    await client.send(request_bytes(f"POST {upstream.prefix}", "Content-Length: 1025", "Expect: 100-continue"))
    await refused(client, 413, "body_too_large")
    assert upstream.connections == 0
    await recorded(gateway, upstream, 413, "body_too_large")


async def test_a_body_of_the_limit_goes_through(client: Wire, upstream: Play) -> None:
    await client.send(request_bytes(f"POST {upstream.prefix}", "Content-Length: 1024", body=b"a" * 1024))
    server = await upstream.connection()
    assert await server.body(await server.head()) == b"a" * 1024
    await server.send(OK)
    assert (await client.answer())[1] == b"ok"
    body = b"200\r\n" + b"a" * 512 + b"\r\n"
    await client.send(request_bytes(f"POST {upstream.prefix}", "Transfer-Encoding: chunked", body=body * 2))
    await client.send(b"0\r\n\r\n")
    assert await server.body(await server.head()) == b"a" * 1024, "framing does not count"
    await server.send(OK)
    assert (await client.answer())[1] == b"ok"


async def test_chunks_beyond_the_limit_end_the_request(gateway: Gateway, client: Wire, upstream: Play) -> None:
    await client.send(request_bytes(f"POST {upstream.prefix}", "Transfer-Encoding: chunked"))
    server = await upstream.connection()
    await server.head()
    chunk = b"200\r\n" + b"a" * 512 + b"\r\n"
    for _ in range(2):
        await client.send(chunk)
        assert await server.chunk() == b"a" * 512
    await client.send(b"1\r\nb\r\n")
    await refused(client, 413, "body_too_large")
    assert await server.rest() == b"", "neither what is too much, nor an end that would make a whole of the part"
    await recorded(gateway, upstream, 413, "body_too_large")


async def test_chunks_beyond_the_limit_cut_an_answer_under_way(client: Wire, upstream: Play) -> None:
    await client.send(request_bytes(f"POST {upstream.prefix}", "Transfer-Encoding: chunked"))
    server = await upstream.connection()
    await server.head()
    await server.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n")
    await client.head()
    assert await client.chunk() == b"a"
    await client.send(b"401\r\n" + b"a" * 1025 + b"\r\n")
    assert await client.rest() == b"", "no last chunk"
    await server.rest()


async def test_a_route_has_a_limit_of_its_own(gateway: Gateway) -> None:
    for path, size, status in (("/roomy", 2048, 200), ("/roomy", 2049, 413), ("/echo", 1025, 413)):
        async with dial(gateway.port("edge")) as client:
            await client.send(request_bytes(f"POST {path}", f"Content-Length: {size}", body=b"a" * size))
            if status == 200:
                assert (await client.answer())[1] == b"a" * size
            else:
                await refused(client, 413, "body_too_large")


async def test_a_listener_may_have_no_limit(gateway: Gateway, upstream: Play) -> None:
    async with dial(gateway.port("open")) as client:
        await client.send(request_bytes(f"POST {upstream.prefix}", "Content-Length: 100000", body=b"a" * 100_000))
        server = await upstream.connection()
        assert len(await server.body(await server.head())) == 100_000
        await server.send(OK)
        assert (await client.answer())[1] == b"ok"


async def test_a_client_that_sends_everything_first_still_gets_the_413(gateway: Gateway) -> None:
    """Many clients look for an answer only when the whole body is sent: we take what comes until they have read it."""
    async with dial(gateway.port("edge")) as client:
        size = 20_000_000
        await client.send(request_bytes("POST /echo", f"Content-Length: {size}"))
        for _ in range(size // 1_000_000):
            await client.send(b"a" * 1_000_000)
        await refused(client, 413, "body_too_large")


# ---- time -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("begun", [False, True], ids=["at-once", "in-the-middle"])
async def test_a_body_that_pauses_is_a_408(gateway: Gateway, client: Wire, upstream: Play, begun: bool) -> None:
    await client.send(request_bytes(f"POST {upstream.prefix}", "Content-Length: 10", body=b"abc" if begun else b""))
    server = await upstream.connection()
    await server.head()
    await refused(client, 408, "body_timeout")
    assert await server.rest() == (b"abc" if begun else b"")
    await recorded(gateway, upstream, 408, "body_timeout")


async def test_an_echo_waits_no_longer(client: Wire) -> None:
    await client.send(request_bytes("POST /echo", "Content-Length: 10", body=b"abc"))
    await refused(client, 408, "body_timeout")


async def test_a_slow_body_that_moves_on_is_late_for_nobody(client: Wire, upstream: Play) -> None:
    """It takes longer than both limits together, and no part of it does."""
    await client.send(request_bytes(f"POST {upstream.prefix}", "Content-Length: 15"))
    server = await upstream.connection()
    await server.head()
    for _ in range(15):
        await client.send(b"a")
        assert await server.exactly(1) == b"a"
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(0.1):  # the pace of this client; nothing may come meanwhile
                assert await client.exactly(1) == b""
    await server.send(OK)
    assert (await client.answer())[1] == b"ok"


@pytest.mark.parametrize("body", [b"", b"abc"], ids=["bodiless", "with-a-body"])
async def test_an_upstream_that_does_not_answer_is_a_504(
    gateway: Gateway, client: Wire, upstream: Play, body: bytes
) -> None:
    await client.send(request_bytes(f"POST {upstream.prefix}", f"Content-Length: {len(body)}", body=body))
    server = await upstream.connection()
    assert await server.body(await server.head()) == body
    head, text = await client.answer()
    assert (head.status, text.split(b":")[0]) == (504, b"request_timeout")
    await server.ended()
    await recorded(gateway, upstream, 504, "request_timeout")


async def test_an_upstream_that_does_not_take_the_body_is_a_504(gateway: Gateway, upstream: Play) -> None:
    async with dial(gateway.port("open")) as client:
        await client.send(request_bytes(f"POST {upstream.prefix}", "Content-Length: 100000000"))
        server = await upstream.connection()
        await server.head()
        server.pause()
        sending = asyncio.create_task(client.send(b"a" * 40_000_000))
        head, text = await client.answer()
        assert (head.status, text.split(b":")[0]) == (504, b"request_timeout")
        server.resume()
        sending.cancel()
        await asyncio.gather(sending, return_exceptions=True)


async def test_interim_answers_buy_no_time(client: Wire, upstream: Play) -> None:
    await client.send(request_bytes(f"POST {upstream.prefix}", "Content-Length: 3", body=b"abc"))
    server = await upstream.connection()
    await server.body(await server.head())

    async def stall() -> None:
        with contextlib.suppress(ConnectionError):
            while True:
                await server.send(b"HTTP/1.1 102 Processing\r\n\r\n")
                await asyncio.sleep(0.05)

    stalling = asyncio.create_task(stall())
    while (head := await client.head()).status == 102:
        pass
    assert head.status == 504
    stalling.cancel()
    await asyncio.gather(stalling, return_exceptions=True)


async def test_a_refused_connection_is_in_the_metric(gateway: Gateway, client: Wire) -> None:
    await client.send(request_bytes("GET /nothing-here"))
    assert (await client.answer())[0].status == 404
    metrics = await asyncio.to_thread(gateway.metrics)
    assert metrics.value("tidegate_http_failed_total", route="", reason="no_route") == 1
