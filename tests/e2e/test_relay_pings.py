"""Pings: the gateway's own, which nobody else may notice, and those of the peers, which are theirs alone."""

import asyncio

import pytest

from tests.e2e.kit.bridge import Bridge
from tests.e2e.kit.frames import Frame, Op, Peer, binary, close, encode, more, ping, pong, text

CLIENTS = ["h1", "h2"]
ROUTES = {
    "never": {"websocket": {"ping": "never"}},
    "down": {"websocket": {"ping": {"every": "100ms", "timeout": "5s", "to": ["downstream"]}}},
    "up": {"websocket": {"ping": {"every": "100ms", "timeout": "5s", "to": ["upstream"]}}},
    "both": {"websocket": {"ping": {"every": "100ms", "timeout": "5s", "to": ["downstream", "upstream"]}}},
    "patient": {"websocket": {"ping": {"every": "100ms", "timeout": "800ms", "to": ["downstream"]}}},
    "hasty-up": {"websocket": {"ping": {"every": "200ms", "timeout": "400ms", "to": ["upstream"]}}},
}


async def own_ping(peer: Peer) -> Frame:
    """A Ping of the gateway's comes next: whole, and with a payload that no peer would think of."""
    frame = await peer.frame()
    assert (frame.op, frame.fin, frame.rsv, len(frame.payload)) == (Op.PING, True, 0, 8), frame
    return frame


async def until_closed(peer: Peer) -> None:
    """Does not answer a Ping, until the gateway has given it up."""
    while (frame := await peer.frame()).op == Op.PING:
        pass
    assert frame.op == Op.CLOSE


@pytest.mark.parametrize("route", ["down", "up"])
async def test_our_own_ping_and_its_pong_are_between_us_and_the_peer(bridge: Bridge, route: str) -> None:
    """The frame's mask is checked by the peer: towards the server ours has one, towards the client it has none."""
    async with bridge.open(route) as pair:
        pinged, other = (pair.client, pair.server) if route == "down" else (pair.server, pair.client)
        payloads = []
        for _ in range(3):
            frame = await own_ping(pinged)
            payloads.append(frame.payload)
            await pinged.send(pong(frame.payload))
        assert len(set(payloads)) == 3
        await pinged.send(text("nothing before this"))
        await other.expect(text("nothing before this"))
        await other.send(text("hello"))
        async with asyncio.timeout(5):
            while (frame := await pinged.frame()).op == Op.PING:
                pass
        assert frame == text("hello")


async def test_the_time_that_a_pong_takes_is_measured(bridge: Bridge) -> None:
    async def measured() -> float:
        return await bridge.count("tidegate_websocket_ping_seconds_count", route="both")

    before = await measured()
    async with bridge.open("both") as (client, server):
        for peer in (client, server):
            await peer.send(pong((await own_ping(peer)).payload))
        async with asyncio.timeout(5):
            while await measured() < before + 2:
                pass
    assert await bridge.count("tidegate_websocket_messages_total", route="both", opcode="pong") == 0


async def test_foreign_pings_and_pongs_pass_untouched(bridge: Bridge) -> None:
    frames = [ping(), pong(), ping(b"12345678"), pong(b"12345678"), ping(b"x" * 125), pong(b"unasked")]
    async with bridge.open("never") as (client, server):
        for sender, receiver in ((client, server), (server, client)):
            await sender.send(*frames)
            await receiver.expect(*frames)


async def test_a_foreign_pong_that_comes_while_ours_is_awaited_passes(bridge: Bridge) -> None:
    async with bridge.open("down") as (client, server):
        ours = await own_ping(client)
        await server.send(ping(b"theirs"))
        while (frame := await client.frame()) != ping(b"theirs"):
            assert frame.op == Op.PING
        await client.send(pong(b"theirs"), pong(ours.payload + b"!"), pong(ours.payload), pong(b"unasked"))
        await server.expect(pong(b"theirs"), pong(ours.payload + b"!"))
        assert await server.frame() in (pong(b"unasked"), pong(ours.payload))


async def test_a_pong_that_is_ours_is_swallowed_once(bridge: Bridge) -> None:
    """The same payload again answers nothing of ours: it is a message of the peer's."""
    async with bridge.open("down") as (client, server):
        ours = await own_ping(client)
        await client.send(pong(ours.payload), pong(ours.payload))
        await server.expect(pong(ours.payload))


async def test_our_ping_waits_for_the_end_of_a_frame(bridge: Bridge) -> None:
    async with bridge.open("both") as (client, server):
        whole = server.encode(binary(b"x" * 1000))
        await server.wire.send(whole[:500])
        got = await client.wire.exactly(500)
        # The server is silent as well, and is pinged for it: by then the client's Ping is due.
        await own_ping(server)
        await server.wire.send(whole[500:])
        assert got + await client.wire.exactly(len(whole) - 500) == whole
        await own_ping(client)


async def test_our_ping_may_go_between_fragments(bridge: Bridge) -> None:
    async with bridge.open("down") as (client, server):
        await server.send(text("one", fin=False))
        await client.expect(text("one", fin=False))
        await own_ping(client)
        await server.send(more(b"two"))
        async with asyncio.timeout(5):
            while (frame := await client.frame()).op == Op.PING:
                pass
        assert frame == more(b"two")


async def test_no_ping_of_ours_while_a_foreign_one_is_unanswered(bridge: Bridge) -> None:
    """It asks the same question, and a second one could hide its Pong: peers answer only the last one."""
    async with bridge.open("hasty-up") as (client, server):
        await client.send(ping(b"theirs"))
        await server.expect(ping(b"theirs"))
        frame = await server.frame()
        assert (frame.op, frame.code) == (Op.CLOSE, 1001), "another ping"
        assert (await client.frame()).code == 1011


async def test_a_foreign_ping_that_was_answered_leaves_room_for_ours(bridge: Bridge) -> None:
    async with bridge.open("up") as (client, server):
        await client.send(ping(b"theirs"))
        frame = await server.frame()
        while frame != ping(b"theirs"):
            frame = await server.frame()
        await server.send(pong(b"theirs"))
        await client.expect(pong(b"theirs"))
        await own_ping(server)


async def test_a_pong_that_comes_late_is_still_ours(bridge: Bridge) -> None:
    """The client has shown life by other bytes, and more than the time for a Pong is over."""
    async with bridge.open("patient") as (client, server), bridge.open("patient") as (silent, _):
        ours = await own_ping(client)
        lost = asyncio.ensure_future(until_closed(silent))
        while not lost.done():
            await client.send(text("still here"))
            await server.expect(text("still here"))
            await asyncio.sleep(0.01)
        await client.send(pong(ours.payload), text("nothing before this"))
        await server.expect(text("nothing before this"))


async def test_any_byte_of_a_peer_proves_its_life(bridge: Bridge) -> None:
    """A client that never sends a Pong, but talks: it is not lost, however many Pings it leaves unanswered."""
    async with bridge.open("patient") as (client, server):
        for _ in range(3):
            assert (await client.frame()).op == Op.PING
            await client.send(text("still here"))
            await server.expect(text("still here"))


async def test_a_peer_that_talks_is_not_pinged(bridge: Bridge) -> None:
    async with bridge.open("down") as (client, server):
        loop = asyncio.get_running_loop()
        opened = loop.time()
        pinged = asyncio.ensure_future(client.frame())
        said = loop.time()
        pause = 0.0
        while loop.time() < opened + 0.5 and not pinged.done():
            await client.send(text("x"))
            await server.expect(text("x"))
            pause, said = max(pause, loop.time() - said), loop.time()
            await asyncio.sleep(0.01)
        # On a machine that stood still for 100 ms a Ping is right.
        assert not pinged.done() or pause > 0.05
        assert (await pinged).op == Op.PING


async def test_the_pong_deadline_stands_still_while_we_do_not_read_the_peer(bridge: Bridge) -> None:
    """The server takes nothing, so the client's Pong lies behind what the server has to take first."""
    message = [binary(b"x" * (1 << 20))] * 24
    sent = encode(*message, is_client=True)
    async with bridge.open("patient") as (client, server):
        server.wire.pause()
        client.wire.push(sent)
        # Others on the route are opened, fall silent and are lost, one after the other: time enough for ours.
        for _ in range(2):
            async with bridge.open("patient") as (silent, _):
                await until_closed(silent)
        client.wire.push(client.encode(text("still here")))
        server.wire.resume()
        await server.expect(*message, text("still here"))
        await client.send(close(1000))
        await server.expect(close(1000))


@pytest.mark.parametrize("side", ["client", "server"])
async def test_no_ping_of_ours_behind_a_close(bridge: Bridge, side: str) -> None:
    """One side has closed, and the other takes its time: neither is pinged any more."""
    async with bridge.open("both") as (client, server), bridge.open("both") as (other, _):
        closing, closed = (client, server) if side == "client" else (server, client)
        await closing.send(close(1000))
        while (frame := await closed.frame()).op == Op.PING:
            pass
        assert frame == close(1000)
        for _ in range(3):
            await other.send(pong((await own_ping(other)).payload))
        await closed.send(close(1000))
        while (frame := await closing.frame()).op == Op.PING:  # at most one, that crossed the Close
            pass
        assert frame == close(1000)
        server.wire.finish()
        await client.wire.ended()
        await server.wire.ended()


async def test_no_pings_where_they_are_off(bridge: Bridge) -> None:
    """Another route's silent client is pinged twice meanwhile."""
    async with bridge.open("never") as (client, server), bridge.open("down") as (other, _):
        for _ in range(2):
            await other.send(pong((await own_ping(other)).payload))
        await server.send(text("first of all"))
        await client.expect(text("first of all"))
