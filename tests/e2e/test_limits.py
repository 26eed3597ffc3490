"""How many WebSockets may be open and be opened: by listener, route and client address, over every version of HTTP."""

import asyncio
import contextlib
from collections.abc import Iterator
from typing import Any

import pytest

from tests.e2e.kit.attempts import PROTOCOLS, Tried, attempts, config, everywhere
from tests.e2e.kit.frames import Op, binary
from tests.e2e.kit.peers import frames
from tests.e2e.kit.sites import until
from tidegate.testing import Gateway

PROXIED = {"trusted_proxies": ["127.0.0.0/8"]}


def echo(**limits: Any) -> dict[str, Any]:
    return {"respond": "echo", "limits": limits}


ROUTES: dict[str, dict[str, Any]] = {
    "free": {"respond": "echo"},
    "two": echo(websockets=2),
    "each": echo(connections_per_ip=1),
    "wide": echo(connections_per_ip=1, ipv6_prefix=48),
    "latest": echo(connections_per_ip=2, over="evict"),
    "newest": echo(websockets=2, over="evict"),
    "slowly": echo(handshakes="3/h"),
    "slowly-each": echo(handshakes_per_ip="2/h"),
    "dead": {**echo(websockets=1), "websocket": {"ping": {"every": "200ms", "timeout": "200ms"}}},
    "refused": {"to": "nobody", "limits": {"websockets": 1, "over": "refuse"}},
}


def edge(**limits: Any) -> dict[str, Any]:
    return {**PROXIED, "limits": limits}


@pytest.fixture(scope="module")
def gateway() -> Iterator[Gateway]:
    with everywhere(ROUTES, edge=PROXIED, upstreams={"nobody": "unix:/nowhere/at/all.sock"}) as gateway:
        yield gateway


def of(address: str) -> str:
    return f"X-Forwarded-For: {address}"


async def opened(stack: contextlib.AsyncExitStack, gateway: Gateway, protocol: str, path: str, *fields: str) -> Tried:
    tried = await stack.enter_async_context(attempts(gateway, protocol, path, *fields))
    await tried.open.send(binary(b"in"))
    await tried.open.expect(binary(b"in"))
    return tried


async def turned_away(gateway: Gateway, protocol: str, path: str, *fields: str) -> tuple[int, str, bool]:
    async with attempts(gateway, protocol, path, *fields) as tried:
        return tried.status, tried.reason, int(tried.head.get("retry-after") or 0) > 0


async def gets_in(gateway: Gateway, protocol: str, path: str, *fields: str) -> None:
    """Before long: the place of one that has gone comes back with its end, not before."""
    async with asyncio.timeout(10):
        while True:
            async with attempts(gateway, protocol, path, *fields) as tried:
                if tried.peer:
                    return
                assert tried.status in (429, 503), tried


@pytest.mark.parametrize("protocol", PROTOCOLS)
async def test_a_full_route_refuses_until_one_has_gone(gateway: Gateway, protocol: str) -> None:
    async with contextlib.AsyncExitStack() as stack:
        await opened(stack, gateway, protocol, "/two")
        async with contextlib.AsyncExitStack() as second:
            await opened(second, gateway, protocol, "/two")
            assert await turned_away(gateway, protocol, "/two") == (503, "route_full", True)
            await opened(stack, gateway, protocol, "/free")
        await gets_in(gateway, protocol, "/two")
    await gets_in(gateway, protocol, "/two")


@pytest.mark.parametrize("protocol", PROTOCOLS)
async def test_each_address_has_its_own_places(gateway: Gateway, protocol: str) -> None:
    async with contextlib.AsyncExitStack() as stack:
        for address in ("192.0.2.1", "192.0.2.2", "2001:db8:0:1::1", "2001:db8:0:2::1"):
            await opened(stack, gateway, protocol, "/each", of(address))
        for address in ("192.0.2.1", "2001:db8:0:1::2", "2001:db8:0:2:ffff::", "::ffff:192.0.2.2"):
            answer = await turned_away(gateway, protocol, "/each", of(address))
            assert answer == (429, "too_many_connections", True), address
    await gets_in(gateway, protocol, "/each", of("192.0.2.1"))


async def test_how_much_of_an_ipv6_address_counts(gateway: Gateway) -> None:
    async with contextlib.AsyncExitStack() as stack:
        await opened(stack, gateway, "h1", "/wide", of("2001:db8:0:1::1"))
        assert (await turned_away(gateway, "h1", "/wide", of("2001:db8:0:2::1")))[0] == 429
        await opened(stack, gateway, "h1", "/wide", of("2001:db8:1:2::1"))


async def test_a_trusted_proxy_s_own_address_counts_for_none(gateway: Gateway) -> None:
    async with contextlib.AsyncExitStack() as stack:
        for _ in range(3):
            await opened(stack, gateway, "h1", "/each")
            await opened(stack, gateway, "h1", "/each", of("127.0.0.9"))
            await opened(stack, gateway, "h1", "/each", of("192.0.2.1, unknown"))


async def test_who_is_not_behind_a_proxy_counts_by_the_socket() -> None:
    with everywhere({"each": echo(connections_per_ip=1)}) as gateway:
        async with contextlib.AsyncExitStack() as stack:
            await opened(stack, gateway, "h1", "/each", of("192.0.2.1"))
            assert (await turned_away(gateway, "h1", "/each", of("192.0.2.2")))[0] == 429
            other = attempts(gateway, "h1", "/each", local_addr=("127.0.0.2", 0))
            assert (await stack.enter_async_context(other)).status == 101


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize(("path", "kept"), [("/latest", True), ("/newest", False)])
async def test_the_oldest_goes_for_the_newest(gateway: Gateway, protocol: str, path: str, kept: bool) -> None:
    """Of the same address where each has places of its own, and of all where they share them."""
    async with contextlib.AsyncExitStack() as stack:
        bystander = await opened(stack, gateway, protocol, path, of("192.0.2.9"))
        first = await opened(stack, gateway, protocol, path, of("192.0.2.1"))
        if kept:
            await opened(stack, gateway, protocol, path, of("192.0.2.1"))
        await opened(stack, gateway, protocol, path, of("192.0.2.1"))
        evicted = first if kept else bystander
        [close] = await frames_of(evicted)
        assert (close.code, close.reason) == (1008, "gw: evicted by a newer connection")
        survivor = bystander if kept else first
        await survivor.open.send(binary(b"still here"))
        await survivor.open.expect(binary(b"still here"))
    log = gateway.access_log()
    record = await asyncio.to_thread(log.wait_for, event="close", cause="evicted", path=path, protocol=protocol)
    assert record["code"] == 1008
    metrics = await asyncio.to_thread(gateway.metrics)
    assert metrics.value("tidegate_websocket_closed_total", cause="evicted", route=path[1:]) >= 1


async def frames_of(tried: Tried) -> list[Any]:
    """Those that come until the end, which answers the Close."""
    frame = await tried.open.frame()
    assert frame.op == Op.CLOSE, frame
    await tried.open.send(frame)
    return [frame, *await frames(tried.open)]


async def test_an_attempt_that_comes_to_nothing_gives_its_place_back(gateway: Gateway) -> None:
    for _ in range(3):
        assert (await turned_away(gateway, "h1", "/refused"))[:2] == (502, "connect_failed")


async def test_places_of_the_dead_come_back(gateway: Gateway) -> None:
    """A client that says nothing more, and does not even end its connection."""
    async with contextlib.AsyncExitStack() as stack:
        await opened(stack, gateway, "h1", "/dead")
        assert (await turned_away(gateway, "h1", "/dead"))[:2] == (503, "route_full")
        await gets_in(gateway, "h1", "/dead")


@pytest.mark.parametrize("protocol", PROTOCOLS)
async def test_handshakes_have_a_rate(protocol: str) -> None:
    with everywhere(ROUTES, edge=PROXIED, upstreams={"nobody": "unix:/nowhere/at/all.sock"}) as gateway:
        for path, count, answer in (
            ("/slowly", 3, (503, "route_busy", True)),
            ("/slowly-each", 2, (429, "too_many_handshakes", True)),
        ):
            for _ in range(count):
                async with attempts(gateway, protocol, path, of("192.0.2.1")) as tried:
                    assert tried.status == 101
            assert await turned_away(gateway, protocol, path, of("192.0.2.1")) == answer
        async with attempts(gateway, protocol, "/slowly-each", of("192.0.2.2")) as tried:
            assert tried.status == 101
        metrics = await asyncio.to_thread(gateway.metrics)
        labels = {"route": "slowly-each", "status": "429", "reason": "too_many_handshakes", "protocol": protocol}
        assert metrics.value("tidegate_websocket_handshakes_total", **labels) == 1
        record = await asyncio.to_thread(gateway.access_log().wait_for, event="refusal", reason="route_busy")
        assert record["client"] == "192.0.2.1"


async def test_a_listener_has_limits_for_all_of_its_routes() -> None:
    limits = edge(websockets=2, handshakes="6/h", connections_per_ip=1, handshakes_per_ip="4/h")
    with everywhere({"a": {"respond": "echo"}, "b": {"respond": "echo"}}, edge=limits) as gateway:
        async with contextlib.AsyncExitStack() as stack:
            await opened(stack, gateway, "h2", "/a", of("192.0.2.1"))
            assert (await turned_away(gateway, "h1", "/b", of("192.0.2.1")))[1] == "too_many_connections"
            await opened(stack, gateway, "h1", "/b", of("192.0.2.2"))
            assert (await turned_away(gateway, "h3", "/b", of("192.0.2.3")))[:2] == (503, "listener_full")
        assert (await turned_away(gateway, "h1", "/nowhere", of("192.0.2.3")))[1] == "no_route"
        assert (await turned_away(gateway, "h1", "/a", of("192.0.2.4")))[0] in (101, 503)
        assert (await turned_away(gateway, "h1", "/a", of("192.0.2.4")))[0] in (101, 503)
        assert (await turned_away(gateway, "h1", "/a", of("192.0.2.5")))[:2] == (503, "listener_busy")


async def test_limits_live_on_and_change_with_reloads(gateway: Gateway) -> None:
    """What is open counts, also for a limit that was not there when it opened."""
    before, after = config({"room": {"respond": "echo"}}), config({"room": echo(websockets=2)})
    with everywhere({"room": {"respond": "echo"}}) as gateway:
        async with contextlib.AsyncExitStack() as stack:
            for protocol in ("h1", "h2"):
                await opened(stack, gateway, protocol, "/room")
            await asyncio.to_thread(gateway.reload, after)
            await until(lambda: bool(gateway.connections()))  # each worker has answered, and so has counted
            assert (await turned_away(gateway, "h1", "/room"))[1] == "route_full"
            await asyncio.to_thread(gateway.reload, config({"room": echo(websockets=3)}))
            await opened(stack, gateway, "h1", "/room")
            assert (await turned_away(gateway, "h1", "/room"))[1] == "route_full"
            await asyncio.to_thread(gateway.reload, before)
            await opened(stack, gateway, "h1", "/room")
