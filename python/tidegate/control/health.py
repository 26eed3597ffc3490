"""Checks the health of endpoints: when, how often, and what follows; the engine dials and asks.

There is one task for each endpoint with checks. It asks the engine for a *probe* and goes to sleep until the verdict is
there; one thread waits for the verdicts of all. What is known of an endpoint changes like this:

```text
              the first one is good              `unhealthy` failures in a row
   unknown ─────────────────────────▶ healthy ─────────────────────────────────▶ unhealthy
      │                                  ▲                                        ▲  │
      │                                  └─────── `healthy` good ones in a row ───┼──┘
      └──────────────────────────── the first one fails ──────────────────────────┘
```

As long as it is unknown, the engine takes an endpoint for healthy. What is known stays over a reload that leaves the
endpoint and what it is asked alone.
"""

import asyncio
import json
import logging
import random
import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from tidegate.telemetry import Registry, event

__all__ = ["Health", "HealthChecks", "Prober", "Schedule"]

log = logging.getLogger(__name__)

Endpoint = Mapping[str, Any]

SPREAD = 0.002
"""Seconds between two first checks, on average, so that many endpoints are not dialled at one moment."""

GRACE = 5.0
"""Seconds beyond its own time limit after which a check is given up that the engine says nothing of."""


class Prober(Protocol):
    """The part of the engine that checks."""

    def probe(self, number: int, upstream: str, endpoint: str, /) -> None: ...
    def verdicts(self, timeout: float, /) -> list[tuple[int, str | None]]: ...
    def set_health(self, upstream: str, found: str, /) -> None: ...


@dataclass(frozen=True, slots=True)
class Schedule:
    """When an endpoint is checked, in seconds, and how many checks decide."""

    every: float
    jitter: float
    timeout: float
    healthy: int
    unhealthy: int

    @classmethod
    def of(cls, health: Mapping[str, Any]) -> "Schedule":
        """As a snapshot has it."""
        timing = health["schedule"]
        return cls(
            timing["every"] / 1000,
            timing["jitter"] / 100,
            health["timeout"] / 1000,
            timing["healthy"],
            timing["unhealthy"],
        )

    def pause(self) -> float:
        """The time from the beginning of a check to that of the next."""
        return self.every * random.uniform(1 - self.jitter, 1 + self.jitter)


@dataclass(slots=True)
class Health:
    """What is known of an endpoint. None: nothing."""

    healthy: bool | None = None
    against: int = 0
    """Verdicts in a row that say something else."""

    def take(self, passed: bool, schedule: Schedule) -> bool:
        """A verdict has come; whether the endpoint turns by it."""
        if passed == self.healthy:
            self.against = 0
            return False
        self.against += 1
        needed = 1 if self.healthy is None else schedule.healthy if passed else schedule.unhealthy
        if self.against < needed:
            return False
        self.healthy, self.against = passed, 0
        return True


@dataclass(slots=True)
class Checked:
    """An endpoint that is checked."""

    upstream: str
    endpoint: Endpoint
    question: object
    """What it is asked: other questions have other answers."""
    schedule: Schedule
    health: Health = field(default_factory=Health)
    decided: asyncio.Event = field(default_factory=asyncio.Event)
    task: "asyncio.Task[None] | None" = None

    @property
    def address(self) -> str:
        target = self.endpoint["target"]
        if "unix" in target:
            return f"unix:{target['unix']}"
        address, port = target["tcp"]
        return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


Key = tuple[str, str]
"""An upstream's name and what makes an endpoint of it the same one."""


class HealthChecks:
    """Checks the endpoints that it is told of. Lives on one event loop, and has a thread once there is a check."""

    WAIT = 0.25

    def __init__(self, prober: Prober, registry: Registry) -> None:
        self._prober = prober
        self._registry = registry
        self._rules: dict[str, Mapping[str, Any]] = {}
        self._checked: dict[Key, Checked] = {}
        self._asked: dict[int, asyncio.Future[str | None]] = {}
        self._number = 0
        self._stopping = threading.Event()
        self._reader: threading.Thread | None = None

    def prepare(self, snapshot: Mapping[str, Any]) -> list[str]:
        """Begin to check the upstreams of `snapshot` that are new, before they serve; returns their names."""
        upstreams = {upstream["name"]: upstream for upstream in snapshot["upstreams"]}
        fresh = [name for name, upstream in upstreams.items() if upstream["health"] and name not in self._rules]
        for name in fresh:
            self._rules[name] = upstreams[name]["health"]
            self.endpoints_are(name, upstreams[name]["endpoints"])
        return fresh

    def give_up(self, upstreams: Iterable[str]) -> None:
        """Upstreams that `prepare` named will not serve."""
        for name in upstreams:
            self._rules.pop(name, None)
            for key in [key for key in self._checked if key[0] == name]:
                self._forget(key)

    def follow(self, snapshot: Mapping[str, Any]) -> None:
        """From now on check the endpoints of `snapshot`, which the engine serves: names are resolved in it."""
        upstreams = {upstream["name"]: upstream for upstream in snapshot["upstreams"]}
        self._rules = {name: upstream["health"] for name, upstream in upstreams.items() if upstream["health"]}
        for key in [key for key in self._checked if key[0] not in self._rules]:
            self._forget(key)
        for name in self._rules:
            self.endpoints_are(name, upstreams[name]["endpoints"])

    def endpoints_are(self, upstream: str, endpoints: Iterable[Endpoint]) -> None:
        """The upstream has these endpoints now."""
        rules = self._rules.get(upstream)
        if rules is None:
            return
        wanted = {_key(upstream, endpoint): endpoint for endpoint in endpoints if "name" not in endpoint["target"]}
        for key in [key for key in self._checked if key[0] == upstream and key not in wanted]:
            self._forget(key)
        question, schedule = (rules["check"], rules["port"]), Schedule.of(rules)
        for key, endpoint in wanted.items():
            self._keep(key, Checked(upstream, endpoint, question, schedule))
        self._tell(self._checked[key] for key in wanted)

    async def first_verdicts(self, upstreams: Iterable[str]) -> None:
        """Return when something is known of every endpoint that these upstreams have now, if they have checks."""
        names = set(upstreams)
        undecided = [checked.decided.wait() for key, checked in self._checked.items() if key[0] in names]
        await asyncio.gather(*undecided)

    async def stop(self) -> None:
        tasks = [checked.task for checked in self._checked.values() if checked.task]
        for key in list(self._checked):
            self._forget(key)
        await asyncio.gather(*tasks, return_exceptions=True)
        self._stopping.set()
        if self._reader:
            await asyncio.to_thread(self._reader.join)

    def _keep(self, key: Key, wanted: Checked) -> None:
        """Check an endpoint, or go on to, with what is known of it."""
        old = self._checked.get(key)
        if old and (old.question, old.schedule) == (wanted.question, wanted.schedule):
            old.endpoint = wanted.endpoint
            return
        if old and old.question == wanted.question:
            wanted.health, wanted.decided = old.health, old.decided
        self._forget(key)
        self._checked[key] = wanted
        wanted.task = asyncio.create_task(self._check(wanted))

    def _forget(self, key: Key) -> None:
        checked = self._checked.pop(key, None)
        if checked and checked.task:
            checked.task.cancel()
            # Nobody waits for what will never be.
            checked.decided.set()

    async def _check(self, checked: Checked) -> None:
        schedule = checked.schedule
        await asyncio.sleep(random.uniform(0, min(schedule.every, SPREAD * len(self._checked))))
        loop = asyncio.get_running_loop()
        while True:
            began, pause = loop.time(), schedule.pause()
            self._take(checked, await self._probe(checked))
            await asyncio.sleep(max(0.0, began + pause - loop.time()))

    async def _probe(self, checked: Checked) -> str | None:
        """Why a check of the endpoint fails; None for a good one."""
        self._read_verdicts()
        self._number += 1
        number = self._number
        answer = self._asked[number] = asyncio.get_running_loop().create_future()
        try:
            self._prober.probe(number, checked.upstream, json.dumps(checked.endpoint))
            return await asyncio.wait_for(answer, checked.schedule.timeout + GRACE)
        except TimeoutError:
            return "the engine has not said what came of it"
        finally:
            self._asked.pop(number, None)

    def _take(self, checked: Checked, failure: str | None) -> None:
        result = "success" if failure is None else "failure"
        self._registry.count("tidegate_health_checks_total", upstream=checked.upstream, result=result)
        before = checked.health.healthy
        if checked.health.take(failure is None, checked.schedule):
            self._tell([checked])
            self._log(checked, before, failure)
        checked.decided.set()

    def _tell(self, checked: Iterable[Checked]) -> None:
        found: dict[str, list[dict[str, Any]]] = {}
        for each in checked:
            found.setdefault(each.upstream, []).append({"endpoint": each.endpoint, "healthy": each.health.healthy})
        for upstream, some in found.items():
            self._prober.set_health(upstream, json.dumps(some))

    def _log(self, checked: Checked, before: bool | None, failure: str | None) -> None:
        where = {"upstream": checked.upstream, "endpoint": checked.address}
        if failure is not None:
            message = f"{checked.address} of the upstream {checked.upstream} is unhealthy: {failure}"
            event(log, logging.WARNING, "endpoint_unhealthy", message, **where, why=failure)
        elif before is False:
            message = f"{checked.address} of the upstream {checked.upstream} is healthy again"
            event(log, logging.INFO, "endpoint_healthy", message, **where)

    # Verdicts, from the engine.

    def _read_verdicts(self) -> None:
        if self._reader is None:
            loop = asyncio.get_running_loop()
            self._reader = threading.Thread(target=self._read, args=(loop,), name="verdicts", daemon=True)
            self._reader.start()

    def _read(self, loop: asyncio.AbstractEventLoop) -> None:
        while not self._stopping.is_set():
            if verdicts := self._prober.verdicts(self.WAIT):
                try:
                    loop.call_soon_threadsafe(self._arrived, verdicts)
                except RuntimeError:  # the loop has ended, and with it all who wait
                    return

    def _arrived(self, verdicts: Iterable[tuple[int, str | None]]) -> None:
        for number, failure in verdicts:
            answer = self._asked.get(number)
            if answer and not answer.done():
                answer.set_result(failure)


def _key(upstream: str, endpoint: Endpoint) -> Key:
    return upstream, json.dumps([endpoint["name"], endpoint["target"], endpoint["tls"]])
