"""The test kit: a real gateway process, and an upstream behind it, for your own tests.

    from tidegate.testing import EchoUpstream, Gateway

    with EchoUpstream() as upstream, Gateway({
        "listeners": {"edge": {"bind": "127.0.0.1:0"}},
        "routes": [{"match": {"path": {"prefix": "/"}}, "to": "echo"}],
        "upstreams": {"echo": {"endpoints": [upstream.url]}},
    }) as gateway:
        connect(gateway.ws("edge", "/chat"))
        gateway.access_log().wait_for(event="open")
        assert gateway.metrics().value("tidegate_websocket_connections") == 1

Nothing here sleeps: whatever is waited for is a line that the process writes, and `wait_for` returns with it.
"""

import asyncio
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Self

import yaml
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.types import ASGIApp
from starlette.websockets import WebSocket

from tidegate.admin import AppServer, open_socket

__all__ = ["EchoUpstream", "Gateway", "GatewayError", "Metrics", "Record", "Records", "Upstream"]

Record = dict[str, Any]
TIMEOUT = 20.0
"""Seconds that anything may take; slow machines run tests too."""


class GatewayError(AssertionError):
    """The gateway did not do what the test wants of it; the text ends with its log."""


class Records:
    """A growing list of records that several threads may use. Past ones stay."""

    def __init__(self) -> None:
        self._records: list[Record] = []
        self._grown = threading.Condition()
        self._closed = False

    def __iter__(self) -> Iterator[Record]:
        return iter(self.matching())

    def __len__(self) -> int:
        return len(self._records)

    def matching(self, **fields: object) -> list[Record]:
        """Those that have all of these fields with these values."""
        with self._grown:
            return [record for record in self._records if fields.items() <= record.items()]

    def wait_for(
        self,
        test: Callable[[Record], bool] = lambda _: True,
        *,
        after: int = 0,
        timeout: float = TIMEOUT,
        **fields: object,
    ) -> Record:
        """The first record with these fields that passes `test`, of those from number `after` on; waits for it.

        Raises GatewayError after `timeout` seconds, or when no more can come.
        """
        end = time.monotonic() + timeout
        with self._grown:
            while True:
                for record in self._records[after:]:
                    if fields.items() <= record.items() and test(record):
                        return record
                after = max(after, len(self._records))
                if self._closed or not self._grown.wait(end - time.monotonic()):
                    raise GatewayError(f"no record with {fields} among:\n{self._text()}")

    def add(self, record: Record) -> None:
        with self._grown:
            self._records.append(record)
            self._grown.notify_all()

    def close(self) -> None:
        """No more will come: who waits is told."""
        with self._grown:
            self._closed = True
            self._grown.notify_all()

    def read(self, stream: IO[str]) -> None:
        """Add each line of `stream`, which is JSON or becomes a `message`, until it ends."""
        for line in stream:
            try:
                record = json.loads(line)
            except ValueError:
                record = None
            self.add(record if isinstance(record, dict) else {"event": "text", "message": line.rstrip("\n")})
        self.close()

    def _text(self) -> str:
        return "\n".join(json.dumps(record) for record in self._records[-50:])


@dataclass(frozen=True, slots=True)
class Metrics:
    """What a scrape said: the samples by name."""

    samples: Mapping[str, list[tuple[dict[str, str], float]]]

    _LINE = re.compile(r"([a-zA-Z_:][\w:]*)(?:\{(.*)\})? (\S+)")
    _LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')

    @classmethod
    def parse(cls, text: str) -> "Metrics":
        samples: dict[str, list[tuple[dict[str, str], float]]] = {}
        for line in text.splitlines():
            if match := cls._LINE.fullmatch(line):
                samples.setdefault(match[1], []).append((dict(cls._LABEL.findall(match[2] or "")), float(match[3])))
        return cls(samples)

    def value(self, name: str, **labels: str) -> float:
        """The sum of the samples of `name` that have these labels; 0 when there is none."""
        return sum(value for each, value in self.samples.get(name, []) if labels.items() <= each.items())


class Gateway:
    """`tidegate run` in a process of its own, between `with` and its end.

    `config` is a mapping or YAML text; the admin address and the access log are put where this class finds them if it
    says nothing of them. Files that it names are relative to `directory`, a new one when left out. At the end the
    process is stopped without draining; use `signal` and `wait` to see it drain.
    """

    def __init__(
        self,
        config: Mapping[str, Any] | str,
        *,
        directory: Path | None = None,
        environment: Mapping[str, str] | None = None,
        arguments: tuple[str, ...] = (),
    ) -> None:
        self._temporary = None if directory else tempfile.TemporaryDirectory(prefix="tidegate-test-")
        self.directory = directory or Path(self._temporary.name if self._temporary else "")
        self.file = self.directory / "tidegate.yaml"
        self._environment = {**os.environ, "PYTHONUNBUFFERED": "1", **(environment or {})}
        self._arguments = arguments
        self._log, self._access_log = Records(), Records()
        self._where: Record = {}
        self._threads: list[threading.Thread] = []
        self.write(config)

    def __enter__(self) -> Self:
        program = "from tidegate.cli import main; main()"
        self.process = subprocess.Popen(
            [sys.executable, "-c", program, "run", *self._arguments, str(self.file)],
            env=self._environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self._collect(self.process.stderr, self._log)
        self._collect(self.process.stdout, self._access_log)
        try:
            self._where = self._log.wait_for(event="ready")
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._end()

    # Where it is.

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def generation(self) -> int:
        """Which configuration serves; the first is 1."""
        return int(self._where["generation"])

    def addresses(self, listener: str | None = None) -> list[str]:
        """Where `listener` (the first when left out) really listens: `127.0.0.1:40123`, `unix:/path`."""
        return list(self._listener(listener)["addresses"])

    def port(self, listener: str | None = None) -> int:
        return int(self._tcp(listener).rpartition(":")[2])

    def url(self, listener: str | None = None, path: str = "") -> str:
        """`http://127.0.0.1:40123` + `path`; `https` where the listener speaks TLS."""
        return f"http{'s' if self._listener(listener)['tls'] else ''}://{self._tcp(listener)}{path}"

    def ws(self, listener: str | None = None, path: str = "/") -> str:
        """`ws://127.0.0.1:40123` + `path`; `wss` where the listener speaks TLS."""
        return "ws" + self.url(listener, path).removeprefix("http")

    # What it says.

    def log(self) -> Records:
        """Its log: `event`, `level`, `message` and more."""
        return self._log

    def access_log(self) -> Records:
        """Its access log, unless the configuration sends it elsewhere."""
        return self._access_log

    def metrics(self) -> Metrics:
        return Metrics.parse(self.admin("/metrics")[1])

    def connections(self) -> list[Record]:
        """The live WebSockets and TCP connections."""
        connections: list[Record] = json.loads(self.admin("/connections")[1])
        return connections

    def admin(self, path: str, method: str = "GET", headers: Mapping[str, str] | None = None) -> tuple[int, str]:
        """Ask the admin address: status and body."""
        request = urllib.request.Request(
            f"http://{self._where['admin']}{path}", method=method, headers=dict(headers or {})
        )
        try:
            with urllib.request.urlopen(request, timeout=TIMEOUT) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()

    # What it is told.

    def write(self, config: Mapping[str, Any] | str) -> None:
        """Replace the configuration's file, in one step; a running gateway reloads it by itself."""
        fresh = self.file.with_suffix(".new")
        fresh.write_text(_complete(config))
        fresh.replace(self.file)

    def reload(self, config: Mapping[str, Any] | str | None = None, check: bool = True) -> Record:
        """Serve `config`, or the file as it is; returns the log's record of how it went.

        Raises GatewayError when the gateway refuses it, unless `check` is false.
        """
        before, old = len(self._log), self.file.read_text()
        if config is not None:
            self.write(config)
        if self.file.read_text() == old:
            self.signal(signal.SIGHUP)
        record = self._log.wait_for(lambda each: each.get("event") in ("reloaded", "reload_failed"), after=before)
        if record["event"] == "reloaded":
            self._where = record
        elif check:
            raise GatewayError(record["message"])
        return record

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def wait(self, timeout: float = TIMEOUT) -> int:
        """Wait until it has ended by itself; returns the exit code (negative: the signal that killed it)."""
        try:
            code = self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            raise GatewayError(f"still running after {timeout} s:\n{self._log._text()}") from None
        self._join()
        return code

    # Parts.

    def _collect(self, stream: IO[str] | None, records: Records) -> None:
        if stream:
            thread = threading.Thread(target=records.read, args=(stream,), daemon=True)
            self._threads.append(thread)
            thread.start()

    def _join(self) -> None:
        for thread in self._threads:
            thread.join(TIMEOUT)
        for stream in (self.process.stdout, self.process.stderr):
            if stream:
                stream.close()

    def _end(self) -> None:
        # Two signals that cannot become one on their way: the first drains, the second ends at once.
        self.process.send_signal(signal.SIGTERM)
        self.process.send_signal(signal.SIGINT)
        try:
            self.process.wait(TIMEOUT / 2)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self._join()
        if self._temporary:
            self._temporary.cleanup()

    def _listener(self, name: str | None) -> Record:
        listeners: list[Record] = self._where["listeners"]
        for listener in listeners:
            if name in (None, listener["name"]):
                return listener
        raise KeyError(name)

    def _tcp(self, listener: str | None) -> str:
        address = next(each for each in self.addresses(listener) if not each.startswith("unix:"))
        return re.sub(r"^0\.0\.0\.0:", "127.0.0.1:", re.sub(r"^\[::\]:", "[::1]:", address))


def _complete(config: Mapping[str, Any] | str) -> str:
    """As YAML text, with what a test needs at its end, so that line numbers stay."""
    text = config if isinstance(config, str) else yaml.safe_dump(dict(config), sort_keys=False)
    for key, value in {"admin": "{bind: '127.0.0.1:0'}", "access_log": "{path: stdout, format: json}"}.items():
        if not re.search(rf"^{key}\s*:", text, re.MULTILINE):
            text = f"{text.rstrip()}\n{key}: {value}\n"
    return text


class Upstream:
    """An ASGI application on a port or unix socket of its own, in a thread, between `with` and its end."""

    def __init__(self, app: ASGIApp, address: str = "127.0.0.1:0") -> None:
        self._app = app
        self._socket = open_socket(address)
        self._server: AppServer | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None
        self._started = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        self._started.wait(TIMEOUT)
        return self

    def __exit__(self, *_: object) -> None:
        if self._loop and self._stop:
            self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(TIMEOUT)

    @property
    def url(self) -> str:
        """As an endpoint is written: `http://127.0.0.1:40321` or `unix:/path`."""
        name = self._name
        return f"unix:{name}" if isinstance(name, str) else f"http://{name[0]}:{name[1]}"

    @property
    def _name(self) -> Any:
        return self._socket.getsockname()

    async def _serve(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        async with AppServer(self._app, self._socket):
            self._started.set()
            await self._stop.wait()


class EchoUpstream(Upstream):
    """Sends WebSocket messages back, takes the first subprotocol offered, and tells plain requests what they were.

    `requests` has a record for each handshake and request: `type`, `method`, `path`, `query`, `headers` (a mapping),
    and for requests `body`.
    """

    def __init__(self, address: str = "127.0.0.1:0") -> None:
        self.requests = Records()
        routes = [
            WebSocketRoute("/{path:path}", self._echo),
            Route("/{path:path}", self._tell, methods=["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]),
        ]
        super().__init__(Starlette(routes=routes), address)

    async def _echo(self, socket: WebSocket) -> None:
        self.requests.add({"type": "websocket", "method": "GET", **_head(socket)})
        offered = socket.scope["subprotocols"]
        await socket.accept(subprotocol=offered[0] if offered else None)
        while (message := await socket.receive())["type"] == "websocket.receive":
            await socket.send({"type": "websocket.send", **{key: message.get(key) for key in ("text", "bytes")}})

    async def _tell(self, request: Request) -> Response:
        body = (await request.body()).decode(errors="replace")
        record: Record = {"type": "http", "method": request.method, **_head(request), "body": body}
        self.requests.add(record)
        return JSONResponse(record)


def _head(connection: Request | WebSocket) -> Record:
    return {
        "path": connection.scope["raw_path"].decode("latin-1"),
        "query": connection.scope["query_string"].decode("latin-1"),
        "headers": dict(connection.headers),
    }
