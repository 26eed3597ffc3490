"""The engine, as Python sees it: plain values in, plain values out, no callback."""

from collections.abc import Mapping
from typing import Self, final

__all__ = ["Engine", "EngineError", "Prepared", "check", "check_regex", "explain", "routes", "version"]

class EngineError(Exception):
    """The engine could not do what was asked; the text says why.

    `args` is `(message, pointer)`: pointer is the JSON pointer of the snapshot's part at fault, or "".
    """

@final
class Prepared:
    """A configuration that is built and bound, but not serving yet. Dropping it unbinds what it bound."""

@final
class Engine:
    """The data plane: worker threads of its own, which never take the GIL."""

    def __new__(cls, workers: int | None = None) -> Self:
        """Start `workers` threads; None is one for each core this process may use. Raises EngineError."""

    def prepare(self, snapshot: str, secrets: Mapping[str, bytes]) -> Prepared:
        """Build everything from `snapshot` (JSON) and bind its new listeners. Raises EngineError; nothing changed then.

        `secrets` are the PEM texts that the snapshot names.
        """

    def commit(self, prepared: Prepared) -> int:
        """Serve from `prepared` at once; returns its generation. What left the configuration drains."""

    def set_endpoints(self, upstream: str, endpoints: str) -> None:
        """Replace the endpoints of the running upstream (JSON list of snapshot endpoints). Raises EngineError."""

    def set_health(self, upstream: str, found: str) -> None:
        """What health checks have found out about endpoints of an upstream, which runs or was prepared. Raises
        EngineError.

        JSON list of `{"endpoint": ..., "healthy": true|false|null}`; null is nothing yet.
        """

    def probe(self, number: int, upstream: str, endpoint: str) -> None:
        """Begin a health check of an endpoint (JSON), as its upstream says, which runs or was prepared. Raises
        EngineError.

        What comes of it is among the `verdicts`, by its number.
        """

    def verdicts(self, timeout: float) -> list[tuple[int, str | None]]:
        """Wait up to `timeout` seconds for checks to end; releases the GIL. Why each failed, or None for a good one."""

    def listeners(self) -> str:
        """JSON: `[{"name": ..., "addresses": ["127.0.0.1:8080", "unix:/run/x.sock"]}]`, with the ports really bound."""

    def metrics(self) -> str:
        """JSON: `[{"name", "kind": "counter"|"gauge"|"histogram", "samples": [{"labels": {...}, "value": n}]}]`.

        A histogram's value is `{"buckets": [[le, cumulative], ...], "sum": s, "count": n}`.
        """

    def connections(self) -> str:
        """JSON list of the live WebSockets: id, route, upstream, endpoint, client, age, messages and bytes so far."""

    def close(self, connection: str, code: int, reason: str) -> bool:
        """Close one live WebSocket; False when there is none of that id."""

    def events(self, timeout: float) -> list[str]:
        """Wait up to `timeout` seconds for events (JSON: `{"level", "event", "message", ...}`); releases the GIL."""

    def drain(self) -> None:
        """Begin to drain as the running snapshot says. Idempotent."""

    def draining(self) -> bool: ...
    def wait_drained(self, timeout: float) -> bool:
        """Wait up to `timeout` seconds until nothing is left; releases the GIL."""

    def stop(self) -> None:
        """Cut everything that is left and end the threads."""

def check(snapshot: str, secrets: Mapping[str, bytes]) -> list[tuple[str, str]]:
    """Everything wrong with `snapshot` that the engine can tell without binding: (JSON pointer, message).

    Regexes, templates and certificates; an empty list is a good snapshot.
    """

def check_regex(pattern: str) -> str | None:
    """What is wrong with a regular expression, or None. For files whose other errors keep them from being checked."""

def explain(snapshot: str, request: str) -> str:
    """Which route takes a request, and why. JSON in: `{"listener", "method", "host", "path", "headers": [[n, v]]}`.

    JSON out: `{"route": index or null, "websocket": {"allowed": bool, "status": n, "reason": ...} or null}`.
    """

def routes(snapshot: str) -> str:
    """The routes in the order in which they are tried.

    JSON: `[{"route": index, "listener": index, "host": ..., "ties": [index]}]`.
    """

def version() -> str:
    """The engine's version; it must equal the package's."""
