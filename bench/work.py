"""The kinds of work, and how one of them is measured once through one gateway."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import clocks
from certificates import Certificate
from gateways import Failure
from running import PLAIN, RAW, Running

Figures = dict[str, float]
WARM_UP = 0.3


@dataclass(frozen=True)
class Work:
    """A load. `face` is what it speaks to the gateway: a gateway that does not is left out."""

    name: str
    title: str
    arguments: tuple[str, ...]
    face: str = "http"

    @property
    def is_idle(self) -> bool:
        """Whether memory is measured, and not time."""
        return self.arguments[0] == "idle"

    @property
    def is_secure(self) -> bool:
        return self.face not in PLAIN


HTTP = (
    Work("echo128", "Echo of 128 B", ("echo", "--size", "128", "--connections", "64")),
    Work("echo16k", "Echo of 16 KiB", ("echo", "--size", "16384", "--connections", "64")),
    Work("handshake", "Handshake (connect, upgrade, one echo, close)", ("handshake", "--connections", "32")),
    Work("request", "HTTP/1.1 request on kept connections", ("request", "--connections", "64")),
    Work("request64k", "HTTP/1.1 request for 64 KiB", ("request", "--size", "65536", "--connections", "64")),
    Work("idle", "Idle WebSockets", ("idle",)),
)
H2 = ("--h2", "--connections", "8", "--streams", "8")
OVER_H2 = (
    Work("h2-echo128", "Echo of 128 B over HTTP/2", ("echo", "--size", "128", *H2), "h2-websocket"),
    Work("h2-echo16k", "Echo of 16 KiB over HTTP/2", ("echo", "--size", "16384", *H2), "h2-websocket"),
    Work("h2-idle", "Idle WebSockets over HTTP/2, 50 on each connection", ("idle", "--h2"), "h2-websocket"),
    Work("h2-request", "HTTP/2 request", ("request", *H2), "h2"),
    Work("h2-request64k", "HTTP/2 request for 64 KiB", ("request", "--size", "65536", *H2), "h2"),
)
H3 = ("--h3", "--connections", "8", "--streams", "8")
OVER_H3 = (
    Work("h3-echo128", "Echo of 128 B over HTTP/3", ("echo", "--size", "128", *H3), "h3-websocket"),
    Work("h3-request", "HTTP/3 request", ("request", *H3), "h3"),
    Work("h3-request64k", "HTTP/3 request for 64 KiB", ("request", "--size", "65536", *H3), "h3"),
)
TCP = (
    Work("tcp128", "TCP: 128 B there and back", ("tcp", "--size", "128", "--connections", "64"), "tcp"),
    Work("tcp16k", "TCP: 16 KiB there and back", ("tcp", "--size", "16384", "--connections", "64"), "tcp"),
    Work("tcp-life", "TCP: connect, 128 B there and back, close", ("tcp-life", "--connections", "32"), "tcp"),
)


def _secured(works: tuple[Work, ...], face: str) -> tuple[Work, ...]:
    return tuple(Work(f"tls-{work.name}", f"{work.title}, over TLS", work.arguments, face) for work in works)


WORKS = (*HTTP, *_secured(HTTP, "https"), *OVER_H2, *OVER_H3, *TCP, *_secured(TCP, "tls-tcp"))


@contextmanager
def upstream(load: Path, work: Work) -> Iterator[int]:
    """The port of an upstream of its own: no port or buffer of an earlier measurement plays a part in this one."""
    command = [str(load), "serve", *(["--raw"] if work.face in RAW else [])]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        yield int(_event(process, "listening")["port"])
    finally:
        process.kill()
        process.communicate()


def measure(
    work: Work,
    load: Path,
    gateway: Running,
    core: int,
    seconds: float,
    connections: int,
    certificate: Certificate,
) -> Figures:
    command = [str(load), *work.arguments, "--target", f"127.0.0.1:{gateway.port}"]
    if work.is_secure:
        command += ["--ca", str(certificate.authority)]
    if work.is_idle:
        return _measure_memory([*command, "--connections", str(connections)], gateway, connections)
    return _measure_time([*command, "--seconds", str(seconds), "--warm-up", str(WARM_UP), "--barrier"], gateway, core)


def _measure_time(command: list[str], gateway: Running, core: int) -> Figures:
    """The load waits at both ends of its window, so that the clocks are read while nothing moves."""
    with _load(command) as process:
        start = _at_barrier(process, "start", lambda: _clocks(gateway.pids, core))
        end = _at_barrier(process, "end", lambda: _clocks(gateway.pids, core))
        report = _event(process, "report")
    wall, cpu, busy = (after - before for before, after in zip(start, end, strict=True))
    figures = {key: float(report[key]) for key in ("operations", "throughput", "p50_us", "p99_us")}
    if gateway.pids:
        figures["cpu_us"] = cpu / figures["operations"] * 1e6
        figures["gateway_busy"] = cpu / wall
        figures["core_taken_by_others"] = max(0.0, (busy - cpu) / wall)
    return figures


def _measure_memory(command: list[str], gateway: Running, connections: int) -> Figures:
    before = clocks.proportional_kib(gateway.pids)
    with _load(command) as process:
        _event(process, "open")
        after = _settled_kib(gateway.pids)
        if process.stdin:
            process.stdin.close()
            process.stdin = None
        _event(process, "report")
    return {"kib": (after - before) / connections} if gateway.pids else {}


def _settled_kib(pids: list[int]) -> int:
    """Memory once it stands still, for collectors and lazily returned pages; after five seconds as it is."""
    current = clocks.proportional_kib(pids)
    for _ in range(5):
        time.sleep(1)
        last, current = current, clocks.proportional_kib(pids)
        if abs(current - last) <= current // 100:
            break
    return current


def _clocks(pids: list[int], core: int) -> tuple[float, float, float]:
    return time.monotonic(), clocks.cpu_seconds(pids), clocks.busy_seconds(core)


@contextmanager
def _load(command: list[str]) -> Iterator[subprocess.Popen[str]]:
    pipe = subprocess.PIPE
    process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe, text=True, bufsize=1)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def _at_barrier(
    process: subprocess.Popen[str], name: str, look: Callable[[], tuple[float, float, float]]
) -> tuple[float, float, float]:
    _event(process, name)
    seen = look()
    if process.stdin:
        process.stdin.write("\n")
    return seen


def _event(process: subprocess.Popen[str], name: str) -> dict[str, float]:
    """The next line of the load, which must be this event."""
    line = process.stdout.readline() if process.stdout else ""
    event = json.loads(line or "{}")
    if event.pop("event", None) != name:
        complaint = process.stderr.read().strip() if process.stderr else ""
        raise Failure(complaint or f"the load ended before {name!r}")
    return dict(event)
