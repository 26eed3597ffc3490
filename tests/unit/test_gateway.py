"""Start, reload, drain and stop, with an engine that only notes what it is told."""

import asyncio
import contextlib
import json
import os
import signal
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.unit import fake_engine
from tidegate import gateway as module
from tidegate.errors import ConfigError, EngineFailure, EngineMissing
from tidegate.gateway import Gateway, check_file, list_routes, serve
from tidegate.process import ReadyFile

FILE = """
listeners: {edge: {bind: "127.0.0.1:0"}}
routes: [{match: {path: {prefix: /}}, to: app}]
upstreams: {app: {endpoints: ["http://localhost:9000"]}}
admin: {bind: "127.0.0.1:0"}
"""


@pytest.fixture(autouse=True)
def engine(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(module, "_engine", fake_engine)
    yield
    fake_engine.found.clear()
    fake_engine.Engine.made.clear()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "tidegate.yaml"
    path.write_text(FILE)
    return path


@contextlib.asynccontextmanager
async def running(path: Path, **options: Any) -> AsyncIterator[Gateway]:
    gateway = await Gateway.start(path, **options)
    try:
        yield gateway
    finally:
        await gateway.stop()


def made() -> fake_engine.Engine:
    return fake_engine.Engine.made[-1]


async def eventually(test: Any) -> None:
    async with asyncio.timeout(10):
        while not test():
            await asyncio.sleep(0.01)


async def test_it_starts_with_names_resolved(file: Path) -> None:
    async with running(file) as gateway:
        targets = [endpoint["target"] for endpoint in made().snapshot["upstreams"][0]["endpoints"]]
        assert {"tcp": ["127.0.0.1", 9000]} in targets
        assert (gateway.ready, gateway.status()["generation"]) == (True, 1)
    assert made().calls == ["prepare", "commit", "stop"]


async def test_workers_come_from_the_file(file: Path) -> None:
    file.write_text(FILE + "workers: 3\n")
    async with running(file):
        assert made().workers == 3


def test_regular_expressions_are_judged_beside_other_errors(tmp_path: Path) -> None:
    file = tmp_path / "gateway.yaml"
    file.write_text(
        "listeners: {edge: {bind: '127.0.0.1:0'}}\n"
        "routes:\n"
        "  - {match: {path: {regex: '/(a'}, headers: {x: {regex: '(b'}}}, to: gone}\n"
        "upstreams: {up: {endpoints: ['http://127.0.0.1:1']}}\n"
    )
    with pytest.raises(ConfigError) as caught:
        module.check_file(file)
    assert [problem.key for problem in caught.value.problems] == [
        "routes[0].match.path.regex",
        "routes[0].match.headers.x.regex",
        "routes[0].to",
    ]


async def test_what_the_engine_finds_is_told_with_its_place(file: Path) -> None:
    fake_engine.found.append(("/routes/0/match/path", "the regex has no end"))
    with pytest.raises(ConfigError, match="the regex has no end") as caught:
        check_file(file)
    assert caught.value.problems[0].place.line == 3


async def test_an_address_in_use_fails_the_start_and_frees_everything(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(self: fake_engine.Engine, *_: object) -> None:
        raise fake_engine.EngineError("127.0.0.1:80: address in use", "/listeners/0")

    monkeypatch.setattr(fake_engine.Engine, "prepare", refuse)
    with pytest.raises(EngineFailure, match="address in use"):
        await Gateway.start(file)
    assert made().calls == ["stop"]


async def test_an_engine_of_another_version_is_refused(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fake_engine, "version", lambda: "9.9.9")
    with pytest.raises(EngineMissing, match=r"9\.9\.9"):
        await Gateway.start(file)


async def test_a_reload_serves_the_new_file(file: Path) -> None:
    async with running(file) as gateway:
        file.write_text(FILE.replace("9000", "9001"))
        assert await gateway.reload() == 2
        assert made().snapshot["upstreams"][0]["endpoints"][0]["target"]["tcp"][1] == 9001


async def test_a_changed_file_reloads_by_itself(file: Path) -> None:
    async with running(file) as gateway:
        file.write_text(FILE.replace("9000", "9001"))
        await eventually(lambda: gateway.status()["generation"] == 2)


async def test_a_changed_certificate_reloads(file: Path, tmp_path: Path) -> None:
    token = tmp_path / "admin.token"
    token.write_text("first-long-enough-token")
    file.write_text(FILE.replace('"127.0.0.1:0"}\n', '"127.0.0.1:0", token: "${file:admin.token}"}\n'))
    async with running(file) as gateway:
        assert str(token) in gateway.status()["watched"]
        token.write_text("second-long-enough-token")
        await eventually(lambda: gateway.status()["generation"] == 2)
        async with httpx.AsyncClient(base_url=f"http://{gateway.status()['admin']}") as client:
            assert (await client.get("/metrics")).status_code == 401
            headers = {"authorization": "Bearer second-long-enough-token"}
            assert (await client.get("/metrics", headers=headers)).status_code == 200


@pytest.mark.parametrize("broken", ["listeners: [", FILE.replace("to: app", "to: nobody")])
async def test_a_bad_file_leaves_the_old_one_running(file: Path, broken: str) -> None:
    async with running(file) as gateway:
        file.write_text(broken)
        with pytest.raises(ConfigError):
            await gateway.reload()
        assert (made().generation, gateway.ready) == (1, True)
        assert "tidegate.yaml" in gateway.status()["last_error"]
        failures = [f for f in gateway.metrics() if f["name"] == "tidegate_config_reloads_total"]
        assert {"labels": {"result": "failure"}, "value": 1} in failures[0]["samples"]
        file.write_text(FILE)
        await gateway.reload()
        assert gateway.status()["last_error"] is None


async def test_what_the_engine_refuses_is_never_committed(file: Path) -> None:
    async with running(file) as gateway:
        made().refusal = ("127.0.0.1:80: address in use", "/listeners/0")
        with pytest.raises(EngineFailure, match="address in use"):
            await gateway.reload()
        assert made().calls == ["prepare", "commit", "prepare"]


async def test_a_taken_admin_address_leaves_the_old_one(file: Path) -> None:
    async with running(file) as gateway, running_server() as taken:
        file.write_text(FILE.replace('admin: {bind: "127.0.0.1:0"}', f'admin: {{bind: "{taken}"}}'))
        before = gateway.status()["admin"]
        with pytest.raises(EngineFailure, match="admin: cannot listen"):
            await gateway.reload()
        assert gateway.status()["admin"] == before
        assert made().generation == 1


@contextlib.asynccontextmanager
async def running_server() -> AsyncIterator[str]:
    server = await asyncio.start_server(lambda *_: None, "127.0.0.1", 0)
    async with server:
        host, port = server.sockets[0].getsockname()
        yield f"{host}:{port}"


async def test_the_admin_address_moves_with_a_reload_asked_for_there(file: Path, tmp_path: Path) -> None:
    async with running(file) as gateway:
        file.write_text(FILE.replace('admin: {bind: "127.0.0.1:0"}', f'admin: {{bind: "unix:{tmp_path}/a.sock"}}'))
        async with httpx.AsyncClient(base_url=f"http://{gateway.status()['admin']}") as client:
            answer = await client.post("/reload")
        assert answer.status_code == 200
        assert gateway.status()["admin"] == f"unix:{tmp_path}/a.sock"
        transport = httpx.AsyncHTTPTransport(uds=f"{tmp_path}/a.sock")
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            assert (await client.get("/ready")).status_code == 200


async def test_metrics_of_both_halves(file: Path) -> None:
    async with running(file) as gateway:
        names = {family["name"] for family in gateway.metrics()}
    assert names >= {
        "tidegate_websocket_connections",
        "tidegate_config_last_reload_success_timestamp_seconds",
        "tidegate_build_info",
        "process_open_fds",
    }


async def test_a_drain_is_told_at_once_and_the_admin_answers(file: Path) -> None:
    asked: list[str] = []
    async with running(file, on_drain=lambda: asked.append("drain")) as gateway:
        made().drain_ends.clear()
        async with httpx.AsyncClient(base_url=f"http://{gateway.status()['admin']}") as client:
            assert (await client.get("/ready")).status_code == 200
            assert (await client.post("/drain")).status_code == 202
            assert (await client.get("/ready")).status_code == 503
            assert (await client.get("/live")).status_code == 200
            assert (await client.post("/reload")).status_code == 422
        made().drain_ends.set()
        await gateway.drained()
        assert (asked, made().calls.count("drain")) == (["drain"], 1)


async def test_a_drain_during_a_reload_wins(file: Path) -> None:
    async with running(file) as gateway:
        made().prepare_goes_on.clear()
        reload = asyncio.create_task(gateway.reload())
        await eventually(lambda: made().calls[-1] == "prepare")
        gateway.drain()
        made().prepare_goes_on.set()
        with pytest.raises(EngineFailure, match="drains"):
            await reload
        assert made().generation == 1


async def test_the_ready_file_says_where(file: Path, tmp_path: Path) -> None:
    ready = tmp_path / "ready.json"
    async with running(file, ready_file=ReadyFile(ready)) as gateway:
        said = json.loads(ready.read_text())
        assert said["listeners"] == [{"name": "edge", "addresses": ["127.0.0.1:4242"], "tls": False, "tcp": False}]
        assert (said["generation"], said["admin"], said["pid"]) == (1, gateway.status()["admin"], os.getpid())
        await gateway.reload()
        assert json.loads(ready.read_text())["generation"] == 2
    assert not ready.exists()


def test_routes_are_listed(file: Path) -> None:
    assert list_routes(file) == [{"route": 0, "listener": 0, "host": "*", "ties": []}]


# ---- the whole life, with signals -----------------------------------------------------------------------------------


async def served(file: Path, ready: Path) -> "asyncio.Task[int]":
    task = asyncio.create_task(serve(file, ready))
    await eventually(lambda: ready.exists() or task.done())
    return task


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_drains_and_ends_with_0(file: Path, tmp_path: Path, number: signal.Signals) -> None:
    task = await served(file, tmp_path / "ready")
    os.kill(os.getpid(), number)
    assert await asyncio.wait_for(task, 10) == 0
    assert made().calls[-2:] == ["drain", "stop"]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
async def test_a_second_signal_ends_at_once(file: Path, tmp_path: Path, number: signal.Signals, code: int) -> None:
    task = await served(file, tmp_path / "ready")
    made().drain_ends.clear()
    os.kill(os.getpid(), number)
    await eventually(lambda: "drain" in made().calls)
    assert not task.done()
    os.kill(os.getpid(), number)
    assert await asyncio.wait_for(task, 5) == code


async def test_hangup_reloads(file: Path, tmp_path: Path) -> None:
    task = await served(file, tmp_path / "ready")
    os.kill(os.getpid(), signal.SIGHUP)
    await eventually(lambda: made().generation == 2)
    os.kill(os.getpid(), signal.SIGTERM)
    assert await asyncio.wait_for(task, 10) == 0


async def test_a_drain_over_the_admin_address_ends_the_process(file: Path, tmp_path: Path) -> None:
    task = await served(file, tmp_path / "ready")
    address = json.loads((tmp_path / "ready").read_text())["admin"]
    async with httpx.AsyncClient(base_url=f"http://{address}") as client:
        await client.post("/drain")
    assert await asyncio.wait_for(task, 10) == 0


async def test_a_signal_while_it_starts_ends_with_0(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    starting = threading.Event()
    go_on = threading.Event()

    def slow(path: Path) -> None:
        starting.set()
        go_on.wait(10)

    monkeypatch.setattr(module, "check_file", slow)
    task = asyncio.create_task(serve(file))
    await asyncio.to_thread(starting.wait, 10)
    os.kill(os.getpid(), signal.SIGTERM)
    assert await asyncio.wait_for(task, 5) == 0
    go_on.set()
