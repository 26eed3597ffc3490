"""`make attacks`: slow clients by the thousand, while WebSockets echo through the same gateway at an even pace.

For each attack the echoes are timed twice for as long: alone, then while it goes on. Ends with 0 when no WebSocket was
lost and each p99 stayed within 20 % of the one alone, or within 300 µs of it, which is what timing in Python is worth.
The attackers are processes of their own; with slowhttptest on the path, its four attacks come as well.
"""

import argparse
import asyncio
import contextlib
import json
import shutil
import sys
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass

from tests.e2e.kit.frames import Peer
from tests.e2e.kit.origin import Origin
from tests.e2e.kit.peers import echoes, open_peer, running
from tests.e2e.kit.sites import LOOPBACK, route, site, until
from tidegate.testing import Gateway

ALLOWED, NOISE = 1.20, 0.0003
WEBSOCKETS, PACE = 40, 0.1
"""How many echo, and the seconds between two echoes of each."""

OWN = {"half_open": 20_000, "slow_headers": 1_000, "slow_body": 1_000, "slow_read": 200, "ranges": 200}
TOOL = {
    "slowhttptest -H": ("-H", "-c", "1000", "-r", "500", "-i", "2", "-p", "3"),
    "slowhttptest -B": ("-B", "-c", "1000", "-r", "500", "-i", "2", "-p", "3"),
    "slowhttptest -R": ("-R", "-c", "500", "-r", "200", "-p", "3"),
    "slowhttptest -X": ("-X", "-c", "500", "-r", "200", "-w", "512", "-y", "1024", "-n", "2", "-z", "32", "-p", "3"),
}
PROCESSES = 4
"""That an attack of ours is split into: each process may have so many files only."""


@dataclass(frozen=True, slots=True)
class Row:
    attack: str
    alone: float
    during: float
    lost: int
    note: str

    @property
    def is_good(self) -> bool:
        return self.lost == 0 and self.during <= max(self.alone * ALLOWED, self.alone + NOISE)

    def __str__(self) -> str:
        alone, during = self.alone * 1e6, self.during * 1e6
        beside = f"{during:.0f} ({during / alone:.2f})" + ("" if self.is_good else " **too slow**")
        return f"| {self.attack} | {alone:.0f} | {beside} | {self.lost} | {self.note} |"


async def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.attacks", description=__doc__)
    parser.add_argument("--seconds", type=float, default=20, help="for each measurement (%(default)s)")
    parser.add_argument("--only", default="", help="attacks whose names have this in them")
    arguments = parser.parse_args()
    has_tool = shutil.which("slowhttptest") is not None
    names = [*OWN, "accept_queue", *(TOOL if has_tool else ())]
    if not has_tool:
        print("slowhttptest is not installed (apt-get install slowhttptest): our own attacks only", file=sys.stderr)
    print("| attack | p99 alone, µs | p99 during, µs | lost | what became of it |\n|---|---|---|---|---|", flush=True)
    rows = []
    for name in names:
        if arguments.only in name:
            rows.append(await measured(name, arguments.seconds))
            print(rows[-1], flush=True)
    return 0 if rows and all(row.is_good for row in rows) else 1


async def measured(name: str, seconds: float) -> Row:
    limits = {"limits": {"connections": WEBSOCKETS + 50}} if name == "accept_queue" else {}
    async with Origin() as origin:
        config = site(
            route("app", "app"),
            route("own", respond="echo"),
            listeners={"edge": {"bind": LOOPBACK, **limits}},
            upstreams={"app": origin.url},
        )
        async with running(config) as gateway, echoing(gateway) as peers:
            await timed(peers, 2)
            alone = await timed(peers, seconds)
            async with attack(name, gateway, seconds) as notes:
                during = await timed(peers, seconds)
            lost = [await is_alive(peer) for peer in peers].count(False)
            await until(lambda: gateway.metrics().value("tidegate_connections") <= len(peers), limit=60)
            notes.append(await asyncio.to_thread(counted, gateway))
    return Row(name, p99(alone), p99(during), lost, "; ".join(notes))


def counted(gateway: Gateway) -> str:
    metrics = gateway.metrics()
    refused = len(gateway.access_log().matching(event="refusal"))
    paused = metrics.value("tidegate_accept_paused_total")
    accepted = metrics.value("tidegate_connections_accepted_total")
    panics = f", {metrics.value('tidegate_panics_total'):.0f} panics" if metrics.value("tidegate_panics_total") else ""
    return f"{accepted:.0f} accepted, {refused} refused, accepting paused {paused:.0f} times{panics}"


@contextlib.asynccontextmanager
async def echoing(gateway: Gateway) -> AsyncIterator[list[Peer]]:
    async with contextlib.AsyncExitStack() as stack:
        yield [
            await stack.enter_async_context(open_peer(gateway.port(), f"/app/live/{number}"))
            for number in range(WEBSOCKETS)
        ]


async def timed(peers: Sequence[Peer], seconds: float) -> list[float]:
    """How long each echo took. They are spread over the pace, so that they do not wait for each other."""
    times: list[float] = []
    end = time.monotonic() + seconds

    async def one(number: int, peer: Peer) -> None:
        await asyncio.sleep(PACE * number / len(peers))
        while time.monotonic() < end:
            began = time.perf_counter()
            await echoes(peer, b"tide" * 32)
            times.append(time.perf_counter() - began)
            await asyncio.sleep(PACE)

    await asyncio.gather(*(one(number, peer) for number, peer in enumerate(peers)))
    return times


async def is_alive(peer: Peer) -> bool:
    try:
        await echoes(peer)
    except (OSError, AssertionError, asyncio.IncompleteReadError):
        return False
    return True


def p99(times: Sequence[float]) -> float:
    return sorted(times)[len(times) * 99 // 100]


@contextlib.asynccontextmanager
async def attack(name: str, gateway: Gateway, seconds: float) -> AsyncIterator[list[str]]:
    """Goes on until the end of the block; the list has what the attackers said of it then."""
    if name in TOOL:
        url = gateway.url(path="/app/big?size=1048576")
        commands = [["slowhttptest", *TOOL[name], "-l", str(int(seconds)), "-v", "1", "-u", url]]
    else:
        kind = "half_open" if name == "accept_queue" else name
        count = 6_000 if name == "accept_queue" else OWN[name]
        program = [sys.executable, "-m", "tests.attacks.crowd", kind, str(gateway.port())]
        commands = [[*program, str(count // PROCESSES)] for _ in range(PROCESSES)]
    notes: list[str] = []
    pipe = asyncio.subprocess.PIPE
    processes = [await asyncio.create_subprocess_exec(*each, stdin=pipe, stdout=pipe) for each in commands]
    try:
        yield notes
        outputs = [(await process.communicate(b""))[0] for process in processes]
    finally:
        for process in processes:
            if process.returncode is None:
                process.kill()
                await process.wait()
    if name not in TOOL:
        notes.append(summed(outputs))


def summed(outputs: Sequence[bytes]) -> str:
    reports = [json.loads(line) for output in outputs for line in output.splitlines()]
    opened, ended = (sum(report.get(key, 0) for report in reports) for key in ("opened", "ended"))
    answers: dict[str, int] = {}
    for report in reports:
        for status, count in report.get("answers", {}).items():
            answers[status] = answers.get(status, 0) + count
    told = ", ".join(f"{count} × {status}" for status, count in sorted(answers.items()))
    return f"{opened} connected, {ended} ended by the gateway" + (f" ({told})" if told else "")


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
