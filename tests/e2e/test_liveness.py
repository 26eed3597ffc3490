"""How the kernel is told to find out that a peer has gone. Its table of sockets shows which timer runs."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.e2e.kit.bridge import UPGRADE
from tests.e2e.kit.peers import accept, running, upgrade
from tests.e2e.kit.sites import LOOPBACK, Config, reload, route, site, until
from tests.e2e.kit.tcp import server, through
from tests.e2e.kit.wire import Play, Wire, dial, request_bytes
from tidegate.testing import Gateway

KEEPALIVE = "02"
TICK = 0.01


def pause(peer: Wire) -> float | None:
    """Seconds until the kernel probes this peer of the gateway; None where it never will. proc(5), `tr tm->when`."""
    ends = peer.ports[::-1]
    ports = [f"0100007F:{port:04X}" for port in ends]
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        columns = line.split()
        if columns[1:3] == ports:
            timer, _, when = columns[5].partition(":")
            return int(when, 16) * TICK if timer == KEEPALIVE else None
    raise AssertionError(f"there is no socket with the ports {ends}")


def probed(seconds: int) -> dict[str, Config | str]:
    return {"keepalive": {"idle": f"{seconds}s", "every": "5s", "probes": 3}, "user_timeout": "never"}


def config(url: str, listener: Config, upstream: Config) -> Config:
    listeners = {"edge": {"bind": LOOPBACK, "tcp": {"to": "app"}, **listener}}
    return {"listeners": listeners, "upstreams": {"app": {"endpoints": [url], **upstream}}}


async def pauses(port: int, play: Play) -> tuple[float | None, float | None]:
    """For the gateway's socket to the client, and for the one to the server."""
    async with through(port, play) as (client, far):
        return pause(client), pause(far)


def about(seconds: int) -> object:
    return pytest.approx(seconds, abs=5)


async def test_by_default_a_silent_peer_is_probed_after_a_minute() -> None:
    async with server() as (play, url), running(config(url, {}, {})) as gateway:
        assert await pauses(gateway.port(), play) == (about(60), about(60))


async def test_each_side_as_it_says() -> None:
    async with server() as (play, url), running(config(url, probed(100), probed(200))) as gateway:
        assert await pauses(gateway.port(), play) == (about(100), about(200))


async def test_a_reload_changes_it_for_what_comes() -> None:
    async with server() as (play, url), running(config(url, {}, probed(100))) as gateway:
        port = gateway.port()
        await reload(gateway, config(url, {"keepalive": "never"}, {"keepalive": "never"}))
        assert gateway.port() == port and await pauses(port, play) == (None, None)
        await reload(gateway, config(url, probed(300), {}))
        assert await pauses(port, play) == (about(300), about(60))


@contextlib.asynccontextmanager
async def over_http() -> AsyncIterator[tuple[Play, Gateway]]:
    """A gateway for requests and WebSockets, whose two sides say different things."""
    async with server() as (play, url):
        upstream = {"endpoints": [url.replace("tcp:", "http:")], **probed(200)}
        edge = {"bind": LOOPBACK, **probed(100)}
        async with running(site(route("app", "app"), listeners={"edge": edge}, upstreams={"app": upstream})) as gateway:
            yield play, gateway


async def test_requests_too() -> None:
    async with over_http() as (play, gateway), dial(gateway.port()) as client:
        await client.send(request_bytes("GET /app"))
        far = await play.connection()
        await far.head()
        assert pause(client) == about(100) and pause(far) == about(200)


async def test_websockets_too_once_they_last() -> None:
    """The upstream's kernel is told when the WebSocket is a second old."""
    async with over_http() as (play, gateway), dial(gateway.port()) as client:
        opening = asyncio.create_task(upgrade(client, "/app"))
        far = await play.connection()
        await accept(far)
        await opening
        assert pause(client) == about(100)
        await until(lambda: pause(far) == about(200))


async def test_an_answer_in_place_of_a_websocket_too() -> None:
    async with over_http() as (play, gateway), dial(gateway.port()) as client:
        await client.send(request_bytes("GET /app", *UPGRADE))
        far = await play.connection()
        await far.head()
        await far.send(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 10\r\n\r\nhalf ")
        await client.until(b"half ")
        assert pause(far) == about(200)
