"""Starts and reloads wait for the first health checks of upstreams that are new."""

import asyncio

from tests.e2e.kit.named import asked_often
from tests.e2e.kit.peers import play, running
from tests.e2e.kit.sites import Config, reload, route, site
from tests.e2e.test_levels import servers
from tidegate.testing import Gateway

GOOD = b"HTTP/1.1 204 No Content\r\n\r\n"


def checked(*urls: str, warm: str = "60s") -> Config:
    health = {"http": "/", "every": "1h", "timeout": "60s"}
    return {"endpoints": list(urls), "balance": "round_robin", "health": health, "panic": "0%", "warm": warm}


async def test_a_start_waits_for_the_first_check() -> None:
    async with play() as (server, url):
        gateway = Gateway(site({"to": "app"}, upstreams={"app": checked(url)}))
        starting = asyncio.create_task(asyncio.to_thread(gateway.__enter__))
        try:
            check = await server.connection()
            assert (await check.head()).start.startswith("GET / ")
            assert not gateway.log().matching(event="ready") and not starting.done()
            await check.send(GOOD)
        finally:
            await starting
            await asyncio.to_thread(gateway.__exit__)
        assert gateway.log().matching(event="ready") and not gateway.log().matching(event="checks_late")


async def test_what_fails_its_first_check_gets_nothing_at_all() -> None:
    async with servers("bad", "good") as found:
        found["bad"][0].status = 503
        settings = site({"to": "app"}, upstreams={"app": checked(*(url for _, url in found.values()))})
        async with running(settings) as gateway:
            before = found["bad"][0].asked
            assert await asked_often(gateway.port(), "/", 20, 4) == {"good": 20}
            assert found["bad"][0].asked == before == 1


async def test_a_reload_keeps_the_old_one_until_the_first_check() -> None:
    async with servers("a", "b") as found, play() as (server, url):
        (_, a), (_, b) = found.values()
        old = site(route("old", "old"), upstreams={"old": a})
        new = site(route("new", "new"), route("b", "b"), upstreams={"new": checked(url), "b": b})
        async with running(old) as gateway:
            reloading = asyncio.create_task(asyncio.to_thread(gateway.reload, new))
            check = await server.connection()
            await check.head()
            assert await asked_often(gateway.port(), "/old", 3) == {"a": 3}
            assert not reloading.done()
            await check.send(GOOD)
            await reloading
            assert await asked_often(gateway.port(), "/b", 3) == {"b": 3}
            # What runs is not waited for again.
            await reload(gateway, site(route("new", "new"), upstreams={"new": checked(url)}))


async def test_a_check_that_takes_too_long_holds_nothing_up() -> None:
    async with play() as (server, url):
        settings = site({"to": "app"}, upstreams={"app": checked(url, warm="300ms")})
        async with running(settings) as gateway:
            assert gateway.log().matching(event="checks_late", upstream="app")
            await server.connection()
