"""When endpoints are checked, and what follows from what comes of it."""

import asyncio
import json
import queue
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tidegate.control import health
from tidegate.control.health import Health, HealthChecks, Schedule
from tidegate.telemetry import Registry, render

SCHEDULE = Schedule(every=1, jitter=0, timeout=1, healthy=2, unhealthy=3)


def turns(verdicts: str, schedule: Schedule = SCHEDULE) -> str:
    """What an endpoint is after each verdict: `+` and `-`."""
    known, found = Health(), ""
    for verdict in verdicts:
        before = known.healthy
        assert known.take(verdict == "+", schedule) == (known.healthy != before)
        found += "+" if known.healthy else "-"
    return found


@pytest.mark.parametrize(
    ("verdicts", "found"),
    [
        ("+", "+"),
        ("-", "-"),
        ("+--+--+---", "+++++++++-"),
        ("-+-+-++", "------+"),
        ("+---++---++", "+++--+++--+"),
        ("-++--+---+", "--++++++--"),
    ],
)
def test_so_many_in_a_row_decide(verdicts: str, found: str) -> None:
    assert turns(verdicts) == found


def test_pauses_are_about_the_time_that_is_said() -> None:
    exact = Schedule(every=5, jitter=0, timeout=1, healthy=1, unhealthy=1)
    assert exact.pause() == 5
    loose = Schedule(every=5, jitter=0.2, timeout=1, healthy=1, unhealthy=1)
    pauses = [loose.pause() for _ in range(1000)]
    assert 4 <= min(pauses) < 4.1 and 5.9 < max(pauses) <= 6


class Prober:
    """An engine that answers at once, as `answers` says by address; without an answer it says nothing."""

    def __init__(self) -> None:
        self.answers: dict[str, str | None] = {}
        self.probed: list[str] = []
        self.found: list[tuple[str, dict[str, bool | None]]] = []
        self._verdicts: queue.Queue[tuple[int, str | None]] = queue.Queue()

    def probe(self, number: int, upstream: str, endpoint: str) -> None:
        name = json.loads(endpoint)["name"]
        self.probed.append(name)
        if name in self.answers:
            self._verdicts.put((number, self.answers[name]))

    def verdicts(self, timeout: float) -> list[tuple[int, str | None]]:
        try:
            return [self._verdicts.get(timeout=timeout)]
        except queue.Empty:
            return []

    def set_health(self, upstream: str, found: str) -> None:
        self.found.append((upstream, {each["endpoint"]["name"]: each["healthy"] for each in json.loads(found)}))


def endpoint(name: str) -> dict[str, Any]:
    return {"name": name, "host": name, "target": {"unix": f"/{name}"}, "weight": 1, "tls": None}


def rules(every: int = 10, check: object = "tcp") -> dict[str, Any]:
    schedule = {"every": every, "jitter": 0, "healthy": 2, "unhealthy": 2}
    return {"check": check, "port": None, "timeout": 1000, "schedule": schedule, "panic": 50}


def snapshot(*names: str, health: dict[str, Any] | None) -> dict[str, Any]:
    return {"upstreams": [{"name": "up", "endpoints": [endpoint(name) for name in names], "health": health}]}


@pytest.fixture
def prober() -> Prober:
    return Prober()


@pytest.fixture
def registry() -> Registry:
    return Registry()


@pytest.fixture
async def checks(prober: Prober, registry: Registry) -> AsyncIterator[HealthChecks]:
    checks = HealthChecks(prober, registry)
    yield checks
    await checks.stop()


async def eventually(test: Any) -> None:
    async with asyncio.timeout(10):
        while not test():
            await asyncio.sleep(0.001)


async def test_what_turns_is_told(checks: HealthChecks, prober: Prober, registry: Registry) -> None:
    prober.answers = {"a": None, "b": "HTTP 503"}
    checks.follow(snapshot("a", "b", health=rules()))
    assert prober.found == [("up", {"a": None, "b": None})]
    await eventually(lambda: len(prober.found) == 3)
    assert sorted(prober.found[1:], key=str) == [("up", {"a": True}), ("up", {"b": False})]
    prober.answers = {"a": "no pong", "b": "HTTP 503"}
    await eventually(lambda: prober.found[-1] == ("up", {"a": False}))
    prober.answers["a"] = None
    await eventually(lambda: prober.found[-1] == ("up", {"a": True}))
    counted = render(registry.families())
    assert 'tidegate_health_checks_total{upstream="up",result="success"}' in counted
    assert 'tidegate_health_checks_total{upstream="up",result="failure"}' in counted


async def test_what_is_known_stays_until_something_else_is_asked(checks: HealthChecks, prober: Prober) -> None:
    prober.answers = {"a": "HTTP 503"}
    checks.follow(snapshot("a", health=rules(every=3_600_000)))
    await checks.first_verdicts(["up"])
    prober.answers.clear()
    checks.follow(snapshot("a", "b", health=rules(every=3_600_000)))
    assert prober.found[-1] == ("up", {"a": False, "b": None})
    checks.follow(snapshot("a", health=rules(every=1_800_000)))
    assert prober.found[-1] == ("up", {"a": False})
    checks.follow(snapshot("a", health=rules(every=1_800_000, check={"grpc": {}})))
    assert prober.found[-1] == ("up", {"a": None})


async def test_endpoints_come_and_go(checks: HealthChecks, prober: Prober) -> None:
    prober.answers = {"a": None, "b": None, "c": None}
    checks.follow(snapshot("a", "b", health=rules()))
    await eventually(lambda: {"a", "b"} <= set(prober.probed))
    checks.endpoints_are("up", [endpoint("b"), endpoint("c")])
    checks.endpoints_are("other", [endpoint("d")])
    await asyncio.sleep(0)
    prober.probed.clear()
    await eventually(lambda: prober.probed.count("c") > 3)
    assert set(prober.probed) == {"b", "c"}
    checks.follow(snapshot("b", "c", health=None))
    await asyncio.sleep(0)
    prober.probed.clear()
    checks.endpoints_are("up", [endpoint("a")])
    await checks.first_verdicts(["up"])
    assert prober.probed == [], "nobody is waited for, as nobody is checked"


async def test_names_without_an_address_are_not_checked(checks: HealthChecks, prober: Prober) -> None:
    prober.answers = {"a": None}
    unknown = {**endpoint("x"), "target": {"name": ["x", 80]}}
    checks.follow({"upstreams": [{"name": "up", "endpoints": [endpoint("a"), unknown], "health": rules()}]})
    await checks.first_verdicts(["up"])
    assert set(prober.probed) == {"a"}


async def test_first_verdicts_are_waited_for(checks: HealthChecks, prober: Prober) -> None:
    prober.answers = {"a": None}
    checks.follow(snapshot("a", "b", health=rules(every=3_600_000)))
    waiting = asyncio.create_task(checks.first_verdicts(["up"]))
    await eventually(lambda: ("up", {"a": True}) in prober.found)
    await checks.first_verdicts(["none"])
    assert not waiting.done()
    checks.endpoints_are("up", [endpoint("a")])
    await asyncio.wait_for(waiting, 10)


async def test_an_engine_that_says_nothing_is_no_endpoint_that_is_well(
    checks: HealthChecks, prober: Prober, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(health, "GRACE", -0.95)
    checks.follow(snapshot("a", health=rules()))
    await asyncio.wait_for(checks.first_verdicts(["up"]), 10)
    assert prober.found[-1] == ("up", {"a": False})


async def test_what_is_prepared_is_checked_before_it_is_followed(checks: HealthChecks, prober: Prober) -> None:
    prober.answers = {"a": "HTTP 503"}
    wanted = snapshot("a", health=rules(every=60_000))
    assert checks.prepare(wanted) == ["up"]
    async with asyncio.timeout(10):
        await checks.first_verdicts(["up"])
    assert prober.found[-1] == ("up", {"a": False})
    checks.follow(wanted)
    assert prober.found[-1] == ("up", {"a": False}), "it is known from the first moment on"
    assert prober.probed == ["a"] and checks.prepare(wanted) == []


async def test_what_was_given_up_is_not_checked_any_more(checks: HealthChecks, prober: Prober) -> None:
    fresh = checks.prepare(snapshot("a", health=rules()))
    await eventually(lambda: prober.probed == ["a"])
    checks.give_up(fresh)
    async with asyncio.timeout(10):
        await checks.first_verdicts(fresh)
    assert checks.prepare(snapshot("a", health=rules())) == ["up"]
