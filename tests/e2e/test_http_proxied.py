"""PROXY headers towards the servers of requests and WebSockets: a connection names one client, and is nobody else's."""

import asyncio
from typing import Any

import pytest

from tests.e2e.kit.h2server import H2Server
from tests.e2e.kit.peers import accept, answer_close, leave, play, running, upgrade
from tests.e2e.kit.sites import LOOPBACK, Config, route, site, until
from tests.e2e.kit.wire import Wire, dial, request_bytes
from tests.e2e.test_tcp_proxied import header
from tidegate.testing import Gateway

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


def config(url: str, version: str = "v2", **upstream: Any) -> Config:
    described = {"endpoints": [url], "proxy_protocol": version, **upstream}
    return site(route("app", "app"), route("other", "app"), upstreams={"app": described}, workers=1)


async def ask(client: Wire, path: str = "/app") -> None:
    await client.send(request_bytes(f"GET {path}"))


async def answered(client: Wire, far: Wire) -> None:
    await far.head()
    await far.send(OK)
    assert (await client.answer())[1] == b"ok"


def names(client: Wire, gateway: Gateway) -> tuple[str, int, str, int]:
    ours, peer = client.ports
    assert peer == gateway.port()
    return "127.0.0.1", ours, "127.0.0.1", peer


@pytest.mark.parametrize("version", ["v1", "v2"])
async def test_a_connection_names_its_client_once_and_carries_its_next_requests(version: str) -> None:
    async with play() as (upstream, url), running(config(url, version)) as gateway:
        async with dial(gateway.port()) as client:
            await ask(client)
            far = await upstream.connection()
            assert await header(far, version) == names(client, gateway)
            await answered(client, far)
            await ask(client, "/other")
            await answered(client, far)
        assert upstream.connections == 1


async def test_no_two_clients_share_one() -> None:
    async with play() as (upstream, url), running(config(url)) as gateway:
        async with dial(gateway.port()) as first, dial(gateway.port()) as second:
            for client in (first, second):
                await ask(client)
                far = await upstream.connection()
                assert await header(far, "v2") == names(client, gateway)
                await answered(client, far)
        assert upstream.connections == 2


async def test_it_goes_with_its_client() -> None:
    async with play() as (upstream, url), running(config(url, pool={"idle_timeout": "10m"})) as gateway:
        async with dial(gateway.port()) as client:
            await ask(client)
            far = await upstream.connection()
            await header(far, "v2")
            await answered(client, far)
        await far.ended()


async def test_websockets_too() -> None:
    async with play() as (upstream, url), running(config(url)) as gateway, dial(gateway.port()) as client:
        opening = asyncio.create_task(upgrade(client, "/app"))
        far = await upstream.connection()
        assert await header(far, "v2") == names(client, gateway)
        far_peer = await accept(far)
        await asyncio.gather(leave(await opening), answer_close(far_peer))


async def test_the_client_that_a_proxy_before_us_names() -> None:
    async with play() as (upstream, url):
        listeners = {"edge": {"bind": LOOPBACK, "proxy_protocol": {"from": ["127.0.0.1"]}}}
        settings = {**config(url), "listeners": listeners}
        async with running(settings) as gateway, dial(gateway.port()) as client:
            await client.send(b"PROXY TCP4 203.0.113.7 198.51.100.1 40000 80\r\n")
            await ask(client)
            far = await upstream.connection()
            assert await header(far, "v2") == ("203.0.113.7", 40000, "198.51.100.1", 80)
            await answered(client, far)


async def test_over_http2_each_client_has_connections_of_its_own() -> None:
    h2 = H2Server(proxied=True)
    async with h2, running(config(h2.url, "v1", protocol="h2")) as gateway:
        async with dial(gateway.port()) as first, dial(gateway.port()) as second:
            for client in (first, first, second):
                await ask(client)
                asked = await h2.asked()
                asked.answer(204, end=True)
                assert (await client.answer())[0].status == 204
            headers = [b"PROXY TCP4 127.0.0.1 127.0.0.1 %d %d\r\n" % client.ports for client in (first, second)]
            assert h2.named == headers
        await until(lambda: gateway.metrics().value("tidegate_upstream_connections", upstream="app") == 0)
