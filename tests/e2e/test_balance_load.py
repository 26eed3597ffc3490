"""Weights hold under load, for every policy, while endpoints die and come back.

Many clients at once, with WebSockets and requests, and three endpoints of the weights 1, 2 and 3. The bound is that of
chance: the count of an endpoint with the part p of n draws is binomial, and may be `SIGMAS` standard deviations off,
which happens about once in two million checks. What does not go by chance must be nearer, `EXACT` or `NEAR`.
"""

import asyncio
import contextlib
import math
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Mapping
from pathlib import Path

import pytest

from tests.e2e.kit.bridge import attempt
from tests.e2e.kit.named import Mortal
from tests.e2e.kit.sites import Config, route, site, until
from tests.e2e.kit.wire import Wire, dial, request_bytes, soon
from tidegate.testing import Gateway

WEIGHTS = {"a": 1, "b": 2, "c": 3}
POLICIES: Mapping[str, object] = {
    "round_robin": "round_robin",
    "random": "random",
    "two_choices": "two_choices",
    "least_connections": "least_connections",
    "hash": {"hash": {"header": "X-Key"}},
}
BY_LOAD = ("two_choices", "least_connections")
SIGMAS = 5
WEBSOCKETS, REQUESTS, CLIENTS = 240, 900, 12
EXACT = 2
"""How far off turns may be."""
NEAR = 6
"""How far off live WebSockets may be that are placed by load: two workers open several at once, and each sees those of
the other a moment late."""


def configuration(directory: Path) -> Config:
    endpoints = [{"url": Mortal(name, directory).url, "weight": weight} for name, weight in WEIGHTS.items()]
    eject = {"failures": 3, "for": "200ms", "at_most": "100%"}
    upstreams: dict[str, str | list[str] | Config] = {}
    for name, policy in POLICIES.items():
        upstreams[name] = {"endpoints": endpoints, "balance": policy}
        upstreams[f"{name}_eject"] = {"endpoints": endpoints, "balance": policy, "eject": eject}
    routes = [route(name, name, websocket={"ping": "never"}) for name in upstreams]
    return site(*routes, upstreams=upstreams, workers=2)


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("load")


@pytest.fixture(scope="module")
def gateway(directory: Path) -> Iterator[Gateway]:
    with Gateway(configuration(directory), directory=directory) as gateway:
        yield gateway


@pytest.fixture
async def servers(directory: Path) -> AsyncIterator[dict[str, Mortal]]:
    servers = {name: Mortal(name, directory) for name in WEIGHTS}
    for server in servers.values():
        await server.live()
    yield servers
    for server in servers.values():
        await server.die()


class Crowd:
    """Clients of one route; they hold their WebSockets until the server or the crowd goes."""

    def __init__(self, gateway: Gateway, path: str) -> None:
        self.live: Counter[str] = Counter()
        self._gateway = gateway
        self._path = path
        self._keys = 0
        self._holding: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> "Crowd":
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._holding:
            task.cancel()
        await asyncio.gather(*self._holding, return_exceptions=True)

    async def join(self, count: int) -> None:
        """So many open a WebSocket each, a few at once."""
        turns = asyncio.Semaphore(CLIENTS)
        opened = [asyncio.get_running_loop().create_future() for _ in range(count)]
        for each in opened:
            task = asyncio.create_task(self._hold(turns, each))
            self._holding.add(task)
            task.add_done_callback(self._holding.discard)
        await asyncio.gather(*opened)

    async def ask(self, count: int) -> Counter[str]:
        """Who answers so many requests; any other answer fails."""
        shares = await asyncio.gather(*(self._ask(count // CLIENTS) for _ in range(CLIENTS)))
        return sum(shares, Counter[str]())

    async def _hold(self, turns: asyncio.Semaphore, opened: "asyncio.Future[None]") -> None:
        async with contextlib.AsyncExitStack() as stack:
            async with turns:
                try:
                    client = await stack.enter_async_context(dial(self._gateway.port()))
                    await client.send(attempt(self._path, self._key()))
                    head = await client.head()
                    assert head.status == 101, head
                except BaseException as error:
                    opened.set_exception(error)
                    return
                opened.set_result(None)
            await self._stay(client, head.get("x-name") or "")

    async def _stay(self, client: Wire, name: str) -> None:
        self.live[name] += 1
        try:
            await client.gone()
        finally:
            self.live[name] -= 1

    async def _ask(self, count: int) -> Counter[str]:
        counts: Counter[str] = Counter()
        async with dial(self._gateway.port()) as client:
            for _ in range(count):
                await client.send(request_bytes(f"GET {self._path}", self._key()))
                head, body = await client.answer()
                assert head.status == 200, (head, body)
                counts[body.decode()] += 1
        return counts

    def _key(self) -> str:
        self._keys += 1
        return f"X-Key: key-{self._keys}"


def parts(*names: str) -> dict[str, float]:
    total = sum(WEIGHTS[name] for name in names)
    return {name: WEIGHTS[name] / total for name in names}


def assert_by_chance(counts: Counter[str], parts: dict[str, float]) -> None:
    total = counts.total()
    assert set(+counts) <= set(parts), counts
    for name, part in parts.items():
        slack = SIGMAS * math.sqrt(total * part * (1 - part)) + 1
        assert abs(counts[name] - total * part) <= slack, f"{name} has {counts[name]} of {total}: {counts}"


def assert_live(policy: str, counts: Counter[str], parts: dict[str, float]) -> None:
    if policy not in BY_LOAD:
        return assert_by_chance(counts, parts)
    for name, part in parts.items():
        assert abs(counts[name] - counts.total() * part) <= NEAR, f"{name} has {counts[name]} of {counts}"
    return None


@pytest.mark.parametrize("eject", ["", "_eject"], ids=["", "eject"])
@pytest.mark.parametrize("policy", POLICIES)
async def test_weights_hold(gateway: Gateway, servers: dict[str, Mortal], policy: str, eject: str) -> None:
    async with Crowd(gateway, f"/{policy}{eject}") as crowd:
        _, counts = await asyncio.gather(crowd.join(WEBSOCKETS), crowd.ask(REQUESTS))
        assert_live(policy, crowd.live, parts("a", "b", "c"))
        assert_requests(policy, counts, parts("a", "b", "c"))
        if policy == "round_robin":
            turns = crowd.live + counts
            assert all(abs(turns[name] - turns.total() * part) <= EXACT for name, part in parts(*WEIGHTS).items())

        # The heaviest dies: its WebSockets are lost, and nothing else is; its clients come again, and find the others.
        lost = crowd.live["c"]
        await servers["c"].die()
        await soon(settled(crowd, "c"))
        _, counts = await asyncio.gather(crowd.join(lost), crowd.ask(REQUESTS))
        assert_live(policy, +crowd.live, parts("a", "b"))
        assert_requests(policy, counts, parts("a", "b"))

        # It comes back, and takes its part of what is new; by load it gets most of that, up to its part of the whole.
        await servers["c"].live()
        upstream = f"{policy}{eject}"
        await until(lambda: gateway.metrics().value("tidegate_endpoint_healthy", upstream=upstream) == 3)
        before = Counter(crowd.live)
        _, counts = await asyncio.gather(crowd.join(2 * WEBSOCKETS), crowd.ask(REQUESTS))
        if policy in BY_LOAD:
            assert_live(policy, crowd.live, parts("a", "b", "c"))
        else:
            assert_by_chance(crowd.live - before, parts("a", "b", "c"))
        assert_requests(policy, counts, parts("a", "b", "c"))
    metrics = await asyncio.to_thread(gateway.metrics)
    ejections = metrics.value("tidegate_endpoint_ejections_total", upstream=f"{policy}{eject}")
    assert ejections >= 1 if eject else ejections == 0


def assert_requests(policy: str, counts: Counter[str], parts: dict[str, float]) -> None:
    """By load, requests go where the least is under way at that moment; of those it is only said who may get them."""
    assert counts.total() == REQUESTS
    if policy in BY_LOAD:
        assert set(counts) <= set(parts)
    else:
        assert_by_chance(counts, parts)


async def settled(crowd: Crowd, name: str) -> None:
    """Until the clients of a dead server have noticed."""
    while crowd.live[name]:
        await asyncio.sleep(0.01)
