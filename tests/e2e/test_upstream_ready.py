"""Connections that are dialled ahead: `pool.ready` of upstreams."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.kit.certificates import Authority
from tests.e2e.kit.peers import play, running
from tests.e2e.kit.secure import server_context
from tests.e2e.kit.sites import LOOPBACK, Config, reload, route, site, until
from tests.e2e.kit.tcp import server, vacant
from tests.e2e.kit.wire import Play, Wire, dial, request_bytes
from tests.e2e.test_tcp_proxied import header
from tidegate.testing import Gateway

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


def carrier(url: str, **upstream: Any) -> Config:
    """One worker, so that connections can be counted."""
    listeners = {"edge": {"bind": LOOPBACK, "tcp": {"to": "app"}}}
    described = {"endpoints": [url], "pool": {"ready": 2}, **upstream}
    return {"listeners": listeners, "upstreams": {"app": described}, "workers": 1}


def connections(gateway: Gateway) -> float:
    return gateway.metrics().value("tidegate_upstream_connections", upstream="app")


async def first(servers: list[Wire], said: bytes) -> Wire:
    """The one of them that a client has said this to."""
    hearing = {asyncio.create_task(far.exactly(len(said))): far for far in servers}
    done, others = await asyncio.wait(hearing, return_when=asyncio.FIRST_COMPLETED)
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)
    (task,) = done
    assert task.result() == said
    return hearing[task]


async def test_they_stand_ready_before_a_client_comes_and_are_replaced() -> None:
    async with server() as (upstream, url), running(carrier(url)) as gateway:
        waiting = [await upstream.connection() for _ in range(2)]
        # Nobody has come, and what is there is enough.
        await until(lambda: connections(gateway) == 2)
        async with dial(gateway.port()) as client:
            await client.send(b"hello")
            taken = await first(waiting, b"hello")
            await upstream.connection()
            await until(lambda: connections(gateway) == 3)
        await taken.close()
        await until(lambda: connections(gateway) == 2)
        assert upstream.unexpected == 0


async def test_a_server_that_speaks_first_has_spoken() -> None:
    async with server() as (upstream, url), running(carrier(url)) as gateway:
        for far in [await upstream.connection() for _ in range(2)]:
            await far.send(b"220 ready\r\n")
        await until(lambda: connections(gateway) == 2)
        async with dial(gateway.port()) as client:
            assert await client.until(b"\r\n") == b"220 ready\r\n"


async def test_what_the_server_closes_is_not_used_and_dialled_again() -> None:
    async with server() as (upstream, url), running(carrier(url, pool={"ready": 1})) as gateway:
        await (await upstream.connection()).close()
        again = await upstream.connection()
        async with dial(gateway.port()) as client:
            await client.send(b"hello")
            assert await again.exactly(5) == b"hello"


@pytest.mark.parametrize("version", ["v1", "v2"])
async def test_the_client_is_named_when_it_comes(version: str) -> None:
    settings = {"pool": {"ready": 1}, "proxy_protocol": version}
    async with server() as (upstream, url), running(carrier(url, **settings)) as gateway:
        far = await upstream.connection()
        async with dial(gateway.port()) as client:
            ours, peer = client.ports
            assert await header(far, version) == ("127.0.0.1", ours, "127.0.0.1", peer)
            await client.send(b"hello")
            assert await far.exactly(5) == b"hello"


async def test_the_tls_handshake_is_done_as_well(tmp_path: Path) -> None:
    Authority(tmp_path).issue("here", "127.0.0.1")
    connected: asyncio.Queue[Wire] = asyncio.Queue()

    async def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # Called when the handshake is over.
        connected.put_nowait(Wire(reader, writer))

    context = server_context(tmp_path, "here")
    listening = await asyncio.start_server(take, "127.0.0.1", 0, ssl=context)
    url = f"tls://127.0.0.1:{listening.sockets[0].getsockname()[1]}"
    settings = carrier(url, pool={"ready": 1}, tls={"ca": "ca.pem"})
    async with running(settings, directory=tmp_path) as gateway:
        far = await asyncio.wait_for(connected.get(), 10)
        async with dial(gateway.port()) as client:
            await client.send(b"hello")
            assert await far.exactly(5) == b"hello"
            await far.send(b"there")
            assert await client.exactly(5) == b"there"
    listening.close()


async def test_requests_find_one_as_well() -> None:
    async with play() as (upstream, url):
        settings = site(route("app", "app"), upstreams={"app": {"endpoints": [url], "pool": {"ready": 2}}}, workers=1)
        async with running(settings) as gateway:
            for _ in range(2):
                await upstream.connection()
            await until(lambda: connections(gateway) == 2)
            async with dial(gateway.port()) as client:
                for _ in range(3):
                    await client.send(request_bytes("GET /app"))
                    await answer(upstream)
                    assert (await client.answer())[1] == b"ok"
            # It is idle again: no third one was needed for long.
            await until(lambda: connections(gateway) <= 3)


async def answer(upstream: Play) -> None:
    """On whatever connection is asked."""
    asked = {asyncio.create_task(far.head()): far for far in upstream.all}
    done, others = await asyncio.wait(asked, return_when=asyncio.FIRST_COMPLETED)
    for task in others:
        task.cancel()
    await asyncio.gather(*others, return_exceptions=True)
    (task,) = done
    await asked[task].send(OK)


async def test_they_take_no_connection_from_those_who_wait() -> None:
    settings = {"pool": {"ready": 4}, "limits": {"connections": 2}}
    async with server() as (upstream, url), running(carrier(url, **settings)) as gateway:
        for _ in range(2):
            await upstream.connection()
        async with dial(gateway.port()) as one, dial(gateway.port()) as two:
            for client in (one, two):
                await client.send(b"x")
            await until(lambda: gateway.metrics().value("tidegate_tcp_connections") == 2)
            assert await asyncio.to_thread(connections, gateway) == 2


async def test_an_endpoint_that_is_away_is_asked_less_and_less_and_comes_back() -> None:
    gone = vacant()
    async with running(carrier(gone, pool={"ready": 1})) as gateway:

        def failures() -> float:
            return gateway.metrics().value("tidegate_endpoint_connect_failures_total", upstream="app")

        await until(lambda: failures() >= 2)
        begun = asyncio.get_running_loop().time()
        before = await asyncio.to_thread(failures)
        await until(lambda: failures() >= 3)
        assert before == 2 and asyncio.get_running_loop().time() - begun >= 1.5
        async with server() as (upstream, url):
            await reload(gateway, carrier(url, pool={"ready": 1}))
            await upstream.connection()


async def test_a_reload_that_wants_none_closes_them() -> None:
    async with server() as (upstream, url), running(carrier(url)) as gateway:
        waiting = [await upstream.connection() for _ in range(2)]
        await reload(gateway, carrier(url, pool={"ready": 0}))
        for far in waiting:
            await far.ended()
