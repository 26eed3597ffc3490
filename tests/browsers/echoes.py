"""Echo servers, each a program in servers/ made with another WebSocket library, and how to get what they need.

Each takes the subprotocol `tide`, and permessage-deflate if its library can, sends messages back, and ends a WebSocket
with code and reason when it is told so by the text `close CODE REASON`. On its output it says as JSON:

    {"event": "listening", "port": 40123, "name": "library and version"}     once
    {"event": "closed", "path": "/echo/1", "code": 4001, "reason": "…"}      for each Close that came

What is not part of the development environment is installed below `.cache/browsers`, pinned by the lock files beside
the programs: `ws` by npm, aiohttp and tornado by pip, the program in Go by go.
"""

import contextlib
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tidegate.testing import Records

__all__ = ["LIBRARIES", "Echo", "Missing", "Program", "program", "running"]

LIBRARIES = ("ws", "websockets", "aiohttp", "tornado", "go")

HERE = Path(__file__).parent / "servers"
CACHE = Path(__file__).parents[2] / ".cache" / "browsers"
PYTHON = CACHE / "python"
GO = ("/usr/local/go/bin",)
"""Where Go's own installer puts it, beside the path."""


class Missing(Exception):
    """What is not here; the text says what, and how to get it."""


@dataclass(frozen=True, slots=True)
class Program:
    """How a server is started."""

    library: str
    command: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Echo:
    """A running server."""

    library: str
    name: str
    """Library and runtime with their versions."""
    port: int
    said: Records


def program(library: str, install: bool) -> Program:
    """The server with this library. What it needs is installed first if `install` says so; raises Missing."""
    if library == "ws":
        return node(install)
    if library == "go":
        return go(install)
    script = str(HERE / f"{library}_server.py")
    if library != "websockets":
        packages(library, install)
    return Program(library, (sys.executable, script), {"PYTHONPATH": str(PYTHON)})


@contextlib.contextmanager
def running(program: Program) -> Iterator[Echo]:
    process = subprocess.Popen(
        program.command, env={**os.environ, **program.environment}, stdout=subprocess.PIPE, text=True
    )
    said = Records()
    assert process.stdout
    reader = threading.Thread(target=said.read, args=(process.stdout,), daemon=True)
    reader.start()
    try:
        ready = said.wait_for(event="listening")
        yield Echo(program.library, ready["name"], ready["port"], said)
    finally:
        process.kill()
        process.wait()
        reader.join()
        process.stdout.close()


def node(install: bool) -> Program:
    tool, home = found("node", "Node.js"), CACHE / "node"
    pins = ("package.json", "package-lock.json")
    if not current(home, [HERE / "node" / pin for pin in pins]):
        wanted(install, "the npm package ws")
        npm = found("npm", "npm")
        for pin in pins:
            shutil.copy(HERE / "node" / pin, home)
        step([npm, "ci", "--silent", "--no-audit", "--no-fund"], home)
        done(home, [HERE / "node" / pin for pin in pins])
    # Node.js looks for modules beside the program.
    shutil.copy(HERE / "node" / "server.mjs", home)
    return Program("ws", (tool, str(home / "server.mjs")))


def packages(library: str, install: bool) -> None:
    pins = [HERE / "requirements.txt"]
    if not current(PYTHON, pins):
        wanted(install, f"the Python package {library}")
        pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "--quiet"]
        step([*pip, "--upgrade", "--target", str(PYTHON), "--requirement", str(pins[0])], PYTHON)
        done(PYTHON, pins)


def go(install: bool) -> Program:
    home, source = CACHE / "go", HERE / "go"
    pins = [source / name for name in ("go.mod", "go.sum", "main.go")]
    if not current(home, pins):
        wanted(install, "the program in Go")
        step([found("go", "Go", *GO), "build", "-o", str(home / "server"), "."], source)
        done(home, pins)
    return Program("go", (str(home / "server"),))


def found(tool: str, name: str, *places: str) -> str:
    where = shutil.which(tool, path=os.pathsep.join([os.environ.get("PATH", os.defpath), *places]))
    if not where:
        raise Missing(f"{name} is not installed")
    return where


def wanted(install: bool, what: str) -> None:
    if not install:
        raise Missing(f"{what} is not there yet: `make browsers` gets it")


def current(home: Path, pins: list[Path]) -> bool:
    """Whether `home` holds what the pins said when it was filled."""
    stamp = home / "installed.txt"
    home.mkdir(parents=True, exist_ok=True)
    return stamp.exists() and stamp.read_text() == text(pins)


def done(home: Path, pins: list[Path]) -> None:
    (home / "installed.txt").write_text(text(pins))


def text(pins: list[Path]) -> str:
    return "\n".join(pin.read_text() for pin in pins)


def step(command: list[str], directory: Path) -> None:
    print("installing:", " ".join(command), file=sys.stderr, flush=True)
    run = subprocess.run(command, cwd=directory, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if run.returncode:
        end = " ".join(run.stdout.splitlines()[-5:])
        raise Missing(f"`{' '.join(command[:3])} …` ended with {run.returncode}: {end}")
