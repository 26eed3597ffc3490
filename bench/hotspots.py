"""Where each microsecond goes: Tidegate under one kind of load, seen by perf, as a table and a flame graph (README.md).

Symbols of the engine are in its release build; stacks below a system call are the kernel's own, so they are whole
although the engine keeps no frame pointers.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import certificates
import flame
import work
from gateways import GATEWAYS, ROOT, find_program
from run import build_load, choose_cores
from running import running

FREQUENCY = 2500
SECONDS = 8.0
DOCS = ROOT / "docs"

Stack = tuple[str, ...]
"""From the outermost frame to the innermost; a frame is a symbol, the kernel's with `_[k]` behind it."""

AREAS: tuple[tuple[str, str], ...] = (
    ("kernel: send, and what it sets off at the receiver", r"sys_sendto.*_\[k\]|sys_write.*_\[k\]"),
    ("kernel: receive", r"sys_recvfrom.*_\[k\]|sys_read.*_\[k\]"),
    ("kernel: epoll", r"epoll.*_\[k\]"),
    (
        "kernel: connections (accept, connect, options, close)",
        r"(accept|connect|socket|sockopt|close|shutdown).*_\[k\]",
    ),
    ("kernel: the rest (entry and exit, interrupts, scheduling)", r"_\[k\]$"),
    ("engine: TLS", r"rustls|aws_lc"),
    ("engine: relay and frames", r"tidegate_engine::(relay|ws)"),
    ("engine: sockets", r"tidegate_engine::io|rustix"),
    ("engine: HTTP, routing, upstreams", r"tidegate_engine|httparse"),
    ("runtime: tasks and readiness", r"tokio|mio::"),
    ("memory", r"mi_|memmove|memcpy|memset"),
    ("Python", r"^Py|_Py|python"),
    ("the rest (libc, clock)", r""),
)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    names = {each.name: each for each in work.WORKS if not each.is_idle}
    parser.add_argument("--work", choices=names, default="echo128")
    parser.add_argument("--program", type=Path, help="another Tidegate")
    parser.add_argument("--output", type=Path, default=DOCS, help="directory")
    options = parser.parse_args()
    kind = names[options.work]
    stacks, figures = record(kind, options.program)
    graph = options.output / f"profile-{kind.name}.svg"
    graph.write_text(flame.draw(stacks, f"{kind.title}: {figures['cpu_us']:.1f} µs each"))
    report = options.output / f"profile-{kind.name}.md"
    report.write_text(as_markdown(kind, stacks, figures, graph.name))
    sys.stdout.write(f"{report.read_text()}\nwritten: {report}, {graph}\n")
    return 0


def record(kind: work.Work, program: Path | None) -> tuple[Counter[Stack], work.Figures]:
    """Measures as the benchmark does, with perf looking on."""
    gateway = next(each for each in GATEWAYS if each.name == "tidegate")
    load = build_load()
    program = program or find_program(gateway.name, load)
    assert program, "make engine-release builds it"
    load_core, core = choose_cores()
    os.sched_setaffinity(0, {load_core})
    with tempfile.TemporaryDirectory(prefix="profile-") as directory:
        data = Path(directory) / "perf.data"
        certificate = certificates.make(Path(directory))
        with (
            work.upstream(load, kind) as upstream,
            running(gateway, kind.face, program, upstream, core, 1000, certificate) as started,
        ):
            command = ["perf", "record", "-q", "-F", str(FREQUENCY), "-g", "-p", str(started.pids[0]), "-o", str(data)]
            perf = subprocess.Popen([*command, "--", "sleep", str(SECONDS)], stderr=subprocess.DEVNULL)
            figures = work.measure(kind, load, started, core, SECONDS, 1000, certificate)
            perf.wait()
        script = ["perf", "script", "-i", str(data), "-F", "ip,sym,dso"]
        text = subprocess.run(script, check=True, capture_output=True, text=True).stdout
    return parse(text), figures


def parse(text: str) -> Counter[Stack]:
    """Counts the samples of `perf script`: a block of lines each, innermost frame first, an empty line behind."""
    stacks: Counter[Stack] = Counter()
    for block in text.split("\n\n"):
        frames = [frame for line in block.splitlines() if (frame := _frame(line))]
        if frames:
            stacks[tuple(reversed(frames))] += 1
    return stacks


def _frame(line: str) -> str | None:
    match = re.match(r"\s*[0-9a-f]+ (.*) \((.*)\)$", line)
    if match is None:
        return None
    symbol, file = match.groups()
    if "kernel" in file:
        return f"{symbol}_[k]"
    return f"[{Path(file).name.strip('[]')}]" if symbol == "[unknown]" else symbol


def area(stack: Stack) -> str:
    """The first area whose pattern is found: in any of the kernel's frames for a sample taken there, else in the
    innermost frame."""
    innermost = stack[-1]
    text = "\n".join(stack) if innermost.endswith("_[k]") else innermost
    return next(name for name, pattern in AREAS if re.search(pattern, text, re.MULTILINE))


def as_markdown(kind: work.Work, stacks: Counter[Stack], figures: work.Figures, graph: str) -> str:
    total = stacks.total()
    counted = Counter[str]()
    for stack, count in stacks.items():
        counted[area(stack)] += count
    rows = [_row(name, counted[name], total, figures["cpu_us"]) for name, _ in AREAS if counted[name]]
    parts = [
        f"# Where the time goes: {kind.title}",
        f"`bench/hotspots.py --work {kind.name}` wrote this: {total:,} samples of the gateway's process over "
        f"{SECONDS:g} s, at {figures['throughput']:,.0f} operations a second and {figures['cpu_us']:.1f} µs of CPU for "
        "each (perf itself is in that figure). The areas are told apart by function.",
        _table(rows),
        f"![Flame graph]({graph})",
        "The ten functions that take most, without what they call:",
        _functions(stacks, figures["cpu_us"]),
    ]
    return "\n\n".join(parts) + "\n"


def _row(name: str, count: int, total: int, microseconds: float) -> tuple[str, str, str]:
    return name, f"{count / total:.1%}", f"{microseconds * count / total:.2f}"


def _functions(stacks: Counter[Stack], microseconds: float) -> str:
    own = Counter[str]()
    for stack, count in stacks.items():
        own[stack[-1].replace("_[k]", " (kernel)")] += count
    return _table(_row(f"`{name}`", count, stacks.total(), microseconds) for name, count in own.most_common(10))


def _table(rows: Iterable[tuple[str, str, str]]) -> str:
    lines = [("", "share", "µs"), ("---", "---:", "---:"), *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


if __name__ == "__main__":
    sys.exit(main())
