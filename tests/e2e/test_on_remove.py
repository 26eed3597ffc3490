"""What becomes of live connections when their endpoint leaves."""

import asyncio
import contextlib
import json
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.kit.bridge import attempt
from tests.e2e.kit.frames import Peer, close
from tests.e2e.kit.peers import EchoServer, accept, answer_close, echoes, open_peer, play, running
from tests.e2e.kit.sites import Config, reload, route, site, until
from tests.e2e.kit.tcp import server, through
from tests.e2e.kit.wire import dial, request_bytes
from tests.e2e.test_tcp import carrier, config, logged
from tidegate.testing import Gateway

FILE = "endpoints.json"


def listing(**more: Any) -> Config:
    """`/echo` goes to whom the file lists; in turn, so that each of two gets one."""
    return site(route("echo", "app"), upstreams={"app": {"discover": {"file": FILE}, "balance": "round_robin", **more}})


def write(directory: Path, *urls: str) -> None:
    fresh = directory / f"{FILE}.new"
    fresh.write_text(json.dumps(urls))
    fresh.replace(directory / FILE)


async def followed(gateway: Gateway, count: int) -> None:
    """Waits until so many changes of the list have been taken."""
    await until(lambda: len(gateway.log().matching(event="endpoints")) >= count)


@pytest.mark.parametrize("on_remove", ["keep", "drain"])
async def test_a_list_takes_an_endpoint_out(on_remove: str, tmp_path: Path) -> None:
    async with EchoServer() as one, EchoServer() as two:
        write(tmp_path, one.url, two.url)
        async with contextlib.AsyncExitStack() as stack:
            gateway = await stack.enter_async_context(running(listing(on_remove=on_remove), directory=tmp_path))
            first = await stack.enter_async_context(open_peer(gateway.port(), "/echo"))
            await echoes(first)
            is_first = one.opened == 1
            second = await stack.enter_async_context(open_peer(gateway.port(), "/echo"))
            await echoes(second)
            goes, stays = (first, second) if is_first else (second, first)
            write(tmp_path, two.url)
            await followed(gateway, 1)
            if on_remove == "drain":
                frame = await answer_close(goes)
                assert frame.code == 1012 and frame.reason.startswith("gw: reload; retry=")
                record = await asyncio.to_thread(gateway.access_log().wait_for, event="close")
                assert (record["cause"], record["endpoint"]) == ("reload", one.url)
            else:
                await echoes(goes)
            await echoes(stays)
            async with open_peer(gateway.port(), "/echo") as fresh:
                await echoes(fresh)
                assert two.opened == 2 and one.opened == 1


async def test_one_that_comes_back_takes_connections_that_stay(tmp_path: Path) -> None:
    async with EchoServer() as one, EchoServer() as two:
        write(tmp_path, one.url)
        async with running(listing(on_remove="drain"), directory=tmp_path) as gateway:
            async with open_peer(gateway.port(), "/echo") as goes:
                await echoes(goes)
                write(tmp_path, two.url)
                await answer_close(goes)
            write(tmp_path, one.url)
            await followed(gateway, 2)
            async with open_peer(gateway.port(), "/echo") as stays:
                await echoes(stays)
                write(tmp_path, one.url, two.url)
                await followed(gateway, 3)
                await echoes(stays)


@pytest.mark.parametrize("on_remove", ["keep", "drain"])
async def test_a_reload_takes_an_endpoint_out(on_remove: str) -> None:
    async with EchoServer() as one, EchoServer() as two:

        def settings(*urls: str) -> Config:
            return site(route("echo", "app"), upstreams={"app": {"endpoints": list(urls), "on_remove": on_remove}})

        async with running(settings(one.url)) as gateway, open_peer(gateway.port(), "/echo") as peer:
            await echoes(peer)
            await reload(gateway, settings(one.url, two.url))
            await echoes(peer)
            await reload(gateway, settings(two.url))
            if on_remove == "drain":
                assert (await answer_close(peer)).code == 1012
            else:
                await echoes(peer)


async def test_a_reload_that_asks_for_it_drains_what_had_left_before() -> None:
    async with EchoServer() as one, EchoServer() as two:
        echo, app = route("echo", "app"), {"endpoints": [two.url]}
        first = site(echo, upstreams={"app": one.url})
        async with running(first) as gateway, open_peer(gateway.port(), "/echo") as peer:
            await reload(gateway, site(echo, upstreams={"app": app}))
            await echoes(peer)
            await reload(gateway, site(echo, upstreams={"app": {**app, "on_remove": "drain"}}))
            assert (await answer_close(peer)).code == 1012


async def test_a_handshake_under_way_is_closed_too(tmp_path: Path) -> None:
    async with play() as (upstream, url), EchoServer() as other:
        write(tmp_path, url)
        async with running(listing(on_remove="drain"), directory=tmp_path) as gateway, dial(gateway.port()) as wire:
            await wire.send(attempt("/echo"))
            far = await upstream.connection()
            write(tmp_path, other.url)
            await followed(gateway, 1)
            accepted = await accept(far)
            assert (await wire.head()).status == 101
            peer = Peer(wire, accepted.head, is_client=True)
            assert (await peer.frame()).code == 1012
            await peer.send(close(1012))


async def test_a_request_under_way_gets_its_answer(tmp_path: Path) -> None:
    async with play() as (upstream, url), EchoServer() as other:
        write(tmp_path, url)
        async with running(listing(on_remove="drain"), directory=tmp_path) as gateway, dial(gateway.port()) as wire:
            await wire.send(request_bytes("GET /echo"))
            far = await upstream.connection()
            await far.head()
            write(tmp_path, other.url)
            await followed(gateway, 1)
            await far.send(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ndone")
            assert (await wire.answer())[1] == b"done"


@pytest.mark.parametrize("on_remove", ["keep", "drain"])
async def test_tcp_connections(on_remove: str, tmp_path: Path) -> None:
    async with server() as (one, url_one), server() as (_, url_two):
        write(tmp_path, url_one)
        app = {"discover": {"file": FILE, "scheme": "tcp"}, "on_remove": on_remove}
        settings = {**config({"app": [url_one]}, {"edge": carrier()}), "upstreams": {"app": app}}
        settings["drain"] = {"window": "200ms", "timeout": "5s"}
        async with running(settings, directory=tmp_path) as gateway, through(gateway.port(), one) as (client, far):
            write(tmp_path, url_two)
            await followed(gateway, 1)
            if on_remove == "drain":
                await asyncio.gather(client.ended(), far.ended())
                assert (await logged(gateway, "close"))["cause"] == "reload"
            else:
                await client.send(b"tide")
                assert await far.exactly(4) == b"tide"
