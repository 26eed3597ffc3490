"""A drain: not ready first, then no new connections, then a Close for each WebSocket, then the cut, then the end."""

import asyncio
import contextlib
import json
import signal
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable

import pytest

from tests.e2e.kit.bridge import attempt
from tests.e2e.kit.frames import Frame, Op, Peer, binary, close, more, ping, pong, text
from tests.e2e.kit.peers import EchoServer, accept, answer_close, echoes, frames, open_peer, play, running
from tests.e2e.kit.sites import Config, route, site, until
from tests.e2e.kit.wire import Play, dial, request_bytes
from tidegate.testing import Gateway

READY = route("ready", respond="ready")


@pytest.fixture
async def echo() -> AsyncIterator[EchoServer]:
    async with EchoServer() as server:
        yield server


def config(url: str, *routes: Config, **drain: str) -> Config:
    drain = {"window": "0s", "timeout": "10s", **drain}
    return site(route("app", "app"), READY, *routes, upstreams={"app": url}, drain=drain)


async def begin(gateway: Gateway) -> None:
    """SIGTERM, and the drain has begun."""
    gateway.signal(signal.SIGTERM)
    await asyncio.to_thread(gateway.log().wait_for, event="draining")


async def ended(gateway: Gateway) -> int:
    return await asyncio.to_thread(gateway.wait)


@contextlib.asynccontextmanager
async def bridged(gateway: Gateway, server: Play) -> AsyncIterator[tuple[Peer, Peer]]:
    """A WebSocket whose server the test plays: the client's end and the server's."""
    async with dial(gateway.port()) as wire:
        await wire.send(attempt("/app"))
        far = await accept(await server.connection())
        head = await wire.head()
        assert head.status == 101
        yield Peer(wire, head, is_client=True), far


async def over(peer: Peer) -> None:
    """Nothing comes but the end, and this end closes as well."""
    assert await frames(peer) == []
    await peer.wire.close()


def drain_close(frame: Frame) -> None:
    """What each client is told: come back, and when."""
    assert (frame.op, frame.code) == (Op.CLOSE, 1012)
    words, _, seconds = frame.reason.removesuffix("s").partition("; retry=")
    assert words == "gw: drain"
    assert 1 <= int(seconds) <= 15


# ---- ready, delay, no new connections -------------------------------------------------------------------------------


async def test_not_ready_first_and_open_until_the_delay_is_over(echo: EchoServer) -> None:
    async with running(config(echo.url, delay="3s", timeout="20s")) as gateway, dial(gateway.port()) as kept:
        await kept.send(request_bytes("GET /ready"))
        assert (await kept.answer())[0].status == 200
        async with open_peer(gateway.port(), "/app") as early:
            began = time.monotonic()
            await begin(gateway)
            assert (await asyncio.to_thread(gateway.admin, "/ready"))[0] == 503
            assert (await asyncio.to_thread(gateway.admin, "/live"))[0] == 200
            status = json.loads((await asyncio.to_thread(gateway.admin, "/config/status"))[1])
            assert (status["ready"], status["draining"]) == (False, True)
            await kept.send(request_bytes("GET /ready"))
            assert (await kept.answer())[0].status == 503
            # Balancers have not noticed yet: what they send is served, and stays.
            async with open_peer(gateway.port(), "/app") as late:
                await echoes(late)
                await echoes(early)
                assert time.monotonic() - began < 3, "too slow to see the delay"
                for peer in (early, late):
                    drain_close(await answer_close(peer))
            assert time.monotonic() - began >= 2.9
            with pytest.raises(ConnectionRefusedError):
                await asyncio.open_connection("127.0.0.1", gateway.port())
        assert await ended(gateway) == 0


async def test_the_delay_counts_when_nothing_is_left_as_well() -> None:
    async with running(config("http://127.0.0.1:9", delay="600ms", timeout="10s")) as gateway:
        port, began = gateway.port(), time.monotonic()
        await begin(gateway)
        async with dial(port) as wire:
            await wire.send(request_bytes("GET /ready", "Connection: close"))
            assert (await wire.answer())[0].status == 503
        assert await ended(gateway) == 0
        assert time.monotonic() - began >= 0.6


async def test_the_admin_address_begins_one_too(echo: EchoServer) -> None:
    async with running(config(echo.url)) as gateway, open_peer(gateway.port(), "/app") as peer:
        assert (await asyncio.to_thread(gateway.admin, "/drain", "POST"))[0] == 202
        drain_close(await answer_close(peer))
        assert await ended(gateway) == 0


# ---- one Close for each ---------------------------------------------------------------------------------------------


async def test_each_client_gets_one_close_and_they_are_spread_evenly(echo: EchoServer) -> None:
    count, window = 120, 2.0
    async with running(config(echo.url, window="2s")) as gateway, contextlib.AsyncExitStack() as stack:
        peers = [await stack.enter_async_context(open_peer(gateway.port(), "/app")) for _ in range(count)]

        async def told(peer: Peer) -> float:
            drain_close(await peer.frame())
            when = time.monotonic()
            await peer.send(close(1012))
            await over(peer)
            return when

        waiting = [asyncio.create_task(told(peer)) for peer in peers]
        await begin(gateway)
        times = sorted(await asyncio.gather(*waiting))
        assert await ended(gateway) == 0
    lasted = times[-1] - times[0]
    assert window * 0.8 <= lasted <= window + 0.5, lasted
    for quarter in range(4):
        start = times[0] + lasted * quarter / 4
        share = sum(start <= when < start + lasted / 4 for when in times)
        assert count / 4 * 0.6 <= share <= count / 4 * 1.4, (quarter, share)
    assert [frame.code for frame in echo.closes] == [1001] * count
    records = gateway.access_log().matching(event="close")
    assert len(records) == count
    assert {(each["cause"], each["code"], each["client_code"]) for each in records} == {("drain", 1012, 1012)}


async def test_a_few_do_not_take_the_whole_window(echo: EchoServer) -> None:
    """At least 50 a second; and Ctrl-C drains as SIGTERM does."""
    async with (
        running(config(echo.url, window="60s", timeout="60s")) as gateway,
        contextlib.AsyncExitStack() as stack,
    ):
        peers = [await stack.enter_async_context(open_peer(gateway.port(), "/app")) for _ in range(25)]
        began = time.monotonic()
        gateway.signal(signal.SIGINT)
        await asyncio.gather(*map(answer_close, peers))
        assert await ended(gateway) == 0
        assert time.monotonic() - began < 5


Scenario = Callable[[Peer, Peer], AsyncGenerator[None, None]]
"""What a client and a server do before the drain begins, where it yields, and after."""


async def inside_a_frame(client: Peer, server: Peer) -> AsyncGenerator[None, None]:
    whole = binary(b"x" * 1000).encode(None)
    await server.wire.send(whole[:300])
    head = await client.wire.exactly(4)  # its header is through
    assert head == whole[:4]
    yield
    await server.wire.send(whole[300:])
    assert await client.wire.exactly(len(whole) - 4) == whole[4:]
    drain_close(await client.frame())
    await client.send(close(1012))
    await told_1001(server)


async def inside_a_message(client: Peer, server: Peer) -> AsyncGenerator[None, None]:
    await server.send(text("one ", fin=False))
    await client.expect(text("one ", fin=False))
    yield
    # Control frames may stand between fragments; they do not end the wait, and the middle is no end.
    await server.send(ping(b"still here"), more(b"two ", fin=False))
    await client.expect(ping(b"still here"), more(b"two ", fin=False))
    await client.send(pong(b"still here"))
    await server.expect(pong(b"still here"))
    await server.send(more(b"three"))
    await client.expect(more(b"three"))
    drain_close(await client.frame())
    await client.send(close(1012))
    await told_1001(server)


async def inside_a_message_without_end(client: Peer, server: Peer) -> AsyncGenerator[None, None]:
    """Before the cut it gets its Close between two frames, where RFC 6455 §5.4 allows it: better than none."""
    await server.send(text("one", fin=False))
    await client.expect(text("one", fin=False))
    yield
    drain_close(await client.frame())
    await client.send(close(1012))
    await told_1001(server)


async def inside_a_message_of_the_client(client: Peer, server: Peer) -> AsyncGenerator[None, None]:
    """What the client says up to its own Close still goes through; what the server says then is for nobody."""
    await client.send(text("one ", fin=False))
    await server.expect(text("one ", fin=False))
    half = client.encode(more(b"y" * 500))
    await client.wire.send(half[:100])
    yield
    drain_close(await client.frame())
    await client.wire.send(half[100:])
    await server.expect(more(b"y" * 500))
    await client.send(close(1012))
    assert (await server.frame()).code == 1001
    await server.send(text("too late"), close(1001))
    await server.wire.close()


async def at_the_clients_own_close(client: Peer, server: Peer) -> AsyncGenerator[None, None]:
    await client.send(close(4000, "bye"))
    await server.expect(close(4000, "bye"))
    yield
    await server.send(close(4000, "bye"))
    await server.wire.close()
    await client.expect(close(4000, "bye"))


async def at_the_servers_own_close(client: Peer, server: Peer) -> AsyncGenerator[None, None]:
    await server.send(close(4001, "bye"))
    await client.expect(close(4001, "bye"))
    yield
    await client.send(close(4001, "bye"))
    await server.expect(close(4001, "bye"))
    await server.wire.close()


SCENARIOS: list[Scenario] = [
    inside_a_frame,
    inside_a_message,
    inside_a_message_without_end,
    inside_a_message_of_the_client,
    at_the_clients_own_close,
    at_the_servers_own_close,
]


async def told_1001(server: Peer) -> None:
    assert (await server.frame()).code == 1001
    await server.send(close(1001))
    await server.wire.close()


async def test_one_close_where_it_may_stand() -> None:
    async with (
        play() as (server, url),
        running(config(url, timeout="3s")) as gateway,
        contextlib.AsyncExitStack() as stack,
    ):
        pairs = [await stack.enter_async_context(bridged(gateway, server)) for _ in SCENARIOS]
        under_way = [scenario(*pair) for scenario, pair in zip(SCENARIOS, pairs, strict=True)]
        for scenario in under_way:
            await anext(scenario)
        await begin(gateway)

        async def go_on(scenario: AsyncGenerator[None, None], client: Peer) -> None:
            assert await anext(scenario, "over") == "over"
            await over(client)

        async with asyncio.TaskGroup() as group:
            for scenario, (client, _) in zip(under_way, pairs, strict=True):
                group.create_task(go_on(scenario, client))
        assert await ended(gateway) == 0
        ends = [(each["cause"], each["code"]) for each in gateway.access_log().matching(event="close")]
        assert sorted(ends) == [("client", 4000), *[("drain", 1012)] * 4, ("upstream", 4001)]


async def test_a_client_that_does_not_answer_is_not_waited_for_long(echo: EchoServer) -> None:
    async with running(config(echo.url, timeout="60s")) as gateway, open_peer(gateway.port(), "/app") as peer:
        began = time.monotonic()
        await begin(gateway)
        drain_close(await peer.frame())
        await peer.wire.ended()
        assert await ended(gateway) == 0
        assert 1.5 < time.monotonic() - began < 10
        assert [frame.code for frame in echo.closes] == [1001]


async def test_those_that_the_gateway_answers_itself_and_opaque_ones(echo: EchoServer) -> None:
    """An opaque one ends without words: nobody knows what words it has."""
    raw = route("raw", "app", websocket={"frames": "opaque"})
    async with (
        running(config(echo.url, route("own", respond="echo"), raw)) as gateway,
        open_peer(gateway.port(), "/own") as own,
        open_peer(gateway.port(), "/raw") as opaque,
    ):
        await echoes(own)
        await echoes(opaque)
        await begin(gateway)
        drain_close(await answer_close(own))
        await over(opaque)
        assert await ended(gateway) == 0


# ---- plain HTTP -----------------------------------------------------------------------------------------------------


async def test_answers_under_way_finish_and_idle_connections_close() -> None:
    async with play() as (server, url), running(config(url)) as gateway:
        port = gateway.port()
        async with dial(port) as idle, dial(port) as waiting, dial(port) as reading, dial(port) as fresh:
            await idle.send(request_bytes("GET /ready"))
            assert (await idle.answer())[0].status == 200
            await waiting.send(request_bytes("GET /app/waiting"))
            late = await server.connection()
            await late.head()
            await reading.send(request_bytes("GET /app/reading"))
            slow = await server.connection()
            await slow.head()
            await slow.send(b"HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nhalf")
            head = await reading.head()
            assert (head.get("connection"), await reading.exactly(4)) == (None, b"half")

            await begin(gateway)
            await idle.ended()
            await fresh.ended()
            await late.send(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ndone")
            head, body = await waiting.answer()
            assert (head.get("connection"), body) == ("close", b"done")
            await waiting.ended()
            await slow.send(b"done")
            assert await reading.exactly(4) == b"done"
            await reading.ended()
        assert await ended(gateway) == 0


async def test_a_request_that_is_there_already_is_answered(echo: EchoServer) -> None:
    async with running(config(echo.url)) as gateway, dial(gateway.port()) as first, dial(gateway.port()) as second:
        # Both heads have begun: the connections are not idle.
        await first.send(request_bytes("GET /ready")[:-2])
        await second.send(attempt("/app")[:-2])
        await until(lambda: gateway.metrics().value("tidegate_worker_connections") == 2)
        await begin(gateway)
        await refuses_new_connections(gateway)
        for wire in (first, second):
            await wire.send(b"\r\n")
            head, _ = await wire.answer()
            assert (head.status, head.get("connection")) == (503, "close")
            await wire.ended()
            await wire.close()
        assert await ended(gateway) == 0
        refusal = gateway.access_log().wait_for(event="refusal")
        assert (refusal["status"], refusal["reason"]) == (503, "draining")
        assert echo.opened == 0


async def refuses_new_connections(gateway: Gateway) -> None:
    async with asyncio.timeout(10):
        while True:
            try:
                async with dial(gateway.port()) as wire:
                    await wire.ended()
            except ConnectionRefusedError:
                return


async def test_a_handshake_whose_answer_comes_during_the_drain_is_told_at_once() -> None:
    async with play() as (server, url), running(config(url)) as gateway, dial(gateway.port()) as wire:
        await wire.send(attempt("/app"))
        asked = await server.connection()
        await begin(gateway)
        await refuses_new_connections(gateway)
        far = await accept(asked)
        head = await wire.head()
        assert head.status == 101
        client = Peer(wire, head, is_client=True)
        drain_close(await client.frame())
        await client.send(close(1012))
        await told_1001(far)
        await over(client)
        assert await ended(gateway) == 0


# ---- the end --------------------------------------------------------------------------------------------------------


async def test_the_timeout_cuts_the_rest() -> None:
    """An answer that never ends, a WebSocket in the middle of a frame, and a client that reads nothing."""
    async with (
        play() as (server, url),
        running(config(url, timeout="1s")) as gateway,
        dial(gateway.port()) as wire,
        bridged(gateway, server) as (client, far),
        bridged(gateway, server) as (_, source),
    ):
        flood = asyncio.create_task(_flood(source))
        sent = -1.0
        while (now := (await asyncio.to_thread(gateway.metrics)).value("tidegate_websocket_bytes_total")) != sent:
            sent = now  # until every buffer on the way is full
            await asyncio.sleep(0.1)
        await far.wire.send(binary(b"x" * 1000).encode(None)[:300])
        await client.wire.exactly(300)
        await wire.send(request_bytes("GET /app"))
        slow = await server.connection()
        await slow.head()
        await slow.send(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf")
        await wire.until(b"half")
        began = time.monotonic()
        await begin(gateway)
        assert await client.wire.rest() == b""
        assert await wire.rest() == b""
        assert await ended(gateway) == 0
        assert 0.9 < time.monotonic() - began < 5
        ends = [(each["cause"], each.get("code")) for each in gateway.access_log().matching(event="close")]
        assert ends == [("drain", None)] * 2
        flood.cancel()


async def _flood(peer: Peer) -> None:
    with contextlib.suppress(ConnectionError, TimeoutError):
        while True:
            await peer.send(binary(b"x" * 65536))


async def test_a_second_signal_ends_at_once() -> None:
    async with play() as (server, url), running(config(url, timeout="60s")) as gateway, dial(gateway.port()) as wire:
        await wire.send(request_bytes("GET /app"))
        await (await server.connection()).head()
        began = time.monotonic()
        await begin(gateway)
        gateway.signal(signal.SIGINT)
        assert await ended(gateway) == 128 + signal.SIGINT
        assert time.monotonic() - began < 5
        assert await wire.rest() == b""


async def test_nobody_is_told_twice_when_a_reload_drains_already(echo: EchoServer) -> None:
    settings = config(echo.url, route("other", "app"))
    async with running(settings) as gateway, open_peer(gateway.port(), "/other") as peer:
        gateway.write(config(echo.url))
        close_frame = await peer.frame()
        assert close_frame.reason.startswith("gw: reload")
        await begin(gateway)
        await peer.send(close(1012))
        await over(peer)
        assert await ended(gateway) == 0
