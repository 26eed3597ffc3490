"""Upstreams that are written as names follow what these names say."""

import asyncio
import json
from typing import Any

import pytest

from tidegate.control import discovery
from tidegate.control.discovery import Discovery
from tidegate.control.resolver import Answer, LookupFailure
from tidegate.telemetry import Registry, render


def named(name: str, port: int = 80, weight: int = 1) -> dict[str, Any]:
    return {"name": f"http://{name}", "host": name, "target": {"name": [name, port]}, "weight": weight}


def at(endpoint: dict[str, Any], *addresses: str) -> list[dict[str, Any]]:
    return [{**endpoint, "target": {"tcp": [address, endpoint["target"]["name"][1]]}} for address in addresses]


def snapshot(**upstreams: list[dict[str, Any]]) -> dict[str, Any]:
    return {"format": 1, "upstreams": [{"name": name, "endpoints": each} for name, each in upstreams.items()]}


class Names:
    """A lookup whose answers the test changes; None fails and `...` never comes."""

    def __init__(self, **answers: Any) -> None:
        self.answers = answers
        self.asked: list[str] = []

    async def __call__(self, name: str) -> Answer:
        self.asked.append(name)
        answer = self.answers[name]
        if answer is ...:
            await asyncio.Event().wait()
        if answer is None:
            raise LookupFailure("server failure")
        return Answer(tuple(answer), 0.0)


class Harness:
    def __init__(self, **answers: Any) -> None:
        self.names = Names(**answers)
        self.registry = Registry()
        self.pushed: asyncio.Queue[tuple[str, Any]] = asyncio.Queue()
        self.discovery = Discovery(self._push, self.registry, self.names)

    def _push(self, upstream: str, endpoints: str) -> None:
        self.pushed.put_nowait((upstream, json.loads(endpoints)))

    async def serve(self, wanted: dict[str, Any]) -> dict[str, Any]:
        resolved = await self.discovery.resolve(wanted, within=0.2)
        self.discovery.follow(wanted, resolved)
        return resolved

    async def next(self) -> tuple[str, Any]:
        return await asyncio.wait_for(self.pushed.get(), 10)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(discovery, "SHORTEST", 0.02)
    monkeypatch.setattr(discovery, "AFTER_FAILURE", 0.02)


async def test_a_name_becomes_one_endpoint_for_each_address() -> None:
    harness, endpoint = Harness(a=["10.0.0.1", "10.0.0.2"]), named("a", 9000, weight=3)
    fixed = {"name": "unix:/x", "host": "localhost", "target": {"unix": "/x"}, "weight": 1}
    resolved = await harness.serve(snapshot(up=[fixed, endpoint]))
    assert resolved["upstreams"][0]["endpoints"] == [fixed, *at(endpoint, "10.0.0.1", "10.0.0.2")]
    await harness.discovery.stop()


async def test_a_change_is_pushed_once() -> None:
    harness = Harness(a=["10.0.0.1"])
    await harness.serve(snapshot(up=[named("a")]))
    harness.names.answers["a"] = ["10.0.0.2"]
    assert await harness.next() == ("up", at(named("a"), "10.0.0.2"))
    asked = len(harness.names.asked)
    while len(harness.names.asked) < asked + 3:
        await asyncio.sleep(0.01)
    assert harness.pushed.empty()
    await harness.discovery.stop()


async def test_a_failed_answer_keeps_the_last_good_one() -> None:
    harness = Harness(a=["10.0.0.1"])
    await harness.serve(snapshot(up=[named("a")]))
    harness.names.answers["a"] = None
    asked = len(harness.names.asked)
    while len(harness.names.asked) < asked + 3:
        await asyncio.sleep(0.01)
    assert harness.pushed.empty()
    assert 'tidegate_dns_lookups_total{result="failure"}' in render(harness.registry.families())
    harness.names.answers["a"] = ["10.0.0.9"]
    assert await harness.next() == ("up", at(named("a"), "10.0.0.9"))
    await harness.discovery.stop()


async def test_a_start_goes_on_without_late_and_failing_names() -> None:
    harness = Harness(late=..., bad=None, good=["10.0.0.1"])
    wanted = snapshot(up=[named("late"), named("bad"), named("good")])
    resolved = await harness.serve(wanted)
    assert resolved["upstreams"][0]["endpoints"] == [named("late"), named("bad"), *at(named("good"), "10.0.0.1")]
    harness.names.answers["bad"] = ["10.0.0.3"]
    assert await harness.next() == (
        "up",
        [named("late"), *at(named("bad"), "10.0.0.3"), *at(named("good"), "10.0.0.1")],
    )
    await harness.discovery.stop()


async def test_a_reload_asks_only_for_new_names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(discovery, "SHORTEST", 60)
    harness = Harness(a=["10.0.0.1"], b=["10.0.0.2"])
    await harness.serve(snapshot(up=[named("a")]))
    resolved = await harness.serve(snapshot(up=[named("a"), named("b")]))
    assert harness.names.asked == ["a", "b"]
    assert resolved["upstreams"][0]["endpoints"] == [*at(named("a"), "10.0.0.1"), *at(named("b"), "10.0.0.2")]
    await harness.discovery.stop()


async def test_what_came_while_a_reload_was_prepared_is_pushed_after_it() -> None:
    harness = Harness(a=["10.0.0.1"])
    await harness.serve(snapshot(up=[named("a")]))
    wanted = snapshot(up=[named("a")], other=[named("a")])
    prepared = await harness.discovery.resolve(wanted)
    harness.names.answers["a"] = ["10.0.0.2"]
    assert await harness.next() == ("up", at(named("a"), "10.0.0.2"))
    harness.discovery.follow(wanted, prepared)
    assert [await harness.next(), await harness.next()] == [
        ("up", at(named("a"), "10.0.0.2")),
        ("other", at(named("a"), "10.0.0.2")),
    ]
    await harness.discovery.stop()


async def test_a_name_that_left_is_not_asked_any_more() -> None:
    harness = Harness(a=["10.0.0.1"], b=["10.0.0.2"])
    await harness.serve(snapshot(up=[named("a")]))
    await harness.serve(snapshot(up=[named("b")]))
    await asyncio.sleep(0)
    asked = harness.names.asked.count("a")
    while harness.names.asked.count("b") < 4:
        await asyncio.sleep(0.01)
    assert harness.names.asked.count("a") == asked
    await harness.discovery.stop()
