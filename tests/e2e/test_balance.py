"""Who of an upstream's endpoints gets a request or a WebSocket."""

import asyncio
import contextlib
import socket
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from tests.e2e.kit.bridge import attempt
from tests.e2e.kit.named import Named, asked, asked_often, opened
from tests.e2e.kit.wire import Play, dial, request_bytes
from tidegate.testing import Gateway

NAMES = ("a", "b", "c")
CLOSED = "http://127.0.0.1:1"
"""Nobody listens there."""


@pytest.fixture(scope="module")
def listeners() -> Iterator[dict[str, socket.socket]]:
    listeners = {name: socket.create_server(("127.0.0.1", 0), backlog=512) for name in NAMES}
    yield listeners
    for listener in listeners.values():
        listener.close()


def address(listener: socket.socket, host: str = "127.0.0.1") -> str:
    return f"http://{host}:{listener.getsockname()[1]}"


def configuration(listeners: dict[str, socket.socket], directory: str) -> dict[str, Any]:
    urls = {name: address(listener) for name, listener in listeners.items()}
    heavy = [{"url": urls["a"], "weight": 3}, {"url": urls["b"], "weight": 1}]
    upstreams: dict[str, dict[str, Any]] = {
        policy: {"endpoints": list(urls.values()), "balance": policy}
        for policy in ("round_robin", "random", "two_choices", "least_connections")
    }
    upstreams |= {
        "heavy_round_robin": {"endpoints": heavy, "balance": "round_robin"},
        "heavy_random": {"endpoints": heavy, "balance": "random"},
        "heavy_least": {"endpoints": heavy},
        "half_dead": {"endpoints": [CLOSED, urls["a"]], "balance": "round_robin"},
        "mostly_dead": {"endpoints": [CLOSED, "http://127.0.0.1:2", f"unix:{directory}/none.sock", urls["b"]]},
        "all_dead": {"endpoints": [CLOSED, f"unix:{directory}/none.sock"]},
        "unix": {"endpoints": [f"unix:{directory}/server.sock"]},
        "name": {"endpoints": [address(listeners["c"], "localhost")]},
        "name_and_dead": {"endpoints": ["http://nobody.invalid:80", address(listeners["c"], "localhost")]},
    }
    return {
        "listeners": {"edge": {"bind": "127.0.0.1:0"}},
        "routes": [{"name": name, "match": {"path": {"prefix": f"/{name}"}}, "to": name} for name in upstreams],
        "upstreams": upstreams,
    }


@pytest.fixture(scope="module")
def gateway(listeners: dict[str, socket.socket], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    directory = tmp_path_factory.mktemp("balance")
    with Gateway(configuration(listeners, str(directory)), directory=directory) as gateway:
        yield gateway


@pytest.fixture
async def servers(listeners: dict[str, socket.socket]) -> AsyncIterator[dict[str, Named]]:
    async with contextlib.AsyncExitStack() as stack:
        yield {
            name: await stack.enter_async_context(Named(name, listener.dup())) for name, listener in listeners.items()
        }


pytestmark = pytest.mark.usefixtures("servers")


async def open_many(stack: contextlib.AsyncExitStack, gateway: Gateway, path: str, count: int) -> Counter[str]:
    """One after the other, so that each choice sees the ones before it."""
    return Counter([await stack.enter_async_context(opened(gateway.port(), path)) for _ in range(count)])


async def test_round_robin_goes_by_turns(gateway: Gateway) -> None:
    async with dial(gateway.port()) as client:
        turns = [await asked(client, "/round_robin") for _ in range(9)]
    assert turns[:3] * 3 == turns and set(turns[:3]) == set(NAMES)


async def test_round_robin_goes_by_turns_between_clients(gateway: Gateway) -> None:
    assert await asked_often(gateway.port(), "/round_robin", 300, 6) == dict.fromkeys(NAMES, 100)


@pytest.mark.parametrize("policy", ["random", "two_choices"])
async def test_chance_is_even(gateway: Gateway, policy: str) -> None:
    counts = await asked_often(gateway.port(), f"/{policy}", 900, 4)
    # Six standard deviations of a fair draw, about one run in half a billion.
    assert all(abs(counts[name] - 300) <= 85 for name in NAMES), counts


@pytest.mark.parametrize(("upstream", "slack"), [("heavy_round_robin", 3), ("heavy_random", 75), ("heavy_least", 3)])
async def test_weights_are_shares(gateway: Gateway, upstream: str, slack: int) -> None:
    counts = await asked_often(gateway.port(), f"/{upstream}", 800)
    assert abs(counts["a"] - 600) <= slack and counts.total() == 800, counts


@pytest.mark.parametrize(("upstream", "a", "b"), [("heavy_round_robin", 30, 10), ("heavy_least", 30, 10)])
async def test_weights_are_shares_of_websockets(gateway: Gateway, upstream: str, a: int, b: int) -> None:
    async with contextlib.AsyncExitStack() as stack:
        counts = await open_many(stack, gateway, f"/{upstream}", a + b)
    assert abs(counts["a"] - a) <= 1 and counts.total() == a + b, counts


async def test_least_connections_counts_live_websockets(gateway: Gateway, servers: dict[str, Named]) -> None:
    async with contextlib.AsyncExitStack() as stack:
        assert await open_many(stack, gateway, "/least_connections", 9) == dict.fromkeys(NAMES, 3)
        async with contextlib.AsyncExitStack() as more:
            held = await open_many(more, gateway, "/least_connections", 30)
            assert held == dict.fromkeys(NAMES, 10)
        await settle(gateway, "least_connections", 9)
        # Requests come and go; they find the least loaded one as well.
        assert (await asked_often(gateway.port(), "/least_connections", 90)).total() == 90
        await settle(gateway, "least_connections", 9)
    await settle(gateway, "least_connections", 0)


async def test_who_has_fewer_websockets_gets_the_next_ones(gateway: Gateway) -> None:
    async with contextlib.AsyncExitStack() as stack:
        clients = {name: contextlib.AsyncExitStack() for name in NAMES}
        for _ in range(12):
            one = opened(gateway.port(), "/least_connections")
            name = await one.__aenter__()
            clients[name].push_async_exit(one)
        await clients["b"].aclose()
        await settle(gateway, "least_connections", 8)
        assert await open_many(stack, gateway, "/least_connections", 4) == {"b": 4}
        counts = await asked_often(gateway.port(), "/least_connections", 30)
        assert all(counts[name] == 10 for name in NAMES), counts
        for name in ("a", "c"):
            await clients[name].aclose()
    await settle(gateway, "least_connections", 0)


async def test_two_choices_counts_live_websockets(gateway: Gateway) -> None:
    async with contextlib.AsyncExitStack() as stack:
        counts = await open_many(stack, gateway, "/two_choices", 60)
    assert all(abs(counts[name] - 20) <= 3 for name in NAMES), counts
    await settle(gateway, "two_choices", 0)


async def settle(gateway: Gateway, upstream: str, live: int) -> None:
    """Wait until so many exchanges count as under way: there is no event for an end that the balancer has seen."""
    async with asyncio.timeout(10):
        while (await asyncio.to_thread(gateway.metrics)).value(
            "tidegate_endpoint_connections", upstream=upstream
        ) != live:
            await asyncio.sleep(0.01)


async def test_the_count_survives_a_reload(
    listeners: dict[str, socket.socket], tmp_path_factory: pytest.TempPathFactory
) -> None:
    directory = tmp_path_factory.mktemp("reload")
    config = configuration(listeners, str(directory))
    with Gateway(config, directory=directory) as gateway:
        async with contextlib.AsyncExitStack() as stack:
            counts = await open_many(stack, gateway, "/least_connections", 2)
            (idle,) = set(NAMES) - counts.keys()
            settings = config["upstreams"]["least_connections"]
            for number in range(3):
                # The upstream itself changes, too; its endpoints are the same ones.
                settings["connect_timeout"] = f"{number + 1}s"
                await asyncio.to_thread(gateway.reload, config)
            assert await open_many(stack, gateway, "/least_connections", 1) == {idle: 1}
            await settle(gateway, "least_connections", 3)
            # A new weight is a new share of what is there, live WebSockets included: 1 for one, 5 for five.
            settings["endpoints"] = [
                {"url": address(listeners[name]), "weight": 5 if name == idle else 1} for name in NAMES
            ]
            await asyncio.to_thread(gateway.reload, config)
            await settle(gateway, "least_connections", 3)
            assert await open_many(stack, gateway, "/least_connections", 4) == {idle: 4}
            # Who leaves takes nothing new and keeps what it has.
            settings["endpoints"] = [address(listeners[name]) for name in NAMES if name != idle]
            await asyncio.to_thread(gateway.reload, config)
            assert idle not in await open_many(stack, gateway, "/least_connections", 4)
            assert len(await asyncio.to_thread(gateway.connections)) == 11
            # Who comes back has not forgotten it: 5, beside 3 and 3.
            settings["endpoints"] = [address(listeners[name]) for name in NAMES]
            await asyncio.to_thread(gateway.reload, config)
            await settle(gateway, "least_connections", 11)
            assert idle not in await open_many(stack, gateway, "/least_connections", 4)
        await settle(gateway, "least_connections", 0)


# ---- endpoints that are not there -----------------------------------------------------------------------------------


async def test_a_dead_endpoint_is_passed_over(gateway: Gateway) -> None:
    assert await asked_often(gateway.port(), "/half_dead", 40, 4) == {"a": 40}
    assert await asked_often(gateway.port(), "/mostly_dead", 40, 4) == {"b": 40}
    async with contextlib.AsyncExitStack() as stack:
        assert await open_many(stack, gateway, "/half_dead", 10) == {"a": 10}
        assert await open_many(stack, gateway, "/mostly_dead", 10) == {"b": 10}
    metrics = await asyncio.to_thread(gateway.metrics)
    failures = "tidegate_endpoint_connect_failures_total"
    assert metrics.value(failures, upstream="half_dead", endpoint="127.0.0.1:1") >= 20
    assert metrics.value(failures, upstream="mostly_dead") >= 1
    assert metrics.value(failures, upstream="mostly_dead", endpoint=CLOSED) == 0


async def test_a_body_goes_to_the_next_endpoint_too(gateway: Gateway) -> None:
    """Nothing was sent to the dead one, so nothing can be done twice."""
    async with dial(gateway.port()) as client:
        for _ in range(4):
            await client.send(request_bytes("DELETE /half_dead"))
            assert (await client.answer())[1] == b"a"
        await client.send(request_bytes("POST /half_dead", "Content-Length: 0"))
        assert (await client.answer())[1] == b"a"


async def test_without_any_endpoint_the_answer_is_a_502(gateway: Gateway) -> None:
    async with dial(gateway.port()) as client:
        assert await asked(client, "/all_dead") == "502 connect_failed"
        await client.send(attempt("/all_dead"))
        head, body = await client.answer()
        assert (head.status, body.split(b":")[0], head.get("connection")) == (502, b"connect_failed", "close")
        await client.ended()


@pytest.mark.parametrize("way", ["request", "attempt"])
async def test_once_something_was_sent_no_other_endpoint_is_asked(
    listeners: dict[str, socket.socket], tmp_path_factory: pytest.TempPathFactory, way: str
) -> None:
    config = {
        "listeners": {"edge": {"bind": "127.0.0.1:0"}},
        "routes": [{"match": {"path": {"prefix": "/"}}, "to": "two"}],
        "upstreams": {"two": {"endpoints": [], "balance": "round_robin"}},
    }
    with socket.create_server(("127.0.0.1", 0)) as one, socket.create_server(("127.0.0.1", 0)) as two:
        config["upstreams"]["two"]["endpoints"] = [address(one), address(two)]  # type: ignore[index] # of plain values
        with Gateway(config) as gateway:
            async with Play(one.dup(), "") as first, Play(two.dup(), "") as second, dial(gateway.port()) as client:
                await client.send(attempt("/") if way == "attempt" else request_bytes("GET /"))
                waiting = [asyncio.create_task(each.connection()) for each in (first, second)]
                done, pending = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
                for task in pending:
                    task.cancel()
                await asyncio.gather(*pending, return_exceptions=True)
                server = done.pop().result()
                await server.head()
                server.reset()
                head, body = await client.answer()
                assert (head.status, body.split(b":")[0]) == (502, b"upstream_lost")
                assert first.connections + second.connections == 1


# ---- other addresses ------------------------------------------------------------------------------------------------


async def test_unix_endpoints(gateway: Gateway) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(gateway.directory / "server.sock"))
        listener.listen()
        async with Named("unix", listener.dup()) as server:
            assert await asked_often(gateway.port(), "/unix", 20, 2) == {"unix": 20}
            assert server.connections <= 2, "they are kept"
            async with opened(gateway.port(), "/unix") as name:
                assert name == "unix"


@pytest.mark.parametrize("upstream", ["name", "name_and_dead"])
async def test_endpoints_by_name(gateway: Gateway, upstream: str) -> None:
    assert await asked_often(gateway.port(), f"/{upstream}", 20, 2) == {"c": 20}
    async with opened(gateway.port(), f"/{upstream}") as name:
        assert name == "c"
