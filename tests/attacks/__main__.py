"""`make attacks`: slow clients by the thousand, while WebSockets echo through the same gateway at an even pace.

For each attack the echoes are timed in rounds: alone, while it goes on against a decoy (a second gateway that nobody
else uses), and while it goes on against the gateway itself. Ends with 0 when no WebSocket was lost and each p99, the
median of the rounds, stayed within 20 % of the one beside the decoy, or within 50 µs of it: where an echo takes 100 µs,
that is what one interrupt makes of it.

The decoy is there because the machine may have two cores only. The gateway has one of its own; the probe, its upstream,
the attackers and the decoy share the other. Probe and upstream go before everything there, where this may be asked for,
and the rest gives way to everything, but a system call that has begun is not interrupted, and thousands of sockets make
long ones. What that costs an echo is the same whoever is attacked, so that the difference is the gateway's doing. No
core ever sleeps meanwhile: how soon a virtual machine gets a sleeping one back is the host's affair, and takes
milliseconds. With slowhttptest on the path, its four attacks come as well.
"""

import argparse
import asyncio
import contextlib
import json
import os
import shutil
import sys
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from tests.e2e.kit.peers import running
from tests.e2e.kit.sites import LOOPBACK, Config, route, site, until
from tidegate.testing import Gateway

ALLOWED, NOISE = 1.20, 50.0
WEBSOCKETS, RATE = 40, 400
"""How many echo, and how many echoes there are a second, over all of them."""

OWN = {"half_open": 20_000, "slow_headers": 1_000, "slow_body": 1_000, "slow_read": 200, "ranges": 200}
TOOL = {
    "slowhttptest -H": ("-H", "-c", "1000", "-r", "500", "-i", "2", "-p", "3"),
    "slowhttptest -B": ("-B", "-c", "1000", "-r", "500", "-i", "2", "-p", "3"),
    "slowhttptest -R": ("-R", "-c", "500", "-r", "200", "-p", "3"),
    "slowhttptest -X": ("-X", "-c", "500", "-r", "200", "-w", "512", "-y", "1024", "-n", "2", "-z", "32", "-p", "3"),
}
PROCESSES = 4
"""That an attack of ours is split into: each process may have so many files only."""
ARRIVALS = 2_000
"""Connections of an attack that come in a second, over all processes."""
GOES_FIRST, GIVES_WAY = os.SCHED_FIFO, os.SCHED_IDLE
LOAD = Path(__file__).resolve().parents[2] / "target" / "release" / "tidegate-load"


@dataclass(frozen=True, slots=True)
class Row:
    attack: str
    alone: float
    decoy: float
    during: float
    lost: int
    note: str

    @property
    def is_good(self) -> bool:
        return self.lost == 0 and self.during <= max(self.decoy * ALLOWED, self.decoy + NOISE)

    def __str__(self) -> str:
        beside = f"{self.during:.0f} ({self.during / self.decoy:.2f})" + ("" if self.is_good else " **too slow**")
        return f"| {self.attack} | {self.alone:.0f} | {self.decoy:.0f} | {beside} | {self.lost} | {self.note} |"


async def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.attacks", description=__doc__)
    parser.add_argument("--seconds", type=float, default=20, help="for each measurement (%(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="of measurements, whose median counts (%(default)s)")
    parser.add_argument("--only", default="", help="attacks whose names have this in them")
    arguments = parser.parse_args()
    has_tool = shutil.which("slowhttptest") is not None
    names = [*OWN, "accept_queue", *(TOOL if has_tool else ())]
    if not has_tool:
        print("slowhttptest is not installed (apt-get install slowhttptest): our own attacks only", file=sys.stderr)
    print("| attack | p99 alone, µs | beside a decoy | under attack | lost | what became of it |")
    print("|---|---|---|---|---|---|", flush=True)
    rows = []
    with awake():
        for name in names:
            if arguments.only in name:
                rows.append(await measured(name, arguments.rounds, arguments.seconds))
                print(rows[-1], flush=True)
    return 0 if rows and all(row.is_good for row in rows) else 1


async def measured(name: str, rounds: int, seconds: float) -> Row:
    limits = {"limits": {"connections": WEBSOCKETS + 50}} if name == "accept_queue" else {}
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, cores[:1])
    target = (sys.executable, "-m", "tests.attacks.target")
    async with (
        serving(*target, policy=GIVES_WAY) as app,
        serving(LOAD, "serve", policy=GOES_FIRST) as live,
    ):
        config = site(
            route("app", "app"),
            route("live", "live"),
            listeners={"edge": {"bind": LOOPBACK, **limits}},
            upstreams={"app": f"http://127.0.0.1:{app}", "live": f"http://127.0.0.1:{live}"},
            workers=1,
        )
        async with running(config) as decoy, alone_on(cores[-1], config) as gateway:
            for thread in threads(decoy):
                os.sched_setscheduler(thread, GIVES_WAY, os.sched_param(0))
            async with Probe.started(gateway.port()) as probe:
                await probe.p99(2)
                taken = [await one_round(name, probe, decoy, gateway, seconds) for _ in range(rounds)]
                lost = await probe.lost()
                notes = [*taken[-1].notes, await asyncio.to_thread(counted, gateway)]
    os.sched_setaffinity(0, cores)
    alone, beside, during = (median(getattr(each, of) for each in taken) for of in ("alone", "beside", "during"))
    return Row(name, alone, beside, during, lost, "; ".join(notes))


@dataclass(frozen=True, slots=True)
class Round:
    """What the echoes took, at p99 and in µs, and what the attackers said."""

    alone: float
    beside: float
    during: float
    notes: Sequence[str]


async def one_round(name: str, probe: "Probe", decoy: Gateway, gateway: Gateway, seconds: float) -> Round:
    alone = await probe.p99(seconds)
    async with attack(name, decoy, seconds):
        beside = await probe.p99(seconds)
    await emptied(decoy, 0)
    async with attack(name, gateway, seconds) as notes:
        during = await probe.p99(seconds)
    await emptied(gateway, WEBSOCKETS)
    return Round(alone, beside, during, notes)


@contextlib.asynccontextmanager
async def alone_on(core: int, config: Config) -> AsyncIterator[Gateway]:
    """A gateway that has this core, which nobody else has."""
    async with running(config) as gateway:
        for thread in threads(gateway):
            os.sched_setaffinity(thread, {core})
        yield gateway


def threads(gateway: Gateway) -> list[int]:
    return [int(thread) for thread in os.listdir(f"/proc/{gateway.pid}/task")]


async def emptied(gateway: Gateway, live: int) -> None:
    """Returns when it has no more connections than those `live` ones."""
    await until(lambda: gateway.metrics().value("tidegate_connections") <= live, limit=60)


@contextlib.asynccontextmanager
async def program(*command: str | Path, policy: int = os.SCHED_OTHER) -> AsyncIterator[asyncio.subprocess.Process]:
    """With `GIVES_WAY` it runs only while nobody else wants its core; a low priority would let it finish its turn."""
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(*command, stdin=pipe, stdout=pipe)
    with contextlib.suppress(PermissionError):
        os.sched_setscheduler(process.pid, policy, os.sched_param(1 if policy == GOES_FIRST else 0))
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


@contextlib.contextmanager
def awake() -> Iterator[None]:
    """Keeps the cores from sleeping, where this may be asked for."""
    with contextlib.ExitStack() as stack:
        with contextlib.suppress(OSError):
            latency = stack.enter_context(open("/dev/cpu_dma_latency", "wb", buffering=0))
            latency.write(bytes(4))
        yield


async def told(process: asyncio.subprocess.Process) -> dict[str, float]:
    """The next line of what it says."""
    assert process.stdout
    line: dict[str, float] = json.loads(await process.stdout.readline() or "{}")
    return line


@contextlib.asynccontextmanager
async def serving(*command: str | Path, policy: int) -> AsyncIterator[int]:
    """The port of a server."""
    async with program(*command, policy=policy) as process:
        yield int((await told(process))["port"])


@dataclass(frozen=True, slots=True)
class Probe:
    """WebSockets that echo at an even pace."""

    process: asyncio.subprocess.Process

    @classmethod
    @contextlib.asynccontextmanager
    async def started(cls, port: int) -> AsyncIterator["Probe"]:
        options = ("--connections", str(WEBSOCKETS), "--rate", str(RATE), "--path", "/live")
        command = (LOAD, "probe", "--target", f"127.0.0.1:{port}", *options)
        async with program(*command, policy=GOES_FIRST) as process:
            await told(process)
            yield cls(process)

    async def p99(self, seconds: float) -> float:
        """Of the echoes of the next `seconds`, in µs; none when a WebSocket was lost."""
        assert self.process.stdin
        self.process.stdin.write(f"{seconds}\n".encode())
        return (await told(self.process)).get("p99_us", float("nan"))

    async def lost(self) -> int:
        """Asks each of the WebSockets once more."""
        await self.process.communicate(b"")
        return 0 if self.process.returncode == 0 else 1


def counted(gateway: Gateway) -> str:
    metrics = gateway.metrics()
    refused = len(gateway.access_log().matching(event="refusal"))
    paused = metrics.value("tidegate_accept_paused_total")
    accepted = metrics.value("tidegate_connections_accepted_total")
    panics = f", {metrics.value('tidegate_panics_total'):.0f} panics" if metrics.value("tidegate_panics_total") else ""
    return f"{accepted:.0f} accepted, {refused} refused, accepting paused {paused:.0f} times{panics}"


@contextlib.asynccontextmanager
async def attack(name: str, gateway: Gateway, seconds: float) -> AsyncIterator[list[str]]:
    """Goes on until the end of the block; the list has what the attackers said of it then."""
    if name in TOOL:
        url = gateway.url(path="/app/big?size=1048576")
        commands = [["slowhttptest", *TOOL[name], "-l", str(int(seconds)), "-v", "1", "-u", url]]
    else:
        kind = "half_open" if name == "accept_queue" else name
        count = 6_000 if name == "accept_queue" else OWN[name]
        crowd = [sys.executable, "-m", "tests.attacks.crowd", kind, str(gateway.port())]
        commands = [[*crowd, str(count // PROCESSES), str(ARRIVALS / PROCESSES)] for _ in range(PROCESSES)]
    notes: list[str] = []
    async with contextlib.AsyncExitStack() as stack:
        processes = [await stack.enter_async_context(program(*each, policy=GIVES_WAY)) for each in commands]
        yield notes
        outputs = [(await process.communicate(b""))[0] for process in processes]
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
