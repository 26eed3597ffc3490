"""Slow clients by the hundred: live WebSockets do not notice, limits hold, and all of it is counted.

`make attacks` does the same with 20,000 and with the usual tool, and measures.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest

from tests.attacks.crowd import KINDS, Crowd
from tests.e2e.kit.frames import Peer
from tests.e2e.kit.origin import Origin
from tests.e2e.kit.peers import echoes, leave, open_peer, running
from tests.e2e.kit.processes import close_wait, open_files, resident_kib
from tests.e2e.kit.sites import LOOPBACK, Config, route, site, until
from tests.e2e.kit.wire import dial, request_bytes
from tidegate.testing import Gateway

WEBSOCKETS = 20
MIB = 1 << 10
"""In KiB, as memory is told."""


@dataclass(frozen=True, slots=True)
class Scene:
    gateway: Gateway
    origin: Origin
    peers: list[Peer]

    async def all_echo(self) -> None:
        await asyncio.gather(*(echoes(peer, b"tide" * 50) for peer in self.peers))

    def metric(self, name: str, **labels: str) -> float:
        return self.gateway.metrics().value(name, **labels)

    async def is_quiet(self) -> None:
        """Nobody is left but the WebSockets, and all of them are."""
        await until(lambda: self.metric("tidegate_connections") == len(self.peers))
        assert self.metric("tidegate_websocket_connections") == len(self.peers)
        assert self.gateway.access_log().matching(event="close") == []
        assert self.metric("tidegate_panics_total") == 0
        assert close_wait(self.gateway.pid) == []


def config(origin: Origin, **listener: object) -> Config:
    edge = {"bind": LOOPBACK, "timeouts": {"head": "2s"}, **listener}
    return site(route("app", "app"), listeners={"edge": edge}, upstreams={"app": origin.url})


@contextlib.asynccontextmanager
async def scene(**listener: object) -> AsyncIterator[Scene]:
    """WebSockets that echo through a gateway."""
    async with (
        Origin() as origin,
        running(config(origin, **listener)) as gateway,
        contextlib.AsyncExitStack() as stack,
    ):
        peers = [
            await stack.enter_async_context(open_peer(gateway.port(), f"/app/live/{number}"))
            for number in range(WEBSOCKETS)
        ]
        built = Scene(gateway, origin, peers)
        await built.all_echo()
        yield built


@contextlib.asynccontextmanager
async def attacking(scene: Scene, kind: str, count: int) -> AsyncIterator[Crowd]:
    crowd = Crowd(KINDS[kind], scene.gateway.port())
    try:
        await asyncio.to_thread(crowd.open, count)
        yield crowd
    finally:
        crowd.close()


@pytest.mark.parametrize(("kind", "count"), [("half_open", 2000), ("slow_headers", 300)])
async def test_heads_that_never_end_are_answered_with_408(kind: str, count: int) -> None:
    async with scene() as built, attacking(built, kind, count) as crowd:
        files = len(open_files(built.gateway.pid))
        await until(lambda: built.metric("tidegate_connections_accepted_total") == count + WEBSOCKETS)
        while crowd.sockets:
            await asyncio.gather(built.all_echo(), asyncio.sleep(0.1))  # the attack's own pace
            crowd.tick()
        assert crowd.answers == {"408": count}
        await built.is_quiet()
        assert len(open_files(built.gateway.pid)) <= files
        refused = built.gateway.access_log().matching(event="refusal", status=408, reason="head_timeout")
        assert len({record["connection"] for record in refused}) == count
        assert built.origin.requests == 0


async def test_slow_bodies_do_not_hold_up_others() -> None:
    async with scene() as built, attacking(built, "slow_body", 200) as crowd:
        await until(lambda: built.metric("tidegate_connections") == 200 + WEBSOCKETS)
        for _ in range(10):
            crowd.tick()
            await built.all_echo()
        async with dial(built.gateway.port()) as wire:
            await wire.send(request_bytes("GET /app/other?size=10"))
            assert (await wire.answer())[0].status == 200
        crowd.close()
        await built.is_quiet()
        await until(lambda: built.metric("tidegate_endpoint_connections") == WEBSOCKETS)


async def test_slow_readers_hold_little_memory() -> None:
    """Each has asked for 1 MiB; the gateway reads from the upstream only what the client takes."""
    async with scene() as built:
        before = resident_kib(built.gateway.pid)
        async with attacking(built, "slow_read", 200) as crowd:
            await until(lambda: built.metric("tidegate_connections") == 200 + WEBSOCKETS)
            for _ in range(20):
                crowd.tick()
                await built.all_echo()
            # 64 KiB at most for each direction, and a little for the connection itself.
            assert resident_kib(built.gateway.pid) - before < 200 * 2 * 64 + 8 * MIB
        await built.is_quiet()


async def test_ranges_are_the_upstream_s_business() -> None:
    """Hundreds of them in one field cost no more than a long field."""
    async with scene() as built, attacking(built, "ranges", 200) as crowd:
        await until(lambda: built.origin.requests == 200)
        for turn in range(2, 6):
            crowd.tick()
            await built.all_echo()
            expected = 200 * turn
            await until(lambda expected=expected: built.origin.requests == expected)  # type: ignore[misc]
        crowd.tick()
        assert crowd.answers == {"200": 200}
        crowd.close()
        await built.is_quiet()


async def test_a_full_accept_queue_empties_when_places_become_free() -> None:
    """Beyond its limit the listener leaves connections in the kernel's queue, and beyond that the kernel them out."""
    async with scene(limits={"connections": WEBSOCKETS + 5}) as built, contextlib.AsyncExitStack() as stack:
        crowd = await stack.enter_async_context(attacking(built, "half_open", 500))
        await until(lambda: built.metric("tidegate_accept_paused_total", reason="connections") > 0)
        late = await stack.enter_async_context(dial(built.gateway.port()))
        await late.send(request_bytes("GET /app/late?size=3"))
        for _ in range(5):
            await built.all_echo()
        assert built.metric("tidegate_connections") <= WEBSOCKETS + 5
        crowd.close()
        assert (await late.answer())[0].status == 200
        await late.close()
        await built.is_quiet()
        await leave(built.peers.pop())
