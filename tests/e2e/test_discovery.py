"""Endpoints that come and go without a reload, and starts and reloads that wait for the first ones."""

import asyncio
import contextlib
import json
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.kit.certificates import Authority
from tests.e2e.kit.listings import ListServer, NameServer
from tests.e2e.kit.named import Named, asked, asked_often
from tests.e2e.kit.peers import running
from tests.e2e.kit.sites import Config, reload, route, site, until
from tests.e2e.kit.wire import dial
from tidegate.gateway import check_file
from tidegate.testing import Gateway


@contextlib.asynccontextmanager
async def servers(*names: str) -> AsyncIterator[dict[str, str]]:
    """Servers of these names, and where they are: `127.0.0.1:4711`."""
    async with contextlib.AsyncExitStack() as stack:
        where = {}
        for name in names:
            listener = socket.create_server(("127.0.0.1", 0), backlog=512)
            where[name] = f"127.0.0.1:{listener.getsockname()[1]}"
            await stack.enter_async_context(Named(name, listener))
        yield where


@contextlib.asynccontextmanager
async def neighbours() -> AsyncIterator[int]:
    """Servers `2` and `3` at 127.0.0.2 and 127.0.0.3, and the port that they have in common."""
    async with contextlib.AsyncExitStack() as stack:
        for _ in range(20):
            with contextlib.suppress(OSError):
                first = socket.create_server(("127.0.0.2", 0), backlog=512)
                port = first.getsockname()[1]
                second = socket.create_server(("127.0.0.3", port), backlog=512)
                break
        await stack.enter_async_context(Named("2", first))
        await stack.enter_async_context(Named("3", second))
        yield port


def discovering(discover: Config, *servers: NameServer, **more: Any) -> Config:
    """A configuration whose only upstream finds its endpoints so."""
    dns = {"dns": {"servers": [server.address for server in servers]}} if servers else {}
    upstream = {"discover": discover, "balance": "round_robin", **more}
    return site({"to": "app"}, upstreams={"app": upstream}, **dns)


async def answering(gateway: Gateway, *names: str) -> None:
    """Waits until exactly these servers answer."""
    async with asyncio.timeout(20):
        while set(await asked_often(gateway.port(), "/", 4)) != set(names):
            await asyncio.sleep(0.02)


async def failed(gateway: Gateway, why: str) -> None:
    """Waits until the log says that a source failed for this reason."""
    await asyncio.to_thread(
        gateway.log().wait_for, lambda record: why in record["message"], event="discovery_failure", timeout=20
    )


def counted(gateway: Gateway, source: str, result: str) -> float:
    return gateway.metrics().value("tidegate_discovery_total", upstream="app", source=source, result=result)


# ---- sources --------------------------------------------------------------------------------------------------------


async def test_addresses_of_a_name_come_and_go() -> None:
    zone = {("app.test", "A"): ["127.0.0.2"]}
    async with neighbours() as port, NameServer(zone) as server:
        settings = discovering({"dns": f"app.test:{port}", "every": "200ms"}, server)
        async with running(settings) as gateway:
            await answering(gateway, "2")
            zone["app.test", "A"] = ["127.0.0.2", "127.0.0.3"]
            await answering(gateway, "2", "3")
            server.fails = True
            await failed(gateway, "keeping the last good answer")
            await until(lambda: counted(gateway, "dns", "failure") > 2)
            await answering(gateway, "2", "3")
            server.fails = False
            zone["app.test", "A"] = ["127.0.0.3"]
            await answering(gateway, "3")
            metrics = await asyncio.to_thread(gateway.metrics)
            assert metrics.value("tidegate_upstream_endpoints", upstream="app") == 1
            assert metrics.value("tidegate_discovery_last_success_timestamp_seconds", upstream="app", source="dns") > 0
            assert gateway.generation == 1


async def test_an_answer_is_good_for_its_time() -> None:
    async with neighbours() as port, NameServer({("app.test", "A"): ["127.0.0.2"]}) as server:
        server.ttl = 600
        async with running(discovering({"dns": f"app.test:{port}"}, server)) as gateway:
            await answering(gateway, "2")
            first = server.asked["app.test"]
            await reload(gateway, discovering({"dns": f"app.test:{port}", "every": "100ms"}, server))
            await until(lambda: server.asked["app.test"] > first + 6)


async def test_servers_of_a_service_come_and_go() -> None:
    async with servers("a", "b", "c") as where, NameServer({}) as server:
        ports = {name: each.rpartition(":")[2] for name, each in where.items()}
        server.zone |= {("a.test", "A"): ["127.0.0.1"], ("b.test", "A"): ["127.0.0.1"]}
        service = ("_chat._tcp.test", "SRV")
        server.zone[service] = [f"0 3 {ports['a']} a.test.", f"0 1 {ports['b']} b.test."]
        settings = discovering({"srv": "_chat._tcp.test", "every": "200ms"}, server)
        async with running(settings) as gateway:
            assert await asked_often(gateway.port(), "/", 40) == {"a": 30, "b": 10}
            server.zone[service] = [f"0 0 {ports['c']} c.test."]
            await until(lambda: server.asked["c.test"] > 1)
            # The one that is new has no address yet, and the others stay until it has one.
            await answering(gateway, "a", "b")
            server.zone["c.test", "A"] = ["127.0.0.1"]
            await answering(gateway, "c")


async def test_a_file_is_followed(tmp_path: Path) -> None:
    file = tmp_path / "endpoints.yaml"
    async with servers("a", "b") as where:
        file.write_text(f"- http://{where['a']}\n- url: {where['b']}   # no scheme: that of the upstream\n")
        async with running(discovering({"file": file.name}), directory=tmp_path) as gateway:
            await answering(gateway, "a", "b")
            file.write_text(f"- http://{where['a']}\n- {{uri: 'http://{where['b']}'}}\n")
            await failed(gateway, "endpoints.yaml:2:4: [1].uri: unknown key 'uri'; did you mean 'url'?")
            await answering(gateway, "a", "b")
            file.write_text(f"- https://{where['a']}\n")
            await failed(gateway, "endpoints.yaml:1:3: [0]")
            file.write_text("# none left\n[]\n")
            await failed(gateway, "the list is empty")
            await answering(gateway, "a", "b")
            fresh = file.with_suffix(".new")
            fresh.write_text(json.dumps([{"url": f"http://{where['b']}", "weight": 2}]))
            fresh.replace(file)
            await answering(gateway, "b")
            assert gateway.generation == 1 and not gateway.log().matching(event="files_changed")
            assert await asyncio.to_thread(counted, gateway, "file", "empty") == 1


async def test_a_list_over_http_is_followed() -> None:
    async with servers("a", "b") as where:
        with ListServer(json.dumps([f"http://{where['a']}"])) as lists:
            discover = {"http": f"{lists.url}/app", "every": "100ms", "max_size": "1KiB", "headers": {"x-token": "t"}}
            async with running(discovering(discover)) as gateway:
                await answering(gateway, "a")
                await until(lambda: lists.gave.count(304) > 2)
                assert lists.gave.count(200) == 1 and lists.fields[0]["x-token"] == "t"
                for body, why in (
                    ("[]", "the list is empty"),
                    ("<html>", "is not a list"),
                    ('["http://a", "${HOME}"]', "'http://${HOME}' is not an endpoint"),
                    (json.dumps([f"http://10.0.0.{host}" for host in range(99)]), "larger than 1024 bytes"),
                ):
                    lists.body = body
                    await failed(gateway, why)
                lists.status = 503
                await failed(gateway, "the answer is 503")
                await answering(gateway, "a")
                lists.body, lists.status = json.dumps([f"http://{where['b']}"]), 200
                await answering(gateway, "b")
                assert await asyncio.to_thread(counted, gateway, "http", "success") > 3


async def test_a_list_over_https_needs_a_certificate_that_is_trusted(tmp_path: Path) -> None:
    authority, other = Authority(tmp_path), Authority(tmp_path, "other")
    authority.issue("lists", "127.0.0.1")
    async with servers("a") as where:
        with ListServer(json.dumps([f"http://{where['a']}"])) as lists:
            front = {
                "listeners": {
                    "edge": {
                        "bind": "127.0.0.1:0",
                        "tls": {"certificates": [{"cert": "lists.pem", "key": "lists.key"}]},
                    }
                },
                "routes": [{"to": "lists"}],
                "upstreams": {"lists": {"endpoints": [lists.url]}},
            }
            (tmp_path / "front").mkdir()
            for name in ("lists.pem", "lists.key"):
                (tmp_path / "front" / name).write_bytes((tmp_path / name).read_bytes())
            async with running(front, directory=tmp_path / "front") as secure:
                discover = {"http": secure.url(), "every": "100ms", "ca": other.file}
                settings = discovering(discover, warm="100ms")
                async with running(settings, directory=tmp_path) as gateway:
                    await failed(gateway, "certificate verify failed")
                    assert lists.gave == []
                    await reload(gateway, discovering({**discover, "ca": authority.file}))
                    await answering(gateway, "a")


async def test_endpoints_of_a_list_speak_what_the_upstream_does(tmp_path: Path) -> None:
    file = tmp_path / "endpoints.json"
    async with servers("a") as where:
        file.write_text(json.dumps([f"tcp://{where['a']}"]))
        settings = discovering({"file": file.name}, warm="100ms")
        async with running(settings, directory=tmp_path) as gateway:
            await failed(gateway, "is not for an upstream that speaks HTTP; expected http:// or https://")
            async with dial(gateway.port()) as client:
                assert await asked(client, "/") == "503 no_endpoint"


# ---- starts and reloads ---------------------------------------------------------------------------------------------


async def test_a_start_is_not_ready_before_there_is_an_endpoint(tmp_path: Path) -> None:
    file = tmp_path / "endpoints.yaml"
    async with servers("a") as where:
        gateway = Gateway(discovering({"file": file.name}, warm="60s"), directory=tmp_path)
        starting = asyncio.create_task(asyncio.to_thread(gateway.__enter__))
        try:
            await failed(gateway, "there is nothing until then")
            assert not gateway.log().matching(event="ready")
            file.write_text(f"- http://{where['a']}\n")
            await starting
            assert await asked_often(gateway.port(), "/", 3) == {"a": 3}
        finally:
            await starting
            await asyncio.to_thread(gateway.__exit__)


async def test_a_reload_keeps_the_old_one_until_there_is_an_endpoint(tmp_path: Path) -> None:
    file = tmp_path / "endpoints.yaml"
    async with servers("a", "b") as where:
        old = site(route("old", "old"), upstreams={"old": f"http://{where['a']}"})
        async with running(old, directory=tmp_path) as gateway:
            new = site(route("new", "new"), upstreams={"new": {"discover": {"file": file.name}, "warm": "60s"}})
            reloading = asyncio.create_task(asyncio.to_thread(gateway.reload, new))
            await failed(gateway, "there is nothing until then")
            assert await asked_often(gateway.port(), "/old", 3) == {"a": 3}
            file.write_text(f"- http://{where['b']}\n")
            await reloading
            assert await asked_often(gateway.port(), "/new", 3) == {"b": 3}
            assert gateway.generation == 2


async def test_what_stays_without_an_endpoint_holds_nothing_up_for_ever() -> None:
    async with NameServer({("late.test", "A"): []}) as server, neighbours() as port:
        settings = discovering({"dns": f"late.test:{port}", "every": "100ms"}, server, warm="300ms")
        async with running(settings) as gateway:
            assert gateway.log().matching(event="discovery_late", upstream="app")
            async with dial(gateway.port()) as client:
                assert await asked(client, "/") == "503 no_endpoint"
            server.zone["late.test", "A"] = ["127.0.0.3"]
            await answering(gateway, "3")


async def test_a_check_asks_nobody(tmp_path: Path) -> None:
    async with NameServer({}) as server:
        file = tmp_path / "tidegate.yaml"
        with ListServer("[]") as lists:
            upstreams = {
                "dns": {"discover": {"dns": "app.test:80"}},
                "srv": {"discover": {"srv": "_a._tcp.test"}},
                "http": {"discover": {"http": lists.url}},
                "file": {"discover": {"file": "nowhere.yaml"}},
            }
            routes = [route(name, name) for name in upstreams]
            file.write_text(json.dumps(site(*routes, upstreams=upstreams, dns={"servers": server.address})))
            assert check_file(file).warnings == ()
            assert not server.asked and not lists.gave


@pytest.mark.parametrize("source", ["dns", "srv"])
async def test_other_name_servers_are_asked_after_a_reload(source: str) -> None:
    async with neighbours() as port, NameServer({}) as first, NameServer({}) as second:
        first.ttl = second.ttl = 600
        for server, address in ((first, "127.0.0.2"), (second, "127.0.0.3")):
            server.zone["app.test", "A"] = [address]
            server.zone["_app.test", "SRV"] = [f"0 1 {port} app.test."]
        discover = {source: f"app.test:{port}" if source == "dns" else "_app.test"}
        async with running(discovering(discover, first)) as gateway:
            await answering(gateway, "2")
            await reload(gateway, discovering(discover, second))
            await answering(gateway, "3")
