"""A reload: what starts one, what it changes, and what it leaves alone."""

import asyncio
import contextlib
import json
import random
import signal
import socket
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.kit.bridge import attempt
from tests.e2e.kit.frames import Peer, close
from tests.e2e.kit.peers import EchoServer, accept, answer_close, echoes, leave, open_peer, play, running
from tests.e2e.kit.sites import LOOPBACK, Config, refused, reload, route, site, until
from tests.e2e.kit.wire import dial, request_bytes
from tidegate.testing import Gateway


@pytest.fixture(scope="module")
def process() -> Iterator[Gateway]:
    with Gateway(site(hello("none"))) as gateway:
        yield gateway


@contextlib.asynccontextmanager
async def serving(process: Gateway, config: Config) -> AsyncIterator[Gateway]:
    """The module's gateway, which a reload has brought to this configuration."""
    await reload(process, config)
    yield process


@pytest.fixture
async def echo() -> AsyncIterator[EchoServer]:
    async with EchoServer() as server:
        yield server


@pytest.fixture
def free_port() -> Iterator[int]:
    """A port that nobody has, kept from others by a socket that is bound to it and does not listen.

    Not one that the system gives to outgoing connections, whose remains could be in the way of `0.0.0.0`.
    """
    first = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    with socket.socket() as holder:
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        for port in random.sample(range(first // 2, first), 100):
            with contextlib.suppress(OSError), socket.socket() as probe:
                probe.bind(("", port))
                probe.close()
                holder.bind(("127.0.0.1", port))
                break
        yield holder.getsockname()[1]


def hello(body: str, name: str = "hello", **more: Any) -> Config:
    return route(name, respond={"body": body}, **more)


async def get(port: int, path: str) -> tuple[int, str]:
    async with dial(port) as wire:
        await wire.send(request_bytes(f"GET {path}", "Connection: close"))
        head, body = await wire.answer()
        return head.status, body.decode()


def reloads(gateway: Gateway, result: str) -> float:
    return gateway.metrics().value("tidegate_config_reloads_total", result=result)


def closed_by_reload(gateway: Gateway, name: str) -> float:
    return gateway.metrics().value("tidegate_websocket_closed_total", route=name, cause="reload", code="1012")


async def reload_close(peer: Peer) -> None:
    """The Close of a WebSocket that the configuration has no place for any more."""
    frame = await answer_close(peer)
    assert frame.code == 1012
    assert frame.reason.startswith("gw: reload; retry="), frame.reason


# ---- what starts one ------------------------------------------------------------------------------------------------


async def test_a_write_to_the_file(process: Gateway) -> None:
    async with serving(process, site(hello("one"))) as gateway:
        before = len(gateway.log())
        gateway.file.write_text(gateway.file.read_text().replace("one", "two"))
        generation = gateway.generation
        record = await asyncio.to_thread(gateway.log().wait_for, event="reloaded", after=before)
        assert record["generation"] == generation + 1
        assert await get(gateway.port(), "/hello") == (200, "two")


async def test_an_editors_rename(process: Gateway) -> None:
    async with serving(process, site(hello("one"))) as gateway:
        for turn, body in enumerate(["two", "three"]):
            before = len(gateway.log())
            backup = gateway.directory / "tidegate.yaml~"
            text = gateway.file.read_text()
            gateway.file.rename(backup)  # as vim does it: the old one away, then a new one in its place
            gateway.file.write_text(text.replace("one" if turn == 0 else "two", body))
            backup.unlink()
            await asyncio.to_thread(gateway.log().wait_for, event="reloaded", after=before)
            assert await get(gateway.port(), "/hello") == (200, body)


async def test_the_link_swap_of_kubernetes(tmp_path: Path) -> None:
    gateway = Gateway(site(hello("one")), directory=tmp_path)
    text = gateway.file.read_text()
    for name, body in [("..2025_1", "one"), ("..2025_2", "two"), ("..2025_3", "three")]:
        (tmp_path / name).mkdir()
        (tmp_path / name / "tidegate.yaml").write_text(text.replace("one", body))
    gateway.file.unlink()
    (tmp_path / "..data").symlink_to("..2025_1")
    gateway.file.symlink_to("..data/tidegate.yaml")
    await asyncio.to_thread(gateway.__enter__)
    try:
        for name, body in [("..2025_2", "two"), ("..2025_3", "three")]:
            before = len(gateway.log())
            (tmp_path / "..data_tmp").symlink_to(name)
            (tmp_path / "..data_tmp").replace(tmp_path / "..data")
            await asyncio.to_thread(gateway.log().wait_for, event="reloaded", after=before)
            assert await get(gateway.port(), "/hello") == (200, body)
    finally:
        await asyncio.to_thread(gateway.__exit__)


async def test_a_file_that_the_configuration_names(tmp_path: Path) -> None:
    (tmp_path / "greeting").write_text("one")
    async with running(site(hello("${file:greeting}")), directory=tmp_path) as gateway:
        assert await get(gateway.port(), "/hello") == (200, "one")
        before = len(gateway.log())
        (tmp_path / "greeting").write_text("two")
        changed = await asyncio.to_thread(gateway.log().wait_for, event="files_changed", after=before)
        assert changed["files"] == [str(tmp_path / "greeting")]
        await asyncio.to_thread(gateway.log().wait_for, event="reloaded", after=before)
        assert await get(gateway.port(), "/hello") == (200, "two")


async def test_a_hangup_signal(tmp_path: Path) -> None:
    async with running(site(hello("${GREETING}")), environment={"GREETING": "hi"}) as gateway:
        for generation in (2, 3):
            before = len(gateway.log())
            gateway.signal(signal.SIGHUP)
            record = await asyncio.to_thread(gateway.log().wait_for, event="reloaded", after=before)
            assert record["generation"] == generation
        assert await get(gateway.port(), "/hello") == (200, "hi")
        assert reloads(gateway, "success") == 2


async def test_the_admin_address(process: Gateway) -> None:
    async with serving(process, site(hello("one"))) as gateway:
        status, body = await asyncio.to_thread(gateway.admin, "/reload", "POST")
        assert (status, json.loads(body)) == (200, {"generation": gateway.generation + 1})
        assert (await asyncio.to_thread(gateway.admin, "/reload"))[0] == 405
        good = gateway.file.read_text()
        gateway.file.write_text("listeners: 3\n")
        status, body = await asyncio.to_thread(gateway.admin, "/reload", "POST")
        answer = json.loads(body)
        assert (status, answer["error"]) == (422, "reload_failed")
        assert answer["problems"][0]["line"] == 1
        assert await get(gateway.port(), "/hello") == (200, "one")
        # The watcher may still have its say about the bad file, so only success is waited for.
        before = len(gateway.log())
        gateway.write(good)
        await asyncio.to_thread(gateway.log().wait_for, event="reloaded", after=before)


async def test_the_last_of_many_changes_serves(process: Gateway) -> None:
    async with serving(process, site(hello("0"))) as gateway:
        failures = reloads(gateway, "failure")
        for number in range(1, 31):
            gateway.write(site(hello(str(number))))
            await asyncio.sleep(0.02)  # writers are not in step with readers
        async with asyncio.timeout(10):
            while await get(gateway.port(), "/hello") != (200, "30"):
                await asyncio.sleep(0.05)
        assert reloads(gateway, "failure") == failures


async def test_what_takes_a_restart_says_so() -> None:
    async with running(site(hello("one"), workers=1)) as gateway:
        await reload(gateway, site(hello("two"), workers=2))
        said = gateway.log().wait_for(event="needs_restart")
        assert (said["level"], "workers" in said["message"]) == ("warning", True)
        assert await get(gateway.port(), "/hello") == (200, "two")


# ---- a bad one ------------------------------------------------------------------------------------------------------


async def test_a_bad_file_leaves_the_old_one_and_says_why(process: Gateway, echo: EchoServer) -> None:
    good = site(hello("one"), route("echo", "app"), upstreams={"app": echo.url})
    async with serving(process, good) as gateway, open_peer(gateway.port(), "/echo") as peer:
        failures, successes = reloads(gateway, "failure"), reloads(gateway, "success")
        generation = gateway.generation
        message = await refused(gateway, {**good, "lissteners": {}})
        assert "tidegate.yaml:" in message
        assert "did you mean 'listeners'?" in message
        assert reloads(gateway, "failure") == failures + 1
        status = json.loads(gateway.admin("/config/status")[1])
        assert (status["generation"], status["ready"]) == (generation, True)
        assert "lissteners" in status["last_error"]
        await echoes(peer)
        assert await get(gateway.port(), "/hello") == (200, "one")

        before = len(gateway.log())
        gateway.file.unlink()
        await asyncio.to_thread(gateway.log().wait_for, event="reload_failed", after=before)
        assert await get(gateway.port(), "/hello") == (200, "one")

        before = len(gateway.log())
        gateway.write({**good, "routes": [hello("two"), *good["routes"][1:]]})
        await asyncio.to_thread(gateway.log().wait_for, event="reloaded", after=before)
        assert await get(gateway.port(), "/hello") == (200, "two")
        assert reloads(gateway, "success") == successes + 1
        assert json.loads(gateway.admin("/config/status")[1])["last_error"] is None
        await echoes(peer)


async def test_what_only_the_engine_finds_is_refused_with_its_place(process: Gateway) -> None:
    async with serving(process, site(hello("one"))) as gateway:
        message = await refused(gateway, site(route("r", respond="echo", match={"path": {"regex": "/a("}})))
        assert "tidegate.yaml:" in message and "match.path" in message
        assert await get(gateway.port(), "/hello") == (200, "one")


async def test_a_port_that_cannot_be_bound_changes_nothing(process: Gateway, free_port: int) -> None:
    async with serving(process, site(hello("one"))) as gateway:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            number = taken.getsockname()[1]
            wanted = site(
                hello("two"),
                listeners={
                    "edge": {"bind": LOOPBACK},
                    "free": {"bind": f"127.0.0.1:{free_port}"},
                    "taken": {"bind": f"127.0.0.1:{number}"},
                },
            )
            message = await refused(gateway, wanted)
            assert f"cannot bind 127.0.0.1:{number}: another process listens there" in message
            assert "tidegate.yaml:" in message
            assert await get(gateway.port(), "/hello") == (200, "one")
            with pytest.raises(ConnectionRefusedError):
                await get(free_port, "/hello")
        await reload(gateway, wanted)  # nobody has it any more, and the first attempt holds on to nothing
        for name in ("edge", "free"):
            assert await get(gateway.port(name), "/hello") == (200, "two")


async def test_a_gateway_that_drains_takes_no_new_configuration(echo: EchoServer) -> None:
    config = site(
        hello("one"), route("echo", "app"), upstreams={"app": echo.url}, drain={"delay": "10s", "timeout": "20s"}
    )
    async with running(config) as gateway, open_peer(gateway.port(), "/echo"):
        gateway.signal(signal.SIGTERM)
        await asyncio.to_thread(gateway.log().wait_for, event="draining")
        message = await refused(gateway, {**config, "routes": [hello("two")]})
        assert "drains" in message


# ---- listeners ------------------------------------------------------------------------------------------------------


async def test_listeners_come_and_go(process: Gateway) -> None:
    async with serving(process, site(hello("one"))) as gateway:
        port = gateway.port("edge")
        both = {"edge": {"bind": LOOPBACK}, "side": {"bind": LOOPBACK}}
        await reload(gateway, site(hello("two"), listeners=both))
        assert gateway.port("edge") == port
        side = gateway.port("side")
        assert [await get(each, "/hello") for each in (port, side)] == [(200, "two")] * 2
        await reload(gateway, site(hello("three"), listeners={"side": {"bind": LOOPBACK}}))
        assert gateway.port("side") == side
        assert await get(side, "/hello") == (200, "three")
        with pytest.raises(ConnectionRefusedError):
            await get(port, "/hello")


async def test_a_removed_listener_lets_go_of_its_port(process: Gateway, free_port: int) -> None:
    bound = {"edge": {"bind": LOOPBACK}, "side": {"bind": f"127.0.0.1:{free_port}"}}
    async with serving(process, site(hello("one"), listeners=bound)) as gateway:
        for _ in range(5):
            await reload(gateway, site(hello("one")))
            with pytest.raises(ConnectionRefusedError):
                await get(free_port, "/hello")
            await reload(gateway, site(hello("one"), listeners=bound))
            assert await get(free_port, "/hello") == (200, "one")


async def test_the_same_bind_under_a_new_name_keeps_its_socket(
    process: Gateway, free_port: int, echo: EchoServer
) -> None:
    def named(name: str) -> Config:
        listeners = {name: {"bind": f"127.0.0.1:{free_port}"}}
        return site(route("echo", "app"), hello(name), listeners=listeners, upstreams={"app": echo.url})

    async with serving(process, named("old")) as gateway, open_peer(free_port, "/echo") as peer:
        before = listening_inode(free_port)
        async with dial(free_port) as idle:
            await idle.send(request_bytes("GET /hello"))
            assert (await idle.answer())[1] == b"old"
            await reload(gateway, named("new"))
            assert listening_inode(free_port) == before
            await idle.send(request_bytes("GET /hello"))
            assert (await idle.answer())[1] == b"new"
        await echoes(peer)
        assert gateway.port("new") == free_port


@pytest.mark.parametrize("wider", ["0.0.0.0", "[::]"])
async def test_a_bind_may_become_wider_and_narrower(
    process: Gateway, free_port: int, echo: EchoServer, wider: str
) -> None:
    """Linux refuses one beside the other, but they are both ours."""

    def bound(host: str) -> Config:
        listeners = {"edge": {"bind": f"{host}:{free_port}"}}
        return site(hello(host), route("echo", "app"), listeners=listeners, upstreams={"app": echo.url})

    async with serving(process, bound("127.0.0.1")) as gateway, open_peer(free_port, "/echo") as goes:
        await reload(gateway, bound(wider))
        await reload_close(goes)  # its listener is gone
        assert await get(free_port, "/hello") == (200, wider)
        with pytest.raises(OSError, match="Address already in use"):
            socket.create_server(("127.0.0.1", free_port))  # nobody else can take a part of it
        await reload(gateway, bound("127.0.0.1"))
        assert await get(free_port, "/hello") == (200, "127.0.0.1")


def listening_inode(port: int) -> list[str]:
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return [row[9] for row in rows if row[3] == "0A" and int(row[1].split(":")[1], 16) == port]


async def test_a_removed_listener_drains_its_connections(process: Gateway, echo: EchoServer) -> None:
    both = {"edge": {"bind": LOOPBACK}, "side": {"bind": LOOPBACK}}
    upstreams = {"app": echo.url}
    async with (
        serving(process, site(hello("one"), route("echo", "app"), listeners=both, upstreams=upstreams)) as gateway,
        open_peer(gateway.port("edge"), "/echo") as stays,
        open_peer(gateway.port("side"), "/echo") as goes,
        dial(gateway.port("side")) as idle,
    ):
        await idle.send(request_bytes("GET /hello"))
        assert (await idle.answer())[0].get("connection") is None
        await reload(gateway, site(hello("one"), route("echo", "app"), upstreams=upstreams))
        await reload_close(goes)
        await idle.ended()
        await echoes(stays)
        record = await asyncio.to_thread(gateway.access_log().wait_for, event="close", listener="side")
        assert (record["cause"], record["code"]) == ("reload", 1012)


async def test_a_request_that_comes_too_late_for_its_listener_is_told(process: Gateway) -> None:
    both = {"edge": {"bind": LOOPBACK}, "side": {"bind": LOOPBACK}}
    async with serving(process, site(hello("one"), listeners=both)) as gateway, dial(gateway.port("side")) as wire:
        await wire.send(request_bytes("GET /hello")[:-2])
        await reload(gateway, site(hello("one")))
        await wire.send(b"\r\n")
        head, body = await wire.answer()
        assert (head.status, head.get("connection"), body.split(b":")[0]) == (503, "close", b"listener_gone")


async def test_an_answer_under_way_outlives_its_listener(process: Gateway) -> None:
    both = {"edge": {"bind": LOOPBACK}, "side": {"bind": LOOPBACK}}
    async with play() as (server, url):
        config = site(route("slow", "app"), listeners=both, upstreams={"app": url})
        async with serving(process, config) as gateway, dial(gateway.port("side")) as wire:
            await wire.send(request_bytes("GET /slow"))
            upstream = await server.connection()
            await upstream.head()
            await reload(gateway, site(route("slow", "app"), upstreams={"app": url}))
            await upstream.send(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ndone")
            head, body = await wire.answer()
            assert (head.status, body, head.get("connection")) == (200, b"done", "close")
            await wire.ended()


# ---- what becomes of live WebSockets --------------------------------------------------------------------------------


async def test_routes_that_stay_never_notice(process: Gateway, echo: EchoServer) -> None:
    upstreams = {"app": echo.url}
    first = site(route("a", "app"), route("b", "app"), hello("one"), upstreams=upstreams)
    async with (
        serving(process, first) as gateway,
        open_peer(gateway.port(), "/a") as a,
        open_peer(gateway.port(), "/b") as b,
    ):
        # The order of routes and upstreams, other routes, and what is said only about new connections.
        listeners = {"edge": {"bind": LOOPBACK, "limits": {"headers": "8KiB"}}}
        second = site(
            hello("two"),
            route("c", "other"),
            route("b", "app", headers={"response": {"set": {"x-new": "1"}}}),
            route("a", "app", websocket={"max_message": "1KiB"}),
            listeners=listeners,
            upstreams={"other": echo.url, **upstreams},
        )
        await reload(gateway, second)
        await echoes(a, b"x" * 5000)
        await echoes(b)
        async with open_peer(gateway.port(), "/b") as new:
            assert new.head.get("x-new") == "1"
        connections = {each["route"] for each in gateway.connections()}
        assert connections >= {"a", "b"}
        assert gateway.metrics().value("tidegate_websocket_connections", route="a") == 1


async def test_a_removed_route_drains_its_websockets(process: Gateway, echo: EchoServer) -> None:
    upstreams = {"app": echo.url}
    async with (
        serving(process, site(route("stays", "app"), route("goes", "app"), upstreams=upstreams)) as gateway,
        open_peer(gateway.port(), "/stays") as stays,
        open_peer(gateway.port(), "/goes") as goes,
    ):
        closed, seen = closed_by_reload(gateway, "goes"), len(gateway.access_log())
        await reload(gateway, site(route("stays", "app"), upstreams=upstreams))
        await reload_close(goes)
        await echoes(stays)
        record = await asyncio.to_thread(gateway.access_log().wait_for, event="close", route="goes", after=seen)
        assert (record["cause"], record["code"], record["client_code"]) == ("reload", 1012, 1012)
        assert closed_by_reload(gateway, "goes") == closed + 1
        assert [frame.code for frame in echo.closes] == [1001]
        assert (await get(gateway.port(), "/goes"))[0] == 404


async def test_the_code_is_the_routes_own(process: Gateway, echo: EchoServer) -> None:
    goes = route("goes", "app", websocket={"close_codes": {"drain": 4012}})
    upstreams = {"app": echo.url}
    async with (
        serving(process, site(goes, route("stays", "app"), upstreams=upstreams)) as gateway,
        open_peer(gateway.port(), "/goes") as peer,
    ):
        await reload(gateway, site(route("stays", "app"), upstreams=upstreams))
        assert (await answer_close(peer)).code == 4012


async def test_a_removed_upstream_drains_its_websockets(process: Gateway, echo: EchoServer) -> None:
    def to(name: str) -> Config:
        return site(route("r", name), route("s", "other"), upstreams={name: echo.url, "other": echo.url})

    async with (
        serving(process, to("old")) as gateway,
        open_peer(gateway.port(), "/r") as goes,
        open_peer(gateway.port(), "/s") as stays,
    ):
        await reload(gateway, to("new"))
        await reload_close(goes)
        await echoes(stays)
        async with open_peer(gateway.port(), "/r") as again:
            await echoes(again)


async def test_on_change_asks_for_a_drain(process: Gateway, echo: EchoServer) -> None:
    def config(value: str) -> Config:
        edits = {"request": {"set": {"x-version": value}}}
        return site(
            route("drains", "app", on_change="drain", headers=edits),
            route("keeps", "app", on_change="keep", headers=edits),
            route("same", "app", on_change="drain"),
            upstreams={"app": echo.url},
        )

    async with (
        serving(process, config("1")) as gateway,
        open_peer(gateway.port(), "/drains") as drains,
        open_peer(gateway.port(), "/keeps") as keeps,
        open_peer(gateway.port(), "/same") as same,
    ):
        await reload(gateway, config("2"))
        await reload_close(drains)
        await echoes(keeps)
        await echoes(same)


async def test_an_endpoint_that_left_keeps_what_it_has(process: Gateway) -> None:
    async with EchoServer() as first, EchoServer() as second:

        def config(*urls: str) -> Config:
            return site(route("r", "app"), upstreams={"app": list(urls)})

        async with serving(process, config(first.url)) as gateway, open_peer(gateway.port(), "/r") as old:
            await reload(gateway, config(second.url))
            for _ in range(4):
                async with open_peer(gateway.port(), "/r") as new:
                    await echoes(new)
            await echoes(old)
            assert (first.opened, first.live, second.opened) == (1, 1, 4)
            # It comes back, and its load is what it was: the busier one gets nothing.
            await reload(gateway, config(first.url, second.url))
            async with open_peer(gateway.port(), "/r") as new:
                await echoes(new)
            assert (first.opened, second.opened) == (1, 5)
            await echoes(old)


async def test_a_handshake_under_way_at_the_reload_is_drained_too(process: Gateway) -> None:
    """It was let in by a configuration that is gone when its 101 comes."""
    async with play() as (server, url):
        both = site(route("goes", "app"), route("stays", "app"), upstreams={"app": url})
        async with serving(process, both) as gateway, dial(gateway.port()) as wire:
            await wire.send(attempt("/goes"))
            upstream = await server.connection()
            await reload(gateway, site(route("stays", "app"), upstreams={"app": url}))
            far = await accept(upstream)
            assert (await wire.head()).status == 101
            peer = Peer(wire, far.head, is_client=True)
            frame = await peer.frame()
            assert frame.code == 1012
            assert frame.reason.startswith("gw: reload")
            await peer.send(close(1012))
            assert (await far.frame()).code == 1001
            await far.send(close(1001))
            await peer.wire.ended()


async def test_an_exchange_under_way_keeps_its_route(process: Gateway) -> None:
    async with play() as (server, url):
        edits = {"response": {"set": {"x-version": "old"}}}
        both = site(route("r", "app", headers=edits), upstreams={"app": url})
        async with serving(process, both) as gateway, dial(gateway.port()) as wire:
            await wire.send(request_bytes("GET /r"))
            upstream = await server.connection()
            await upstream.head()
            await reload(gateway, site(hello("new", name="r")))
            await upstream.send(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nold")
            head, body = await wire.answer()
            assert (head.get("x-version"), body) == ("old", b"old")
            await wire.send(request_bytes("GET /r"))
            assert (await wire.answer())[1] == b"new"


async def test_the_count_of_live_websockets_survives(process: Gateway, echo: EchoServer) -> None:
    """least_connections goes by it, and so do people."""
    config = site(route("r", "app"), upstreams={"app": echo.url})
    async with (
        serving(process, config) as gateway,
        open_peer(gateway.port(), "/r") as one,
        open_peer(gateway.port(), "/r"),
    ):
        for turn in range(3):
            await reload(gateway, {**config, "drain": {"window": f"{turn + 2}s", "timeout": "5s"}})
        metrics = gateway.metrics()
        assert metrics.value("tidegate_endpoint_connections", upstream="app") == 2
        assert metrics.value("tidegate_websocket_connections", route="r") == 2
        assert metrics.value("tidegate_config_generation") == gateway.generation
        await leave(one)
        await until(lambda: gateway.metrics().value("tidegate_endpoint_connections", upstream="app") == 1)
