"""How fast a client may send, and in what pieces: `messages`, `max_frame`, `max_fragments`."""

import asyncio
import time

import pytest

from tests.e2e.kit.bridge import Bridge, Pair
from tests.e2e.kit.frames import Op, Peer, binary, close, more, ping, pong, text

CLIENTS = ["h1", "h2", "h3"]
ROUTES = {
    "delay": {"websocket": {"messages": {"rate": "20/s", "burst": 5}}},
    "bytes": {"websocket": {"messages": {"bytes": "100KiB/s", "bytes_burst": "10KiB"}}},
    "pings": {"websocket": {"messages": {"rate": "1000/s", "control": "5/s"}}},
    "drop": {"websocket": {"messages": {"rate": "3/h", "over": "drop"}}},
    "small": {"websocket": {"messages": {"bytes": "1000/h", "over": "drop"}}},
    "close": {"websocket": {"messages": {"rate": "3/h", "over": "close"}}},
    "own-code": {"websocket": {"messages": {"rate": "1/h", "over": "close"}, "close_codes": {"rate": 1008}}},
    "pieces": {"websocket": {"max_frame": "1000", "max_fragments": 3}},
    "idle": {
        "websocket": {
            "messages": {"rate": "1/s"},
            "idle": {"after": "400ms"},
            "ping": {"every": "200ms", "timeout": "200ms"},
        }
    },
}
LIMITED = "tidegate_websocket_limited_total"
DEFLATE = "Sec-WebSocket-Extensions: permessage-deflate"


async def took(pair: Pair, count: int, payload: bytes = b"x") -> float:
    """Seconds until the server has all of so many messages, which are sent at once."""
    start = time.monotonic()
    pair.client.wire.push(pair.client.encode(*(binary(payload + bytes([number])) for number in range(count))))
    await pair.server.expect(*(binary(payload + bytes([number])) for number in range(count)))
    return time.monotonic() - start


async def test_delay_keeps_to_the_rate_and_loses_nothing(bridge: Bridge) -> None:
    before = await bridge.count(LIMITED, route="delay", action="delayed")
    async with bridge.open("delay") as pair:
        # 5 at once, and 20 each second from then on.
        assert 0.9 <= await took(pair, 25) <= 5
        await pair.server.send(*(text(str(number)) for number in range(50)))
        await pair.client.expect(*(text(str(number)) for number in range(50)))
        await pair.client.send(close(1000))
        assert (await pair.server.frame()).code == 1000
    assert await bridge.count(LIMITED, route="delay", action="delayed") > before


async def test_delay_is_backpressure(bridge: Bridge) -> None:
    """The client cannot get rid of much more than what has passed: the gateway does not read on."""
    async with bridge.open("delay") as pair:
        written = 0
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1):
                while True:
                    await pair.client.send(binary(bytes(64 << 10)))
                    written += 64 << 10
        assert written < 16 << 20  # the sockets' buffers


async def test_bytes_pay_as_they_pass(bridge: Bridge) -> None:
    """A message that is larger than the burst passes too, in its time; pings beside it are answered."""
    async with bridge.open("bytes") as pair:
        start = time.monotonic()
        payload = bytes(150 << 10)
        pair.client.wire.push(pair.client.encode(binary(payload), text("behind")))
        await pair.server.expect(binary(payload), text("behind"))
        assert time.monotonic() - start >= 1
        await pair.server.send(ping(b"still there"))
        await pair.client.expect(ping(b"still there"))


async def test_pings_have_a_budget_of_their_own(bridge: Bridge) -> None:
    async with bridge.open("pings") as pair:
        start = time.monotonic()
        pair.client.wire.push(pair.client.encode(*(ping(bytes([number])) for number in range(10))))
        await pair.server.expect(*(ping(bytes([number])) for number in range(10)))
        assert time.monotonic() - start >= 0.8
        await pair.client.send(text("a"), pong(b"unasked"))
        await pair.server.expect(text("a"), pong(b"unasked"))


async def test_drop_leaves_out_whole_messages(bridge: Bridge) -> None:
    """Also those in several frames and several reads; control frames between those frames pass."""
    async with bridge.open("drop", DEFLATE) as pair:
        assert "permessage-deflate" not in str(pair.server.head.fields)
        first = [text("1"), text("2", fin=False), more(b"2"), binary(b"3")]
        await pair.client.send(*first)
        await pair.server.expect(*first)
        await pair.client.send(text("left out"), text("left ", fin=False), ping(b"in between"), more(b"out", fin=False))
        await pair.server.expect(ping(b"in between"))
        rest = pair.client.encode(more(b"x" * 300), binary(b""), ping(b"behind"))
        for cut in range(1, len(rest)):
            await pair.client.wire.send(rest[cut - 1 : cut])
        await pair.client.wire.send(rest[-1:])
        await pair.server.expect(ping(b"behind"))
        await pair.server.send(text("answer"))
        await pair.client.expect(text("answer"))
        await pair.client.send(close(1000))
        await pair.server.expect(close(1000))
        await pair.server.send(close(1000))
        record = await bridge.ended(pair)
    assert (record["messages_in"], record["messages_dropped"], record["bytes_in"]) == (3, 3, 4)
    assert await bridge.count(LIMITED, route="drop", action="dropped") >= 3


async def test_drop_by_bytes(bridge: Bridge) -> None:
    async with bridge.open("small") as pair:
        frames = [binary(bytes(600)), binary(bytes(401)), binary(bytes(400)), binary(b"x"), ping()]
        await pair.client.send(*frames)
        await pair.server.expect(frames[0], frames[2], ping())


async def test_our_own_frames_go_between_those_that_are_left(bridge: Bridge) -> None:
    """A server's Close, while a message that is left out is under way."""
    async with bridge.open("drop") as pair:
        await pair.client.send(text("1"), text("2"), text("3"), text("left out", fin=False), ping(b"seen"))
        await pair.server.expect(text("1"), text("2"), text("3"), ping(b"seen"))
        await pair.server.send(close(3000))
        await pair.client.expect(close(3000))
        await pair.client.send(more(b"end"), close(3000))
        await pair.server.expect(close(3000))


@pytest.mark.parametrize(("route", "passed", "code"), [("close", 3, 4429), ("own-code", 1, 1008)])
async def test_close_ends_the_connection_behind_what_was_allowed(
    bridge: Bridge, route: str, passed: int, code: int
) -> None:
    before = await bridge.count(LIMITED, route=route, action="closed")
    async with bridge.open(route) as pair:
        messages = [text(str(number)) for number in range(passed)]
        await pair.client.send(*messages, text("too many"), text("and more"))
        await pair.server.expect(*messages)
        told = await pair.server.frame()
        assert (told.code, told.reason) == (1001, "gw: the other side was too fast")
        await pair.server.send(told)
        told = await pair.client.closed()
        assert (told.code, told.reason) == (code, "gw: too fast")
        record = await bridge.ended(pair)
    assert (record["cause"], record["code"]) == ("rate", code)
    assert await bridge.count(LIMITED, route=route, action="closed") == before + 1
    assert await bridge.count("tidegate_websocket_closed_total", route=route, cause="rate") >= 1


def sides(pair: Pair, side: str) -> tuple[Peer, Peer]:
    return (pair.client, pair.server) if side == "client" else (pair.server, pair.client)


@pytest.mark.parametrize("side", ["client", "server"])
async def test_pieces(bridge: Bridge, side: str) -> None:
    """Both sides keep to them; control frames are no pieces."""
    good = [binary(bytes(1000)), text("a", fin=False), more(b"b", fin=False), ping(), more(bytes(1000))]
    for bad, reason in (
        ([binary(bytes(1001))], "gw: frame too big"),
        ([text("a", fin=False), more(fin=False), more(fin=False), more()], "gw: too many fragments"),
    ):
        async with bridge.open("pieces") as pair:
            sender, receiver = sides(pair, side)
            await sender.send(*good, *bad)
            await receiver.expect(*good, *bad[:-1])
            other = await receiver.frame()
            assert (other.op, other.code) == (Op.CLOSE, 1001 if side == "client" else 1011)
            await receiver.send(other)
            told = await sender.frame()
            assert (told.code, told.reason) == (1009, reason)
            assert (await bridge.ended(pair))["cause"] == "message_too_big"


async def test_who_must_wait_is_neither_idle_nor_dead(bridge: Bridge) -> None:
    async with bridge.open("idle") as pair:
        await pair.client.send(text("1"), text("2"), text("3"))
        for number in "123":
            await pair.server.expect(text(number))
        frame = await pair.client.frame()
        assert frame.op == Op.PING, frame
