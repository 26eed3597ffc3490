"""What the kernel says of a gateway process: its memory, its descriptors, its sockets."""

import os
from pathlib import Path

__all__ = ["close_wait", "open_files", "resident_kib"]

CLOSE_WAIT = "08"


def resident_kib(pid: int) -> int:
    """Resident memory, without what is only mapped from files."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1])
    raise AssertionError("no RssAnon")


def open_files(pid: int) -> dict[int, str]:
    """What each descriptor stands for."""
    found = {}
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        try:
            found[int(entry.name)] = os.readlink(entry)
        except FileNotFoundError:  # closed meanwhile
            continue
    return found


def close_wait(pid: int) -> list[str]:
    """Its sockets whose peer has gone and that it has not closed."""
    own = {name for name in open_files(pid).values() if name.startswith("socket:")}
    rows = [
        line.split()
        for table in ("tcp", "tcp6")
        for line in Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]
    ]
    return [row[1] for row in rows if row[3] == CLOSE_WAIT and f"socket:[{row[9]}]" in own]
