"""The commands as people and scripts call them, each in a process of its own."""

import asyncio
import contextlib
import json
import os
import pty
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path

import httpx
import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

import tidegate
from tests.e2e.kit.bridge import attempt
from tests.e2e.kit.wire import dial
from tidegate.testing import Records

PROGRAM = [sys.executable, "-c", "from tidegate.cli import main; main()"]
LIMIT = 20

GOOD = """\
listeners:
  edge: {bind: "127.0.0.1:0"}
routes:
  - name: any
    match: {path: {prefix: /}}
    respond: {body: hello}
  - name: chat
    match: {host: chat.example.com, path: {exact: /ws}}
    to: chat
  - name: twice
    match: {path: {prefix: /}}
    respond: {body: again}
upstreams:
  chat: {endpoints: ["http://127.0.0.1:9000"]}
admin: {bind: "127.0.0.1:0"}
access_log: off
"""

BAD = """\
listeners:
  edge: {bind: "127.0.0.1:99999"}
routes:
  - match: {path: {regex: "[a-z]+"}}
    to: nobody
    hosts: x
"""


@pytest.fixture
def here(tmp_path: Path) -> Path:
    (tmp_path / "good.yaml").write_text(GOOD)
    (tmp_path / "bad.yaml").write_text(BAD)
    return tmp_path


def environment() -> dict[str, str]:
    colours = ("FORCE_COLOR", "NO_COLOR", "TTY_COMPATIBLE", "COLUMNS")
    return {name: value for name, value in os.environ.items() if name not in colours} | {"PYTHONUNBUFFERED": "1"}


def call(here: Path, *words: str, more: Mapping[str, str] | None = None) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [*PROGRAM, *words],
        cwd=here,
        capture_output=True,
        text=True,
        timeout=LIMIT,
        env={**environment(), **(more or {})},
        check=False,
    )


# ---- check, routes, schema, version ---------------------------------------------------------------------------------


def test_check_good(here: Path) -> None:
    found = call(here, "check", "good.yaml")
    assert found.returncode == 0
    assert found.stdout.startswith("ok: 1 listener, 3 routes, 1 upstream, 1 warning\nnote: pages of any site may open ")
    assert re.fullmatch(r"good\.yaml:10:5: warning: .*ties with.*\n", found.stderr), found.stderr


def test_check_bad_tells_everything_at_once(here: Path) -> None:
    found = call(here, "check", "bad.yaml")
    assert (found.returncode, found.stdout) == (2, "")
    lines = found.stderr.splitlines()
    places = [re.match(r"bad\.yaml:(\d+):(\d+): ([\w.\[\]]+): ", line) for line in lines]
    assert [place and (int(place[1]), place[3]) for place in places] == [
        (2, "listeners.edge.bind"),
        (5, "routes[0].to"),
        (6, "routes[0].hosts"),
    ], lines
    assert "did you mean 'host'" in lines[-1]
    assert "\x1b" not in found.stderr


def test_check_finds_what_only_the_engine_knows(here: Path) -> None:
    broken = GOOD.replace("exact: /ws", "regex: '('")
    (here / "regex.yaml").write_text(broken)
    found = call(here, "check", "regex.yaml")
    assert found.returncode == 2
    assert re.match(r"regex\.yaml:8:\d+: routes\[1\]\.match\.path", found.stderr), found.stderr


def test_check_for_scripts(here: Path) -> None:
    found = call(here, "check", "--json", "bad.yaml")
    assert (found.returncode, found.stderr) == (2, "")
    problems = json.loads(found.stdout)
    assert all(each.keys() >= {"file", "line", "column", "key", "message", "severity"} for each in problems)
    assert {each["severity"] for each in problems} == {"error"}
    found = call(here, "check", "--json", "good.yaml")
    assert found.returncode == 0
    assert [each["severity"] for each in json.loads(found.stdout)] == ["warning"]


def test_check_binds_nothing(here: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        (here / "taken.yaml").write_text(GOOD.replace("127.0.0.1:0", f"127.0.0.1:{taken.getsockname()[1]}", 1))
        assert call(here, "check", "taken.yaml").returncode == 0


def test_routes_in_the_order_in_which_they_are_tried(here: Path) -> None:
    found = call(here, "routes", "good.yaml")
    assert found.returncode == 0
    head, *rows = [re.split(r" {2,}", line.strip()) for line in found.stdout.splitlines()]
    assert head[:3] == ["listener", "host", "path"]
    assert [row[head.index("name")] for row in rows] == ["chat", "any", "twice"]
    assert rows[0][:3] == ["edge", "chat.example.com", "exact /ws"]
    assert "ties with" in found.stderr
    assert "\x1b" not in found.stdout


def test_routes_for_scripts(here: Path) -> None:
    found = call(here, "routes", "--json", "good.yaml")
    rows = json.loads(found.stdout)
    assert (found.returncode, [row["name"] for row in rows]) == (0, ["chat", "any", "twice"])
    assert rows[2]["ties"] == ["any"] and rows[0]["place"] == "good.yaml:7"


def test_routes_of_a_bad_file(here: Path) -> None:
    found = call(here, "routes", "bad.yaml")
    assert (found.returncode, found.stdout) == (2, "")
    assert found.stderr.startswith("bad.yaml:2:")


def test_schema(here: Path) -> None:
    found = call(here, "schema")
    schema = json.loads(found.stdout)
    assert (found.returncode, found.stderr) == (0, "")
    assert {"listeners", "routes", "upstreams"} <= schema["properties"].keys()
    assert "$schema" in schema


def test_version(here: Path) -> None:
    found = call(here, "version")
    assert (found.returncode, found.stderr) == (0, "")
    assert found.stdout.startswith(f"tidegate {tidegate.__version__} (engine {tidegate.__version__}, Python 3.")
    assert call(here, "--version").stdout == found.stdout
    told = json.loads(call(here, "version", "--json").stdout)
    assert (told["tidegate"], told["engine"]) == (tidegate.__version__, tidegate.__version__)


@pytest.mark.parametrize(
    "words", [("nonsense",), ("check",), ("run",), ("check", "none.yaml"), ("demo", "--port", "70000")]
)
def test_misuse_is_a_2(here: Path, words: tuple[str, ...]) -> None:
    found = call(here, *words)
    assert (found.returncode, found.stdout) == (2, "")
    assert found.stderr and "Traceback" not in found.stderr


def test_help_is_plain_in_a_pipe(here: Path) -> None:
    found = call(here, "--help")
    assert found.returncode == 0
    for name in ("run", "check", "routes", "schema", "demo", "version"):
        assert re.search(rf"^\s+{name}\b", found.stdout, re.MULTILINE)
    assert not re.search("[\x1b╭│╰]", found.stdout)


def test_a_terminal_gets_colours_and_the_line(here: Path) -> None:
    text = on_terminal(here, "check", "bad.yaml")
    assert "\x1b[" in text
    plain = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", text).replace("\r\n", "\n")
    assert "  --> bad.yaml:2:" in plain
    assert ' 2 |   edge: {bind: "127.0.0.1:99999"}\n' in plain


def on_terminal(here: Path, *words: str) -> str:
    """What a command writes where all three streams are a terminal."""
    ours, theirs = pty.openpty()
    environ = {**environment(), "TERM": "xterm-256color", "COLUMNS": "120"}
    process = subprocess.Popen([*PROGRAM, *words], cwd=here, stdin=theirs, stdout=theirs, stderr=theirs, env=environ)
    os.close(theirs)
    text = b""
    with contextlib.suppress(OSError):  # EIO is the end of a terminal
        while part := os.read(ours, 4096):
            text += part
    os.close(ours)
    process.wait(LIMIT)
    return text.decode()


# ---- run ------------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def running(here: Path, *words: str) -> "Iterator[tuple[subprocess.Popen[str], Records]]":
    """A command that goes on, and its log."""
    process = subprocess.Popen(
        [*PROGRAM, *words], cwd=here, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment()
    )
    log = Records()
    assert process.stderr and process.stdout
    reading = threading.Thread(target=log.read, args=(process.stderr,), daemon=True)
    reading.start()
    try:
        yield process, log
    finally:
        process.kill()
        process.wait(LIMIT)
        reading.join(LIMIT)
        process.stdout.close()
        process.stderr.close()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_run_serves_until_it_is_told_to_stop(here: Path, number: signal.Signals) -> None:
    with running(here, "run", "good.yaml", "--ready-file", "ready.json") as (process, log):
        ready = log.wait_for(event="ready")
        told = json.loads((here / "ready.json").read_text())
        assert (told["pid"], told["listeners"], told["admin"]) == (process.pid, ready["listeners"], ready["admin"])
        address = told["listeners"][0]["addresses"][0]
        assert httpx.get(f"http://{address}/").text == "hello"
        assert httpx.get(f"http://{told['admin']}/ready").status_code == 200
        process.send_signal(number)
        assert process.wait(LIMIT) == 0
        log.wait_for(event="draining")
        assert not (here / "ready.json").exists()


def test_run_of_a_bad_file_is_a_2(here: Path) -> None:
    found = call(here, "run", "bad.yaml")
    assert (found.returncode, found.stdout) == (2, "")
    assert re.search(r"^bad\.yaml:2:\d+: listeners\.edge\.bind: ", found.stderr, re.MULTILINE), found.stderr
    found = call(here, "run", "none.yaml")
    assert (found.returncode, found.stdout) == (2, "")
    assert found.stderr.endswith("none.yaml: cannot be read: No such file or directory\n")


def test_run_on_a_taken_port_is_a_1_and_says_where(here: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        (here / "taken.yaml").write_text(GOOD.replace("127.0.0.1:0", f"127.0.0.1:{port}", 1))
        found = call(here, "run", "taken.yaml")
    assert found.returncode == 1
    assert re.search(rf"taken\.yaml:2:\d+: listeners\.edge\.bind: .*127\.0\.0\.1:{port}", found.stderr), found.stderr
    assert "Traceback" not in found.stderr


def test_run_on_a_taken_admin_port_is_a_1(here: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        (here / "taken.yaml").write_text(
            GOOD.replace('admin: {bind: "127.0.0.1:0', f'admin: {{bind: "127.0.0.1:{port}')
        )
        found = call(here, "run", "taken.yaml")
    assert found.returncode == 1
    assert str(port) in found.stderr and "Traceback" not in found.stderr


# ---- demo -----------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def demo(here: Path) -> "Iterator[tuple[subprocess.Popen[str], Records, dict[str, str]]]":
    """A demo that serves, and the addresses that it prints."""
    with running(here, "demo", "--port", "0") as (process, log):
        addresses: dict[str, str] = {}
        assert process.stdout
        while "configured by" not in addresses:
            line = process.stdout.readline()
            assert line, "it ended"
            name, _, address = line.strip().partition("  ")
            addresses[name] = address.strip()
        yield process, log, addresses


async def test_demo_serves_what_it_says(here: Path) -> None:
    with demo(here) as (process, log, addresses):
        page = addresses["the page"]
        assert re.fullmatch(r"http://127\.0\.0\.1:\d+/", page)
        async with httpx.AsyncClient(timeout=LIMIT) as client:
            answer = await client.get(page)
            assert (answer.status_code, answer.headers["x-served-by"]) == (200, "tidegate")
            assert "<html" in answer.text.lower() and "NONCE" not in answer.text
            hello = (await client.get(addresses["plain HTTP"])).json()
            assert hello["path"] == "/hello" and hello["headers"]["x-forwarded-for"] == "127.0.0.1"
            async with client.stream("GET", addresses["events"]) as events:
                assert events.headers["content-type"].startswith("text/event-stream")
                told = events.aiter_lines()
                assert await anext(told) == "id: 1"
                assert json.loads((await anext(told)).removeprefix("data: "))["number"] == 1
            assert (await client.get(page + "ready")).text == "ready\n"
            moved = await client.get(page + "index.html")
            assert (moved.status_code, moved.headers["location"]) == (308, "/")
            assert (await client.get(page + "plain")).json()["path"] == "/hello"
            metrics = (await client.get(addresses["metrics"])).text
            assert "tidegate_http_requests_total" in metrics
        await talk(addresses)
        process.send_signal(signal.SIGINT)
        assert await asyncio.to_thread(process.wait, LIMIT) == 0
        assert not log.matching(level="error")


async def talk(addresses: Mapping[str, str]) -> None:
    async with connect(addresses["echo"]) as client:
        await client.send("hello")
        assert await client.recv() == "hello"
        await client.send("close 4000 enough")
        with pytest.raises(ConnectionClosed):
            await client.recv()
        assert (client.close_code, client.close_reason) == (4000, "enough")
    room = addresses["chat room"].partition("?")[0]
    async with connect(f"{room}?name=Ada") as ada:
        assert json.loads(await ada.recv())["name"] == "Ada"
        async with connect(f"{room}?name=Bob") as bob:
            assert json.loads(await ada.recv())["members"] == ["Ada", "Bob"]
            await bob.recv()
            await bob.send("hi")
            assert json.loads(await ada.recv())["text"] == "hi"
        assert json.loads(await ada.recv())["kind"] == "left"
    base = room.removesuffix("/chat")
    async with connect(f"{base}/gateway-echo") as client:
        await client.send("from the gateway")
        assert await client.recv() == "from the gateway"
    with pytest.raises(InvalidStatus) as refused:
        await connect(f"{base}/plain")
    assert refused.value.response.status_code == 403


async def test_demo_drains_on_the_first_interrupt(here: Path) -> None:
    with demo(here) as (process, log, addresses):
        async with connect(addresses["echo"]) as client:
            process.send_signal(signal.SIGINT)
            with pytest.raises(ConnectionClosed):
                await client.recv()
            assert client.close_code == 1012
            assert re.fullmatch(r"gw: drain;? ?retry=\d+s?", client.close_reason or ""), client.close_reason
        assert await asyncio.to_thread(process.wait, LIMIT) == 0
        log.wait_for(event="draining")


async def test_demo_ends_at_once_on_the_second_interrupt(here: Path) -> None:
    with demo(here) as (process, log, addresses):
        port = int(addresses["the page"].rstrip("/").rpartition(":")[2])
        async with dial(port) as client:
            await client.send(attempt("/echo"))
            assert (await client.head()).status == 101
            process.send_signal(signal.SIGINT)
            assert (await client.exactly(1)) == b"\x88", "its Close, which is never answered"
            process.send_signal(signal.SIGINT)
            assert await asyncio.to_thread(process.wait, LIMIT) == 128 + signal.SIGINT
        log.wait_for(event="second_signal")


def test_demo_on_a_taken_port_is_a_1(here: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        found = call(here, "demo", "--port", str(taken.getsockname()[1]))
    assert (found.returncode, found.stdout) == (1, "")
    assert "another process listens there" in found.stderr
    assert "Traceback" not in found.stderr
