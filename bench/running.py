"""How a gateway is started before an upstream, and stopped."""

from __future__ import annotations

import http.client
import os
import re
import socket
import ssl
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import clocks
from certificates import Certificate
from gateways import BENCH, DIRECT, Failure, Gateway

START_SECONDS = 30.0
STOP_SECONDS = 10.0
RAW = ("tcp", "tls-tcp")
PLAIN = ("http", "tcp")


@dataclass(frozen=True)
class Running:
    """A gateway that accepts connections. `pids` is empty for direct."""

    port: int
    pids: list[int]


@contextmanager
def running(
    gateway: Gateway, face: str, program: Path, upstream: int, core: int, connections: int, certificate: Certificate
) -> Iterator[Running]:
    """Starts the gateway on its core before an upstream's port, speaking what `face` says, and stops it afterwards."""
    if gateway is DIRECT:
        yield Running(upstream, [])
        return
    with tempfile.TemporaryDirectory(prefix=f"bench-{gateway.name}-") as directory:
        port = free_port()
        values = _values(f"127.0.0.1:{port}", f"127.0.0.1:{upstream}", directory, connections, certificate)
        command = _command(gateway, face, program, Path(directory), values)
        log = Path(directory) / "log"
        process = _start(command, directory, log, core, gateway.environment)
        try:
            _await_answer(process, face, port, log, certificate)
            yield Running(port, clocks.family(process.pid))
        finally:
            _stop(process)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def _command(gateway: Gateway, face: str, program: Path, directory: Path, values: Mapping[str, str]) -> list[str]:
    spoken = gateway.speaks[face]
    config = directory / Path(spoken.template).name
    if spoken.template:
        text = (BENCH / spoken.template).read_text()
        places = {**values, **spoken.places}
        for _ in range(2):  # what stands for TLS names files in its turn
            text = re.sub(r"@([A-Z_]+)@", lambda name: places[name[1]], text)
        config.write_text(text)
    words = {
        "config": str(config),
        "directory": str(directory),
        "listen": values["LISTEN"],
        "upstream": values["UPSTREAM"],
    }
    return [str(program), *(argument.format_map(words) for argument in gateway.arguments)]


def _values(listen: str, upstream: str, directory: str, connections: int, certificate: Certificate) -> dict[str, str]:
    """What configuration templates may name. A proxied connection takes two sockets."""
    listen_host, listen_port = listen.split(":")
    upstream_host, upstream_port = upstream.split(":")
    return {
        "LISTEN": listen,
        "LISTEN_HOST": listen_host,
        "LISTEN_PORT": listen_port,
        "UPSTREAM": upstream,
        "UPSTREAM_HOST": upstream_host,
        "UPSTREAM_PORT": upstream_port,
        "DIRECTORY": directory,
        "CONNECTIONS": str(connections + 100),
        "SOCKETS": str(2 * connections + 300),
        "FILES": str(2 * connections + 400),
        "CHAIN": str(certificate.chain),
        "KEY": str(certificate.key),
        "BOTH": str(certificate.both),
    }


def _start(
    command: list[str], directory: str, log: Path, core: int, environment: Mapping[str, str]
) -> subprocess.Popen[bytes]:
    home = {"HOME": directory, "XDG_CONFIG_HOME": directory, "XDG_DATA_HOME": directory}
    with log.open("wb") as output:
        return subprocess.Popen(
            command,
            cwd=directory,
            env={**os.environ, **home, **environment},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            preexec_fn=lambda: os.sched_setaffinity(0, {core}),
        )


def _await_answer(process: subprocess.Popen[bytes], face: str, port: int, log: Path, certificate: Certificate) -> None:
    """Returns once the upstream answers through the gateway; where only QUIC is spoken, once its port is taken."""
    deadline = time.monotonic() + START_SECONDS
    while not _answers(face, port, certificate):
        if process.poll() is not None or time.monotonic() > deadline:
            raise Failure(f"it does not answer: {log.read_text(errors='replace')[-2000:].strip()}")
        time.sleep(0.02)


def _answers(face: str, port: int, certificate: Certificate) -> bool:
    context = None if face in PLAIN else ssl.create_default_context(cafile=certificate.authority)
    try:
        if face in RAW:
            return _echoes(port, context)
        if face.startswith("h3"):
            return _takes_datagrams(port)
        return _serves(port, context)
    except (OSError, http.client.HTTPException):
        return False


def _serves(port: int, context: ssl.SSLContext | None) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=2)
    if context is not None:
        connection = http.client.HTTPSConnection("127.0.0.1", port, timeout=2, context=context)
    try:
        connection.request("GET", "/", headers={"Connection": "close"})
        return connection.getresponse().status == 200
    finally:
        connection.close()


def _echoes(port: int, context: ssl.SSLContext | None) -> bool:
    with socket.create_connection(("127.0.0.1", port), timeout=2) as plain:
        connection = plain if context is None else context.wrap_socket(plain, server_hostname="localhost")
        with connection:
            connection.sendall(b"?")
            return connection.recv(1) == b"?"


def _takes_datagrams(port: int) -> bool:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as ours:
        try:
            ours.bind(("127.0.0.1", port))
        except OSError:
            return True
    return False


def _stop(process: subprocess.Popen[bytes]) -> None:
    """Asks, then insists; a master that is killed would leave its workers behind."""
    members = clocks.family(process.pid)
    process.terminate()
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        for pid in members:
            try:
                os.kill(pid, 9)
            except ProcessLookupError:
                continue
        process.wait()
