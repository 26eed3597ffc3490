"""How WebSockets end: who is told what, in which order, and which one cause is written down for it."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from tests.e2e.kit.bridge import Bridge, Pair
from tests.e2e.kit.frames import Op, Peer, binary, close, header, more, ping, text

AFTER = 0.4
"""Seconds of idleness in the routes below."""

CLIENTS = ["h1", "h2"]
ROUTES = {
    "plain": {},
    "told": {"websocket": {"on_client_lost": 1001}},
    "coded": {
        "websocket": {
            "close_codes": {"upstream_lost": 4000, "idle": 4001, "lifetime": 4002},
            "idle": {"after": "500ms"},
        }
    },
    "idle": {"websocket": {"idle": {"after": "400ms"}, "close_timeout": "300ms"}},
    "idle-any": {"websocket": {"idle": {"after": "400ms", "counts": "any"}, "close_timeout": "300ms"}},
    "idle-pinged": {
        "websocket": {
            "idle": {"after": "800ms", "counts": "any"},
            "ping": {"every": "100ms", "timeout": "5s", "to": ["downstream", "upstream"]},
        }
    },
    "brief": {"websocket": {"max_lifetime": "800ms"}},
    "briefer": {"websocket": {"max_lifetime": "400ms", "close_timeout": "300ms"}},
    "pinged": {"websocket": {"ping": {"every": "100ms", "timeout": "200ms", "to": ["downstream"]}}},
    "pinged-behind": {"websocket": {"ping": {"every": "100ms", "timeout": "200ms", "to": ["upstream"]}}},
}
CLOSED = "tidegate_websocket_closed_total"
SIDES = ["client", "server"]


@contextlib.asynccontextmanager
async def ends(bridge: Bridge, route: str, cause: str, code: int | None) -> AsyncIterator[Pair]:
    """A WebSocket that must end with this cause, in the access log and in the metric."""
    label = "none" if code is None else f"{code // 1000}xxx" if code >= 3000 else str(code)
    before = await bridge.count(CLOSED, route=route, cause=cause, code=label)
    others = await bridge.count(CLOSED, route=route)
    async with bridge.open(route) as pair:
        yield pair
        await pair.client.wire.close()
        await pair.server.wire.close()
        record = await bridge.ended(pair)
        assert (record["cause"], record.get("code")) == (cause, code)
        assert await bridge.count(CLOSED, route=route, cause=cause, code=label) == before + 1
        assert await bridge.count(CLOSED, route=route) == others + 1
        assert await bridge.count("tidegate_websocket_connections", route=route) == 0


async def answer_close(peer: Peer, *, code: int | None, reason: str = "") -> None:
    """A Close with this code comes, and is answered; then the connection ends."""
    frame = await peer.frame()
    assert (frame.op, frame.code) == (Op.CLOSE, code), frame
    assert frame.reason.startswith(reason), frame
    await peer.send(close(code))
    peer.wire.finish()
    await peer.wire.ended()


# ---- client and upstream ------------------------------------------------------------------------------------------


async def test_client(bridge: Bridge) -> None:
    async with ends(bridge, "plain", "client", 1000) as (client, server):
        await client.send(close(1000, "done"))
        await server.expect(close(1000, "done"))
        await server.send(close(1000, "done"))
        server.wire.finish()
        assert (await client.closed()).reason == "done"


async def test_upstream(bridge: Bridge) -> None:
    async with ends(bridge, "plain", "upstream", 4321) as (client, server):
        await server.send(close(4321, "kicked"))
        await client.expect(close(4321, "kicked"))
        await client.send(close(4321, "kicked"))
        await server.expect(close(4321, "kicked"))
        server.wire.finish()
        await client.wire.ended()


async def test_a_close_without_a_code_is_code_none(bridge: Bridge) -> None:
    async with ends(bridge, "plain", "client", None) as (client, server):
        await client.send(close())
        await server.expect(close())
        await server.send(close())
        server.wire.finish()
        await client.expect(close())
        await client.wire.ended()


@pytest.mark.parametrize("side", SIDES)
async def test_both_sides_close_at_once(bridge: Bridge, side: str) -> None:
    """Each gets the other's Close, and no answer that nobody gave. The first one is the cause."""
    async with bridge.open("plain") as pair:
        first, second = (pair.client, pair.server) if side == "client" else (pair.server, pair.client)
        first.wire.push(first.encode(close(4100, "first")))
        second.wire.push(second.encode(close(4200, "second")))
        await asyncio.gather(first.expect(close(4200, "second")), second.expect(close(4100, "first")))
        pair.server.wire.finish()
        await pair.client.wire.ended()
        await pair.client.wire.close()
        record = await bridge.ended(pair)
    assert (record["cause"], record["code"]) in [
        ("client", 4100 if side == "client" else 4200),
        ("upstream", 4200 if side == "client" else 4100),
    ]
    assert {record["client_code"], record["upstream_code"]} == {4100, 4200}


async def test_what_follows_a_close_is_not_passed_on(bridge: Bridge) -> None:
    async with ends(bridge, "plain", "client", 1000) as (client, server):
        await client.send(text("before"), close(1000), text("after"), close(1001))
        await server.expect(text("before"), close(1000))
        await server.send(close(1000), text("after"))
        await client.expect(close(1000))
        server.wire.finish()
        await client.wire.ended()
        await server.wire.ended()


async def test_the_other_side_may_finish_what_it_has_to_say(bridge: Bridge) -> None:
    """Between a peer's Close and its answer data still goes the other way, and no frame of ours comes in between."""
    async with ends(bridge, "plain", "client", 1000) as (client, server):
        await client.send(close(1000))
        await server.expect(close(1000))
        await server.send(text("one more", fin=False), more(b" thing"), ping(b"?"), close(1000))
        await client.expect(text("one more", fin=False), more(b" thing"), ping(b"?"), close(1000))
        server.wire.finish()
        await client.wire.ended()


async def test_half_close_behind_a_close(bridge: Bridge) -> None:
    """A client that ends its sending with its Close still hears the answer."""
    async with ends(bridge, "plain", "client", 1000) as (client, server):
        await client.send(close(1000))
        client.wire.finish()
        await server.expect(close(1000))
        await server.send(text("last"), close(1000))
        server.wire.finish()
        await client.expect(text("last"), close(1000))
        await client.wire.ended()


async def test_after_one_side_s_close_the_loss_of_the_other_is_not_upstream_lost(bridge: Bridge) -> None:
    async with ends(bridge, "plain", "client", 1000) as (client, server):
        await client.send(close(1000, "bye"))
        await server.expect(close(1000, "bye"))
        server.wire.reset()
        assert (await client.closed()).code == 1000


async def test_after_the_upstream_s_close_the_loss_of_the_client_is_not_client_lost(bridge: Bridge) -> None:
    async with ends(bridge, "plain", "upstream", 1001) as (client, server):
        await server.send(close(1001, "bye"))
        await client.expect(close(1001, "bye"))
        client.wire.reset()
        assert (await server.frame()).code == 1001
        server.wire.finish()
        await server.wire.ended()


async def test_a_server_that_ends_right_behind_its_close_may_still_be_answered(bridge: Bridge) -> None:
    async with ends(bridge, "plain", "upstream", 1000) as (client, server):
        await server.send(text("last"), close(1000, "bye"))
        server.wire.finish()
        await client.expect(text("last"), close(1000, "bye"))
        await client.send(text("a late word"), close(1000))
        await server.expect(text("a late word"), close(1000))
        await client.wire.ended()
        await server.wire.ended()


# ---- client_lost and upstream_lost --------------------------------------------------------------------------------

Loss = Callable[[Peer], Awaitable[None]]


async def by_fin(peer: Peer) -> None:
    await peer.wire.close()


async def by_reset(peer: Peer) -> None:
    peer.wire.reset()


LOSSES = pytest.mark.parametrize("lose", [by_fin, by_reset])


@LOSSES
async def test_client_lost_closes_the_upstream_without_a_close(bridge: Bridge, lose: Loss) -> None:
    async with ends(bridge, "plain", "client_lost", None) as (client, server):
        await client.send(text("last"))
        await server.expect(text("last"))
        await lose(client)
        await server.wire.ended()


@LOSSES
async def test_on_client_lost_says_a_close_where_it_is_wanted(bridge: Bridge, lose: Loss) -> None:
    async with ends(bridge, "told", "client_lost", None) as (client, server):
        await client.send(text("last", fin=False))
        await server.expect(text("last", fin=False))
        await lose(client)
        await answer_close(server, code=1001, reason="gw:")


async def test_on_client_lost_within_a_frame_cuts(bridge: Bridge) -> None:
    async with ends(bridge, "told", "client_lost", None) as (client, server):
        half = client.encode(binary(b"x" * 1000))[:300]
        await client.wire.send(half)
        assert await server.wire.exactly(300) == half
        await by_fin(client)
        await server.wire.ended()


@LOSSES
async def test_upstream_lost_is_a_1011_that_names_the_gateway(bridge: Bridge, lose: Loss) -> None:
    async with ends(bridge, "plain", "upstream_lost", 1011) as (client, server):
        await server.send(text("last"))
        await client.expect(text("last"))
        await lose(server)
        frame = await client.frame()
        assert (frame.code, frame.reason[:3]) == (1011, "gw:")
        await client.send(close(1011))
        await client.wire.ended()


async def test_upstream_lost_between_fragments_is_told_as_well(bridge: Bridge) -> None:
    async with ends(bridge, "plain", "upstream_lost", 1011) as (client, server):
        await server.send(text("the first of two", fin=False))
        await client.expect(text("the first of two", fin=False))
        await by_fin(server)
        await answer_close(client, code=1011, reason="gw:")


@LOSSES
async def test_upstream_lost_within_a_frame_cuts(bridge: Bridge, lose: Loss) -> None:
    """There is no place for a Close inside a frame: the client sees the end, and nothing that looks like payload."""
    async with ends(bridge, "plain", "upstream_lost", None) as (client, server):
        await server.wire.send(header(Op.BINARY, 1000) + b"x" * 300)
        assert await client.wire.exactly(4 + 300)
        await lose(server)
        await client.wire.ended()


async def test_upstream_lost_within_a_header_is_between_frames(bridge: Bridge) -> None:
    """Of a header that did not come whole nothing was passed on."""
    async with ends(bridge, "plain", "upstream_lost", 1011) as (client, server):
        await server.wire.send(b"\x81\x02hi" + header(Op.BINARY, 70_000)[:5])
        await client.expect(text("hi"))
        await by_fin(server)
        await answer_close(client, code=1011, reason="gw:")


async def test_everything_that_a_lost_upstream_had_said_comes_first(bridge: Bridge) -> None:
    frames = [binary(bytes([number]) * 100_000) for number in range(20)]
    async with ends(bridge, "plain", "upstream_lost", 1011) as (client, server):
        server.wire.push(server.encode(*frames))
        server.wire.finish()
        await client.expect(*frames)
        await answer_close(client, code=1011, reason="gw:")


async def test_the_code_of_upstream_lost_is_the_route_s(bridge: Bridge) -> None:
    async with ends(bridge, "coded", "upstream_lost", 4000) as (client, server):
        await by_fin(server)
        await answer_close(client, code=4000, reason="gw:")


# ---- idle ---------------------------------------------------------------------------------------------------------


async def test_idle(bridge: Bridge) -> None:
    async with ends(bridge, "idle", "idle", 1001) as (client, server):
        await client.send(text("the last data"))
        sent = time.monotonic()
        await server.expect(text("the last data"))
        await answer_close(client, code=1001, reason="gw: idle")
        assert time.monotonic() - sent > AFTER - 0.05
        await answer_close(server, code=1001, reason="gw:")


async def test_idle_has_a_code_of_its_own(bridge: Bridge) -> None:
    async with ends(bridge, "coded", "idle", 4001) as (client, server):
        await answer_close(client, code=4001, reason="gw: idle")
        await answer_close(server, code=1001)


async def test_pings_are_no_data(bridge: Bridge) -> None:
    """By default it is data that counts: two peers that only ping each other are idle."""
    async with ends(bridge, "idle", "idle", 1001) as (client, server):
        opened = time.monotonic()
        frame = None
        while frame is None or frame.op == Op.PING:
            await server.send(ping(b"still here"))
            frame = await client.frame()
            await asyncio.sleep(0.02)
        assert (frame.code, frame.reason) == (1001, "gw: idle")
        assert time.monotonic() - opened > AFTER - 0.05
        await client.send(close(1001))
        await answer_close(server, code=1001)


async def test_any_byte_counts_where_the_route_says_so(bridge: Bridge) -> None:
    async with ends(bridge, "idle-any", "idle", 1001) as (client, server):
        end = time.monotonic() + 2 * AFTER
        sent = end
        while time.monotonic() < end:
            sent = time.monotonic()
            await server.send(ping(b"still here"))
            frame = await client.frame()
            if frame.op == Op.CLOSE:  # a slow machine: it may come, but only after a pause that was long enough
                break
            await asyncio.sleep(0.05)
        else:
            frame = await client.frame()
        assert time.monotonic() - sent > AFTER - 0.05
        assert (frame.code, frame.reason) == (1001, "gw: idle")
        await client.send(close(1001))
        while (frame := await server.frame()).op != Op.CLOSE:
            pass
        assert frame.code == 1001


async def test_a_frame_that_trickles_is_not_idle(bridge: Bridge) -> None:
    async with ends(bridge, "idle", "client", 1000) as (client, server):
        whole = server.encode(binary(b"drop by drop by drop"))
        sent = []
        for byte in whole:
            sent.append(time.monotonic())
            await server.wire.send(bytes([byte]))
            await asyncio.sleep(2 * AFTER / len(whole))
        frame = await client.frame()
        await client.send(close(1000))
        await server.expect(close(1000))
        await server.send(close(1000))
        assert frame == binary(b"drop by drop by drop")


async def test_our_own_pings_and_their_pongs_keep_nobody_alive(bridge: Bridge) -> None:
    """`any` means every byte but our own pings: else a ping every 100 ms would make idleness impossible."""

    async def answering(peer: Peer) -> int | None:
        while (frame := await peer.frame()).op == Op.PING:
            await peer.send(type(frame)(Op.PONG, frame.payload))
        await peer.send(close(frame.code))
        return frame.code

    async with ends(bridge, "idle-pinged", "idle", 1001) as (client, server), asyncio.timeout(10):
        assert await asyncio.gather(answering(client), answering(server)) == [1001, 1001]


# ---- lifetime -----------------------------------------------------------------------------------------------------


async def test_lifetime(bridge: Bridge) -> None:
    async with ends(bridge, "brief", "lifetime", 1001) as (client, server):
        await answer_close(client, code=1001, reason="gw: lifetime")
        await answer_close(server, code=1001, reason="gw:")


async def test_lifetime_waits_for_the_end_of_a_message(bridge: Bridge) -> None:
    async with ends(bridge, "briefer", "lifetime", 1001) as (client, server):
        await server.send(text("begun ", fin=False))
        await client.expect(text("begun ", fin=False))
        # One that is opened later and lives longer comes to its end: ours has been due for a while.
        async with bridge.open("brief") as (later, _):
            assert (await later.frame()).op == Op.CLOSE
        await server.send(ping(b"between"), more(b"and done"))
        await client.expect(ping(b"between"), more(b"and done"))
        await answer_close(client, code=1001, reason="gw: lifetime")
        await answer_close(server, code=1001)


async def test_lifetime_waits_5_seconds_and_then_takes_the_next_best_place(bridge: Bridge) -> None:
    """Between two fragments a Close may stand. Inside a frame it may not: 2 s later that stream is cut."""

    async def between_fragments() -> None:
        async with bridge.open("brief") as (client, server):
            await server.send(text("begun ", fin=False))
            await client.expect(text("begun ", fin=False))
            opened = time.monotonic()
            await answer_close(client, code=1001, reason="gw: lifetime")
            assert time.monotonic() - opened > 4.5
            await answer_close(server, code=1001)

    async def inside_a_frame() -> None:
        async with bridge.open("brief") as (client, server):
            half = server.encode(binary(b"x" * 100))[:50]
            await server.wire.send(half)
            assert await client.wire.exactly(50) == half
            await client.wire.ended()
            frame = await server.frame()
            assert frame.code == 1001

    await asyncio.gather(between_fragments(), inside_a_frame())


async def test_what_the_client_still_says_after_our_close_goes_upstream(bridge: Bridge) -> None:
    """What the upstream still says does not reach the client, and is counted as discarded."""
    async with ends(bridge, "brief", "lifetime", 1001) as (client, server):
        assert (await client.frame()).code == 1001
        late = server.encode(text("too late"), ping(b"too late"))
        await server.wire.send(late)
        await client.send(text("one more "), text("thing", fin=False), more(b"!"), close(1001))
        await server.expect(text("one more "), text("thing", fin=False), more(b"!"))
        await answer_close(server, code=1001, reason="gw:")
        await client.wire.ended()
        await server.wire.close()
        assert (await bridge.ended(Pair(client, server)))["bytes_discarded"] == len(late)


async def test_a_client_that_answers_our_close_with_a_word_of_its_own(bridge: Bridge) -> None:
    """Two Closes that crossed: what the client says of its own accord is the upstream's to hear."""
    async with ends(bridge, "brief", "lifetime", 1001) as (client, server):
        assert (await client.frame()).code == 1001
        await client.send(close(4000, "mine"))
        await server.expect(close(4000, "mine"))
        await server.send(close(4000, "mine"))
        server.wire.finish()
        await client.wire.ended()


# ---- a peer that never answers ------------------------------------------------------------------------------------


# The time counts from before the WebSocket was there: a test that is late must not take it for short.


async def test_a_client_that_never_answers_our_close_has_2_seconds(bridge: Bridge) -> None:
    began = time.monotonic()
    async with bridge.open("brief") as pair:
        client, server = pair
        assert (await client.frame()).code == 1001
        await client.wire.ended()
        assert 2.7 < time.monotonic() - began < 8  # 800 ms are its life
        await answer_close(server, code=1001, reason="gw:")
        assert (await bridge.ended(pair))["cause"] == "lifetime"


async def test_an_upstream_that_never_answers_our_close_has_them_too(bridge: Bridge) -> None:
    began = time.monotonic()
    async with bridge.open("idle") as pair:
        client, server = pair
        assert (await client.frame()).code == 1001
        await client.send(close(1001))
        await client.wire.ended()
        assert (await server.frame()).code == 1001
        await server.wire.ended()
        assert 0.65 < time.monotonic() - began < 6  # 400 ms of silence, and this route's close_timeout is 300 ms
        assert (await bridge.ended(pair))["cause"] == "idle"


async def test_close_timeout_is_the_route_s(bridge: Bridge) -> None:
    """400 ms of life and 300 ms for an answer are over long before the 2 s of another route."""
    async with bridge.open("brief") as (other, _):
        began = time.monotonic()
        async with bridge.open("briefer") as pair:
            client, server = pair
            assert (await client.frame()).code == 1001
            assert (await other.frame()).code == 1001
            waiting = asyncio.create_task(other.wire.ended())
            await client.wire.ended()
            assert time.monotonic() - began > 0.65
            assert not waiting.done()
            assert (await server.frame()).code == 1001
            assert (await bridge.ended(pair))["cause"] == "lifetime"
        await waiting


async def test_an_upstream_that_has_closed_is_left_to_end_the_connection(bridge: Bridge) -> None:
    """RFC 6455 §7.1.1: the server ends first. One that does not is not waited for longer than close_timeout."""
    async with ends(bridge, "idle", "client", 1000) as (client, server):
        await client.send(close(1000))
        await server.expect(close(1000))
        await server.send(close(1000))
        closed = time.monotonic()
        await client.expect(close(1000))
        await client.wire.ended()
        await server.wire.ended()
        assert time.monotonic() - closed > 0.25


# ---- ping_timeout -------------------------------------------------------------------------------------------------


async def test_ping_timeout_downstream(bridge: Bridge) -> None:
    began = time.monotonic()
    async with bridge.open("pinged") as pair:
        client, server = pair
        assert (await client.frame()).op == Op.PING
        frame = await client.frame()
        assert (frame.code, frame.reason[:3]) == (1001, "gw:")
        assert time.monotonic() - began > 0.25  # 100 ms of silence, and 200 ms for the Pong
        await answer_close(server, code=1001, reason="gw:")
        assert (await bridge.ended(pair))["cause"] == "ping_timeout"


async def test_ping_timeout_upstream(bridge: Bridge) -> None:
    async with ends(bridge, "pinged-behind", "ping_timeout", 1011) as (client, server):
        assert (await server.frame()).op == Op.PING
        await answer_close(client, code=1011, reason="gw:")
        frame = await server.frame()
        assert (frame.code, frame.reason[:3]) == (1001, "gw:")
