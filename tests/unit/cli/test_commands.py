"""The commands, in a process of their own and with a gateway that only reads."""

import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import tidegate
from tidegate.cli import COMMANDS, main
from tidegate.config import Config, load
from tidegate.errors import ConfigError, EngineFailure, Place, Problem
from tidegate.snapshot import Snapshot, compile

GOOD = """\
listeners:
  web: {bind: 127.0.0.1:8080}
routes:
  - match: {host: "*.example.com", path: {prefix: /ws}, method: GET, headers: {x-a: {not: {prefix: b}}}, query: {v: x}}
    to: {app: 9, spare: 1}
  - name: same
    match: {host: "*.example.com", path: {prefix: /ws}, method: GET, headers: {x-b: {present: true}}, query: {v: "1"}}
    websocket: {frames: opaque}
    to: app
  - match: {path: {exact: /off}}
    websocket: {enabled: false}
    respond: echo
  - match: {path: {exact: /old}}
    redirect: {to: /new}
  - match: {path: {exact: /robots.txt}}
    respond: {status: 404}
upstreams:
  app: {endpoints: ["http://127.0.0.1:9000"]}
  spare: {endpoints: ["http://127.0.0.1:9001"]}
"""
BAD = "listeners: {web: {bnd: 127.0.0.1:8080}}\nroutes: [{to: app}]\n"


@dataclass
class Loaded:
    config: Config
    snapshot: Snapshot


def check_file(path: Path) -> Loaded:
    config = load(path)
    return Loaded(config, compile(config))


def list_routes(path: Path) -> list[dict[str, Any]]:
    """As the engine would: this file's routes are in order already, and the first two tie."""
    hosts = ["*.example.com", "*.example.com", "*", "*", "*"]
    ties = [[1], [0], [], [], []]
    return [
        {"route": index, "listener": 0, "host": host, "ties": tied}
        for index, (host, tied) in enumerate(zip(hosts, ties, strict=True))
    ]


@pytest.fixture(autouse=True)
def _gateway(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    fake = SimpleNamespace(check_file=check_file, list_routes=list_routes, engine_version=lambda: "0.1.0")
    monkeypatch.setattr(tidegate, "gateway", fake, raising=False)
    monkeypatch.setitem(sys.modules, "tidegate.gateway", fake)  # type: ignore[arg-type]
    monkeypatch.chdir(tmp_path)
    for name in ("FORCE_COLOR", "TTY_COMPATIBLE"):
        monkeypatch.delenv(name, raising=False)
    Path("good.yaml").write_text(GOOD)
    Path("bad.yaml").write_text(BAD)
    yield


@dataclass
class Outcome:
    code: int
    out: str
    err: str


Command = Callable[..., Outcome]


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    def run(*words: str) -> Outcome:
        monkeypatch.setattr(sys, "argv", ["tidegate", *words])
        code = 0
        try:
            main()
        except SystemExit as ended:
            code = ended.code if isinstance(ended.code, int) else 0 if ended.code is None else 1
        return Outcome(code, *capsys.readouterr())

    return run


def test_check_good(command: Command) -> None:
    found = command("check", "good.yaml")
    assert (found.code, found.out) == (
        0,
        "ok: 1 listener, 5 routes, 2 upstreams, 1 warning\n"
        "note: pages of any site may open WebSockets on 2 routes (*.example.com/ws GET x-a!^=b ?v=x, same); "
        "websocket.origins says whose may\n",
    )
    assert found.err.startswith("good.yaml:6:5: warning: routes[1]: ties with the route")
    assert found.err.count("\n") == 1


def test_check_bad(command: Command) -> None:
    found = command("check", "bad.yaml")
    assert (found.code, found.out) == (2, "")
    assert found.err == (
        "bad.yaml:1:19: listeners.web.bnd: unknown key 'bnd'; did you mean 'bind'?\n"
        "bad.yaml:2:15: routes[0].to: there is no upstream 'app'; the file has no upstreams\n"
    )


def test_check_for_scripts(command: Command) -> None:
    bad, good = command("check", "--json", "bad.yaml"), command("check", "--json", "good.yaml")
    assert (bad.code, bad.err, good.code, good.err) == (2, "", 0, "")
    assert [(entry["line"], entry["key"], entry["severity"]) for entry in json.loads(bad.out)] == [
        (1, "listeners.web.bnd", "error"),
        (2, "routes[0].to", "error"),
    ]
    assert [entry["severity"] for entry in json.loads(good.out)] == ["warning"]


def test_check_of_a_file_that_is_not_there(command: Command) -> None:
    found = command("check", "none.yaml")
    assert (found.code, found.err) == (2, "none.yaml: cannot be read: No such file or directory\n")


def test_routes(command: Command) -> None:
    found = command("routes", "good.yaml")
    assert found.code == 0
    head, *cells = [re.split(r" {2,}", line.strip()) for line in found.out.splitlines()]
    assert head == ["listener", "host", "path", "match", "websocket", "target", "name", "place"]
    assert cells[0][:6] == ["web", "*.example.com", "prefix /ws", "GET x-a: not prefix b ?v=x", "on", "app:9 spare:1"]
    assert cells[1][4:] == ["opaque", "app", "same", "good.yaml:6"]
    assert cells[2][1:6] == ["*", "exact /off", "any", "off", "echo"]
    assert cells[3][4:6] == ["-", "302 /new"]
    assert cells[4][4:6] == ["-", "respond 404"]
    assert "ties with" in found.err


def test_routes_for_scripts(command: Command) -> None:
    found = command("routes", "good.yaml", "--json")
    rows = json.loads(found.out)
    assert (found.code, found.err) == (0, "")
    assert rows[1]["name"] == "same" and rows[1]["ties"] == [rows[0]["name"]]


def test_schema(command: Command) -> None:
    assert json.loads(command("schema").out)["properties"]["listeners"]
    assert command("schema", "--reference").out.startswith("# Configuration reference\n")
    assert "--reference" not in command("schema", "--help").out


def test_version(command: Command) -> None:
    assert command("version").out.startswith(f"tidegate {tidegate.__version__} (engine 0.1.0, Python 3")
    assert command("--version").out == command("version").out
    assert json.loads(command("version", "--json").out)["engine"] == "0.1.0"


def test_help_lists_the_commands_in_order(command: Command) -> None:
    found = command("--help")
    places = [found.out.index(f"\n  {name}") for name in COMMANDS]
    assert found.code == 0 and places == sorted(places)
    assert "Exit codes" in found.out


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help(command: Command, name: str) -> None:
    found = command(name, "--help")
    assert found.code == 0 and f"tidegate {name} " in found.out


@pytest.mark.parametrize("words", [("nonsense",), ("check",), ("check", "--nonsense", "good.yaml"), ()])
def test_misuse(command: Command, words: tuple[str, ...]) -> None:
    assert command(*words).code == 2


@pytest.mark.parametrize(
    ("error", "code", "text"),
    [
        (ConfigError([Problem(Place("a.yaml", 1, 2, "b"), "bad")]), 2, "a.yaml:1:2: b: bad\n"),
        (EngineFailure("no threads"), 1, "error: no threads\n"),
        (EngineFailure("in use", Problem(Place("a.yaml", 1, 2, "b"), "in use")), 1, "a.yaml:1:2: b: in use\n"),
    ],
)
def test_exit_codes(command: Command, monkeypatch: pytest.MonkeyPatch, error: Exception, code: int, text: str) -> None:
    def fail(path: Path) -> Loaded:
        raise error

    monkeypatch.setattr(tidegate.gateway, "check_file", fail)
    found = command("check", "good.yaml")
    assert (found.code, found.err) == (code, text)


def test_a_person_sees_the_line(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("NO_COLOR", "1")
    found = command("check", "bad.yaml")
    assert re.search(r"\x1b\[(?:\d+;)*3\d", found.err) is None
    lines = re.sub(r"\x1b\[[0-9;]*m", "", found.err).splitlines()
    assert "  --> bad.yaml:1:19" in lines
    at = lines.index(" 1 | listeners: {web: {bnd: 127.0.0.1:8080}}")
    assert lines[at + 1].index("^") == lines[at].index("bnd")
    assert lines[at + 1].endswith("^ did you mean 'bind'?")


def test_a_person_sees_colours(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")
    assert "\x1b[" in command("check", "bad.yaml").err


def test_the_entry_point_in_a_process_of_its_own() -> None:
    code = "from tidegate.cli import main; main()"
    found = subprocess.run([sys.executable, "-c", code, "schema"], capture_output=True, text=True, check=True)
    assert json.loads(found.stdout)["title"] == "Tidegate configuration"
