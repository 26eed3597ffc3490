"""`health`: endpoints are checked, and those that are not well get nothing new."""

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.kit.http2 import dial as dial_h2
from tests.e2e.kit.named import Mortal, Named, asked, asked_often, opened
from tests.e2e.kit.peers import EchoServer, echoes, open_peer, running
from tests.e2e.kit.sites import Config, reload, route, site, until
from tests.e2e.kit.tcp import bystander
from tests.e2e.kit.wire import dial
from tidegate.testing import Gateway, Record

QUICK = {"every": "60ms", "timeout": "2s", "healthy": 2, "unhealthy": 2}
HTTP = {"http": "/healthz", **QUICK}


def configuration(endpoints: list[str], health: Config | None = None, **more: Any) -> Config:
    them = {"endpoints": endpoints, "balance": "round_robin", **({"health": health} if health else {}), **more}
    return site(
        route("it", "them"),
        listeners={"edge": {"bind": "127.0.0.1:0"}},
        upstreams={"them": them},
        workers=2,
    )


@pytest.fixture
async def servers(tmp_path: Path) -> AsyncIterator[dict[str, Mortal]]:
    servers = {name: Mortal(name, tmp_path) for name in "abc"}
    for server in servers.values():
        await server.live()
    yield servers
    for server in servers.values():
        await server.die()


def named(server: Mortal) -> Named:
    assert server.named
    return server.named


def urls(servers: dict[str, Mortal], names: str = "ab") -> list[str]:
    return [servers[name].url for name in names]


async def value(gateway: Gateway, name: str, **labels: str) -> float:
    return (await asyncio.to_thread(gateway.metrics)).value(f"tidegate_{name}", **labels)


async def told(gateway: Gateway, event: str, after: int = 0, **fields: object) -> Record:
    return await asyncio.to_thread(gateway.log().wait_for, after=after, event=event, **fields)


async def asked_over_h2(port: int, times: int) -> Counter[str]:
    async with dial_h2(port) as client:
        answers = [await (await client.ask("GET", "/it")).answer() for _ in range(times)]
    return Counter(body.decode() if head.status == 200 else str(head.status) for head, body in answers)


# ---- down and up again --------------------------------------------------------------------------------------------


async def test_it_goes_down_and_comes_back(servers: dict[str, Mortal]) -> None:
    bad = named(servers["b"])
    async with running(configuration(urls(servers), HTTP)) as gateway:
        port = gateway.port("edge")
        assert await asked_often(port, "/it", 20) == {"a": 10, "b": 10}
        await until(lambda: bad.checked >= 2)
        failed = bad.checked
        bad.health = 503
        turned = await told(gateway, "endpoint_unhealthy")
        assert (turned["upstream"], turned["endpoint"], turned["why"]) == ("them", servers["b"].url, "HTTP 503")
        assert servers["b"].url in turned["message"] and "HTTP 503" in turned["message"]
        assert bad.checked - failed >= 2, "one failure is not enough"
        assert await asked_often(port, "/it", 20, clients=4) == {"a": 20}
        assert await asked_over_h2(port, 20) == {"a": 20}
        async with opened(port, "/it") as name:
            assert name == "a"
        assert await value(gateway, "endpoint_healthy", endpoint=servers["b"].url) == 0
        assert await value(gateway, "endpoint_healthy", upstream="them") == 1
        assert await value(gateway, "health_checks_total", upstream="them", result="failure") >= 2
        assert await value(gateway, "health_checks_total", upstream="them", result="success") >= 3

        bad.health = 204
        await told(gateway, "endpoint_healthy", endpoint=servers["b"].url)
        assert await asked_often(port, "/it", 20) == {"a": 10, "b": 10}
        assert await asked_over_h2(port, 20) == {"a": 10, "b": 10}
        assert await value(gateway, "endpoint_healthy", upstream="them") == 2


async def test_the_first_check_decides_alone(servers: dict[str, Mortal]) -> None:
    named(servers["b"]).health = 500
    slow = {**HTTP, "every": "1h", "unhealthy": 1000}
    async with running(configuration(urls(servers), slow)) as gateway:
        await told(gateway, "endpoint_unhealthy", endpoint=servers["b"].url)
        await until(lambda: gateway.metrics().value("tidegate_health_checks_total", upstream="them") == 2)
        assert await asked_often(gateway.port("edge"), "/it", 20) == {"a": 20}


async def test_nobody_listens(servers: dict[str, Mortal]) -> None:
    async with running(configuration(urls(servers), HTTP)) as gateway:
        await servers["b"].die()
        assert (await told(gateway, "endpoint_unhealthy"))["why"] == "no connection"
        await servers["b"].live()
        await told(gateway, "endpoint_healthy")
        assert await asked_often(gateway.port("edge"), "/it", 20) == {"a": 10, "b": 10}


async def test_what_is_open_stays(servers: dict[str, Mortal]) -> None:
    async with (
        EchoServer() as echo,
        running(configuration([echo.url])) as gateway,
        open_peer(gateway.port("edge"), "/it") as peer,
    ):
        await echoes(peer)
        await reload(gateway, configuration([echo.url, *urls(servers, "a")], HTTP))
        turned = await told(gateway, "endpoint_unhealthy", endpoint=echo.url.removeprefix("http://"))
        assert turned["why"] == "HTTP 101", "it knows nothing but WebSockets"
        await echoes(peer)
        assert await asked_often(gateway.port("edge"), "/it", 10) == {"a": 10}
        await echoes(peer)


async def test_checks_take_no_seat_and_are_not_counted(servers: dict[str, Mortal]) -> None:
    config = configuration(urls(servers, "a"), HTTP, limits={"connections": 1, "pending": 0})
    async with running(config) as gateway, opened(gateway.port("edge"), "/it") as name:
        assert name == "a"
        checked = named(servers["a"]).checked
        await until(lambda: named(servers["a"]).checked >= checked + 3)
        assert await value(gateway, "upstream_connections", upstream="them") == 1
        assert await value(gateway, "endpoint_connections", upstream="them") == 1
        assert await value(gateway, "upstream_overflows_total", upstream="them") == 0
        assert await value(gateway, "endpoint_healthy", upstream="them") == 1
        await servers["a"].die()
        await told(gateway, "endpoint_unhealthy")
        assert await value(gateway, "endpoint_connect_failures_total", upstream="them") == 0


# ---- reloads ------------------------------------------------------------------------------------------------------


async def test_what_is_known_survives_reloads(servers: dict[str, Mortal]) -> None:
    named(servers["b"]).health = 503
    async with running(configuration(urls(servers), HTTP)) as gateway:
        port = gateway.port("edge")
        await told(gateway, "endpoint_unhealthy", endpoint=servers["b"].url)
        seldom = {**HTTP, "every": "1h"}
        await reload(gateway, configuration(urls(servers), seldom, connect_timeout="3s"))
        assert await asked_often(port, "/it", 20) == {"a": 20}
        await reload(gateway, configuration(urls(servers, "bca"), seldom))
        assert set(await asked_often(port, "/it", 30)) == {"a", "c"}
        # Another question has another answer.
        named(servers["b"]).health = 200
        asks = {**seldom, "http": {"path": "/healthz", "method": "HEAD"}}
        await reload(gateway, configuration(urls(servers), asks))
        assert await asked_often(port, "/it", 20) == {"a": 10, "b": 10}
        # And without one nobody is unhealthy.
        named(servers["b"]).health = 503
        before = len(gateway.log())
        await reload(gateway, configuration(urls(servers), HTTP))
        await told(gateway, "endpoint_unhealthy", before)
        await reload(gateway, configuration(urls(servers)))
        assert await asked_often(port, "/it", 20) == {"a": 10, "b": 10}
        assert await value(gateway, "endpoint_healthy", upstream="them") == 2
        checked = named(servers["b"]).checked
        await asked_often(port, "/it", 20)
        assert named(servers["b"]).checked <= checked + 1, "one may have been under way"


async def test_who_has_left_is_checked_no_more(servers: dict[str, Mortal]) -> None:
    async with running(configuration(urls(servers), HTTP)) as gateway:
        await until(lambda: named(servers["b"]).checked >= 2)
        await reload(gateway, configuration(urls(servers, "a"), HTTP))
        seen, others = named(servers["b"]).checked, named(servers["a"]).checked
        await until(lambda: named(servers["a"]).checked >= others + 4)
        assert named(servers["b"]).checked <= seen + 1, "one may have been under way"


# ---- panic --------------------------------------------------------------------------------------------------------


async def test_when_too_few_are_left_all_are_used(servers: dict[str, Mortal]) -> None:
    async with running(configuration(urls(servers, "abc"), HTTP)) as gateway:
        port = gateway.port("edge")
        named(servers["b"]).health = 503
        await told(gateway, "endpoint_unhealthy", endpoint=servers["b"].url)
        assert set(await asked_often(port, "/it", 30)) == {"a", "c"}
        assert await value(gateway, "upstream_panic", upstream="them") == 0
        named(servers["c"]).health = 503
        began = await told(gateway, "upstream_panic")
        assert began["upstream"] == "them"
        assert await asked_often(port, "/it", 30) == {"a": 10, "b": 10, "c": 10}
        assert await value(gateway, "upstream_panic", upstream="them") == 1
        assert await value(gateway, "upstream_panics_total", upstream="them") == 1
        named(servers["a"]).health = 503
        await told(gateway, "endpoint_unhealthy", endpoint=servers["a"].url)
        assert await asked_often(port, "/it", 30) == {"a": 10, "b": 10, "c": 10}
        assert len(gateway.log().matching(event="upstream_panic")) == 1
        for name in "ab":
            named(servers[name]).health = 200
        await told(gateway, "upstream_panic_over")
        await until(lambda: gateway.metrics().value("tidegate_endpoint_healthy", upstream="them") == 2)
        assert set(await asked_often(port, "/it", 40)) == {"a", "b"}
        assert await value(gateway, "upstream_panic", upstream="them") == 0


async def test_without_panic_there_is_nobody_left(servers: dict[str, Mortal]) -> None:
    for server in servers.values():
        named(server).health = 503
    config = configuration(urls(servers), HTTP, panic="0%")
    config["listeners"]["tcp"] = {"bind": "127.0.0.1:0", "tcp": {"to": "them"}}
    async with running(config) as gateway:
        port = gateway.port("edge")
        for name in "ab":
            await told(gateway, "endpoint_unhealthy", endpoint=servers[name].url)
        assert await asked_often(port, "/it", 6) == {"503 no_healthy_endpoint": 6}
        assert await asked_over_h2(port, 6) == {"503": 6}
        async with opened(port, "/it") as name:
            assert name == "503 no_healthy_endpoint"
        with contextlib.suppress(ConnectionError):  # the reset may come before the connection is there for us
            assert await bystander(gateway.port("tcp")) == ""
        await until(lambda: gateway.metrics().value("tidegate_tcp_refused_total", reason="no_healthy_endpoint") == 1)
        assert not gateway.log().matching(event="upstream_panic")
        assert (named(servers["a"]).asked, named(servers["b"]).asked) == (0, 0)
        named(servers["a"]).health = 200
        await told(gateway, "endpoint_healthy")
        assert await asked_often(port, "/it", 6) == {"a": 6}


async def test_the_unhealthy_are_never_tried_again(servers: dict[str, Mortal]) -> None:
    """Also where all others were tried, and more than once."""
    named(servers["b"]).health = 503
    config = configuration(urls(servers), HTTP)
    config["routes"][0]["retry"] = {"attempts": 3, "on": ["connect", 503]}
    async with running(config) as gateway:
        await told(gateway, "endpoint_unhealthy", endpoint=servers["b"].url)
        named(servers["a"]).status = 503
        asked_before = named(servers["a"]).asked
        assert await asked_often(gateway.port("edge"), "/it", 5) == {"503 a": 5}
        assert named(servers["a"]).asked == asked_before + 15
        assert named(servers["b"]).asked == 0


async def test_ejected_and_unhealthy_count_together(servers: dict[str, Mortal]) -> None:
    """One is unhealthy, another one ejected: of three one is left, and that is too few."""
    named(servers["b"]).health = 503
    config = configuration(urls(servers, "abc"), HTTP, eject={"failures": 1, "for": "1h"})
    async with running(config) as gateway:
        port = gateway.port("edge")
        await told(gateway, "endpoint_unhealthy", endpoint=servers["b"].url)
        named(servers["c"]).status = 503
        await asked_often(port, "/it", 4)
        await told(gateway, "endpoint_ejected", endpoint=servers["c"].url)
        await told(gateway, "upstream_panic")
        assert await asked_often(port, "/it", 30) == {"a": 10, "b": 10, "503 c": 10}


# ---- slow start ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("balance", ["round_robin", "random", "least_connections", "two_choices"])
async def test_who_comes_back_starts_slowly(servers: dict[str, Mortal], balance: str) -> None:
    """An hour is long: its share is a tenth of what it will be. And none where there is no slow start any more."""
    config = configuration(urls(servers), HTTP, balance=balance, slow_start="1h")
    async with running(config) as gateway:
        port = gateway.port("edge")
        from_the_start = await asked_often(port, "/it", 400)
        assert 140 <= from_the_start["b"] <= 260, "a start is no slow one"
        named(servers["b"]).health = 503
        await told(gateway, "endpoint_unhealthy")
        named(servers["b"]).health = 200
        await told(gateway, "endpoint_healthy")
        found = await asked_often(port, "/it", 1000)
        # By two choices of two nobody else is there to choose from but where it is held back.
        assert 15 <= found["b"] <= 130, found
        await reload(gateway, configuration(urls(servers), HTTP, balance=balance))
        assert 140 <= (await asked_often(port, "/it", 400))["b"] <= 260


async def test_a_slow_start_comes_to_an_end(servers: dict[str, Mortal]) -> None:
    config = configuration(urls(servers, "a"), slow_start="400ms")
    async with running(config) as gateway:
        await reload(gateway, configuration(urls(servers), slow_start="400ms"))
        async with asyncio.timeout(10):
            while await asked_often(gateway.port("edge"), "/it", 40) != {"a": 20, "b": 20}:
                pass


async def test_one_that_is_new_starts_slowly_in_spite_of_the_load_of_others(servers: dict[str, Mortal]) -> None:
    """Without it `least_connections` would give it everything until it has as many WebSockets as the others."""
    config = configuration(urls(servers, "a"), balance="least_connections", slow_start="1h")
    async with running(config) as gateway, contextlib.AsyncExitStack() as stack:
        port = gateway.port("edge")
        for _ in range(30):
            assert await stack.enter_async_context(opened(port, "/it")) == "a"
        await reload(gateway, configuration(urls(servers), balance="least_connections", slow_start="1h"))
        found = await asked_often(port, "/it", 1000)
        assert 50 <= found["b"] <= 170, found
        await reload(gateway, configuration(urls(servers), balance="least_connections"))
        assert await asked_often(port, "/it", 50) == {"b": 50}


async def test_keys_come_over_slowly_and_stay(servers: dict[str, Mortal]) -> None:
    hashed = {"balance": {"hash": {"query": "k"}}, "slow_start": "1h"}
    async with running(configuration(urls(servers, "a"), **hashed)) as gateway:
        await reload(gateway, configuration(urls(servers), **hashed))

        async def places() -> dict[int, str]:
            async with dial(gateway.port("edge")) as client:
                return {key: await asked(client, f"/it?k={key}") for key in range(300)}

        async def moved() -> set[int]:
            return {key for key, name in (await places()).items() if name == "b"}

        before = await moved()
        assert 2 <= len(before) <= 40
        assert before <= await moved(), "who has come over stays, and with the time more come"
        await reload(gateway, configuration(urls(servers), balance=hashed["balance"]))
        after = await places()
        assert all(after[key] == "b" for key in before)
        assert 110 <= Counter(after.values())["b"] <= 190


# ---- how many -----------------------------------------------------------------------------------------------------


async def test_many_endpoints_are_checked_by_few(servers: dict[str, Mortal], tmp_path: Path) -> None:
    """Each is checked at once and again; none waits for the others, also where none of them answers."""
    accepted: set[str] = set()
    async with contextlib.AsyncExitStack() as stack:
        paths = [tmp_path / f"{number}.sock" for number in range(200)]
        for path in paths:

            async def accept(_: asyncio.StreamReader, writer: asyncio.StreamWriter, name: str = path.name) -> None:
                accepted.add(name)
                writer.close()

            server = await asyncio.start_unix_server(accept, path)
            stack.push_async_callback(server.wait_closed)
            stack.callback(server.close)
        health = {"tcp": True, "every": "1h"}
        async with running(configuration([f"unix:{path}" for path in paths], health)) as gateway:
            await until(lambda: len(accepted) == len(paths))
            checks = "tidegate_health_checks_total"
            await until(lambda: gateway.metrics().value(checks, upstream="them", result="success") == 200)
            threads = await asyncio.to_thread(lambda: len(list(Path(f"/proc/{gateway.pid}/task").iterdir())))
            assert threads < 40
