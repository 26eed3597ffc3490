"""An engine that moves no bytes: it has the shape of `tidegate._engine`, notes what it is told and answers as told."""

import json
import threading
from collections.abc import Mapping
from typing import Any, ClassVar

from tidegate import __version__


class EngineError(Exception):
    """As `tidegate._engine.EngineError`."""


class Prepared:
    def __init__(self, snapshot: dict[str, Any], secrets: Mapping[str, bytes]) -> None:
        self.snapshot = snapshot
        self.secrets = secrets


class Engine:
    made: ClassVar[list["Engine"]] = []

    def __init__(self, workers: int | None = None) -> None:
        self.workers = workers
        self.calls: list[str] = []
        self.snapshot: dict[str, Any] = {"listeners": []}
        self.endpoints: dict[str, Any] = {}
        self.health: dict[str, Any] = {}
        self.probed: list[tuple[int, str, Any]] = []
        self.generation = 0
        self.refusal: tuple[str, str] | None = None
        self.drain_ends = threading.Event()
        self.drain_ends.set()
        self.prepare_goes_on = threading.Event()
        self.prepare_goes_on.set()
        self._stopped = threading.Event()
        self.made.append(self)

    def prepare(self, snapshot: str, secrets: Mapping[str, bytes]) -> Prepared:
        self.calls.append("prepare")
        self.prepare_goes_on.wait(10)
        if self.refusal:
            raise EngineError(*self.refusal)
        return Prepared(json.loads(snapshot), secrets)

    def commit(self, prepared: Prepared) -> int:
        self.calls.append("commit")
        self.snapshot = prepared.snapshot
        self.generation += 1
        return self.generation

    def set_endpoints(self, upstream: str, endpoints: str) -> None:
        self.endpoints[upstream] = json.loads(endpoints)

    def set_health(self, upstream: str, found: str) -> None:
        self.health[upstream] = json.loads(found)

    def probe(self, number: int, upstream: str, endpoint: str) -> None:
        self.probed.append((number, upstream, json.loads(endpoint)))

    def verdicts(self, timeout: float) -> list[tuple[int, str | None]]:
        self._stopped.wait(min(timeout, 0.01))
        return []

    def listeners(self) -> str:
        return json.dumps(
            [{"name": each["name"], "addresses": ["127.0.0.1:4242"]} for each in self.snapshot["listeners"]]
        )

    def metrics(self) -> str:
        sample = {"labels": {"route": "all"}, "value": 2}
        return json.dumps([{"name": "tidegate_websocket_connections", "kind": "gauge", "samples": [sample]}])

    def connections(self) -> str:
        return '[{"id": "c1"}]'

    def close(self, connection: str, code: int, reason: str) -> bool:
        return False

    def events(self, timeout: float) -> list[str]:
        self._stopped.wait(min(timeout, 0.01))
        return []

    def drain(self) -> None:
        self.calls.append("drain")

    def draining(self) -> bool:
        return "drain" in self.calls

    def wait_drained(self, timeout: float) -> bool:
        return self.drain_ends.wait(timeout)

    def stop(self) -> None:
        self.calls.append("stop")
        self._stopped.set()


found: list[tuple[str, str]] = []
"""What `check` says is wrong."""


def check(snapshot: str, secrets: Mapping[str, bytes]) -> list[tuple[str, str]]:
    return list(found)


def check_regex(pattern: str) -> str | None:
    return f"`{pattern}` is no regular expression" if "(" in pattern and ")" not in pattern else None


def explain(snapshot: str, request: str) -> str:
    return json.dumps({"route": 0, "websocket": None})


def routes(snapshot: str) -> str:
    return json.dumps([{"route": 0, "listener": 0, "host": "*", "ties": []}])


def version() -> str:
    return __version__
