"""How fast connections may come: `limits.connection_rate`."""

import asyncio
import contextlib

import pytest

from tests.e2e.kit.peers import running
from tests.e2e.kit.sites import LOOPBACK, Config, reload, route, site, until
from tests.e2e.kit.wire import dial, request_bytes
from tidegate.testing import Gateway


def carrier(rate: str) -> Config:
    listeners = {"edge": {"bind": LOOPBACK, "tcp": {"echo": True}, "limits": {"connection_rate": rate}}}
    return {"listeners": listeners}


def web(rate: str) -> Config:
    listeners = {"edge": {"bind": LOOPBACK, "limits": {"connection_rate": rate}}}
    return site(route("own", respond="echo"), listeners=listeners)


async def is_taken(gateway: Gateway, is_tcp: bool, tried: asyncio.Barrier) -> bool:
    """Whether the gateway talks to one more client. It stays until all were tried."""
    taken = False
    with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
        async with dial(gateway.port()) as wire:
            await wire.send(b"x" if is_tcp else request_bytes("GET /own"))
            await wire.exactly(1)
            taken = True
            await tried.wait()
            return taken
    await tried.wait()
    return taken


async def taken(gateway: Gateway, count: int, is_tcp: bool = True) -> int:
    """How many of so many connections at once are taken."""
    tried = asyncio.Barrier(count)
    return sum(await asyncio.gather(*(is_taken(gateway, is_tcp, tried) for _ in range(count))))


def refused(gateway: Gateway) -> float:
    return gateway.metrics().value("tidegate_connections_failed_total", listener="edge", reason="connection_rate")


@pytest.mark.parametrize("is_tcp", [True, False], ids=["tcp", "http"])
async def test_one_over_the_rate_is_reset(is_tcp: bool) -> None:
    async with running(carrier("1/h") if is_tcp else web("1/h")) as gateway:
        assert await taken(gateway, 4, is_tcp) == 1
        assert await asyncio.to_thread(refused, gateway) == 3
        told = await asyncio.to_thread(gateway.log().wait_for, event="connection_rate")
        assert "limits.connection_rate" in told["message"] and told["level"] == "warning"


async def test_what_comes_slower_is_taken_and_time_brings_room_again() -> None:
    async with running(carrier("2/s")) as gateway:
        first = await taken(gateway, 12)
        assert 2 <= first < 12

        def again() -> bool:
            return asyncio.run(taken(gateway, 1)) == 1

        await until(again)


async def test_the_rate_outlives_a_reload_and_can_be_changed() -> None:
    async with running(carrier("1/h")) as gateway:
        assert await taken(gateway, 2) == 1
        await reload(gateway, {**carrier("1/h"), "drain": {"window": "1s"}})
        assert await taken(gateway, 2) == 0
        await reload(gateway, carrier("unlimited"))
        assert await taken(gateway, 9) == 9
