"""A soak: mixed load, reloads and dying endpoints for as long as wanted, and then the books must balance.

First a tenth of the time goes by, and all clients leave: what the process holds then is what it holds for good. The
rest of the time must not add to it.
"""

import asyncio
import contextlib
import random
import tempfile
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.e2e.kit.origin import Origin
from tests.e2e.kit.peers import running
from tests.e2e.kit.processes import close_wait, open_files, resident_kib
from tests.e2e.kit.sites import LOOPBACK, Config, route, site, until
from tests.soak.accounts import Log, discrepancies
from tests.soak.actors import Tally, acted
from tidegate.testing import Gateway

__all__ = ["Outcome", "soaked"]

ORIGINS = 3
CLIENTS = 60
SETTLED = 60.0
"""Seconds until everything has ended after the last client left: an unanswered Close is waited for 30 s."""
ALLOWED, SLACK = 1.10, 8 << 10
"""What memory may grow by: a tenth, and 8 MiB, since the allocator takes it in large steps."""


@dataclass(slots=True)
class Outcome:
    seconds: float = 0
    figures: dict[str, object] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)


@dataclass(slots=True)
class Soak:
    gateway: Gateway
    origins: Sequence[Origin]
    log: Path
    chance: random.Random
    tally: Tally = field(default_factory=Tally)
    reloads: int = 0
    deaths: int = 0

    async def under_load(self, seconds: float) -> None:
        """All kinds of load at once; returns when the last client has left."""
        end = time.monotonic() + seconds
        clients = [self._client(end, self.chance.randrange(1 << 30)) for _ in range(CLIENTS)]
        async with asyncio.TaskGroup() as group:
            for each in (*clients, self._reloader(end), self._reaper(end)):
                group.create_task(each)

    async def _client(self, end: float, seed: int) -> None:
        chance, port = random.Random(seed), self.gateway.port()
        while time.monotonic() < end:
            await acted(port, chance, self.tally)

    async def _reloader(self, end: float) -> None:
        while time.monotonic() < end:
            self.reloads += 1
            urls = [each.url for each in self.origins]
            await asyncio.to_thread(self.gateway.reload, config(self.log, urls, turn=self.reloads))
            await asyncio.sleep(self.chance.uniform(0.5, 2))

    async def _reaper(self, end: float) -> None:
        """Endpoints die, one at a time, and come back."""
        while time.monotonic() < end:
            await asyncio.sleep(self.chance.uniform(1, 3))
            victim = self.chance.choice(self.origins)
            await victim.die()
            self.deaths += 1
            await asyncio.sleep(self.chance.uniform(0.1, 0.5))
            await victim.rise()

    async def settled(self) -> None:
        """Nobody is connected, neither before nor behind the gateway: it forgets endpoints that it no longer has."""
        await asyncio.to_thread(self.gateway.reload, config(self.log, []))
        gone = ("tidegate_connections", "tidegate_websocket_connections")
        with contextlib.suppress(TimeoutError):
            await until(lambda: not any(self.gateway.metrics().value(name) for name in gone), SETTLED)
            await until(lambda: not any(each.live for each in self.origins), SETTLED)
            await until(lambda: self.gateway.metrics().value("tidegate_endpoint_connections") == 0, SETTLED)


def config(log: Path, urls: Sequence[str], turn: int = 0) -> Config:
    """Another one each turn, around the routes in use. Without endpoints, those routes answer for themselves."""
    app: Mapping[str, object] = {"to": "app"} if urls else {"respond": {"body": "closed"}}
    others = [route(f"other{number}", respond={"body": f"turn {turn}"}) for number in range(turn % 5)]
    rotated = [*urls[turn % ORIGINS :], *urls[: turn % ORIGINS]]
    return site(
        *others,
        route("app", **app),
        route("own", respond={"body": f"turn {turn}"}),
        listeners={"edge": {"bind": LOOPBACK, "timeouts": {"head": "5s"}}},
        upstreams={"app": rotated} if urls else None,
        access_log={"path": str(log), "format": "json"},
    )


@contextlib.asynccontextmanager
async def scene(seed: int) -> AsyncIterator[Soak]:
    async with contextlib.AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="tidegate-soak-")))
        origins = [await stack.enter_async_context(Origin()) for _ in range(ORIGINS)]
        log = folder / "access.log"
        gateway = await stack.enter_async_context(running(config(log, [each.url for each in origins])))
        yield Soak(gateway, origins, log, random.Random(seed))


async def soaked(seconds: float, seed: int) -> Outcome:
    """Everything, and what came of it."""
    outcome, began = Outcome(), time.monotonic()
    async with scene(seed) as soak:
        await soak.under_load(seconds / 10)
        await soak.settled()
        pid = soak.gateway.pid
        memory, files = resident_kib(pid), len(open_files(pid))
        await soak.under_load(seconds * 9 / 10)
        await soak.settled()
        after = resident_kib(pid), len(open_files(pid))
        outcome.faults = list(await asyncio.to_thread(found, soak, (memory, files), after))
        outcome.figures = figures(soak, (memory, files), after)
    outcome.seconds = time.monotonic() - began
    return outcome


Held = tuple[int, int]
"""KiB of memory, and descriptors."""


def found(soak: Soak, before: Held, after: Held) -> list[str]:
    served = set().union(*(each.websockets for each in soak.origins))
    metrics = soak.gateway.metrics()
    with soak.log.open() as lines:
        log = Log.read(lines)
    faults = list(discrepancies(log, metrics, soak.tally, served))
    if after[0] > before[0] * ALLOWED + SLACK:
        faults.append(f"{before[0]} KiB have become {after[0]} KiB")
    if after[1] > before[1]:
        faults.append(
            f"{before[1]} descriptors have become {after[1]}: {sorted(open_files(soak.gateway.pid).values())}"
        )
    faults += [f"in CLOSE_WAIT: {each}" for each in close_wait(soak.gateway.pid)]
    faults += [f"a server still has {each.live} connections" for each in soak.origins if each.live]
    return faults


def figures(soak: Soak, before: Held, after: Held) -> dict[str, object]:
    with soak.log.open() as lines:
        log = Log.read(lines)
    tally = soak.tally
    return {
        "connections": tally.connects,
        "acts": dict(sorted(tally.acts.items())),
        "answers": dict(sorted(tally.answers.items())),
        "records": dict(sorted(log.events.items())),
        "causes": dict(sorted(log.causes.items())),
        "messages": f"{log.sums['messages_in']} in, {log.sums['messages_out']} out",
        "MiB": f"{log.sums['bytes_in'] >> 20} in, {log.sums['bytes_out'] >> 20} out",
        "reloads, deaths": f"{soak.reloads}, {soak.deaths}",
        "memory": f"{before[0]} KiB after the warm-up, {after[0]} KiB at the end",
        "descriptors": f"{before[1]} after the warm-up, {after[1]} at the end",
        "what clients met": dict(sorted(tally.troubles.items())),
    }
