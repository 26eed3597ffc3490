"""Out of file descriptors: accepting pauses, is counted and resumes, and no live connection notices."""

import asyncio
import contextlib
import resource
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from tests.e2e.kit.frames import Peer
from tests.e2e.kit.peers import EchoServer, echoes, leave, open_peer, running
from tests.e2e.kit.sites import Config, route, site, until
from tests.e2e.kit.wire import Wire, dial, request_bytes
from tidegate.testing import Gateway

LIMIT = 128
RESERVE = 16
"""What is left for scrapes and reloads."""


@pytest.fixture
def few_files(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The gateway is started by a shell with a low `ulimit -n`."""
    script = tmp_path / "python"
    script.write_text(f'#!/bin/sh\nulimit -n {LIMIT} && exec {sys.executable} "$@"\n')
    script.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(script))


@pytest.fixture
def low_soft_limit() -> Iterator[int]:
    """What a child gets from a shell that says nothing of limits."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(512, soft), hard))
    yield hard
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def test_the_soft_limit_is_raised_to_the_hard_one(low_soft_limit: int) -> None:
    async with running(site(route("own", respond="echo"))) as gateway:
        assert resource.prlimit(gateway.pid, resource.RLIMIT_NOFILE) == (low_soft_limit, low_soft_limit)


async def test_the_kernel_s_table_does_not_grow_while_clients_come() -> None:
    """A worker would stand still meanwhile."""
    async with running(site(route("own", respond="echo"))) as gateway:
        status = Path(f"/proc/{gateway.pid}/status").read_text().splitlines()
        size = next(int(line.split()[1]) for line in status if line.startswith("FDSize:"))
        limit, _ = resource.prlimit(gateway.pid, resource.RLIMIT_NOFILE)
        assert size >= min(limit, 65_536)


def config(url: str, body: str = "here") -> Config:
    return site(route("app", "app"), route("fixed", respond={"body": body}), upstreams={"app": url})


def open_files(gateway: Gateway) -> int:
    return len(list(Path(f"/proc/{gateway.pid}/fd").iterdir()))


@contextlib.asynccontextmanager
async def crowded(room: int = 0) -> AsyncIterator[tuple[Gateway, list[Peer]]]:
    """A gateway that has no room for more connections than that, and the WebSockets that fill it."""
    async with EchoServer() as echo, running(config(echo.url)) as gateway, contextlib.AsyncExitStack() as stack:
        peers = []
        most = LIMIT - RESERVE - room
        while open_files(gateway) <= most - 2:
            peers.append(await stack.enter_async_context(open_peer(gateway.port(), "/app")))
        while open_files(gateway) < most:
            await stack.enter_async_context(dial(gateway.port()))
            await asyncio.sleep(0.05)
        yield gateway, peers


async def one_more(stack: contextlib.AsyncExitStack, gateway: Gateway, path: str = "/fixed") -> Wire:
    wire = await stack.enter_async_context(dial(gateway.port()))
    await wire.send(request_bytes(f"GET {path}", "Connection: close"))
    return wire


@pytest.mark.usefixtures("few_files")
async def test_at_the_limit_accepting_pauses_and_resumes() -> None:
    async with crowded() as (gateway, peers), contextlib.AsyncExitStack() as stack:
        assert len(peers) > 20
        before = len(gateway.log())
        queue = [await one_more(stack, gateway) for _ in range(10)]
        pause = await asyncio.to_thread(gateway.log().wait_for, event="accept_paused", after=before)
        assert pause["level"] == "warning"
        assert "accepting pauses: too many open files" in pause["message"]
        for _ in range(3):
            await asyncio.gather(*map(echoes, peers))
        assert open_files(gateway) < LIMIT

        # As places become free, everybody in the queue is served.
        for peer in peers[:10]:
            await leave(peer)
        answers = await asyncio.gather(*(wire.answer() for wire in queue))
        assert [(head.status, body) for head, body in answers] == [(200, b"here")] * 10
        await asyncio.gather(*map(echoes, peers[10:]))
        metrics = await asyncio.to_thread(gateway.metrics)
        assert metrics.value("tidegate_accept_paused_total", reason="resources") >= 1
        assert metrics.value("tidegate_panics_total") == 0
        live = len(peers) - 10
        await until(lambda: gateway.metrics().value("tidegate_websocket_connections", route="app") == live)
        async with open_peer(gateway.port(), "/app") as again:
            await echoes(again)


@pytest.mark.usefixtures("few_files")
async def test_no_room_for_the_upstreams_connection_is_503() -> None:
    async with crowded(room=1) as (gateway, peers), contextlib.AsyncExitStack() as stack:
        head, body = await (await one_more(stack, gateway, "/app/plain")).answer()
        assert (head.status, body.split(b":")[0]) == (503, b"overload")
        assert head.get("retry-after") == "1"
        await asyncio.gather(*map(echoes, peers))


@pytest.mark.usefixtures("few_files")
async def test_the_control_plane_has_room_when_clients_have_none() -> None:
    async with crowded() as (gateway, peers), contextlib.AsyncExitStack() as stack:
        waiting = [await one_more(stack, gateway) for _ in range(10)]
        await asyncio.to_thread(gateway.log().wait_for, event="accept_paused")
        assert (await asyncio.to_thread(gateway.admin, "/live"))[0] == 200
        assert (await asyncio.to_thread(gateway.metrics)).value("tidegate_accept_paused_total") >= 1
        assert len(await asyncio.to_thread(gateway.connections)) == len(peers)
        url = gateway.file.read_text().split("http://")[1].split("\n")[0]
        await asyncio.to_thread(gateway.reload, config(f"http://{url}", "new"))
        await asyncio.gather(*map(echoes, peers))
        await asyncio.gather(*map(leave, peers[:5]))
        answers = await asyncio.gather(*(wire.answer() for wire in waiting))
        assert {body for _, body in answers} == {b"new"}
