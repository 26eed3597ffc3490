"""Upstreams follow what names, services, files and servers say."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from tidegate.config.config import ListFile, ListTerms
from tidegate.control import discovery, feeds
from tidegate.control.discovery import Discovery, Wish
from tidegate.control.feeds import FileKey, ServiceKey
from tidegate.control.resolver import Answer, LookupFailure, Server, Servers, Where
from tidegate.telemetry import Registry, render

TERMS = ListTerms("http", tls=False, only_tls=False)


def named(name: str, port: int = 80, weight: int = 1) -> dict[str, Any]:
    return {"name": f"http://{name}", "host": name, "target": {"name": [name, port]}, "weight": weight}


def at(endpoint: dict[str, Any], *addresses: str) -> list[dict[str, Any]]:
    return [{**endpoint, "target": {"tcp": [address, endpoint["target"]["name"][1]]}} for address in addresses]


def targets(endpoints: list[dict[str, Any]]) -> list[Any]:
    return [endpoint["target"] for endpoint in endpoints]


def written(warm: float = 0.2, **upstreams: list[dict[str, Any]]) -> dict[str, Wish]:
    return {name: Wish(tuple(endpoints), warm=warm) for name, endpoints in upstreams.items()}


class Names:
    """A lookup whose answers the test changes; None fails and `...` never comes."""

    def __init__(self, **answers: Any) -> None:
        self.answers = answers
        self.asked: list[str] = []

    async def addresses(self, name: str, where: Where) -> Answer:
        return Answer(tuple(await self._answer(name)), 0.0)

    async def servers(self, name: str, where: Where) -> Servers:
        return Servers(tuple(await self._answer(name)), 0.0)

    async def _answer(self, name: str) -> Any:
        self.asked.append(name)
        answer = self.answers[name]
        if answer is ...:
            await asyncio.Event().wait()
        if answer is None:
            raise LookupFailure("server failure")
        return answer


class Harness:
    def __init__(self, **answers: Any) -> None:
        self.names = Names(**answers)
        self.registry = Registry()
        self.pushed: asyncio.Queue[tuple[str, Any]] = asyncio.Queue()
        self.discovery = Discovery(self._push, self.registry, self.names)

    def _push(self, upstream: str, endpoints: str) -> None:
        self.pushed.put_nowait((upstream, json.loads(endpoints)))

    async def __aenter__(self) -> "Harness":
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.discovery.stop()

    async def serve(self, wanted: dict[str, Wish]) -> dict[str, Any]:
        found = await self.discovery.resolve(wanted)
        self.discovery.follow(wanted, found)
        return dict(found)

    async def next(self) -> tuple[str, Any]:
        return await asyncio.wait_for(self.pushed.get(), 10)

    async def more(self, count: int = 3) -> None:
        """Waits for so many more questions."""
        asked = len(self.names.asked)
        while len(self.names.asked) < asked + count:
            await asyncio.sleep(0.01)

    def metrics(self) -> str:
        return render(self.registry.families())


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feeds, "SHORTEST", 0.02)
    monkeypatch.setattr(feeds, "AFTER_FAILURE", 0.02)
    monkeypatch.setattr(discovery, "SOON", 0.02)


async def test_a_name_becomes_one_endpoint_for_each_address() -> None:
    async with Harness(a=["10.0.0.1", "10.0.0.2"]) as harness:
        endpoint = named("a", 9000, weight=3)
        fixed = {"name": "unix:/x", "host": "localhost", "target": {"unix": "/x"}, "weight": 1}
        found = await harness.serve(written(up=[fixed, endpoint]))
        assert found["up"] == [fixed, *at(endpoint, "10.0.0.1", "10.0.0.2")]


async def test_a_change_is_pushed_once() -> None:
    async with Harness(a=["10.0.0.1"]) as harness:
        await harness.serve(written(up=[named("a")]))
        harness.names.answers["a"] = ["10.0.0.2"]
        assert await harness.next() == ("up", at(named("a"), "10.0.0.2"))
        await harness.more()
        assert harness.pushed.empty()


async def test_a_failed_answer_keeps_the_last_good_one() -> None:
    async with Harness(a=["10.0.0.1"]) as harness:
        await harness.serve(written(up=[named("a")]))
        harness.names.answers["a"] = None
        await harness.more()
        assert harness.pushed.empty()
        assert 'tidegate_discovery_total{upstream="up",source="dns",result="failure"}' in harness.metrics()
        harness.names.answers["a"] = ["10.0.0.9"]
        assert await harness.next() == ("up", at(named("a"), "10.0.0.9"))


async def test_one_failure_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    async with Harness(a=["10.0.0.1"]) as harness:
        await harness.serve(written(up=[named("a")]))
        harness.names.answers["a"] = None
        await harness.more(5)
    told = [record.message for record in caplog.records if "no address for a" in record.message]
    assert told == ["no address for a: server failure; keeping the last good answer"]


async def test_an_upstream_that_has_one_endpoint_waits_for_no_other() -> None:
    async with Harness(bad=None, good=["10.0.0.1"]) as harness, asyncio.timeout(10):
        found = await harness.serve(written(up=[named("bad"), named("good")], warm=60))
        assert found["up"] == [named("bad"), *at(named("good"), "10.0.0.1")]
        harness.names.answers["bad"] = ["10.0.0.3"]
        assert await harness.next() == ("up", [*at(named("bad"), "10.0.0.3"), *at(named("good"), "10.0.0.1")])


async def test_a_start_waits_for_an_upstream_without_endpoints() -> None:
    async with Harness(bad=None) as harness, asyncio.timeout(10):
        serving = asyncio.create_task(harness.serve(written(up=[named("bad")], warm=60)))
        await harness.more(3)
        assert not serving.done()
        harness.names.answers["bad"] = ["10.0.0.3"]
        assert (await serving)["up"] == at(named("bad"), "10.0.0.3")


@pytest.mark.parametrize("answer", [..., None])
async def test_a_start_goes_on_when_the_time_to_warm_up_is_over(answer: Any, caplog: pytest.LogCaptureFixture) -> None:
    async with Harness(late=answer) as harness:
        found = await harness.serve(written(up=[named("late")], warm=0.1))
        assert found["up"] == [named("late")]
        assert "the upstream up has no endpoint after 0.1 s" in caplog.text
        if answer is None:
            harness.names.answers["late"] = ["10.0.0.3"]
            assert await harness.next() == ("up", at(named("late"), "10.0.0.3"))


async def test_a_reload_asks_only_for_new_names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feeds, "SHORTEST", 60)
    async with Harness(a=["10.0.0.1"], b=["10.0.0.2"]) as harness:
        await harness.serve(written(up=[named("a")]))
        found = await harness.serve(written(up=[named("a"), named("b")]))
        assert harness.names.asked == ["a", "b"]
        assert found["up"] == [*at(named("a"), "10.0.0.1"), *at(named("b"), "10.0.0.2")]


async def test_a_reload_does_not_wait_again_for_what_runs_without_endpoints() -> None:
    async with Harness(bad=None) as harness, asyncio.timeout(10):
        await harness.serve(written(up=[named("bad")], warm=0.05))
        assert (await harness.serve(written(up=[named("bad")], warm=60)))["up"] == [named("bad")]


async def test_what_came_while_a_reload_was_prepared_is_pushed_after_it() -> None:
    async with Harness(a=["10.0.0.1"]) as harness:
        await harness.serve(written(up=[named("a")]))
        wanted = written(up=[named("a")], other=[named("a")])
        prepared = await harness.discovery.resolve(wanted)
        harness.names.answers["a"] = ["10.0.0.2"]
        assert await harness.next() == ("up", at(named("a"), "10.0.0.2"))
        harness.discovery.follow(wanted, prepared)
        assert [await harness.next(), await harness.next()] == [
            ("up", at(named("a"), "10.0.0.2")),
            ("other", at(named("a"), "10.0.0.2")),
        ]


async def test_a_name_that_left_is_not_asked_any_more() -> None:
    async with Harness(a=["10.0.0.1"], b=["10.0.0.2"]) as harness:
        await harness.serve(written(up=[named("a")]))
        assert 'timestamp_seconds{upstream="up"' in harness.metrics()
        await harness.serve(written(other=[named("b")]))
        await asyncio.sleep(0)
        assert 'timestamp_seconds{upstream="up"' not in harness.metrics()
        asked = harness.names.asked.count("a")
        while harness.names.asked.count("b") < 4:
            await asyncio.sleep(0.01)
        assert harness.names.asked.count("a") == asked


async def test_a_service_becomes_its_servers_and_these_their_addresses() -> None:
    records = [Server("a", 9001, 0, 5), Server("b", 9002, 0, 0)]
    async with Harness(_x=records, a=["10.0.0.1", "10.0.0.2"], b=["10.0.0.3"]) as harness:
        found = await harness.serve({"up": Wish(source=ServiceKey("_x", "https"))})
        assert [(each["name"], each["target"]["tcp"], each["weight"], each["tls"]) for each in found["up"]] == [
            ("https://a:9001", ["10.0.0.1", 9001], 5, "a"),
            ("https://a:9001", ["10.0.0.2", 9001], 5, "a"),
            ("https://b:9002", ["10.0.0.3", 9002], 1, "b"),
        ]


async def test_a_server_that_is_new_is_asked_for_before_the_last_one_goes() -> None:
    async with Harness(_x=[Server("a", 1, 0, 1)], a=["10.0.0.1"], b=None) as harness:
        await harness.serve({"up": Wish(source=ServiceKey("_x", "http"))})
        harness.names.answers["_x"] = [Server("b", 2, 0, 1)]
        while "b" not in harness.names.asked:
            await asyncio.sleep(0.01)
        await harness.more()
        assert harness.pushed.empty()
        harness.names.answers["b"] = ["10.0.0.2"]
        upstream, endpoints = await harness.next()
        assert (upstream, targets(endpoints)) == ("up", [{"tcp": ["10.0.0.2", 2]}])


async def test_a_reload_does_not_take_away_what_a_service_left_behind() -> None:
    async with Harness(_x=[Server("a", 1, 0, 1)], a=["10.0.0.1"], b=None) as harness:
        wanted = {"up": Wish(source=ServiceKey("_x", "http"), warm=0.05)}
        served = await harness.serve(wanted)
        harness.names.answers["_x"] = [Server("b", 2, 0, 1)]
        while "b" not in harness.names.asked:
            await asyncio.sleep(0.01)
        await harness.more()
        assert await harness.serve(wanted) == served


async def test_a_file_is_followed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    file = tmp_path / "endpoints.yaml"
    file.write_text("- http://10.0.0.1:80\n- {url: 10.0.0.2:80, weight: 2}\n")
    async with Harness(a=["10.0.0.7"]) as harness, asyncio.timeout(20):
        found = await harness.serve({"up": Wish(source=FileKey(ListFile(file, TERMS)))})
        assert targets(found["up"]) == [{"tcp": ["10.0.0.1", 80]}, {"tcp": ["10.0.0.2", 80]}]
        file.write_text("- http://10.0.0.1:80\n- {url: 10.0.0.2:80, wieght: 2}\n")
        while "endpoints.yaml:2:22: [1].wieght: unknown key 'wieght'; did you mean 'weight'?" not in caplog.text:
            await asyncio.sleep(0.01)
        file.write_text("[]")
        while "the list is empty; keeping the last good answer" not in caplog.text:
            await asyncio.sleep(0.01)
        assert harness.pushed.empty()
        file.write_text('["http://a:81"]')
        assert targets((await harness.next())[1]) == [{"tcp": ["10.0.0.7", 81]}]
        assert 'result="empty"} 1' in harness.metrics() and 'result="failure"} 1' in harness.metrics()


async def test_a_file_may_come_later(tmp_path: Path) -> None:
    file = tmp_path / "endpoints.yaml"
    async with Harness() as harness, asyncio.timeout(20):
        serving = asyncio.create_task(harness.serve({"up": Wish(source=FileKey(ListFile(file, TERMS)), warm=60)}))
        while 'source="file",result="failure"' not in harness.metrics():
            await asyncio.sleep(0.01)
        file.write_text("- http://10.0.0.1:80\n")
        assert targets((await serving)["up"]) == [{"tcp": ["10.0.0.1", 80]}]
