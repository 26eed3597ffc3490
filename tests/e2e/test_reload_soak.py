"""Many reloads under many live WebSockets: none is dropped, and memory stays where it was.

In full with `TIDEGATE_LONG=1`: 2,000 WebSockets, 1,000 reloads.
"""

import asyncio
import contextlib
import json
import os
import sys
import time

import pytest

from tests.e2e.kit.frames import Peer
from tests.e2e.kit.peers import EchoServer, echoes, open_peer, running
from tests.e2e.kit.processes import close_wait, open_files, resident_kib
from tests.e2e.kit.sites import LOOPBACK, Config, route, site

LONG = bool(os.environ.get("TIDEGATE_LONG"))
WEBSOCKETS, RELOADS, WARM_UP = (2_000, 1_000, 100) if LONG else (300, 100, 30)
ALLOWED = 1.05


def config(turn: int, url: str) -> Config:
    """Another one each turn: routes, headers, endpoints and listeners come, change and go around those in use."""
    others = [
        route(f"other{number}", "other", headers={"response": {"set": {"x-turn": str(turn)}}})
        for number in range(20 + turn % 3)
    ]
    changed = route("used-b", "app", headers={"request": {"set": {"x-turn": str(turn)}}})
    kept = [route("used-a", "app"), changed]
    listeners = {"edge": {"bind": LOOPBACK}, **({"side": {"bind": LOOPBACK}} if turn % 2 else {})}
    return site(
        *(others + kept if turn % 2 else kept + others),
        listeners=listeners,
        upstreams={"app": url, "other": [url, f"http://127.0.0.1:{10_000 + turn % 5}"]},
    )


async def all_echo(peers: list[Peer]) -> None:
    for start in range(0, len(peers), 200):
        await asyncio.gather(*(echoes(peer, b"tide %d" % start) for peer in peers[start : start + 200]))


@pytest.mark.timeout(3600 if LONG else 120)
async def test_live_websockets_outlive_reloads() -> None:
    async with EchoServer() as echo, contextlib.AsyncExitStack() as stack:
        gateway = await stack.enter_async_context(running(config(0, echo.url)))
        peers = [
            await stack.enter_async_context(open_peer(gateway.port("edge"), f"/used-{'ab'[number % 2]}/{number}"))
            for number in range(WEBSOCKETS)
        ]
        await all_echo(peers)
        turn = 0

        async def reloads(count: int) -> None:
            nonlocal turn
            for _ in range(count):
                turn += 1
                gateway.write(config(turn, echo.url))
                status, body = await asyncio.to_thread(gateway.admin, "/reload", "POST")
                assert status == 200, body
                if turn % 25 == 0:
                    await all_echo(peers)

        await reloads(WARM_UP)
        files, memory, began = len(open_files(gateway.pid)), resident_kib(gateway.pid), time.monotonic()
        await reloads(RELOADS)
        took, after = time.monotonic() - began, resident_kib(gateway.pid)
        await all_echo(peers)

        print(
            f"{WEBSOCKETS} WebSockets, {RELOADS} reloads in {took:.1f} s: "
            f"{memory} KiB before, {after} KiB after ({after / memory:.3f})",
            file=sys.stderr,
        )
        assert after <= memory * ALLOWED, f"{memory} KiB have become {after} KiB"
        assert gateway.access_log().matching(event="close") == []
        assert (echo.opened, echo.live, echo.closes) == (WEBSOCKETS, WEBSOCKETS, [])
        metrics = await asyncio.to_thread(gateway.metrics)
        assert metrics.value("tidegate_websocket_connections") == WEBSOCKETS
        assert metrics.value("tidegate_endpoint_connections", upstream="app") == WEBSOCKETS
        assert metrics.value("tidegate_config_reloads_total", result="success") >= WARM_UP + RELOADS
        assert metrics.value("tidegate_config_reloads_total", result="failure") == 0
        assert metrics.value("tidegate_panics_total") == 0
        status = json.loads((await asyncio.to_thread(gateway.admin, "/config/status"))[1])
        assert status["generation"] >= 1 + WARM_UP + RELOADS
        assert abs(len(open_files(gateway.pid)) - files) <= 3
        assert close_wait(gateway.pid) == []
