"""gRPC through the gateway, with the grpcio library at both ends: calls of all four kinds, and what they end with."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import grpc
import grpc.aio
import pytest

from tests.e2e.kit.grpc_server import calls_server
from tests.e2e.kit.h2server import ErrorCodes, H2Server
from tests.e2e.kit.peers import running
from tests.e2e.kit.sites import Config, route, site
from tidegate.testing import Gateway

METADATA = (("x-team", "blue"), ("x-data-bin", b"\x00\xff"))


def config(url: str, **taken: Any) -> Config:
    app = {"name": "app", "match": {"path": {"prefix": "/test.Echo"}}, "to": "app", **taken}
    small = route("small", "app", limits={"body": "1KiB"})
    return site(app, small, upstreams={"app": {"endpoints": [url], "protocol": "h2"}})


@contextlib.asynccontextmanager
async def served(**taken: Any) -> AsyncIterator[tuple[Gateway, grpc.aio.Channel]]:
    async with calls_server() as url, running(config(url, **taken)) as gateway, channel(gateway) as calls:
        yield gateway, calls


@contextlib.asynccontextmanager
async def channel(gateway: Gateway) -> AsyncIterator[grpc.aio.Channel]:
    options = (("grpc.use_local_subchannel_pool", 1),)
    async with grpc.aio.insecure_channel(f"127.0.0.1:{gateway.port()}", options=options) as calls:
        yield calls


async def test_unary_calls_with_metadata() -> None:
    async with served() as (_, calls):
        for size in (0, 1, 100_000, 3_000_000):
            call = calls.unary_unary("/test.Echo/Unary")(b"x" * size, metadata=METADATA, timeout=20)
            assert await call == b"x" * size
            assert ("x-head", "blue") in tuple(await call.initial_metadata())
            assert ("x-tail-bin", b"\x00\xff") in tuple(await call.trailing_metadata())
            assert await call.code() == grpc.StatusCode.OK


async def test_a_stream_down() -> None:
    async with served() as (_, calls):
        call = calls.unary_stream("/test.Echo/Down")(b"500", timeout=20)
        assert [message async for message in call] == [b"%d" % number for number in range(500)]


async def test_a_stream_up() -> None:
    async with served() as (_, calls):
        call = calls.stream_unary("/test.Echo/Up")(iter([b"%d," % number for number in range(500)]), timeout=20)
        assert await call == b"".join(b"%d," % number for number in range(500))


async def test_both_at_once() -> None:
    """Each message is answered before the next one is sent: nothing waits for more."""
    async with served() as (_, calls):
        call = calls.stream_stream("/test.Echo/Both")(timeout=20)
        for number in range(50):
            await call.write(b"%d" % number)
            assert await call.read() == b"%d" % number
        await call.done_writing()
        assert await call.read() is grpc.aio.EOF
        assert await call.code() == grpc.StatusCode.OK


async def failed(call: Any) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return caught.value


async def test_the_application_s_status_goes_through() -> None:
    async with served() as (_, calls):
        error = await failed(calls.unary_unary("/test.Echo/Unary")(b"fail", timeout=20))
        assert (error.code(), error.details()) == (grpc.StatusCode.FAILED_PRECONDITION, "no: 100 % not, é")
        assert ("x-why", "because") in tuple(error.trailing_metadata())
        error = await failed(calls.unary_unary("/test.Echo/Missing")(b"", timeout=20))
        assert error.code() == grpc.StatusCode.UNIMPLEMENTED


async def test_a_deadline_ends_the_call_everywhere() -> None:
    server = H2Server()
    async with server, running(config(server.url)) as gateway, channel(gateway) as calls:
        call = calls.unary_unary("/test.Echo/Unary")(b"x", timeout=1)
        asked = await server.asked()
        assert asked["grpc-timeout"]
        assert (await failed(call)).code() == grpc.StatusCode.DEADLINE_EXCEEDED
        assert await asked.was_reset() == ErrorCodes.CANCEL


async def test_a_call_that_is_cancelled_is_cancelled_everywhere() -> None:
    server = H2Server()
    async with server, running(config(server.url)) as gateway, channel(gateway) as calls:
        call = calls.unary_unary("/test.Echo/Unary")(b"x")
        asked = await server.asked()
        call.cancel()
        assert await asked.was_reset() == ErrorCodes.CANCEL
        with pytest.raises(asyncio.CancelledError):
            await call


async def test_our_deadline_is_one_of_grpc() -> None:
    async with served(timeouts={"request": "500ms"}) as (_, calls):
        error = await failed(calls.unary_unary("/test.Echo/Unary")(b"sleep"))
        assert (error.code(), "request_timeout" in (error.details() or "")) == (grpc.StatusCode.DEADLINE_EXCEEDED, True)


async def test_refusals_are_statuses_of_grpc() -> None:
    async with served() as (_, calls):
        error = await failed(calls.unary_unary("/nowhere/At/All")(b"", timeout=20))
        assert (error.code(), "no_route" in (error.details() or "")) == (grpc.StatusCode.UNIMPLEMENTED, True)
        error = await failed(calls.unary_unary("/small/Unary")(b"x" * 10_000, timeout=20))
        assert error.code() == grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_a_server_that_is_not_there_is_unavailable() -> None:
    async with running(config("http://127.0.0.1:1")) as gateway, channel(gateway) as calls:
        error = await failed(calls.unary_unary("/test.Echo/Unary")(b"", timeout=20))
        assert (error.code(), "connect_failed" in (error.details() or "")) == (grpc.StatusCode.UNAVAILABLE, True)


async def test_a_stream_that_is_lost_is_an_error() -> None:
    """A part of a stream must not look like all of it."""
    server = H2Server()
    async with server, running(config(server.url)) as gateway, channel(gateway) as calls:
        call = calls.unary_stream("/test.Echo/Down")(b"", timeout=20)
        asked = await server.asked()
        asked.answer(200, ("content-type", "application/grpc"))
        asked.push(b"\x00\x00\x00\x00\x02hi")
        assert await call.read() == b"hi"
        asked.reset(ErrorCodes.INTERNAL_ERROR)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call.read()
        assert caught.value.code() in (grpc.StatusCode.INTERNAL, grpc.StatusCode.CANCELLED, grpc.StatusCode.UNAVAILABLE)
