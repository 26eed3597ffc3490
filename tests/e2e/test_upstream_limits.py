"""How many connections an upstream may have, and who waits for one: `limits` of upstreams."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.e2e.kit.h2server import H2Server
from tests.e2e.kit.peers import accept, answer_close, leave, play, running, upgrade
from tests.e2e.kit.sites import LOOPBACK, Config, reload, route, site, until
from tests.e2e.kit.tcp import is_reset, server
from tests.e2e.kit.wire import Play, Wire, dial, request_bytes
from tidegate.testing import Gateway

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


def web(url: str, limits: Config, workers: int = 1, **more: Any) -> Config:
    upstream = {"endpoints": [url], "limits": limits, **more.pop("upstream", {})}
    return site(route("app", "app", **more), upstreams={"app": upstream}, workers=workers)


def carrier(url: str, limits: Config, **tcp: Any) -> Config:
    listeners = {"edge": {"bind": LOOPBACK, "tcp": {"to": "app", **tcp}}}
    return {"listeners": listeners, "upstreams": {"app": {"endpoints": [url], "limits": limits}}, "workers": 2}


@contextlib.asynccontextmanager
async def behind(limits: Config, **more: Any) -> AsyncIterator[tuple[Play, Gateway]]:
    """A server of HTTP behind a gateway."""
    async with play() as (upstream, url), running(web(url, limits, **more)) as gateway:
        yield upstream, gateway


def value(gateway: Gateway, name: str, **labels: str) -> float:
    return gateway.metrics().value(f"tidegate_upstream_{name}", upstream="app", **labels)


async def waiting(gateway: Gateway, count: int) -> None:
    await until(lambda: value(gateway, "pending") == count)


async def ask(gateway: Gateway, path: str = "/app", *fields: str, body: bytes = b"") -> Wire:
    """A client that has asked and waits for its answer."""
    wire = Wire(*await asyncio.open_connection("127.0.0.1", gateway.port()))
    method = "POST" if body else "GET"
    length = [f"Content-Length: {len(body)}"] if body else []
    await wire.send(request_bytes(f"{method} {path}", *length, *fields, body=body))
    return wire


async def is_turned_away(gateway: Gateway) -> bool:
    """Whether one more client is reset at once."""
    try:
        async with dial(gateway.port()) as late:
            return await is_reset(late)
    except ConnectionResetError:
        return True


async def refused(client: Wire) -> tuple[int, str, str | None]:
    """Status, reason and `Retry-After` of an answer of the gateway's own."""
    head, body = await client.answer()
    await client.close()
    return head.status, body.decode().partition(":")[0], head.get("retry-after")


# ---- TCP ------------------------------------------------------------------------------------------------------------


async def test_over_tcp_the_excess_waits_in_order_and_what_is_too_much_is_reset() -> None:
    async with server() as (upstream, url), running(carrier(url, {"connections": 1, "pending": 2})) as gateway:
        async with contextlib.AsyncExitStack() as stack:
            clients = []
            for number in range(3):
                clients.append(await stack.enter_async_context(dial(gateway.port())))
                await clients[-1].send(b"%d" % number)
                await waiting(gateway, number)
            first = await upstream.connection()
            assert await first.exactly(1) == b"0" and upstream.unexpected == 0
            assert await is_turned_away(gateway)
            assert await asyncio.to_thread(value, gateway, "connections") == 1
            assert await asyncio.to_thread(value, gateway, "overflows_total") == 1
            refusal = await asyncio.to_thread(gateway.access_log().wait_for, event="refusal")
            assert (refusal["reason"], refusal["upstream"]) == ("pending_full", "app")
            told = await asyncio.to_thread(gateway.log().wait_for, event="pending_full")
            assert "1 connections, and 2 wait" in told["message"]
            for number in (1, 2):
                await clients[number - 1].close()
                await first.close()
                first = await upstream.connection()
                assert await first.exactly(1) == b"%d" % number
            await first.close()
        await until(lambda: value(gateway, "connections") == 0)


async def test_over_tcp_who_waits_too_long_is_reset() -> None:
    settings = carrier("", {"connections": 1}, connect_timeout="300ms")
    async with server() as (upstream, url):
        settings["upstreams"]["app"] |= {"endpoints": [url], "eject": {"failures": 1, "at_most": "100%"}}
        async with running(settings) as gateway, dial(gateway.port()), dial(gateway.port()) as late:
            await upstream.connection()
            assert await is_reset(late)
            refusal = await asyncio.to_thread(gateway.access_log().wait_for, event="refusal")
            assert refusal["reason"] == "pending_timeout"
            # The endpoint is not to blame.
            metrics = await asyncio.to_thread(gateway.metrics)
            assert metrics.value("tidegate_endpoint_healthy", upstream="app") == 1


async def test_who_leaves_while_waiting_gives_up_its_place() -> None:
    async with behind({"connections": 1}) as (upstream, gateway):
        first, leaves, stays = await ask(gateway), await ask(gateway, "/app/leaves"), await ask(gateway, "/app/stays")
        await waiting(gateway, 2)
        await leaves.close()
        await waiting(gateway, 1)
        far = await upstream.connection()
        await far.head()
        await far.send(OK)
        assert (await far.head()).target == "/app/stays"
        await far.send(OK)
        for client in (first, stays):
            assert (await client.answer())[1] == b"ok"
            await client.close()


# ---- HTTP -----------------------------------------------------------------------------------------------------------


async def test_requests_wait_for_the_connection_and_get_it_as_it_is() -> None:
    async with behind({"connections": 1, "pending": 1}) as (upstream, gateway):
        first = await ask(gateway)
        far = await upstream.connection()
        await far.head()
        second = await ask(gateway)
        await waiting(gateway, 1)
        assert await refused(await ask(gateway)) == (503, "pending_full", "1")
        for client in (first, second):
            await far.send(OK)
            assert (await client.answer())[1] == b"ok"
            await client.close()
            if client is first:
                await far.head()
        assert upstream.connections == 1


@pytest.mark.parametrize("body", [b"", b"content"])
async def test_requests_do_not_wait_longer_than_they_may(body: bytes) -> None:
    async with behind({"connections": 1}, timeouts={"request": "300ms"}) as (upstream, gateway):
        async with dial(gateway.port()) as first:
            await first.send(request_bytes("POST /app", "Content-Length: 5"))
            await (await upstream.connection()).head()
            assert await refused(await ask(gateway, body=body)) == (503, "pending_timeout", "1")
        await until(lambda: value(gateway, "connections") == 0)


async def test_who_has_an_answer_does_not_wait_for_a_better_one() -> None:
    retry = {"attempts": 2, "on": [502]}
    async with behind({"connections": 1}, retry=retry) as (upstream, gateway), dial(gateway.port()) as client:
        await client.send(request_bytes("GET /app"))
        far = await upstream.connection()
        await far.head()
        # Its connection is the only one that there may be, and its answer holds that.
        await far.send(b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 3\r\n\r\nbad")
        assert (await client.answer())[1] == b"bad"
        assert await asyncio.to_thread(value, gateway, "pending") == 0


async def test_an_idle_connection_gives_way_to_a_websocket() -> None:
    async with behind({"connections": 1}) as (upstream, gateway):
        async with dial(gateway.port()) as client:
            await client.send(request_bytes("GET /app"))
            far = await upstream.connection()
            await far.head()
            await far.send(OK)
            assert (await client.answer())[1] == b"ok"
        async with dial(gateway.port()) as client:
            opening = asyncio.create_task(upgrade(client, "/app"))
            await far.ended()
            far_peer = await accept(await upstream.connection())
            await asyncio.gather(leave(await opening), answer_close(far_peer))


class Server:
    """Answers all that comes, and counts connections. Ends those that have asked for `/app/close`."""

    def __init__(self) -> None:
        self.open = self.most = self.served = 0

    async def __aenter__(self) -> str:
        self._listening = await asyncio.start_server(self._take, "127.0.0.1", 0)
        return f"http://127.0.0.1:{self._listening.sockets[0].getsockname()[1]}"

    async def __aexit__(self, *_: object) -> None:
        self._listening.close()

    async def _take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.open += 1
        self.most = max(self.most, self.open)
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            while b"/app/close" not in await reader.readuntil(b"\r\n\r\n"):
                writer.write(OK)
                self.served += 1
            writer.write(OK.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
            self.served += 1
        self.open -= 1
        writer.close()


async def all_at_once(gateway: Gateway, paths: list[str]) -> None:
    """All get their answers."""
    clients = [await ask(gateway, path) for path in paths]
    answers = await asyncio.gather(*(client.answer() for client in clients))
    assert {head.status for head, _ in answers} == {200}
    await asyncio.gather(*(client.close() for client in clients))


async def test_idle_connections_of_all_workers_give_way() -> None:
    async with Server() as url, running(web(url, {"connections": 2}, workers=3)) as gateway:
        # Connections that are open at once go to all workers, and so do what they leave behind.
        for _ in range(20):
            await all_at_once(gateway, ["/app"] * 6)


async def test_never_more_than_there_may_be_and_none_is_forgotten() -> None:
    most, asked = 3, 60
    server = Server()
    async with server as url, running(web(url, {"connections": most}, workers=2)) as gateway:
        await all_at_once(gateway, [f"/app/{'close' if number % 2 else 'keep'}" for number in range(asked)])
        # A connection that ends and the next one may cross on their way to the server.
        assert server.served == asked and server.most <= 2 * most
        assert await asyncio.to_thread(value, gateway, "connections") <= most
        assert await asyncio.to_thread(value, gateway, "pending") == 0


# ---- WebSockets, HTTP/2 ---------------------------------------------------------------------------------------------


async def test_a_websocket_holds_its_connection_for_its_life() -> None:
    async with behind({"connections": 1}, timeouts={"handshake": "300ms"}) as (upstream, gateway):
        async with dial(gateway.port()) as client, dial(gateway.port()) as late:
            opening = asyncio.create_task(upgrade(client, "/app"))
            far_peer = await accept(await upstream.connection())
            peer = await opening
            await late.send(request_bytes("GET /app", *UPGRADE))
            head, body = await late.answer()
            assert (head.status, body.partition(b":")[0]) == (503, b"pending_timeout")
            await asyncio.gather(leave(peer), answer_close(far_peer))
        await until(lambda: value(gateway, "connections") == 0)


UPGRADE = (
    "Connection: Upgrade",
    "Upgrade: websocket",
    "Sec-WebSocket-Version: 13",
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
)


async def test_a_connection_of_http2_counts_once_whatever_it_carries() -> None:
    h2 = H2Server()
    async with h2, running(web(h2.url, {"connections": 1, "pending": 0}, upstream={"protocol": "h2"})) as gateway:
        clients = [await ask(gateway)]
        asked = [await h2.asked()]
        clients += [await ask(gateway) for _ in range(9)]
        asked += [await h2.asked() for _ in range(9)]
        assert await asyncio.to_thread(value, gateway, "connections") == 1
        for each in asked:
            each.answer(204, end=True)
        for client in clients:
            assert (await client.answer())[0].status == 204
            await client.close()


# ---- reload ---------------------------------------------------------------------------------------------------------


async def test_a_reload_finds_what_is_there_and_brings_room_to_those_who_wait() -> None:
    async with server() as (upstream, url), running(carrier(url, {})) as gateway:
        async with dial(gateway.port()), dial(gateway.port()):
            far = [await upstream.connection() for _ in range(2)]
            await reload(gateway, carrier(url, {"connections": 2}))
            async with dial(gateway.port()):
                await waiting(gateway, 1)
                assert upstream.unexpected == 0
                await reload(gateway, carrier(url, {"connections": 3}))
                far.append(await upstream.connection())
        for each in far:
            await each.close()
        await until(lambda: value(gateway, "connections") == 0)
