"""Real servers of TCP, for as long as a test module runs: PostgreSQL and Redis, where they are installed."""

import contextlib
import os
import pwd
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

__all__ = ["found", "postgres", "redis", "run"]

LIMIT = 60.0
"""Seconds that a program may take."""


def found(name: str, package: str) -> str:
    """The path of a program; skips the test where there is none."""
    versions = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"), reverse=True)
    path = shutil.which(name) or next(map(str, versions), None)
    if path is None:
        pytest.skip(f"{name} is not installed (Debian: apt-get install {package})")
    return path


def run(*command: str, **options: str) -> str:
    """What a program says; fails where it does."""
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=LIMIT, env={**os.environ, **options}, check=False
    )
    assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
    return done.stdout


@contextlib.contextmanager
def postgres() -> Iterator[Path]:
    """PostgreSQL on a unix socket in the directory that this gives, for the user `postgres`, whom it trusts."""
    initdb, server = found("initdb", "postgresql"), found("postgres", "postgresql")
    user = _not_root()
    # Not in pytest's directory, which only its owner may enter.
    with tempfile.TemporaryDirectory(prefix="tidegate-pg-") as place:
        directory = Path(place)
        directory.chmod(0o755)
        if user:
            shutil.chown(directory, user)
        data = directory / "data"
        made = [initdb, "-D", str(data), "-U", "postgres", "-A", "trust", "-E", "UTF8", "--no-locale", "--no-sync"]
        subprocess.run(made, user=user, check=True, capture_output=True, timeout=LIMIT, cwd=directory)
        settings = ("listen_addresses=", f"unix_socket_directories={directory}", "fsync=off", "max_connections=50")
        command = [server, "-D", str(data), *(part for setting in settings for part in ("-c", setting))]
        with _serving(command, user, directory / ".s.PGSQL.5432"):
            psql = found("psql", "postgresql-client")
            _until_answered(lambda: run(psql, "-h", place, "-U", "postgres", "-Atc", "select 1") == "1\n")
            yield directory


@contextlib.contextmanager
def redis(directory: Path, *settings: str) -> Iterator[Path]:
    """Redis on the unix socket that this gives, which has these settings too."""
    server, client = found("redis-server", "redis-server"), found("redis-cli", "redis-tools")
    path = directory / "redis.sock"
    command = [server, "--unixsocket", str(path), "--save", "", "--appendonly", "no", "--dir", str(directory)]
    with _serving([*command, *(settings or ("--port", "0"))], None, path):
        _until_answered(lambda: run(client, "-s", str(path), "ping") == "PONG\n")
        yield path


def _not_root() -> str | None:
    """PostgreSQL does not run as root: the user that its package makes, where this is root."""
    if os.geteuid() != 0:
        return None
    with contextlib.suppress(KeyError):
        return pwd.getpwnam("postgres").pw_name
    pytest.skip("PostgreSQL does not run as root, and there is no user 'postgres'")


@contextlib.contextmanager
def _serving(command: list[str], user: str | None, path: Path) -> Iterator[None]:
    process = subprocess.Popen(
        command, user=user, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=path.parent
    )
    try:
        _until_answered(lambda: _accepts(path, process))
        yield
    finally:
        process.terminate()
        try:
            process.wait(LIMIT)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _accepts(path: Path, process: subprocess.Popen[bytes]) -> bool:
    assert process.poll() is None, f"{process.args!r} has ended with {process.returncode}"
    with socket.socket(socket.AF_UNIX) as probe:
        return probe.connect_ex(str(path)) == 0


def _until_answered(test: Callable[[], bool]) -> None:
    end = time.monotonic() + LIMIT
    while True:
        with contextlib.suppress(AssertionError):
            if test():
                return
        assert time.monotonic() < end, "the server does not answer"
        time.sleep(0.05)
