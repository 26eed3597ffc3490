"""Zones and priorities: whose turn it is while all is well, and when it is not."""

import asyncio
import contextlib
import json
import socket
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.kit.listings import NameServer
from tests.e2e.kit.named import Named, asked, asked_often, opened
from tests.e2e.kit.peers import running
from tests.e2e.kit.sites import Config, reload, site, until
from tests.e2e.kit.wire import dial
from tidegate.testing import Gateway

CHECKS = {"health": {"http": "/", "every": "100ms", "timeout": "5s", "healthy": 1, "unhealthy": 1}}
CLOSED = "http://127.0.0.1:1"
"""Nobody listens there."""


@contextlib.asynccontextmanager
async def servers(*names: str) -> AsyncIterator[dict[str, tuple[Named, str]]]:
    """Servers of these names, and their URLs."""
    async with contextlib.AsyncExitStack() as stack:
        found = {}
        for name in names:
            listener = socket.create_server(("127.0.0.1", 0), backlog=512)
            server = await stack.enter_async_context(Named(name, listener))
            found[name] = (server, f"http://127.0.0.1:{listener.getsockname()[1]}")
        yield found


def levelled(found: dict[str, tuple[Named, str]], **more: Any) -> Config:
    """`a1`, `a2` and `b1` are in the zones `a` and `b`; `c1` is of priority 1, and `d1` in `a` too."""
    endpoints = [
        {"url": url, "zone": name[0] if name < "c" else "a", "priority": {"c": 1, "d": 1}.get(name[0], 0)}
        for name, (_, url) in found.items()
    ]
    return site({"to": "app"}, upstreams={"app": {"endpoints": endpoints, **CHECKS, **more}}, zone="a")


async def turned(gateway: Gateway, healthy: int) -> None:
    """Waits until so many endpoints are healthy."""
    await until(lambda: gateway.metrics().value("tidegate_endpoint_healthy", upstream="app") == healthy)


async def gauge(gateway: Gateway, name: str) -> float:
    metrics = await asyncio.to_thread(gateway.metrics)
    return metrics.value(name, upstream="app")


@pytest.mark.parametrize("balance", ["least_connections", "round_robin", "random", "two_choices"])
async def test_our_own_zone_is_asked_first(balance: str) -> None:
    async with servers("a1", "a2", "b1", "c1") as found, running(levelled(found, balance=balance)) as gateway:
        counts = await asked_often(gateway.port(), "/", 60)
        assert set(counts) == {"a1", "a2"} and min(counts.values()) > 5, counts
        assert await gauge(gateway, "tidegate_upstream_priority") == 0
        assert await gauge(gateway, "tidegate_upstream_spilled_percent") == 0


async def test_it_spills_what_it_cannot_bear() -> None:
    async with servers("a1", "a2", "b1", "c1") as found, running(levelled(found)) as gateway:
        found["a1"][0].status = 503
        await turned(gateway, 3)
        counts = await asked_often(gateway.port(), "/", 300, 3)
        # Half of our zone bears 5/7 of all; within six standard deviations of that.
        assert set(counts) == {"a2", "b1"} and abs(counts["b1"] - 300 * 2 / 7) < 6 * 7.9, counts
        assert await gauge(gateway, "tidegate_upstream_spilled_percent") == 29
        found["a2"][0].status = 503
        found["a1"][0].status = 200
        await until(lambda: found["a1"][0].asked > 0)
        await until(lambda: gateway.log().matching(event="endpoint_healthy") != [])
        await turned(gateway, 3)
        assert set(await asked_often(gateway.port(), "/", 60)) == {"a1", "b1"}


async def test_a_key_keeps_its_endpoint_while_it_spills() -> None:
    async with (
        servers("a1", "a2", "b1") as found,
        running(levelled(found, balance={"hash": {"query": "k"}})) as gateway,
    ):
        found["a1"][0].status = 503
        await turned(gateway, 2)
        async with dial(gateway.port()) as client:
            first = [await asked(client, f"/?k={key}") for key in range(40)]
            assert set(first) == {"a2", "b1"}
            assert [await asked(client, f"/?k={key}") for key in range(40)] == first


async def test_other_zones_serve_when_there_is_nothing_in_ours() -> None:
    async with servers("a1", "b1", "b2", "c1") as found, running(levelled(found)) as gateway:
        found["a1"][0].status = 503
        await turned(gateway, 3)
        assert set(await asked_often(gateway.port(), "/", 40)) == {"b1", "b2"}
        assert await gauge(gateway, "tidegate_upstream_spilled_percent") == 100


async def test_the_next_priority_serves_when_too_few_are_left() -> None:
    async with contextlib.AsyncExitStack() as stack:
        found = await stack.enter_async_context(servers("a1", "a2", "b1", "c1", "d1"))
        gateway = await stack.enter_async_context(running(levelled(found)))
        name = await stack.enter_async_context(opened(gateway.port(), "/"))
        assert name in ("a1", "a2")
        server = found[name][0]
        for failing in ("a1", "a2"):
            found[failing][0].status = 503
        await turned(gateway, 3)
        assert set(await asked_often(gateway.port(), "/", 30)) == {"c1", "d1"}
        assert await gauge(gateway, "tidegate_upstream_priority") == 1
        assert server.live == 1, "what is open stays"
        found["a1"][0].status = 200
        await turned(gateway, 4)
        assert set(await asked_often(gateway.port(), "/", 30)) <= {"a1", "b1"}
        assert await gauge(gateway, "tidegate_upstream_priority") == 0


async def test_where_no_priority_has_enough_all_are_used_again() -> None:
    async with servers("a1", "a2", "c1") as found, running(levelled(found)) as gateway:
        for name in ("a1", "a2", "c1"):
            found[name][0].status = 503
        await turned(gateway, 0)
        for server, _ in found.values():
            server.status = 500  # still unhealthy, and no reason to try another one
        async with dial(gateway.port()) as client:
            assert {await asked(client, "/") for _ in range(8)} == {"500 a1", "500 a2"}
        assert await gauge(gateway, "tidegate_upstream_panic") == 1


async def test_what_cannot_be_reached_is_passed_over_without_checks() -> None:
    async with servers("a1", "c1") as found:
        endpoints = [
            {"url": CLOSED, "zone": "a"},
            {"url": found["a1"][1], "zone": "b"},
            {"url": found["c1"][1], "zone": "a", "priority": 1},
        ]
        settings = site({"to": "app"}, upstreams={"app": {"endpoints": endpoints}}, zone="a")
        async with running(settings) as gateway:
            assert await asked_often(gateway.port(), "/", 10) == {"a1": 10}


async def test_ejected_endpoints_count_as_unusable() -> None:
    async with servers("a1", "c1") as found:
        endpoints = [{"url": CLOSED}, {"url": found["a1"][1]}, {"url": found["c1"][1], "priority": 1}]
        upstream = {"endpoints": endpoints, "eject": {"failures": 1, "for": "1h", "at_most": "100%"}}
        async with running(site({"to": "app"}, upstreams={"app": upstream})) as gateway:
            assert await asked_often(gateway.port(), "/", 20) == {"a1": 20}
            found["a1"][0].status = 503
            async with dial(gateway.port()) as client:
                assert await asked(client, "/") == "503 a1"
            assert await asked_often(gateway.port(), "/", 20) == {"c1": 20}


async def test_the_zone_comes_from_the_environment_and_levels_from_a_list(tmp_path: Path) -> None:
    file = tmp_path / "endpoints.json"

    def write(*levels: tuple[str, str, int]) -> None:
        listed = [{"url": url, "zone": zone, "priority": priority} for url, zone, priority in levels]
        fresh = file.with_suffix(".new")
        fresh.write_text(json.dumps(listed))
        fresh.replace(file)

    async def answering(name: str) -> None:
        async with asyncio.timeout(20):
            while await asked_often(gateway.port(), "/", 6) != Counter({name: 6}):
                await asyncio.sleep(0.02)

    async with servers("1", "2") as found:
        urls = found["1"][1], found["2"][1]
        write((urls[0], "x", 0), (urls[1], "y", 0))
        settings = site({"to": "app"}, upstreams={"app": {"discover": {"file": file.name}}}, zone="${ZONE}")
        async with running(settings, directory=tmp_path, environment={"ZONE": "y"}) as gateway:
            await answering("2")
            write((urls[0], "x", 0), (urls[1], "y", 5))
            await answering("1")
            write((urls[0], "x", 0), (urls[1], "x", 0))
            await until(lambda: len(gateway.log().matching(event="endpoints")) == 2)
            assert set(await asked_often(gateway.port(), "/", 20)) == {"1", "2"}
            await reload(gateway, {**settings, "zone": "nowhere"})
            assert set(await asked_often(gateway.port(), "/", 20)) == {"1", "2"}


async def test_priorities_of_srv_records() -> None:
    async with servers("1", "2") as found, NameServer({("host.test", "A"): ["127.0.0.1"]}) as server:
        ports = [url.rpartition(":")[2] for _, url in found.values()]
        service = ("_chat._tcp.test", "SRV")
        server.zone[service] = [f"20 1 {ports[0]} host.test.", f"10 1 {ports[1]} host.test."]
        upstream = {"discover": {"srv": service[0], "every": "100ms"}}
        settings = site({"to": "app"}, upstreams={"app": upstream}, dns={"servers": server.address})
        async with running(settings) as gateway:
            assert await asked_often(gateway.port(), "/", 10) == {"2": 10}
            server.zone[service] = [f"20 1 {ports[0]} host.test."]
            async with asyncio.timeout(20):
                while await asked_often(gateway.port(), "/", 6) != Counter({"1": 6}):
                    await asyncio.sleep(0.02)
