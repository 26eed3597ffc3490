"""What the kernel knows about a process and its descendants: CPU time and memory."""

from __future__ import annotations

import os
import time
from pathlib import Path

PROC = Path("/proc")
TICKS = os.sysconf("SC_CLK_TCK")


def family(pid: int) -> list[int]:
    """The process and everything it started, however deep."""
    children: dict[int, list[int]] = {}
    for entry in PROC.iterdir():
        if entry.name.isdigit() and (parent := _parent(entry)) is not None:
            children.setdefault(parent, []).append(int(entry.name))
    found = [pid]
    for member in found:  # grows while it is walked
        found.extend(children.get(member, ()))
    return found


def cpu_seconds(pids: list[int]) -> float:
    """User and system time of all threads, those that ended too, to the nanosecond.

    Every process has a CPU clock whose id follows from its pid (clock_getcpuclockid(3)); unlike /proc/PID/stat it
    does not count in ticks, and unlike /proc/PID/task/*/schedstat it includes a slice of time still under way.
    """
    return sum(time.clock_gettime(~pid << 3 | 2) for pid in pids)


def proportional_kib(pids: list[int]) -> int:
    """Resident memory, each shared page divided among the processes that share it."""
    return sum(_pss(PROC / str(pid) / "smaps_rollup") for pid in pids)


def busy_seconds(core: int) -> float:
    """How long a core has worked or was taken away by the hypervisor, since boot; resolution is a tick."""
    lines = (PROC / "stat").read_text().splitlines()
    fields = next(line.split() for line in lines if line.startswith(f"cpu{core} "))
    user, nice, system, _, _, irq, softirq, steal = map(int, fields[1:9])
    return (user + nice + system + irq + softirq + steal) / TICKS


def _parent(entry: Path) -> int | None:
    try:
        stat = (entry / "stat").read_text()
    except OSError:  # it ended while we looked
        return None
    return int(stat.rpartition(")")[2].split()[1])


def _pss(rollup: Path) -> int:
    return next(int(line.split()[1]) for line in rollup.read_text().splitlines() if line.startswith("Pss:"))
