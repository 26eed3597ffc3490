"""`retry`: another endpoint is asked before the client has an answer."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.kit.bridge import attempt, switch
from tests.e2e.kit.named import Mortal, Named, asked, opened
from tests.e2e.kit.peers import play
from tests.e2e.kit.sites import Config, reload, route, site
from tests.e2e.kit.wire import dial, request_bytes
from tidegate.testing import Gateway, Record

RETRIES: dict[str, Config] = {
    "plain": {},
    "statuses": {"retry": {"on": [502, 503]}},
    "both": {"retry": {"attempts": 2, "on": ["connect", 502, 503]}},
    "thrice": {"retry": {"attempts": 3, "on": ["connect", 503]}},
    "once": {"retry": {"attempts": 1}},
    "hurried": {
        "retry": {"attempts": 9, "on": ["connect", 503]},
        "timeouts": {"request": "700ms", "handshake": "700ms"},
    },
}


def configuration(endpoints: list[str]) -> Config:
    routes = [route(name, "two", **settings) for name, settings in RETRIES.items()]
    return site(*routes, upstreams={"two": {"endpoints": endpoints, "balance": "round_robin"}}, workers=1)


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("retry")


@pytest.fixture(scope="module")
def gateway(directory: Path) -> Iterator[Gateway]:
    urls = [Mortal(name, directory).url for name in ("a", "b")]
    with Gateway(configuration(urls), directory=directory) as gateway:
        yield gateway


@pytest.fixture
async def servers(directory: Path) -> AsyncIterator[tuple[Named, Named]]:
    async with contextlib.AsyncExitStack() as stack:
        found = []
        for name in ("a", "b"):
            server = Mortal(name, directory)
            found.append(await server.live())
            stack.push_async_callback(server.die)
        yield found[0], found[1]


async def fetch(gateway: Gateway, path: str, method: str = "GET", *fields: str, body: bytes = b"") -> tuple[int, str]:
    async with dial(gateway.port()) as client:
        await client.send(request_bytes(f"{method} {path}", *fields, body=body))
        head, text = await client.answer()
        return head.status, text.decode().partition(":")[0]


async def logged(gateway: Gateway, path: str, **fields: Any) -> Record:
    return await asyncio.to_thread(gateway.access_log().wait_for, path=path, **fields)


async def retries(gateway: Gateway, **labels: str) -> float:
    return (await asyncio.to_thread(gateway.metrics)).value("tidegate_retries_total", **labels)


async def test_a_status_is_worth_another_try(gateway: Gateway, servers: tuple[Named, Named]) -> None:
    servers[0].status = 503
    before = await retries(gateway, route="statuses", upstream="two", on="503")
    for number in range(4):
        assert await fetch(gateway, f"/statuses/{number}") == (200, "b")
    records = [await logged(gateway, f"/statuses/{number}", event="request") for number in range(4)]
    # One of two turns goes to the one that answers 503 first.
    assert sorted(record["attempts"] for record in records) == [1, 1, 2, 2]
    assert {record["endpoint"].rpartition("/")[2] for record in records} == {"b.sock"}
    assert (servers[0].asked, servers[1].asked) == (2, 4)
    assert await retries(gateway, route="statuses", upstream="two", on="503") == before + 2


async def test_other_statuses_and_other_routes_are_not(gateway: Gateway, servers: tuple[Named, Named]) -> None:
    servers[0].status = servers[1].status = 500
    assert (await fetch(gateway, "/statuses/500"))[0] == 500
    assert servers[0].asked + servers[1].asked == 1
    servers[0].status = servers[1].status = 503
    status, _ = await fetch(gateway, "/plain/503")
    assert (status, servers[0].asked + servers[1].asked) == (503, 2)
    assert (await logged(gateway, "/plain/503"))["attempts"] == 1


async def test_handshakes_are_tried_again(gateway: Gateway, servers: tuple[Named, Named]) -> None:
    servers[0].status = 502
    for number in range(2):
        async with opened(gateway.port(), f"/statuses/ws{number}") as name:
            assert name == "b"
    records = [await logged(gateway, f"/statuses/ws{number}", event="open") for number in range(2)]
    assert sorted(record["attempts"] for record in records) == [1, 2]


@pytest.mark.parametrize(
    ("method", "fields", "body", "asked_in_all"),
    [
        ("DELETE", (), b"", 4),
        ("PUT", ("Content-Length: 0",), b"", 4),
        ("POST", ("Content-Length: 0",), b"", 2),
        ("PUT", ("Content-Length: 4",), b"body", 2),
        ("PUT", ("Transfer-Encoding: chunked",), b"0\r\n\r\n", 2),
    ],
    ids=["delete", "empty-put", "post", "put", "chunked"],
)
async def test_only_what_may_be_done_twice(
    gateway: Gateway, servers: tuple[Named, Named], method: str, fields: tuple[str, ...], body: bytes, asked_in_all: int
) -> None:
    servers[0].status = servers[1].status = 503
    for _ in range(2):
        assert (await fetch(gateway, "/statuses", method, *fields, body=body))[0] == 503
    assert servers[0].asked + servers[1].asked == asked_in_all


@pytest.mark.parametrize("way", ["request", "attempt"])
async def test_the_last_answer_is_the_clients(gateway: Gateway, servers: tuple[Named, Named], way: str) -> None:
    """When all fail alike; each endpoint once, or as often as the route says."""
    servers[0].status = servers[1].status = 503
    for name, times in (("statuses", 2), ("both", 2), ("thrice", 3)):
        servers[0].asked = servers[1].asked = 0
        path = f"/{name}/{way}/last"
        async with dial(gateway.port()) as client:
            await client.send(attempt(path) if way == "attempt" else request_bytes(f"GET {path}"))
            head, body = await client.answer()
        assert (head.status, len(body)) == (503, 1)
        assert servers[0].asked + servers[1].asked == times
        record = await logged(gateway, path)
        assert (record["attempts"], record["endpoint"].endswith(f"{body.decode()}.sock")) == (times, True)


async def test_an_answer_is_better_than_none(gateway: Gateway, directory: Path) -> None:
    """The one that answers 503 is asked first or second; the other one is not there."""
    alone = Mortal("a", directory)
    server = await alone.live()
    server.status = 503
    try:
        for number in range(4):
            assert await fetch(gateway, f"/both/{number}") == (503, "a")
            async with opened(gateway.port(), f"/both/ws{number}") as refused:
                assert refused == "503 a"
        assert server.asked == 8
    finally:
        await alone.die()


async def test_no_connection_is_tried_as_often_as_the_route_says(gateway: Gateway, directory: Path) -> None:
    alone = Mortal("b", directory)
    await alone.live()
    try:
        async with dial(gateway.port()) as client:
            # Without a word of it each endpoint is tried, and with a limit no more than so many.
            assert [await asked(client, "/plain/there") for _ in range(4)] == ["b"] * 4
            assert [await asked(client, "/both") for _ in range(4)] == ["b"] * 4
            once = [await asked(client, "/once/x") for _ in range(4)]
            never = [await asked(client, "/statuses/x") for _ in range(4)]
            for found in (once, never):
                assert sorted(found) == ["502 connect_failed", "502 connect_failed", "b", "b"]
            body = await fetch(gateway, "/plain", "POST", "Content-Length: 4", body=b"once")
            assert body == (200, "b"), "nothing was sent to the dead one"
        assert await retries(gateway, route="plain", upstream="two", on="connect") >= 2
        assert await retries(gateway, route="once") == 0
        refusal = await logged(gateway, "/once/x", event="refusal")
        assert (refusal["attempts"], refusal["reason"]) == (1, "connect_failed")
    finally:
        await alone.die()
    assert await fetch(gateway, "/thrice/none") == (502, "connect_failed")
    assert (await logged(gateway, "/thrice/none"))["attempts"] == 3
    assert await fetch(gateway, "/plain/none") == (502, "connect_failed")
    assert (await logged(gateway, "/plain/none"))["attempts"] == 2


@pytest.mark.parametrize("way", ["request", "attempt"])
async def test_all_tries_have_one_time_together(gateway: Gateway, way: str) -> None:
    """The first answers 503 after a while, the second never: the 503 it is, when the time of both is over."""
    async with play() as (one, first), play() as (two, second), dial(gateway.port()) as client:
        config = configuration([first, second])
        try:
            await reload(gateway, config)
            start = time.monotonic()
            path = f"/hurried/{way}"
            await client.send(attempt(path) if way == "attempt" else request_bytes(f"GET {path}"))
            waiting = {asyncio.create_task(each.connection()) for each in (one, two)}
            for _ in range(2):
                done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
                server = done.pop().result()
                await server.head()
                if waiting:
                    await server.send(b"HTTP/1.1 503 Later\r\nContent-Length: 5\r\n\r\nlater")
            head, body = await client.answer()
            assert (head.status, body) == (503, b"later")
            assert 0.6 < time.monotonic() - start < 5
            assert (await logged(gateway, path))["attempts"] == 2
        finally:
            await reload(gateway, configuration([Mortal(name, gateway.directory).url for name in ("a", "b")]))


async def test_a_kept_connection_that_was_closed_is_no_try(gateway: Gateway) -> None:
    async with play() as (server, url):
        config = site(route("kept", "one", retry={"attempts": 1}), upstreams={"one": url}, workers=1)
        with Gateway(config) as own:
            async with dial(own.port()) as client:
                await client.send(request_bytes("GET /kept/1"))
                kept = await server.connection()
                await kept.head()
                await kept.send(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
                assert (await client.answer())[0].status == 200
                await client.send(request_bytes("GET /kept/2"))
                await kept.head()
                kept.reset()
                fresh = await server.connection()
                await fresh.head()
                await fresh.send(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
                assert (await client.answer())[0].status == 200
                assert await retries(own, route="kept", upstream="one", on="kept") == 1
                assert (await logged(own, "/kept/2"))["attempts"] == 1
                await client.send(request_bytes("POST /kept/3", "Content-Length: 0"))
                await fresh.head()
                fresh.reset()
                assert (await client.answer())[0].status == 502, "who knows what it did"


async def test_an_open_websocket_is_asked_for_once(gateway: Gateway) -> None:
    """A 101 that is no answer to our handshake is no status to try again with."""
    async with play() as (server, url):
        config = site(route("fake", "one", retry={"attempts": 3, "on": [502]}), upstreams={"one": url})
        with Gateway(config) as own:
            async with dial(own.port()) as client:
                await client.send(attempt("/fake"))
                fake = await server.connection()
                await fake.send(switch(await fake.head(), "Sec-WebSocket-Accept: twice"))
                head, body = await client.answer()
                assert (head.status, body.partition(b":")[0], server.connections) == (502, b"bad_handshake", 1)
