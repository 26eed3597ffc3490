"""`make conformance`: the Autobahn test suite through the gateway, judged against the suite's own echo programs alone.

Ends with 0 only when every case that was asked for has the same verdict through the gateway as without it, in each leg.
What could not be had or did not run is said, and ends with 2; a difference ends with 1.
"""

import argparse
import contextlib
import os
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from tests.conformance import report
from tests.conformance.install import Missing, Suite, installed, say
from tests.conformance.judge import Verdict, Verdicts, chosen
from tests.conformance.legs import Bench, Failed, free_ports, gateway, outer
from tests.conformance.report import Leg
from tidegate.testing import Gateway

DEFAULT = "1.* 2.* 3.* 4.* 5.* 6.* 7.* 9.* 10.* 12.*.1 12.*.5 13.*.1 13.*.5"
LEGS = ("servers", "clients")
RUNS = ("alone", "ws", "wss", "h2")
"""Without the gateway; through it in clear text and over TLS; through two with HTTP/2 between them."""


@dataclass(frozen=True, slots=True)
class Plan:
    suite: Suite
    cases: Sequence[str]
    legs: Sequence[str]
    parts: int
    limit: float
    reports: str | None

    def part(self, number: int) -> Sequence[str]:
        """Every part gets some of each section, since some take long."""
        return self.cases[number :: self.parts]


Job = Callable[[], dict[str, Verdict]]


@dataclass(slots=True)
class Jobs:
    """What is to be run, by leg and run."""

    list: "list[tuple[str, str, Job]]" = field(default_factory=list)

    def add(self, leg: str, run: str, job: Job) -> None:
        self.list.append((leg, run, job))


def main() -> int:
    arguments = parsed()
    try:
        suite = installed()
        known = suite.cases()
        cases = chosen(known, arguments.cases.split())
        if not cases:
            raise Missing(f"no case of the suite is named by {arguments.cases!r}")
        plan = Plan(
            suite, cases, arguments.legs.split(), min(arguments.jobs, len(cases)), arguments.limit, arguments.reports
        )
        began = time.monotonic()
        legs = executed(plan)
    except (Missing, Failed) as problem:
        say(f"make conformance: {problem}")
        return 2
    say(f"{len(cases)} cases in {time.monotonic() - began:.0f} s")
    print("\n".join(report.text(cases, legs)))
    if arguments.write:
        Path(arguments.write).write_text(report.page(cases, legs, len(known)))
    return 1 if any(leg.differences(cases) for leg in legs) else 0


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.conformance", description=__doc__)
    parser.add_argument("--cases", default=DEFAULT, help="patterns of case ids (default: %(default)s)")
    parser.add_argument("--legs", default=" ".join(LEGS), help="of: %(default)s")
    parser.add_argument("--jobs", type=int, default=2 * (os.cpu_count() or 1), help="parts at a time (%(default)s)")
    parser.add_argument("--limit", type=float, default=1800, help="seconds for one part of one run (%(default)s)")
    parser.add_argument("--reports", metavar="DIRECTORY", help="keep the suite's own reports there, in HTML and JSON")
    parser.add_argument("--write", metavar="FILE", help="write the page with the result")
    arguments = parser.parse_args()
    if unknown := set(arguments.legs.split()) - set(LEGS):
        parser.error(f"no such leg: {', '.join(sorted(unknown))}")
    return arguments


def executed(plan: Plan) -> list[Leg]:
    """All runs of all legs, so many parts at a time."""
    with contextlib.ExitStack() as stack:
        temporary = tempfile.TemporaryDirectory(prefix="tidegate-conformance-")
        directory = Path(plan.reports or stack.enter_context(temporary)).absolute()
        bench, jobs = Bench(plan.suite, directory, plan.limit), Jobs()
        if "servers" in plan.legs:
            add_servers(plan, bench, jobs, stack)
        if "clients" in plan.legs:
            add_clients(plan, bench, jobs, stack)
        with ThreadPoolExecutor(plan.parts) as pool:
            results = list(pool.map(lambda each: each[2](), jobs.list))
    verdicts: dict[str, dict[str, dict[str, Verdict]]] = {leg: {run: {} for run in RUNS} for leg in plan.legs}
    for (leg, run, _), part in zip(jobs.list, results, strict=True):
        verdicts[leg][run].update(part)
    return [Leg(name, runs["alone"], through(runs)) for name, runs in verdicts.items()]


def through(runs: dict[str, dict[str, Verdict]]) -> dict[str, Verdicts]:
    return {run: verdicts for run, verdicts in runs.items() if run != "alone"}


def add_servers(plan: Plan, bench: Bench, jobs: Jobs, stack: contextlib.ExitStack) -> None:
    """Echo servers of the suite; a fuzzing client goes to each of them, and to the gateway before them all."""
    ports = free_ports(plan.parts)
    for number, port in enumerate(ports):
        stack.enter_context(bench.echo_server(f"echo-{number}", port))
    directory = bench.directory / "servers-gateway"
    directory.mkdir()
    running = stack.enter_context(gateway(directory, [ports]))
    before = add_outer(bench, "servers", running, 1, stack)
    urls = {"ws": running.ws("plain0"), "wss": running.ws("tls0"), "h2": before.ws("plain0")}
    for run in RUNS:
        for number, port in enumerate(ports):
            url = urls.get(run, f"ws://127.0.0.1:{port}")
            jobs.add("servers", run, server_job(bench, f"servers-{run}-{number}", url, plan.part(number)))


def add_outer(bench: Bench, leg: str, inner: Gateway, groups: int, stack: contextlib.ExitStack) -> Gateway:
    directory = bench.directory / f"{leg}-outer"
    directory.mkdir()
    return stack.enter_context(outer(directory, inner, groups))


def server_job(bench: Bench, name: str, url: str, cases: Sequence[str]) -> Job:
    return lambda: bench.judge_server(name, url, cases)


def add_clients(plan: Plan, bench: Bench, jobs: Jobs, stack: contextlib.ExitStack) -> None:
    """A fuzzing server for each part of each run, since each keeps the report of its own clients; the gateway has
    listeners for each."""
    pairs = [(run, number) for run in RUNS for number in range(plan.parts)]
    ports = free_ports(len(pairs))
    homes = [
        stack.enter_context(bench.fuzzing_server(f"clients-{run}-{number}", port, plan.part(number)))
        for (run, number), port in zip(pairs, ports, strict=True)
    ]
    directory = bench.directory / "clients-gateway"
    directory.mkdir()
    running = stack.enter_context(gateway(directory, [[port] for port in ports]))
    before = add_outer(bench, "clients", running, len(ports), stack)
    for index, (run, number) in enumerate(pairs):
        ways = {"ws": (running, f"plain{index}"), "wss": (running, f"tls{index}"), "h2": (before, f"plain{index}")}
        url = ways[run][0].ws(ways[run][1]) if run in ways else f"ws://127.0.0.1:{ports[index]}"
        jobs.add("clients", run, client_job(bench, f"clients-{run}-{number}", url, homes[index]))


def client_job(bench: Bench, name: str, url: str, home: Path) -> Job:
    return lambda: bench.judge_client(name, url, home)


if __name__ == "__main__":
    sys.exit(main())
