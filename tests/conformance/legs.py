"""Runs of the suite's programs, in parts: each part has processes, ports and a directory of its own.

servers   fuzzing client ─▶ [gateway] ─▶ echo server of the suite     judges what is behind the gateway
clients   echo client of the suite ─▶ [gateway] ─▶ fuzzing server     judges what is before it

`[gateway]` is one, or two in a row with HTTP/2 between them.
"""

import contextlib
import json
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.conformance.install import Suite
from tests.conformance.judge import Verdict, read
from tests.e2e.kit.certificates import Authority
from tidegate.testing import Gateway

__all__ = ["Bench", "Failed", "gateway", "outer"]

START = 30.0
"""Seconds in which a program must listen."""
AGENT = "gateway"
OVER_H2 = {"upstream_protocol": "h2"}


class Failed(Exception):
    """A program of the suite did not do its part; the text has the end of its output."""


@dataclass(frozen=True, slots=True)
class Bench:
    """What a part's programs are started with."""

    suite: Suite
    directory: Path
    limit: float
    """Seconds that one part may take."""

    def judge_server(self, name: str, url: str, cases: Sequence[str]) -> dict[str, Verdict]:
        """What a fuzzing client says of the server at `url`."""
        home = self._home(name)
        spec = {"outdir": str(home), "servers": [{"agent": AGENT, "url": url}], "cases": list(cases)}
        self._run(home, "fuzzingclient", "-s", self._spec(home, spec))
        return self._verdicts(home)

    def judge_client(self, name: str, url: str, home: Path) -> dict[str, Verdict]:
        """What the fuzzing server behind `url`, which reports to `home`, says of the suite's own client."""
        self._run(home, "testeeclient", "-w", url, "-i", AGENT)
        return self._verdicts(home)

    @contextlib.contextmanager
    def echo_server(self, name: str, port: int) -> Iterator[None]:
        with self._running(self._home(name), port, "testeeserver", "-w", f"ws://127.0.0.1:{port}"):
            yield

    @contextlib.contextmanager
    def fuzzing_server(self, name: str, port: int, cases: Sequence[str]) -> Iterator[Path]:
        """Gives the directory that it reports to."""
        home = self._home(name)
        spec = {"url": f"ws://127.0.0.1:{port}", "outdir": str(home), "cases": list(cases)}
        with self._running(home, port, "fuzzingserver", "-u", "0", "-s", self._spec(home, spec)):
            yield home

    def _home(self, name: str) -> Path:
        home = self.directory / name
        home.mkdir(parents=True, exist_ok=True)
        return home

    def _spec(self, home: Path, spec: Mapping[str, Any]) -> str:
        file = home / "spec.json"
        file.write_text(json.dumps({"exclude-cases": [], "exclude-agent-cases": {}, **spec}))
        return str(file)

    def _command(self, mode: str, *arguments: str) -> list[str]:
        return [str(self.suite.wstest), "-m", mode, *arguments]

    def _run(self, home: Path, mode: str, *arguments: str) -> None:
        log = home / f"{mode}.log"
        with log.open("w") as output:
            try:
                subprocess.run(
                    self._command(mode, *arguments),
                    env=self.suite.environment,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    timeout=self.limit,
                    check=True,
                )
            except subprocess.SubprocessError as error:
                raise Failed(f"{error}\n{tail(log)}") from None

    @contextlib.contextmanager
    def _running(self, home: Path, port: int, mode: str, *arguments: str) -> Iterator[None]:
        log = home / f"{mode}.log"
        with log.open("w") as output:
            process = subprocess.Popen(
                self._command(mode, *arguments), env=self.suite.environment, stdout=output, stderr=subprocess.STDOUT
            )
        try:
            await_port(port, process, log)
            yield
        finally:
            process.kill()
            process.wait()

    def _verdicts(self, home: Path) -> dict[str, Verdict]:
        index = home / "index.json"
        if not index.exists():
            logs = "\n".join(tail(log) for log in sorted(home.glob("*.log")))
            raise Failed(f"no report in {home}\n{logs}")
        return read(json.loads(index.read_text()))


@contextlib.contextmanager
def gateway(directory: Path, ports: Sequence[Sequence[int]]) -> Iterator[Gateway]:
    """For each group of ports, listeners `plain0` and `tls0` (then 1, and so on) before the servers on them.

    The suite's servers want a Host that names their own port, hence `host: upstream`.
    """
    certificate = Authority(directory).issue("site", "127.0.0.1", "localhost")
    listeners: dict[str, Any] = {}
    routes, upstreams = [], {}
    for number, group in enumerate(ports):
        names = [f"plain{number}", f"tls{number}"]
        listeners[names[0]] = {"bind": "127.0.0.1:0"}
        listeners[names[1]] = {"bind": "127.0.0.1:0", "tls": {"certificates": [certificate]}}
        upstreams[f"suite{number}"] = {"endpoints": [f"http://127.0.0.1:{port}" for port in group]}
        match = {"path": {"prefix": "/"}}
        routes.append({"listeners": names, "match": match, "to": f"suite{number}", "host": "upstream"})
    config = {"listeners": listeners, "routes": routes, "upstreams": upstreams}
    with Gateway(config, directory=directory) as running:
        yield running


@contextlib.contextmanager
def outer(directory: Path, inner: Gateway, groups: int) -> Iterator[Gateway]:
    """Before the listeners `plain0` and so on of another gateway: listeners of the same names, which speak HTTP/2 to
    them."""
    names = [f"plain{number}" for number in range(groups)]
    config = {
        "listeners": {name: {"bind": "127.0.0.1:0"} for name in names},
        "routes": [
            {"listeners": [name], "match": {"path": {"prefix": "/"}}, "to": name, "websocket": OVER_H2}
            for name in names
        ],
        "upstreams": {name: {"endpoints": [f"http://127.0.0.1:{inner.port(name)}"]} for name in names},
    }
    with Gateway(config, directory=directory) as running:
        yield running


def free_ports(count: int) -> list[int]:
    """Ports that nobody listens on. Kept open until all are found, so that they differ."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [each.getsockname()[1] for each in sockets]


def await_port(port: int, process: "subprocess.Popen[bytes]", log: Path) -> None:
    end = time.monotonic() + START
    while process.poll() is None and time.monotonic() < end:
        with contextlib.suppress(ConnectionError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        time.sleep(0.05)
    raise Failed(f"nothing listens on port {port}\n{tail(log)}")


def tail(log: Path) -> str:
    return f"the end of {log}:\n" + "\n".join(log.read_text(errors="replace").splitlines()[-15:])
