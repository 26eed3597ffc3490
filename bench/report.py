"""From measurements of all rounds to medians, and from medians to JSON and Markdown."""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gateways import GATEWAYS, Gateway
from work import WORKS, Figures, Work

GOALS: tuple[tuple[str, str, str, float], ...] = (
    ("echo128", "bare relay", "relay", 1.10),
    ("echo128", "best peer", "best", 1.00),
    ("echo16k", "bare relay", "relay", 1.10),
    ("echo16k", "best peer", "best", 1.00),
    ("handshake", "nginx", "nginx", 1.10),
    ("request", "best peer", "best", 1.10),
    ("request64k", "best peer", "best", 1.10),
    ("tls-echo128", "best of nginx and HAProxy", "c", 1.00),
    ("tls-echo16k", "best of nginx and HAProxy", "c", 1.00),
    ("tls-handshake", "best peer", "best", 1.10),
    ("tls-request", "best peer", "best", 1.10),
    ("tls-request64k", "best peer", "best", 1.10),
    ("h2-echo128", "best peer", "best", 1.00),
    ("h2-echo16k", "best peer", "best", 1.00),
    ("h2-request", "best peer", "best", 1.25),
    ("h2-request64k", "best peer", "best", 1.25),
    ("tcp128", "best peer", "best", 1.00),
    ("tcp16k", "best peer", "best", 1.00),
    ("tcp-life", "best peer", "best", 1.00),
    ("tls-tcp128", "best peer", "best", 1.00),
    ("tls-tcp16k", "best peer", "best", 1.00),
    ("tls-tcp-life", "best peer", "best", 1.00),
)
IDLE_GOALS_KIB = {"idle": 4.0, "tls-idle": 19.0}
DISTURBED = 0.05
GATEWAY_LABELS = {gateway.name: gateway.label for gateway in GATEWAYS}

METHOD = """\
CPU is the time of the gateway's process with all its threads and children, per operation, read from its CPU clock at
both ends of the measured window while the load stands still. Gateways have one worker each and are pinned to one core;
load and upstream share the other. Each figure is the median of the rounds; in every round each kind of work goes
through all gateways one after the other, each freshly started before an upstream of its own. An echo is a message there
and back, one under way per connection; a handshake is connect, upgrade, one echo of 128 B, Close both ways, end of
stream. Memory is the growth of the proportional set size of the gateway's processes, per idle WebSocket; sockets'
buffers in the kernel are the same for all and not in it. `direct` has no gateway: it shows the price of the hop.
Absolute figures move with the machine and the hour; ratios in one run hold."""


@dataclass
class Results:
    """What was measured, by work and gateway, one entry a round; and what to know about the run."""

    setting: dict[str, Any]
    rounds: dict[str, dict[str, list[Figures]]] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)
    unable: dict[str, dict[str, str]] = field(default_factory=dict)
    """Why a gateway was not measured at a kind of work although it says that it can do it."""

    def add(self, work: Work, gateway: Gateway, figures: Figures) -> None:
        self.rounds.setdefault(work.name, {}).setdefault(gateway.name, []).append(figures)

    def fail(self, number: int, work: Work, gateway: Gateway, error: str, known: str) -> None:
        """Something went wrong; `known` says why, where that was to be expected."""
        if known:
            self.unable.setdefault(work.name, {})[gateway.name] = f"{known} ({_last_words(error)})"
        else:
            self.failures.append(f"round {number}, {work.name}, {gateway.name}: {error}")

    def is_unable(self, work: Work, gateway: Gateway) -> bool:
        return gateway.name in self.unable.get(work.name, {})

    def median(self, work: str, gateway: str, key: str) -> float | None:
        values = [figures[key] for figures in self.rounds.get(work, {}).get(gateway, []) if key in figures]
        return statistics.median(values) if values else None

    def best_peer(self, work: str, key: str) -> float | None:
        medians = (self.median(work, gateway.name, key) for gateway in GATEWAYS if gateway.is_peer)
        return min((value for value in medians if value is not None), default=None)

    def best_in_c(self, work: str, key: str) -> float | None:
        medians = (self.median(work, name, key) for name in ("nginx", "haproxy"))
        return min((value for value in medians if value is not None), default=None)


def key_of(work: Work) -> str:
    """The figure a kind of work is judged by."""
    return "kib" if work.is_idle else "cpu_us"


def write(results: Results, directory: Path) -> list[Path]:
    directory.mkdir(parents=True, exist_ok=True)
    files = {"benchmarks.json": as_json(results), "benchmarks.md": as_markdown(results)}
    for name, text in files.items():
        (directory / name).write_text(text)
    return [directory / name for name in files]


def as_json(results: Results) -> str:
    medians = _medians(results)
    known = {"failures": results.failures, "unable": results.unable}
    whole = {**results.setting, **known, "medians": medians, "rounds": results.rounds}
    return json.dumps(whole, indent=1) + "\n"


def _medians(results: Results) -> dict[str, dict[str, Figures]]:
    return {
        work: {
            gateway: {key: statistics.median(figures[key] for figures in rounds) for key in rounds[0]}
            for gateway, rounds in gateways.items()
        }
        for work, gateways in results.rounds.items()
    }


def as_markdown(results: Results) -> str:
    setting = results.setting
    machine = ", ".join(f"{key} {value}" for key, value in setting["machine"].items())
    versions = ", ".join(f"{name} {version}" for name, version in setting["versions"].items())
    parts = [
        "# Benchmarks",
        f"`{setting['command']}` wrote this on {setting['date']}: {setting['rounds']} rounds of "
        f"{setting['seconds']:g} s.",
        f"Machine: {machine}.\n\nVersions: {versions}.",
        METHOD,
        "## Goals\n\n" + _goals(results),
        "## Overview: CPU µs per operation, KiB per idle WebSocket\n\n" + _overview(results),
        *(_section(results, work) for work in WORKS if work.name in results.rounds),
        *_notes(results),
    ]
    return "\n\n".join(parts) + "\n"


def _goals(results: Results) -> str:
    rows = [_goal(results, *goal) for goal in GOALS]
    for work, goal in IDLE_GOALS_KIB.items():
        rows.append(_judged(work, f"≤ {goal:g} KiB", results.median(work, "tidegate", "kib"), goal))
    return table(("work", "goal", "measured", "met"), rows)


def _goal(results: Results, work: str, label: str, other: str, limit: float) -> list[str]:
    ours = results.median(work, "tidegate", "cpu_us")
    best = {"best": results.best_peer, "c": results.best_in_c}.get(other)
    theirs = best(work, "cpu_us") if best else results.median(work, other, "cpu_us")
    return _judged(work, f"≤ {limit:.2f} × {label}", _ratio(ours, theirs), limit)


def _judged(work: str, goal: str, value: float | None, limit: float) -> list[str]:
    met = "not measured" if value is None else "yes" if value <= limit else "**no**"
    return [work, goal, number(value, 2), met]


def _overview(results: Results) -> str:
    gateways = _measured(results, lambda gateway: gateway.name != "direct")
    rows = [
        [work.name, *(_brief(results, work, gateway) for gateway in gateways)]
        for work in WORKS
        if work.name in results.rounds
    ]
    return table(["", *(gateway.label for gateway in gateways)], rows)


def _brief(results: Results, work: Work, gateway: Gateway) -> str:
    if results.is_unable(work, gateway):
        return "fails"
    return number(results.median(work.name, gateway.name, key_of(work)), 1)


def _section(results: Results, work: Work) -> str:
    gateways = _measured(results, lambda gateway: gateway.name in results.rounds[work.name])
    if work.is_idle:
        head = ["", "KiB each", "rounds", "× best peer"]
        rows = [[*_absolute(results, work, gateway), _to_best(results, work, gateway)] for gateway in gateways]
        return f"## {work.title}: {results.setting['idle_connections']} of them\n\n" + table(head, rows)
    head = ["", "CPU µs", "rounds", "× bare relay", "× best peer", "per second", "p50 µs", "p99 µs"]
    rows = [_time_row(results, work, gateway) for gateway in gateways]
    unable = [[GATEWAY_LABELS[name], "fails", *[""] * 6] for name in results.unable.get(work.name, {})]
    return f"## {work.title}\n\n" + table(head, rows + unable)


def _time_row(results: Results, work: Work, gateway: Gateway) -> list[str]:
    ours, floor = (results.median(work.name, name, "cpu_us") for name in (gateway.name, "relay"))
    seen = (results.median(work.name, gateway.name, key) for key in ("throughput", "p50_us", "p99_us"))
    ratios = [number(_ratio(ours, floor), 2), _to_best(results, work, gateway)]
    return [*_absolute(results, work, gateway), *ratios, *(number(value, 0) for value in seen)]


def _absolute(results: Results, work: Work, gateway: Gateway) -> list[str]:
    key = key_of(work)
    spread = _spread(figures[key] for figures in results.rounds[work.name][gateway.name] if key in figures)
    return [gateway.label, number(results.median(work.name, gateway.name, key), 2), spread]


def _to_best(results: Results, work: Work, gateway: Gateway) -> str:
    key = key_of(work)
    return number(_ratio(results.median(work.name, gateway.name, key), results.best_peer(work.name, key)), 2)


def _spread(values: Iterable[float]) -> str:
    ordered = sorted(values)
    return f"{ordered[0]:.2f} to {ordered[-1]:.2f}" if ordered else "–"


def _notes(results: Results) -> list[str]:
    """What a reader must know before trusting the tables."""
    missing, disturbed = results.setting["missing"], _disturbed(results)
    notes = []
    if missing:
        notes.append(f"Not installed, so not measured: {', '.join(missing)}.")
    if disturbed:
        share = f"{DISTURBED:.0%}"
        notes.append(f"Other processes took over {share} of the gateway's core during: {', '.join(disturbed)}.")
    notes += [
        f"{GATEWAY_LABELS[name]} fails at {work}: {why}."
        for work, gateways in results.unable.items()
        for name, why in gateways.items()
    ]
    if results.failures:
        notes.append("Failed:\n\n" + "\n".join(f"- {_last_words(failure)}" for failure in results.failures))
    return ["## Notes\n\n" + "\n\n".join(notes)] if notes else []


def _last_words(failure: str) -> str:
    """A program's log ends with what it died of; the whole of it is in the JSON."""
    first, *_, last = (failure.splitlines() or [""]) * 2
    return first[:200] if first == last else f"{first[:200]} … {last[:200]}"


def _disturbed(results: Results) -> list[str]:
    """How many measurements of each kind of work were not alone on the gateway's core."""
    counted = {
        work: [figures.get("core_taken_by_others", 0) > DISTURBED for rounds in gateways.values() for figures in rounds]
        for work, gateways in results.rounds.items()
    }
    return [f"{work} ({sum(each)} of {len(each)} times)" for work, each in counted.items() if any(each)]


def _measured(results: Results, condition: Callable[[Gateway], bool]) -> list[Gateway]:
    seen = {name for gateways in results.rounds.values() for name in gateways}
    return [gateway for gateway in GATEWAYS if gateway.name in seen and condition(gateway)]


def _ratio(ours: float | None, theirs: float | None) -> float | None:
    return ours / theirs if ours is not None and theirs else None


def number(value: float | None, digits: int) -> str:
    return "–" if value is None else f"{value:,.{digits}f}"


def table(head: Iterable[str], rows: list[list[str]]) -> str:
    head = list(head)
    lines = [head, ["---", *("---:" for _ in head[1:])], *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)
