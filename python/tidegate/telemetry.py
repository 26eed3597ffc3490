"""What Tidegate tells the people who run it: log lines and metrics.

**Logging.** Every line is an *event*: a short stable name to search for, a sentence to read, and fields. A person at a
terminal gets text, everything else gets one JSON object a line; both go to standard error, because standard output
may be the access log. The engine's own events come through `EventReader`, so that there is one log and one order.

**Metrics.** The engine counts for itself and hands over *families* as plain values; the control plane has a few of its
own in a `Registry`. `render` writes both in the text format 0.0.4 of Prometheus or in OpenMetrics 1.0, which
differ in where a counter's `_total` belongs and in the last line.
"""

import json
import logging
import os
import resource
import sys
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from typing import IO, Literal, Protocol, TypedDict

LogFormat = Literal["text", "json"]
LEVELS: Mapping[str, int] = {
    "trace": logging.DEBUG,
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warn": logging.WARNING,
    "warning": logging.WARNING,
    "error": logging.ERROR,
}

# ---- logging --------------------------------------------------------------------------------------------------------


def configure_logging(level: str = "info", form: LogFormat | None = None, stream: IO[str] | None = None) -> None:
    """Log to `stream` (standard error when left out). `form` None is text on a terminal and JSON elsewhere."""
    stream = stream or sys.stderr
    form = form or ("text" if stream.isatty() else "json")
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonFormatter() if form == "json" else TextFormatter(colour=stream.isatty()))
    # uvicorn speaks only of defects in our own applications; they belong into the same lines.
    for name, lowest in {"tidegate": LEVELS[level], "uvicorn": logging.ERROR}.items():
        logger = logging.getLogger(name)
        logger.handlers[:] = [handler]
        logger.setLevel(lowest)
        logger.propagate = False


def event(logger: logging.Logger, level: int, name: str, message: str, /, **fields: object) -> None:
    """Log the event `name`: `message` is for people, `fields` are for programs."""
    logger.log(level, "%s", message, extra={"event": name, "fields": fields})


class JsonFormatter(logging.Formatter):
    """One JSON object a line: `time`, `level`, `event`, `message`, then the event's own fields."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "event": getattr(record, "event", "log"),
            "message": record.getMessage(),
        }
        line |= {key: value for key, value in getattr(record, "fields", {}).items() if key not in line}
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str, ensure_ascii=False)


class TextFormatter(logging.Formatter):
    """Clock, level, sentence. The fields are left out where the sentence stands alone: it must say what happened."""

    COLOURS: Mapping[str, str] = {"DEBUG": "\033[2m", "INFO": "\033[36m", "WARNING": "\033[33m", "ERROR": "\033[31m"}

    def __init__(self, colour: bool) -> None:
        super().__init__()
        self._colour = colour

    def format(self, record: logging.LogRecord) -> str:
        clock = time.strftime("%H:%M:%S", time.localtime(record.created))
        level = f"{record.levelname.lower():<7}"
        if self._colour:
            level = f"{self.COLOURS.get(record.levelname, '')}{level}\033[0m"
        # A line break inside a message must not look like a line of its own.
        text = f"{clock} {level} {record.getMessage()}".replace("\n", "\n    ")
        return f"{text}\n{self.formatException(record.exc_info)}" if record.exc_info else text


class Events(Protocol):
    """The part of the engine that has something to tell."""

    def events(self, timeout: float) -> list[str]: ...


class EventReader:
    """A thread that puts the engine's events into the log. `stop` reads what is left first."""

    WAIT = 0.5

    def __init__(self, engine: Events) -> None:
        self._engine = engine
        self._logger = logging.getLogger("tidegate.engine")
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="events", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._stopping.set()
        self._thread.join(timeout=2 * self.WAIT)

    def _run(self) -> None:
        while not self._stopping.is_set():
            self._take(self.WAIT)
        while self._take(0.0):
            pass

    def _take(self, timeout: float) -> bool:
        lines = self._engine.events(timeout)
        for line in lines:
            self._log(json.loads(line))
        return bool(lines)

    def _log(self, fields: dict[str, object]) -> None:
        level = LEVELS.get(str(fields.pop("level", "info")), logging.INFO)
        name = str(fields.pop("event", "engine"))
        event(self._logger, level, name, str(fields.pop("message", name)), **fields)


# ---- metrics --------------------------------------------------------------------------------------------------------


class Histogram(TypedDict):
    buckets: list[tuple[float, int]]  # upper bound, how many at or below it; without the last one, +Inf
    sum: float
    count: int


class Sample(TypedDict):
    labels: dict[str, str]
    value: int | float | Histogram


class Family(TypedDict):
    name: str
    kind: str  # counter | gauge | histogram
    samples: list[Sample]


OPENMETRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"
PROMETHEUS = "text/plain; version=0.0.4; charset=utf-8"

HELP: Mapping[str, str] = {
    "tidegate_accept_paused_total": "How often accepting paused: the limit of connections, or no resources left.",
    "tidegate_build_info": "The version that runs; always 1.",
    "tidegate_config_generation": "Which configuration serves; grows by one with each that is committed.",
    "tidegate_config_last_reload_success_timestamp_seconds": "When the configuration that serves was committed.",
    "tidegate_config_reloads_total": "Attempts to change the configuration, by result.",
    "tidegate_connections": "Connections from clients that are open, by the address they came to.",
    "tidegate_connections_accepted_total": "Connections from clients that were accepted.",
    "tidegate_connections_failed_total": "Connections that ended before their first request, by reason.",
    "tidegate_discovery_last_success_timestamp_seconds": "When a source of endpoints gave its last good answer.",
    "tidegate_discovery_total": "How often the sources of an upstream's endpoints were asked, by result.",
    "tidegate_endpoint_connect_failures_total": "Connections to an endpoint that failed.",
    "tidegate_endpoint_connections": "Requests, WebSockets, tunnels and TCP connections that an endpoint has now.",
    "tidegate_endpoint_ejections_total": "How often an endpoint was ejected because it failed too often in a row.",
    "tidegate_endpoint_healthy": "Whether an endpoint takes new exchanges: 0 while it is unhealthy or ejected.",
    "tidegate_endpoint_websocket_fallbacks_total": "WebSockets meant for HTTP/2 or HTTP/3 began to use HTTP/1.1.",
    "tidegate_endpoint_tls_failures_total": "TLS handshakes with an endpoint that failed, by reason.",
    "tidegate_health_checks_total": "Health checks of endpoints, by result.",
    "tidegate_http2_errors_total": "Connections of HTTP/2 that ended because of what their client had sent, by code.",
    "tidegate_http3_errors_total": "Connections of HTTP/3 that ended because of what their client had sent, by code.",
    "tidegate_quic_retries_total": "Clients over QUIC that had to show that their address is their own.",
    "tidegate_http_failed_total": "Plain HTTP requests that were refused or whose answers ended early, by reason.",
    "tidegate_http_request_seconds": "From the head of a request to the end of its answer; WebSockets are not in it.",
    "tidegate_http_requests_total": "Plain HTTP requests, by route and status.",
    "tidegate_log_dropped_total": "Lines of the access log that were lost because it could not be written in time.",
    "tidegate_panics_total": "Connections that were ended by a defect of the gateway.",
    "tidegate_retries_total": "Tries behind the first one of an exchange, by why they were made.",
    "tidegate_upstream_connections": "Connections to an upstream that there are or are being made, idle ones too.",
    "tidegate_upstream_endpoints": "Endpoints of an upstream that have an address.",
    "tidegate_upstream_overflows_total": "Exchanges that were refused, as too many waited for a connection.",
    "tidegate_upstream_panic": "Whether all endpoints are used, as too few are usable.",
    "tidegate_upstream_panics_total": "How often all endpoints came to be used, as too few were usable.",
    "tidegate_upstream_pending": "Exchanges that wait for a connection to an upstream.",
    "tidegate_upstream_priority": "Which priority of an upstream's endpoints serves.",
    "tidegate_upstream_spilled_percent": "How much goes to other zones because too few are usable in our own.",
    "tidegate_tcp_bytes_total": "Bytes of TCP connections.",
    "tidegate_tcp_closed_total": "TCP connections that ended, by cause.",
    "tidegate_tcp_connections": "TCP connections that are open.",
    "tidegate_tcp_opened_total": "TCP connections that found an endpoint.",
    "tidegate_tcp_refused_total": "TCP connections that found no endpoint, by reason.",
    "tidegate_tcp_seconds": "How long TCP connections were open.",
    "tidegate_tls_handshakes": "TLS handshakes with clients under way, and those that wait for their turn.",
    "tidegate_tls_handshakes_total": "TLS handshakes with clients that succeeded: full, or with a session resumed.",
    "tidegate_tunnel_bytes_total": "Bytes of tunnels.",
    "tidegate_tunnel_closed_total": "Tunnels that ended, by cause.",
    "tidegate_tunnel_connections": "Tunnels that are open.",
    "tidegate_tunnel_opened_total": "Tunnels that were opened.",
    "tidegate_tunnel_seconds": "How long tunnels were open.",
    "tidegate_websocket_bytes_total": "Payload bytes of messages relayed, as on the wire, by direction.",
    "tidegate_websocket_closed_total": "WebSockets that ended, by Close code and cause.",
    "tidegate_websocket_connections": "WebSockets that are open.",
    "tidegate_websocket_handshakes_total": "Attempts to open a WebSocket, by status and reason.",
    "tidegate_websocket_limited_total": "What clients sent over their limits, by what became of it.",
    "tidegate_websocket_messages_total": "Messages and control frames relayed, by direction and opcode.",
    "tidegate_websocket_ping_seconds": "From a ping of the gateway to its pong.",
    "tidegate_websocket_protocol_errors_total": "WebSockets that ended because a side broke RFC 6455 or a limit.",
    "tidegate_websocket_seconds": "How long WebSockets were open, at their end.",
    "tidegate_worker_connections": "Connections that a worker thread serves.",
}


class Registry:
    """The control plane's own counters and gauges. May be used from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._values: dict[tuple[str, str], dict[tuple[tuple[str, str], ...], float]] = {}

    def count(self, name: str, by: int = 1, **labels: str) -> None:
        with self._lock:
            values = self._values.setdefault((name, "counter"), {})
            values[tuple(labels.items())] = values.get(tuple(labels.items()), 0) + by

    def gauge(self, name: str, value: float, **labels: str) -> None:
        with self._lock:
            self._values.setdefault((name, "gauge"), {})[tuple(labels.items())] = value

    def forget(self, **labels: str) -> None:
        """Drop the gauges that have these labels: what they measured is gone. Counters stay."""
        with self._lock:
            for (_, kind), values in self._values.items():
                for sample in [each for each in values if kind == "gauge" and labels.items() <= dict(each).items()]:
                    del values[sample]

    def families(self) -> list[Family]:
        with self._lock:
            return [
                {
                    "name": name,
                    "kind": kind,
                    "samples": [{"labels": dict(labels), "value": value} for labels, value in values.items()],
                }
                for (name, kind), values in self._values.items()
            ]


def process_families() -> list[Family]:
    """This process, under the names that every Prometheus client library uses."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    with open("/proc/self/statm") as statm:
        pages = int(statm.read().split()[1])
    return [
        _single("process_cpu_seconds_total", "counter", round(usage.ru_utime + usage.ru_stime, 6)),
        _single("process_resident_memory_bytes", "gauge", pages * resource.getpagesize()),
        _single("process_open_fds", "gauge", len(os.listdir("/proc/self/fd")) - 1),  # less the one that lists
        _single("process_max_fds", "gauge", resource.getrlimit(resource.RLIMIT_NOFILE)[0]),
    ]


def _single(name: str, kind: str, value: float) -> Family:
    return {"name": name, "kind": kind, "samples": [{"labels": {}, "value": value}]}


def render(families: Iterable[Family], openmetrics: bool = False) -> str:
    """The text that a scrape gets: Prometheus 0.0.4, or OpenMetrics 1.0."""
    lines: list[str] = []
    for family in sorted(families, key=lambda family: family["name"]):
        lines += _family_lines(family, openmetrics)
    if openmetrics:
        lines.append("# EOF")
    return "\n".join(lines) + "\n"


def _family_lines(family: Family, openmetrics: bool) -> Iterable[str]:
    name, kind = family["name"], family["kind"]
    title = name.removesuffix("_total") if openmetrics and kind == "counter" else name
    if help_text := HELP.get(name):
        yield f"# HELP {title} {_escape(help_text, quotes=openmetrics)}"
    yield f"# TYPE {title} {kind}"
    for sample in family["samples"]:
        yield from _sample_lines(name, sample)


def _sample_lines(name: str, sample: Sample) -> Iterable[str]:
    labels, value = sample["labels"], sample["value"]
    if not isinstance(value, dict):
        yield f"{name}{_labels(labels)} {_number(value)}"
        return
    for bound, count in value["buckets"]:
        yield f"{name}_bucket{_labels({**labels, 'le': _bound(bound)})} {count}"
    yield f"{name}_bucket{_labels({**labels, 'le': '+Inf'})} {value['count']}"
    yield f"{name}_sum{_labels(labels)} {_number(value['sum'])}"
    yield f"{name}_count{_labels(labels)} {value['count']}"


def _labels(labels: Mapping[str, str]) -> str:
    if not labels:
        return ""
    return "{" + ",".join(f'{name}="{_escape(value, quotes=True)}"' for name, value in labels.items()) + "}"


def _escape(text: str, quotes: bool) -> str:
    text = text.replace("\\", "\\\\").replace("\n", "\\n")
    return text.replace('"', '\\"') if quotes else text


def _bound(bound: float) -> str:
    return repr(float(bound))  # OpenMetrics wants `1.0`, and Prometheus takes it


def _number(value: float) -> str:
    return str(int(value)) if value == int(value) else repr(value)


MetricSource = Callable[[], list[Family]]
