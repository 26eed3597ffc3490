"""The accounts of a soak: what the log, the metrics, the clients and the servers say must be one story. Pure."""

import json
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from tests.soak.actors import Tally
from tidegate.testing import Metrics

__all__ = ["Log", "discrepancies"]

MESSAGES = {"messages_in": ("to_upstream", ("text", "binary")), "messages_out": ("to_client", ("text", "binary"))}
PINGS = {"pings_in": ("to_upstream", ("ping",)), "pings_out": ("to_client", ("ping",))}


@dataclass(slots=True)
class Log:
    """What the access log said, without keeping its lines."""

    open: dict[str, str] = field(default_factory=dict)
    """The path of each WebSocket that is open, by its connection."""
    opened: set[str] = field(default_factory=set)
    events: Counter[str] = field(default_factory=Counter)
    causes: Counter[str] = field(default_factory=Counter)
    sums: Counter[str] = field(default_factory=Counter)
    attempts: Counter[str] = field(default_factory=Counter)
    """How handshakes that did not become a WebSocket ended: path to status."""
    wrong: list[str] = field(default_factory=list)

    @classmethod
    def read(cls, lines: Iterable[str]) -> "Log":
        log = cls()
        for line in lines:
            log.add(json.loads(line))
        return log

    def add(self, record: dict[str, Any]) -> None:
        event, connection, path = record["event"], record["connection"], record.get("path", "")
        self.events[event] += 1
        if event == "open":
            if connection in self.open or path in self.opened:
                self.wrong.append(f"opened twice: {record}")
            self.open[connection] = path
            self.opened.add(path)
        elif event == "close":
            if self.open.pop(connection, None) != path:
                self.wrong.append(f"closed and not open: {record}")
            self.causes[record["cause"]] += 1
            for name in (*MESSAGES, *PINGS, "bytes_in", "bytes_out"):
                self.sums[name] += record[name]
        else:
            self.attempts[path] += 1


def discrepancies(log: Log, metrics: Metrics, tally: Tally, served: set[str]) -> Iterator[str]:
    """`served` are the targets of the WebSockets that the servers opened."""
    yield from log.wrong
    yield from (f"open without an end: {path}" for path in log.open.values())
    if log.causes["internal"]:
        yield f"{log.causes['internal']} ended for internal reasons"
    yield from _sums(log, metrics, tally)
    yield from (f"a 101 for a WebSocket that the log does not have: {each}" for each in tally.switched - log.opened)
    yield from (f"open, and no server had it: {each}" for each in log.opened - served)
    unaccounted = (each for each in served - log.opened if not log.attempts[each])
    yield from (f"opened by a server, and no record of what became of it: {each}" for each in unaccounted)


def _sums(log: Log, metrics: Metrics, tally: Tally) -> Iterator[str]:
    """What is counted in two places."""
    value = metrics.value
    pairs = {
        "connections": (value("tidegate_connections_accepted_total"), tally.connects),
        "opened": (value("tidegate_websocket_handshakes_total", status="101"), log.events["open"]),
        "closed": (value("tidegate_websocket_closed_total"), log.events["close"]),
        "seconds": (value("tidegate_websocket_seconds_count"), log.events["close"]),
        "lines of the log that were dropped": (value("tidegate_log_dropped_total"), 0),
        "panics": (value("tidegate_panics_total"), 0),
        "failed connections": (value("tidegate_connections_failed_total"), 0),
        "open WebSockets": (value("tidegate_websocket_connections"), 0),
        "busy endpoints": (value("tidegate_endpoint_connections"), 0),
        "open connections": (value("tidegate_connections"), 0),
        "bytes in": (value("tidegate_websocket_bytes_total", direction="to_upstream"), log.sums["bytes_in"]),
        "bytes out": (value("tidegate_websocket_bytes_total", direction="to_client"), log.sums["bytes_out"]),
    }
    for cause in set(log.causes) | {each["cause"] for each, _ in metrics.samples["tidegate_websocket_closed_total"]}:
        pairs[f"cause {cause}"] = (value("tidegate_websocket_closed_total", cause=cause), log.causes[cause])
    for name, (direction, opcodes) in {**MESSAGES, **PINGS}.items():
        counted = (value("tidegate_websocket_messages_total", direction=direction, opcode=each) for each in opcodes)
        pairs[name] = (sum(counted), log.sums[name])
    yield from (
        f"{name}: {ours:.0f} counted, {other:.0f} elsewhere" for name, (ours, other) in pairs.items() if ours != other
    )
