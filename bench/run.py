"""Measures Tidegate beside other gateways: CPU per operation, latency, memory per idle connection (see README.md)."""

from __future__ import annotations

import argparse
import datetime
import itertools
import json
import os
import platform
import resource
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import certificates
import choices
import report
import work
from gateways import DIRECT, GATEWAYS, ROOT, Failure, Gateway, find_program, install, version
from running import running

DOCS = ROOT / "docs"
SCRATCH = ROOT / "bench" / "results"
ROUNDS = 5
SECONDS = 1.0
IDLE_CONNECTIONS = 10_000
IDLE_ROUNDS = 3


def main() -> int:
    options = parse_options()
    programs = find_programs(options)
    missing = [gateway.name for gateway in options.only if gateway.name not in programs]
    for name in missing:
        say(f"{name} is not installed and left out (--install gets peers, make builds tidegate)")
    gateways = [gateway for gateway in options.only if gateway.name in programs]
    load_core, gateway_core = choose_cores()
    connections = idle_connections(options.connections)
    results = report.Results(setting(options, programs, missing, connections))
    os.sched_setaffinity(0, {load_core})
    try:
        run_rounds(options, gateways, programs, gateway_core, connections, results)
    except KeyboardInterrupt:
        results.failures.append("interrupted")
    return conclude(options, results)


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    gateways, kinds = {each.name: each for each in GATEWAYS}, {each.name: each for each in work.WORKS}
    names = ", ".join
    parser.add_argument("--only", type=_names(gateways), default=list(GATEWAYS), help=f"some of {names(gateways)}")
    parser.add_argument("--work", type=_names(kinds), default=list(work.WORKS), help=f"some of {names(kinds)}")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--seconds", type=float, default=SECONDS, help="measured time of each load")
    parser.add_argument("--connections", type=int, default=IDLE_CONNECTIONS, help="idle WebSockets")
    parser.add_argument("--install", action="store_true", help="install missing peers with apt-get and pip")
    parser.add_argument("--program", action="append", default=[], metavar="NAME=PATH", help="use another program")
    parser.add_argument("--output", type=Path, help="directory; docs for a full run, bench/results for a part of it")
    return parser.parse_args()


def _names(known: dict[str, Any]) -> Any:
    """A parser of comma-separated names, in the order of `known`."""

    def parse(text: str) -> list[Any]:
        chosen = text.split(",")
        if unknown := set(chosen) - set(known):
            raise argparse.ArgumentTypeError(f"{', '.join(sorted(unknown))}: not one of {', '.join(known)}")
        return [value for name, value in known.items() if name in chosen]

    return parse


def build_load() -> Path:
    command = ["cargo", "build", "--release", "--quiet", "-p", "tidegate-bench-load"]
    subprocess.run(command, cwd=ROOT, check=True)
    metadata = ["cargo", "metadata", "--format-version", "1", "--no-deps"]
    described = subprocess.run(metadata, cwd=ROOT, check=True, capture_output=True, text=True)
    return Path(json.loads(described.stdout)["target_directory"]) / "release" / "tidegate-load"


def find_programs(options: argparse.Namespace) -> dict[str, Path]:
    """The program of each gateway that is there. `relay` is the load's program, and so is what `direct` stands for."""
    given = {name: Path(path) for name, _, path in (text.partition("=") for text in options.program)}
    load = given.get("relay") or build_load()
    names = [gateway.name for gateway in options.only if gateway is not DIRECT]
    if options.install:
        install([name for name in names if name not in given and find_program(name, load) is None])
    found = {name: given.get(name) or find_program(name, load) for name in names}
    return {DIRECT.name: load, **{name: path for name, path in found.items() if path is not None}}


def choose_cores() -> tuple[int, int]:
    """The load's core and the gateway's. The last one: the first takes most interrupts."""
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) == 1:
        say("there is one core only: the gateway shares it with the load, and its throughput says little")
    return cores[0], cores[-1]


def idle_connections(wanted: int) -> int:
    """As many as the limit of open files lets a gateway hold, with two sockets for each."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    possible = min(wanted, (hard - 600) // 2)
    if possible < wanted:
        say(f"{possible} idle connections instead of {wanted}: the hard limit of open files is {hard}")
    return possible


def setting(
    options: argparse.Namespace, programs: dict[str, Path], missing: list[str], connections: int
) -> dict[str, Any]:
    measured = [gateway for gateway in options.only if gateway.version and gateway.name in programs]
    return {
        "command": shlex.join(["bench/run.py", *sys.argv[1:]]),
        "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "machine": machine(),
        "versions": {gateway.name: version(gateway, programs[gateway.name]) for gateway in measured},
        "rounds": options.rounds,
        "seconds": options.seconds,
        "idle_connections": connections,
        "missing": missing,
    }


def machine() -> dict[str, str]:
    fields = (line.partition(":") for line in Path("/proc/cpuinfo").read_text().splitlines())
    model = next((value.strip() for key, _, value in fields if key.strip() == "model name"), platform.machine())
    gibibytes = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30
    congestion = Path("/proc/sys/net/ipv4/tcp_congestion_control").read_text().strip()
    return {
        "CPU": model,
        "cores": str(os.cpu_count()),
        "memory": f"{gibibytes:.0f} GiB",
        "Linux": platform.release(),
        "congestion control": congestion,
        "load before": f"{os.getloadavg()[0]:.2f}",
    }


def run_rounds(
    options: argparse.Namespace,
    gateways: list[Gateway],
    programs: dict[str, Path],
    core: int,
    connections: int,
    results: report.Results,
) -> None:
    """All gateways one after the other for each kind of work, so that those to be compared are measured together."""
    with tempfile.TemporaryDirectory(prefix="bench-tls-") as directory:
        certificate = certificates.make(Path(directory))
        turns = itertools.product(range(1, options.rounds + 1), options.work, gateways)
        for number, kind, gateway in turns:
            if not applies(kind, gateway, number) or results.is_unable(kind, gateway):
                continue
            try:
                figures = measure_once(options, kind, gateway, programs, core, connections, certificate)
            except (Failure, OSError) as error:
                known = gateway.speaks[kind.face].fails
                results.fail(number, kind, gateway, str(error), known)
                say(f"{'cannot' if known else 'FAILED'}: round {number}, {kind.name}, {gateway.name}: {error}")
            else:
                results.add(kind, gateway, figures)
                show(number, kind, gateway, figures)


def applies(kind: work.Work, gateway: Gateway, number: int) -> bool:
    """Without a gateway no memory can grow; and memory is nearly the same each time, and takes long to look at."""
    if kind.is_idle and (gateway is DIRECT or number > IDLE_ROUNDS):
        return False
    return kind.face in gateway.speaks


def measure_once(
    options: argparse.Namespace,
    kind: work.Work,
    gateway: Gateway,
    programs: dict[str, Path],
    core: int,
    connections: int,
    certificate: certificates.Certificate,
) -> work.Figures:
    load = programs[DIRECT.name]
    with (
        work.upstream(load, kind) as upstream,
        running(gateway, kind.face, programs[gateway.name], upstream, core, connections, certificate) as started,
    ):
        return work.measure(kind, load, started, core, options.seconds, connections, certificate)


def show(number: int, kind: work.Work, gateway: Gateway, figures: work.Figures) -> None:
    shown = "  ".join(f"{key} {value:,.2f}" for key, value in figures.items())
    say(f"round {number}  {kind.name:14}  {gateway.name:8}  {shown}")


def conclude(options: argparse.Namespace, results: report.Results) -> int:
    """Writes the reports and the exit code. A part of the measurements never replaces the published whole."""
    whole = (options.only, options.work) == (list(GATEWAYS), list(work.WORKS)) and options.rounds >= ROUNDS
    whole = whole and options.seconds >= SECONDS and not results.failures and not results.setting["missing"]
    directory = options.output or (DOCS if whole else SCRATCH)
    written = report.write(results, directory)
    if page := choices.write(results, directory):
        written.append(page)
    say("\n" + report.as_markdown(results))
    say("written: " + ", ".join(str(path) for path in written))
    return 1 if results.failures else 0


def say(text: str) -> None:
    print(text, flush=True)


if __name__ == "__main__":
    sys.exit(main())
