"""Listening sockets: where they are, how many connections they take, and for how long a client may say nothing."""

import asyncio
import json
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.kit.peers import EchoServer, dial_unix, echoes, leave, open_peer, running
from tests.e2e.kit.sites import LOOPBACK, Config, refused, reload, route, site, until
from tests.e2e.kit.wire import Wire, dial, request_bytes
from tidegate.testing import Gateway

SHORT = {"head": "400ms", "keep_alive": "400ms"}


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("sockets")


@pytest.fixture(scope="module")
def gateway(places: Path) -> Iterator[Gateway]:
    stale = socket.socket(socket.AF_UNIX)
    stale.bind(str(places / "edge.sock"))
    stale.close()  # its file stays behind, as after a crash
    config = site(
        route("own", respond="echo"),
        route("where", respond={"body": "edge"}, listeners=["edge"]),
        route("where-side", respond={"body": "side"}, listeners=["side"], match={"path": {"prefix": "/where"}}),
        listeners={
            "edge": {"bind": LOOPBACK},
            "side": {"bind": ["127.0.0.1:0", "127.0.0.2:0", f"unix:{places}/side.sock"]},
            "dual": {"bind": "[::]:0"},
            "socket": {"bind": f"unix:{places}/edge.sock"},
            "impatient": {"bind": LOOPBACK, "timeouts": SHORT},
            "once": {"bind": LOOPBACK, "timeouts": {"keep_alive": "0s"}},
            "narrow": {"bind": LOOPBACK, "limits": {"headers": "1KiB"}},
            "few": {"bind": LOOPBACK, "limits": {"connections": 3}},
            "both": {"bind": ["127.0.0.1:0", "127.0.0.2:0"], "limits": {"connections": 2}},
        },
    )
    with Gateway(config) as running_gateway:
        yield running_gateway


async def get(wire: Wire, path: str = "/where", *fields: str) -> tuple[int, str]:
    await wire.send(request_bytes(f"GET {path}", *fields))
    head, body = await wire.answer()
    return head.status, body.decode()


# ---- addresses ------------------------------------------------------------------------------------------------------


async def test_port_0_is_told_where_one_looks(gateway: Gateway) -> None:
    port = gateway.port("edge")
    assert port > 0
    said = gateway.log().wait_for(event="listening", listener="edge")
    assert said["message"] == f"listening on http://127.0.0.1:{port} (edge)"
    status = json.loads(gateway.admin("/config/status")[1])
    found = {listener["name"]: listener["addresses"] for listener in status["listeners"]}
    assert found["edge"] == [f"127.0.0.1:{port}"]


def test_the_ready_file_says_the_same(tmp_path: Path) -> None:
    ready = tmp_path / "ready.json"
    with Gateway(site(route("own", respond="echo")), arguments=("--ready-file", str(ready))) as one:
        while not ready.exists():
            time.sleep(0.01)
        told = json.loads(ready.read_text())
        assert told["pid"] == one.pid
        assert told["listeners"][0]["addresses"] == one.addresses("edge")
    assert not ready.exists()


async def test_dual_stack(gateway: Gateway) -> None:
    port = gateway.port("dual")
    for host in ("127.0.0.1", "::1"):
        before = len(gateway.access_log())
        async with open_peer(port, "/own", host=host) as peer:
            await echoes(peer)
            record = await asyncio.to_thread(gateway.access_log().wait_for, after=before, event="open")
            assert record["client"] == host  # not ::ffff:127.0.0.1


async def test_one_listener_with_several_addresses(gateway: Gateway) -> None:
    one, two, path = gateway.addresses("side")
    assert (one.split(":")[0], two.split(":")[0]) == ("127.0.0.1", "127.0.0.2")
    for address in (one, two):
        host, port = address.split(":")
        async with dial(int(port), host) as wire:
            assert await get(wire) == (200, "side")
    async with dial_unix(path.removeprefix("unix:")) as wire:
        assert await get(wire) == (200, "side")


async def test_each_listener_has_its_routes(gateway: Gateway) -> None:
    async with dial(gateway.port("edge")) as wire:
        assert await get(wire) == (200, "edge")
    async with dial(gateway.port("few")) as wire:
        assert (await get(wire))[0] == 404


async def test_a_unix_socket_in_place_of_a_stale_one(gateway: Gateway, places: Path) -> None:
    path = places / "edge.sock"
    assert stat.S_ISSOCK(path.stat().st_mode)
    before = len(gateway.access_log())
    async with open_peer(str(path), "/own") as peer:
        await echoes(peer)
        record = await asyncio.to_thread(gateway.access_log().wait_for, after=before, event="open")
        assert "client" not in record


def test_a_socket_that_is_in_use_is_not_taken_away(gateway: Gateway, places: Path, tmp_path: Path) -> None:
    cases = {
        places / "edge.sock": "another process listens there",
        tmp_path / "file": "there is a file that is no socket",
    }
    for path, why in cases.items():
        if not path.exists():
            path.write_text("precious")
        file = tmp_path / "second.yaml"
        file.write_text(f"listeners: {{edge: {{bind: 'unix:{path}'}}}}\nadmin: off\nroutes: [{{respond: echo}}]\n")
        program = "from tidegate.cli import main; main()"
        done = subprocess.run([sys.executable, "-c", program, "run", str(file)], capture_output=True, text=True)
        assert done.returncode == 1, done.stderr
        assert f"cannot bind unix:{path}" in done.stderr and why in done.stderr, done.stderr
    assert (tmp_path / "file").read_text() == "precious"


async def test_unix_sockets_come_and_go_with_their_files(tmp_path: Path) -> None:
    def config(*names: str) -> Config:
        listeners = {name: {"bind": f"unix:{tmp_path}/{name}.sock"} for name in names}
        return site(route("own", respond="echo"), listeners=listeners)

    def files() -> list[str]:
        return sorted(path.name for path in tmp_path.glob("*.sock"))

    async with running(config("a")) as one:
        assert files() == ["a.sock"]
        async with open_peer(str(tmp_path / "a.sock"), "/own") as peer:
            await reload(one, config("a", "b"))
            assert files() == ["a.sock", "b.sock"]
            await echoes(peer)
            (tmp_path / "taken").write_text("")
            assert "cannot bind" in await refused(
                one, site(route("own", respond="echo"), listeners={"x": {"bind": f"unix:{tmp_path}/taken"}})
            )
            assert files() == ["a.sock", "b.sock"]
        await reload(one, config("b"))
        await until(lambda: files() == ["b.sock"])
        async with open_peer(str(tmp_path / "b.sock"), "/own") as peer:
            await echoes(peer)
    assert files() == []


# ---- how many -------------------------------------------------------------------------------------------------------


def paused(gateway: Gateway, listener: str, reason: str) -> float:
    address = gateway.addresses(listener)[0]
    return gateway.metrics().value("tidegate_accept_paused_total", address=address, reason=reason)


async def test_at_the_limit_of_connections_accepting_pauses_and_resumes(gateway: Gateway) -> None:
    port = gateway.port("few")
    async with open_peer(port, "/own") as one, open_peer(port, "/own") as two, open_peer(port, "/own") as three:
        before = paused(gateway, "few", "connections")
        async with dial(port) as waiting:  # the kernel takes it, we do not
            await waiting.send(request_bytes("GET /own", "Connection: close"))
            early = asyncio.create_task(waiting.answer())
            assert not (await asyncio.wait([early], timeout=0.3))[0]
            assert paused(gateway, "few", "connections") >= max(before, 1)
            for peer in (one, two, three):
                await echoes(peer)
            await leave(one)
            assert (await early)[0].status == 200
        await echoes(two)
    async with open_peer(port, "/own") as again:
        await echoes(again)


async def test_the_limit_is_for_all_addresses_together(gateway: Gateway) -> None:
    one, two = (int(address.rpartition(":")[2]) for address in gateway.addresses("both"))
    async with open_peer(one, "/own") as first, open_peer(two, "/own", host="127.0.0.2") as second:
        waiting = []
        for port, host in ((one, "127.0.0.1"), (two, "127.0.0.2")):
            wire = Wire(*await asyncio.open_connection(host, port))
            await wire.send(request_bytes("GET /nowhere", "Connection: close"))
            waiting.append((wire, asyncio.create_task(wire.answer())))
        assert not (await asyncio.wait([task for _, task in waiting], timeout=0.3))[0]
        await leave(first)
        for wire, task in waiting:  # one after the other, and it does not matter which comes first
            assert (await task)[0].status == 404
            await wire.close()
        await echoes(second)


async def test_a_higher_limit_resumes_at_once() -> None:
    async with EchoServer() as echo:

        def config(most: int) -> Config:
            listeners = {"edge": {"bind": LOOPBACK, "limits": {"connections": most}}}
            return site(route("app", "app"), listeners=listeners, upstreams={"app": echo.url})

        async with running(config(1)) as one, open_peer(one.port(), "/app") as first, dial(one.port()) as second:
            await second.send(request_bytes("GET /nowhere"))
            answer = asyncio.create_task(second.answer())
            assert not (await asyncio.wait([answer], timeout=0.2))[0]
            await reload(one, config(2))
            assert (await answer)[0].status == 404
            await echoes(first)


# ---- how long, how much ---------------------------------------------------------------------------------------------


async def test_a_slow_head_is_answered_with_408(gateway: Gateway) -> None:
    async with dial(gateway.port("impatient")) as wire:
        began = time.monotonic()
        await wire.send(b"GET /own HTTP/1.1\r\n")
        slow = asyncio.create_task(_drip(wire))
        head, _ = await wire.answer()
        slow.cancel()
        assert (head.status, head.get("connection")) == (408, "close")
        assert time.monotonic() - began > 0.35
        await wire.ended()


async def _drip(wire: Wire) -> None:
    """Single bytes do not prolong anything."""
    while True:
        await wire.send(b"x")
        await asyncio.sleep(0.05)


async def test_a_client_that_asks_nothing_is_let_go(gateway: Gateway) -> None:
    async with dial(gateway.port("impatient")) as wire:
        began = time.monotonic()
        await wire.ended()
        assert time.monotonic() - began > 0.35


async def test_kept_connections_close_after_their_time(gateway: Gateway) -> None:
    async with dial(gateway.port("impatient")) as wire:
        for _ in range(3):
            assert (await get(wire, "/nowhere"))[0] == 404
        began = time.monotonic()
        await wire.ended()
        assert time.monotonic() - began > 0.35


async def test_the_head_timeout_is_for_each_request(gateway: Gateway) -> None:
    async with dial(gateway.port("impatient")) as wire:
        await get(wire, "/nowhere")
        await wire.send(b"GET /own HTTP/1.1\r\nHost: a\r\n")
        assert (await wire.answer())[0].status == 408
        await wire.ended()


async def test_keep_alive_0s_keeps_nothing(gateway: Gateway) -> None:
    async with dial(gateway.port("once")) as wire:
        await wire.send(request_bytes("GET /nowhere"))
        head, _ = await wire.answer()
        assert head.status == 404
        await wire.ended()


async def test_timeouts_of_http_never_apply_to_a_websocket(gateway: Gateway) -> None:
    async with open_peer(gateway.port("impatient"), "/own") as peer:
        await asyncio.sleep(1)  # nothing is to happen in this time
        await echoes(peer)


@pytest.mark.parametrize("listener,most", [("narrow", 1024), ("edge", 32 * 1024)])
async def test_a_head_that_is_too_large_is_431(gateway: Gateway, listener: str, most: int) -> None:
    plain = request_bytes("GET /nowhere", "X-Fill: ")
    fits, too_large = (f"X-Fill: {'x' * (most - len(plain) + more)}" for more in (0, 1))
    async with dial(gateway.port(listener)) as wire:
        assert (await get(wire, "/nowhere", fits))[0] == 404
        await wire.send(request_bytes("GET /nowhere", too_large))
        head, _ = await wire.answer()
        assert (head.status, head.get("connection")) == (431, "close")
        await wire.ended()


async def test_a_head_without_end_is_cut_at_the_limit(gateway: Gateway) -> None:
    async with dial(gateway.port("narrow")) as wire:
        await wire.send(b"GET / HTTP/1.1\r\nHost: a\r\nX-Fill: " + b"x" * 4000)
        assert (await wire.head()).status == 431
