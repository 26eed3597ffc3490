"""Shares of a split between upstreams, of requests and of WebSockets."""

import asyncio
import contextlib
import socket
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Mapping

import pytest

from tests.e2e.kit.named import Named, asked_often, opened
from tidegate.testing import Gateway

UPSTREAMS = ("stable", "canary", "third")
SPLITS: Mapping[str, dict[str, int]] = {
    "ninety": {"stable": 90, "canary": 10},
    "thirds": {"stable": 1, "canary": 1, "third": 1},
    "rare": {"stable": 997, "canary": 3},
    "off": {"stable": 0, "canary": 1},
    "mixed": {"stable": 3, "canary": 1},
}
REQUESTS, WEBSOCKETS, CLIENTS = 2000, 200, 8


@pytest.fixture(scope="module")
def listeners() -> Iterator[dict[str, socket.socket]]:
    listeners = {name: socket.create_server(("127.0.0.1", 0), backlog=512) for name in UPSTREAMS}
    yield listeners
    for listener in listeners.values():
        listener.close()


@pytest.fixture(scope="module")
def gateway(listeners: dict[str, socket.socket]) -> Iterator[Gateway]:
    config = {
        "listeners": {"edge": {"bind": "127.0.0.1:0"}},
        "routes": [{"name": name, "match": {"path": {"prefix": f"/{name}"}}, "to": to} for name, to in SPLITS.items()],
        "upstreams": {
            name: {"endpoints": [f"http://127.0.0.1:{listener.getsockname()[1]}"]}
            for name, listener in listeners.items()
        },
    }
    with Gateway(config) as gateway:
        yield gateway


@pytest.fixture(autouse=True)
async def servers(listeners: dict[str, socket.socket]) -> AsyncIterator[None]:
    async with contextlib.AsyncExitStack() as stack:
        for name, listener in listeners.items():
            await stack.enter_async_context(Named(name, listener.dup()))
        yield


def check_shares(split: str, counts: Counter[str]) -> None:
    """A split goes by turns and not by chance, so shares are exact within a handful."""
    weights = SPLITS[split]
    total = counts.total()
    for name in UPSTREAMS:
        due = total * weights.get(name, 0) / sum(weights.values())
        assert abs(counts[name] - due) <= (5 if due else 0), counts


@pytest.mark.parametrize("split", ["ninety", "thirds", "rare", "off"])
async def test_requests_are_shared_by_weight(gateway: Gateway, split: str) -> None:
    counts = await asked_often(gateway.port(), f"/{split}", REQUESTS, CLIENTS)
    assert counts.total() == REQUESTS
    check_shares(split, counts)


@pytest.mark.parametrize("split", ["ninety", "thirds", "off"])
async def test_websockets_are_shared_by_weight(gateway: Gateway, split: str) -> None:
    async with contextlib.AsyncExitStack() as stack:
        opening = (stack.enter_async_context(opened(gateway.port(), f"/{split}")) for _ in range(WEBSOCKETS))
        counts = Counter(await asyncio.gather(*opening))
    assert counts.total() == WEBSOCKETS
    check_shares(split, counts)


async def test_requests_and_websockets_share_one_split(gateway: Gateway) -> None:
    counts = Counter[str]()
    async with contextlib.AsyncExitStack() as stack:
        for _ in range(50):
            counts += await asked_often(gateway.port(), "/mixed", 3)
            counts[await stack.enter_async_context(opened(gateway.port(), "/mixed"))] += 1
    check_shares("mixed", counts)
