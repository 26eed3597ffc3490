"""`eject`: an endpoint that fails too often gets nothing for a while."""

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.kit.bridge import attempt
from tests.e2e.kit.named import Mortal, Named, asked, asked_often, opened
from tests.e2e.kit.peers import play, running
from tests.e2e.kit.sites import LOOPBACK, Config, reload, route, site, until
from tests.e2e.kit.wire import Wire, dial, request_bytes
from tidegate.testing import Gateway, Record

LONG = {"failures": 3, "for": "1h"}


def configuration(endpoints: list[str], eject: Config | None, **more: Any) -> Config:
    upstream = {"endpoints": endpoints, "balance": "round_robin", **({"eject": eject} if eject else {}), **more}
    timeouts = {"request": "200ms", "handshake": "200ms"}
    return site(
        route("it", "them"),
        route("slow", "them", timeouts=timeouts),
        listeners={"edge": {"bind": LOOPBACK, "timeouts": {"body": "300ms"}}},
        upstreams={"them": upstream},
        workers=2,
    )


async def value(gateway: Gateway, name: str, **labels: str) -> float:
    return (await asyncio.to_thread(gateway.metrics)).value(f"tidegate_endpoint_{name}", **labels)


async def ejected(gateway: Gateway, after: int = 0) -> Record:
    return await asyncio.to_thread(gateway.log().wait_for, after=after, event="endpoint_ejected")


@pytest.fixture
async def servers(tmp_path: Path) -> AsyncIterator[dict[str, Mortal]]:
    servers = {name: Mortal(name, tmp_path) for name in "abcd"}
    for server in servers.values():
        await server.live()
    yield servers
    for server in servers.values():
        await server.die()


def named(server: Mortal) -> Named:
    assert server.named
    return server.named


async def test_connections_that_fail_eject_on_all_workers(servers: dict[str, Mortal]) -> None:
    await servers["b"].die()
    urls = [servers[name].url for name in "ab"]
    async with running(configuration(urls, LONG)) as gateway:
        address = f"unix:{servers['b'].path}"
        assert await value(gateway, "healthy", upstream="them") == 2
        assert await asked_often(gateway.port(), "/it", 100, clients=8) == {"a": 100}
        event = await ejected(gateway)
        assert (event["upstream"], event["endpoint"], event["seconds"]) == ("them", address, 3600)
        assert "3 failures in a row" in event["message"] and "connect_failed" in event["message"]
        assert await value(gateway, "healthy", endpoint=address) == 0
        assert await value(gateway, "healthy", upstream="them") == 1
        assert await value(gateway, "ejections_total", endpoint=address) == 1
        # Those that were under way at that moment may have failed as well, but nobody after them.
        failures = await value(gateway, "connect_failures_total", endpoint=address)
        assert 3 <= failures <= 3 + 8
        assert await asked_often(gateway.port(), "/it", 100, clients=8) == {"a": 100}
        async with opened(gateway.port(), "/it") as name:
            assert name == "a"
        assert await value(gateway, "connect_failures_total", endpoint=address) == failures
        await servers["b"].live()
        assert await asked_often(gateway.port(), "/it", 20) == {"a": 20}, "its time is not over"


async def test_it_comes_back_by_itself(servers: dict[str, Mortal]) -> None:
    await servers["b"].die()
    urls = [servers[name].url for name in "ab"]
    async with running(configuration(urls, {"failures": 2, "for": "300ms"})) as gateway:
        await asked_often(gateway.port(), "/it", 8)
        await ejected(gateway)
        await until(lambda: gateway.metrics().value("tidegate_endpoint_healthy", upstream="them") == 2)
        # Still dead: one failure is enough now, and it is for twice as long.
        before = len(gateway.log())
        await asked_often(gateway.port(), "/it", 8)
        assert (await ejected(gateway, before))["seconds"] == 0.6
        await servers["b"].live()
        await until(lambda: gateway.metrics().value("tidegate_endpoint_healthy", upstream="them") == 2)
        assert await asked_often(gateway.port(), "/it", 40) == {"a": 20, "b": 20}
        assert await value(gateway, "ejections_total") >= 2


async def test_statuses_eject_and_answers_forgive(servers: dict[str, Mortal]) -> None:
    urls = [servers[name].url for name in "ab"]
    async with running(configuration(urls, LONG)) as gateway, dial(gateway.port()) as client:
        for status, times in ((500, 10), (404, 10), (503, 2), (200, 1), (502, 2), (500, 1), (504, 2), (200, 1)):
            named(servers["b"]).status = status
            found = Counter([await asked(client, "/it") for _ in range(2 * times)])
            assert found["a"] == times and found.total() == 2 * times
        assert await value(gateway, "healthy", upstream="them") == 2
        named(servers["b"]).status = 503
        found = Counter([await asked(client, "/it") for _ in range(30)])
        assert found == {"a": 27, "503 b": 3}
        assert "status 503" in (await ejected(gateway))["message"]


async def test_handshakes_count_as_well(servers: dict[str, Mortal]) -> None:
    urls = [servers[name].url for name in "ab"]
    async with running(configuration(urls, LONG)) as gateway:
        named(servers["b"]).status = 502
        found: Counter[str] = Counter()
        for _ in range(20):
            async with opened(gateway.port(), "/it") as name:
                found[name] += 1
        assert found == {"a": 17, "502 b": 3}


@pytest.mark.parametrize("way", ["request", "body", "attempt"])
@pytest.mark.parametrize("failure", ["late", "lost", "malformed"])
async def test_other_failures(servers: dict[str, Mortal], failure: str, way: str) -> None:
    async with play() as (bad, url):
        urls = [servers["a"].url, url]
        async with running(configuration(urls, {"failures": 2, "for": "1h"})) as gateway:
            path = "/slow" if failure == "late" else "/it"
            asks = {
                "request": request_bytes(f"GET {path}"),
                "body": request_bytes(f"POST {path}", "Content-Length: 4", body=b"body"),
                "attempt": attempt(path),
            }
            answering = asyncio.create_task(spoil(bad.connection, failure))
            statuses: Counter[int] = Counter()
            for _ in range(12):
                async with dial(gateway.port()) as client:
                    await client.send(asks[way])
                    statuses[(await client.head()).status] += 1
            answering.cancel()
            await asyncio.gather(answering, return_exceptions=True)
            bad_status = 504 if failure == "late" else 502
            assert statuses == {101 if way == "attempt" else 200: 10, bad_status: 2}


async def test_tls_that_fails_is_no_connection(servers: dict[str, Mortal]) -> None:
    async with play() as (bad, url):
        urls = [servers["a"].url, url.replace("http:", "https:")]
        async with running(configuration(urls, {"failures": 2, "for": "1h"})) as gateway:
            answering = asyncio.create_task(hang_up(bad.connection))
            assert await asked_often(gateway.port(), "/it", 20) == {"a": 20}, "the other one is tried next"
            answering.cancel()
            await asyncio.gather(answering, return_exceptions=True)
            assert "upstream_tls" in (await ejected(gateway))["message"]
            assert bad.connections == 2


async def hang_up(connection: Any) -> None:
    """Behind the first byte: a connection that ended before it might not be one yet."""
    while True:
        server: Wire = await connection()
        await server.exactly(1)
        server.reset()


async def spoil(connection: Any, failure: str) -> None:
    while True:
        server: Wire = await connection()
        await server.head()
        if failure == "lost":
            server.reset()
        if failure == "malformed":
            await server.send(b"this is no HTTP\r\n\r\n")


async def test_a_client_that_leaves_or_is_slow_is_no_failure(servers: dict[str, Mortal]) -> None:
    async with play() as (silent, url), running(configuration([url, servers["a"].url], LONG)) as gateway:
        for number in range(8):
            async with dial(gateway.port()) as client:
                body = ("Content-Length: 5",) if number % 4 == 0 else ()
                await client.send(request_bytes(f"{'POST' if body else 'GET'} /slow", *body))
                if number % 2 == 0:
                    server = await silent.connection()
                    await server.head()
                if body:
                    assert (await client.head()).status == 408, "its body never came"
                elif number % 2:
                    assert (await client.answer())[1] == b"a"
        assert await value(gateway, "healthy", upstream="them") == 2
        assert await value(gateway, "ejections_total") == 0


@pytest.mark.parametrize(
    ("at_most", "out"), [("50%", 2), ("74%", 2), ("75%", 3), ("24%", 0), ("100%", 4)], ids=lambda each: str(each)
)
async def test_never_more_than_at_most(servers: dict[str, Mortal], at_most: str, out: int) -> None:
    for server in servers.values():
        named(server).status = 503
    urls = [server.url for server in servers.values()]
    async with running(configuration(urls, {"failures": 2, "for": "1h", "at_most": at_most})) as gateway:
        found = await asked_often(gateway.port(), "/it", 60, clients=4)
        assert await value(gateway, "ejections_total") == out
        assert await value(gateway, "healthy", upstream="them") == 4 - out
        assert found.total() == 60 and all(name.startswith("503 ") for name in found), "somebody is asked all the same"
        later = await asked_often(gateway.port(), "/it", 60)
        # When all are ejected it is as if none was.
        assert len(later) == (4 - out or 4), later


async def test_it_survives_reloads(servers: dict[str, Mortal]) -> None:
    urls = [servers[name].url for name in "abcd"]
    named(servers["d"]).status = 503
    async with running(configuration(urls, LONG)) as gateway:
        await asked_often(gateway.port(), "/it", 40)
        await ejected(gateway)
        named(servers["d"]).status = 200
        for timeout in ("3s", "4s"):
            await reload(gateway, configuration(urls, LONG, connect_timeout=timeout))
            assert set(await asked_often(gateway.port(), "/it", 30)) == {"a", "b", "c"}
            assert await value(gateway, "healthy", upstream="them") == 3
        # Another two at its side: 1 of 2 may be out, and 1 of 1 may not.
        await reload(gateway, configuration([urls[0], urls[3]], LONG))
        assert await asked_often(gateway.port(), "/it", 20) == {"a": 20}
        await reload(gateway, configuration([urls[3]], LONG))
        assert await asked_often(gateway.port(), "/it", 20) == {"d": 20}
        # Without the rule nobody is out.
        await reload(gateway, configuration(urls, None))
        assert await value(gateway, "healthy", upstream="them") == 4
        assert await asked_often(gateway.port(), "/it", 40) == dict.fromkeys("abcd", 10)


async def test_without_the_key_nobody_is_ejected(servers: dict[str, Mortal]) -> None:
    urls = [servers[name].url for name in "ab"]
    named(servers["b"]).status = 503
    async with running(configuration(urls, None)) as gateway:
        assert await asked_often(gateway.port(), "/it", 60) == {"a": 30, "503 b": 30}


async def test_a_hash_goes_on_to_the_next_of_its_key(servers: dict[str, Mortal]) -> None:
    """And comes back to its own when nobody is ejected any more."""
    urls = [servers[name].url for name in "abc"]
    hashed = {"balance": {"hash": {"query": "k"}}}
    async with running(configuration(urls, {"failures": 1, "for": "1h"}, **hashed)) as gateway:
        before = await places(gateway)
        named(servers["b"]).status = 503
        for key in before:
            async with dial(gateway.port()) as client:
                await asked(client, f"/it?k={key}")
        await ejected(gateway)
        without = await places(gateway)
        assert all(without[key] == name for key, name in before.items() if name != "b")
        assert {without[key] for key, name in before.items() if name == "b"} <= {"a", "c"}
        named(servers["b"]).status = 200
        assert await places(gateway) == without
        await reload(gateway, configuration(urls, None, **hashed))
        assert await places(gateway) == before


async def places(gateway: Gateway) -> dict[int, str]:
    async with contextlib.AsyncExitStack() as stack:
        client = await stack.enter_async_context(dial(gateway.port()))
        return {key: await asked(client, f"/it?k={key}") for key in range(40)}
