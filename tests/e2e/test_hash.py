"""`balance: {hash: …}`: what is equal goes to the same endpoint."""

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest

from tests.e2e.kit.bridge import attempt
from tests.e2e.kit.named import Mortal, asked
from tests.e2e.kit.sites import Config, reload, route, site
from tests.e2e.kit.wire import dial
from tidegate.testing import Gateway

NAMES = ("a", "b", "c")
HASHES: dict[str, object] = {
    "ip": "client_ip",
    "header": {"header": "X-User"},
    "cookie": {"cookie": "sid"},
    "query": {"query": "room"},
}
KEYS = range(60)

Places = dict[object, str]


def configuration(servers: dict[str, Mortal], weight: int = 1) -> Config:
    endpoints = [{"url": servers[name].url, "weight": weight if name == "a" else 1} for name in NAMES]
    upstreams = {name: {"endpoints": endpoints, "balance": {"hash": by}} for name, by in HASHES.items()}
    return site(*(route(name, name) for name in HASHES), upstreams=upstreams, workers=2)


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("hash")


@pytest.fixture(scope="module")
def gateway(directory: Path) -> Iterator[Gateway]:
    with Gateway(configuration({name: Mortal(name, directory) for name in NAMES}), directory=directory) as gateway:
        yield gateway


@pytest.fixture
async def servers(directory: Path) -> AsyncIterator[dict[str, Mortal]]:
    servers = {name: Mortal(name, directory) for name in NAMES}
    for server in servers.values():
        await server.live()
    yield servers
    for server in servers.values():
        await server.die()


def request(way: str, key: object) -> tuple[str, list[str]]:
    """A path and the fields that carry `key`; other things that a hash must not go by change all the time."""
    match way:
        case "header":
            return f"/header/{key}", [f"x-user: {key}", "Cookie: sid=same"]
        case "cookie":
            return "/cookie", [f"X-User: {id(key)}", f"Cookie: other={key}; sid={key}; sid=late"]
        case _:
            return f"/query?x={id(key)}&room={key}&room=late", ["X-User: same"]


async def places(gateway: Gateway, way: str) -> Places:
    """Where each key goes, each asked for over a connection of its own."""

    async def place(key: int) -> str:
        path, fields = request(way, key)
        async with dial(gateway.port()) as client:
            return await asked(client, path, *fields)

    return dict(zip(KEYS, await asyncio.gather(*map(place, KEYS)), strict=True))


@pytest.mark.parametrize("way", ["header", "cookie", "query"])
async def test_equal_keys_go_to_one_place(gateway: Gateway, servers: dict[str, Mortal], way: str) -> None:
    first = await places(gateway, way)
    assert set(first.values()) == set(NAMES), "they spread"
    assert [await places(gateway, way) for _ in range(3)] == [first] * 3


async def test_a_client_goes_to_one_place(gateway: Gateway, servers: dict[str, Mortal]) -> None:
    async def of_client(number: int) -> str:
        names = set()
        for _ in range(3):
            async with dial(gateway.port(), local_addr=(f"127.0.0.{number}", 0)) as client:
                names.add(await asked(client, "/ip"))
        (name,) = names
        return name

    assert set(await asyncio.gather(*map(of_client, range(2, 32)))) == set(NAMES)


async def test_websockets_go_where_requests_go(gateway: Gateway, servers: dict[str, Mortal]) -> None:
    expected = await places(gateway, "header")
    async with contextlib.AsyncExitStack() as stack:
        for key in KEYS:
            client = await stack.enter_async_context(dial(gateway.port()))
            await client.send(attempt("/header", f"X-User: {key}"))
            assert (await client.head()).get("x-name") == expected[key]


@pytest.mark.parametrize("fields", [(), ("X-User:",)], ids=["missing", "empty"])
async def test_without_a_key_the_least_loaded_is_next(
    gateway: Gateway, servers: dict[str, Mortal], fields: tuple[str, ...]
) -> None:
    async with contextlib.AsyncExitStack() as stack:
        counts: Counter[str | None] = Counter()
        for _ in range(9):
            client = await stack.enter_async_context(dial(gateway.port()))
            await client.send(attempt("/header", *fields))
            counts[(await client.head()).get("x-name")] += 1
        assert counts == dict.fromkeys(NAMES, 3)


async def test_only_the_keys_of_a_dead_endpoint_move(gateway: Gateway, servers: dict[str, Mortal]) -> None:
    before = await places(gateway, "cookie")
    await servers["b"].die()
    without = await places(gateway, "cookie")
    assert {key for key in KEYS if without[key] != before[key]} == {key for key in KEYS if before[key] == "b"}
    assert {without[key] for key in KEYS if before[key] == "b"} == {"a", "c"}, "they go to all of the others"
    await servers["b"].live()
    assert await places(gateway, "cookie") == before


async def test_places_are_the_same_after_a_reload_and_in_another_process(
    gateway: Gateway, servers: dict[str, Mortal]
) -> None:
    before = await places(gateway, "header")
    config = configuration(servers)
    for upstream in config["upstreams"].values():
        upstream["endpoints"].reverse()
    with Gateway(config) as other:
        assert await places(other, "header") == before
        await reload(other, config | {"drain": {"timeout": "6s"}})
        assert await places(other, "header") == before
        # More weight draws keys, and moves none between the others.
        await reload(other, configuration(servers, weight=3))
        heavier = await places(other, "header")
        assert all(name in (before[key], "a") for key, name in heavier.items())
        assert Counter(heavier.values())["a"] > Counter(before.values())["a"]
        await drop(other, config, lambda endpoint: endpoint["url"] != servers["c"].url)
        without = await places(other, "header")
        assert all(without[key] == name for key, name in before.items() if name != "c")


async def drop(gateway: Gateway, config: Config, keep: Callable[[Config], bool]) -> None:
    for upstream in config["upstreams"].values():
        upstream["endpoints"] = [endpoint for endpoint in upstream["endpoints"] if keep(endpoint)]
    await reload(gateway, config)
