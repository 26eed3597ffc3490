"""Frames through the relay: what is valid passes byte for byte, what is not ends the connection (RFC 6455 §5).

Both directions keep to the same rules, but for the mask. Of a violation three things are told apart: everything valid
before it is delivered, the offender learns what it did, and the other side learns that it is not to blame.
"""

import asyncio
import random
import struct

import pytest

from tests.e2e.kit.bridge import Bridge, Pair, attempt
from tests.e2e.kit.frames import (
    RSV1,
    RSV2,
    RSV3,
    Frame,
    Op,
    Peer,
    binary,
    close,
    encode,
    header,
    more,
    ping,
    pong,
    text,
)
from tests.e2e.kit.wire import Wire

CLIENTS = ["h1", "h2"]
ROUTES = {
    "plain": {},
    "small": {"websocket": {"max_message": "1000"}},
    "metered": {},
    "echo": {"respond": "echo", "websocket": {"max_message": "1000000"}},
}
SIDES = ["client", "server"]
DEFLATE = "Sec-WebSocket-Extensions: permessage-deflate"
CLOSED = "tidegate_websocket_closed_total"


def facing(pair: Pair, side: str) -> tuple[Peer, Peer]:
    """The one that sends, and the other."""
    return (pair.client, pair.server) if side == "client" else (pair.server, pair.client)


# ---- what is valid ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("size", [0, 1, 125, 126, 127, 65_535, 65_536, 65_537, 1_000_000])
async def test_messages_of_every_form_of_length(bridge: Bridge, side: str, size: int) -> None:
    payload = random.Random(size).randbytes(size)
    async with bridge.open("plain") as pair:
        sender, receiver = facing(pair, side)
        sender.wire.push(sender.encode(binary(payload), text("behind it")))
        await receiver.expect(binary(payload), text("behind it"))


@pytest.mark.parametrize("side", SIDES)
async def test_bytes_go_on_as_they_came_masks_included(bridge: Bridge, side: str) -> None:
    frames = [
        text("a"),
        text("b", fin=False),
        ping(b"p"),
        more(b"c", fin=False),
        pong(b"q"),
        more(b""),
        binary(b"\0" * 300),
    ]
    async with bridge.open("plain") as pair:
        sender, receiver = facing(pair, side)
        sent = sender.encode(*frames)
        await sender.wire.send(sent)
        assert await receiver.wire.exactly(len(sent)) == sent


@pytest.mark.parametrize("side", SIDES)
async def test_fragments_and_control_frames_between_them(bridge: Bridge, side: str) -> None:
    frames = [
        text("one ", fin=False),
        more(b"two ", fin=False),
        ping(b"x" * 125),
        more(b"", fin=False),
        pong(),
        more(b"three"),
        text("", fin=False),
        more(b""),
        text("whole"),
    ]
    async with bridge.open("plain") as pair:
        sender, receiver = facing(pair, side)
        for frame in frames:
            await sender.send(frame)
            await receiver.expect(frame)


@pytest.mark.parametrize("side", SIDES)
async def test_a_frame_passes_while_it_is_still_being_sent(bridge: Bridge, side: str) -> None:
    """A gateway that waits for whole frames holds what an endless one has said so far."""
    async with bridge.open("plain") as pair:
        sender, receiver = facing(pair, side)
        mask = b"mask" if side == "client" else None
        await sender.wire.send(header(Op.BINARY, 1 << 40, mask=mask) + b"the first bytes")
        assert (await receiver.wire.exactly(14 if mask else 10))[0] == 0x82
        assert await receiver.wire.exactly(15) == b"the first bytes"


@pytest.mark.parametrize("side", SIDES)
async def test_text_that_is_no_utf_8_is_the_endpoints_business(bridge: Bridge, side: str) -> None:
    async with bridge.open("plain") as pair:
        sender, receiver = facing(pair, side)
        await sender.send(text(b"\xff\xfe"), close(1000, b"\xff"))
        await receiver.expect(text(b"\xff\xfe"), close(1000, b"\xff"))


@pytest.mark.parametrize("side", SIDES)
async def test_frames_split_at_every_byte(bridge: Bridge, side: str) -> None:
    frames = [
        text("x" * 20),
        binary(b"y" * 126, fin=False),
        ping(b"between"),
        more(b"z"),
        pong(b""),
        text(""),
        binary(b"w" * 3),
    ]
    async with bridge.open("plain") as pair:
        sender, receiver = facing(pair, side)
        length = len(sender.encode(*frames))
        for cut in range(1, length):
            sent = sender.encode(*frames)
            await sender.wire.send(sent[:cut])
            # The marker comes back the other way once the first part has been read, or nearly always so.
            await receiver.send(text("marker"))
            await sender.expect(text("marker"))
            await sender.wire.send(sent[cut:])
            await receiver.expect(*frames)


@pytest.mark.parametrize("side", SIDES)
async def test_a_whole_conversation_byte_by_byte(bridge: Bridge, side: str) -> None:
    frames = [text("a"), binary(b"b" * 126, fin=False), ping(b"c"), more(b"d"), close(3000, "bye")]
    async with bridge.open("plain") as pair:
        sender, receiver = facing(pair, side)
        for byte in sender.encode(*frames):
            await sender.wire.send(bytes([byte]))
            await asyncio.sleep(0)
        await receiver.expect(*frames)


async def test_both_directions_at_once(bridge: Bridge) -> None:
    draw = random.Random(7)
    up, down = ([binary(draw.randbytes(draw.choice([0, 10, 200, 70_000]))) for _ in range(200)] for _ in SIDES)
    async with bridge.open("plain") as (client, server):
        client.wire.push(client.encode(*up))
        server.wire.push(server.encode(*down))
        await asyncio.gather(client.expect(*down), server.expect(*up))


async def test_counters_move_while_the_connection_is_open(bridge: Bridge) -> None:
    before: dict[tuple[str, ...], float] = {}

    async def counted(name: str, **labels: str) -> float:
        """Since this was asked first; the test before has counted too."""
        now = await bridge.count(name, route="metered", **labels)
        return now - before.setdefault((name, *labels.values()), now)

    async def messages(direction: str, op: str) -> float:
        return await counted("tidegate_websocket_messages_total", direction=direction, opcode=op)

    data = "tidegate_websocket_bytes_total"
    for direction in ("to_upstream", "to_client"):
        await counted(data, direction=direction)
        for op in ("text", "binary", "ping", "pong", "close"):
            await messages(direction, op)
    async with bridge.open("metered") as (client, server):
        await client.send(text("abc"), text("d", fin=False), ping(b"x"), more(b"ef"), binary(b"gh"))
        await server.expect(text("abc"), text("d", fin=False), ping(b"x"), more(b"ef"), binary(b"gh"))
        await server.send(pong(b"x"), text("answer"))
        await client.expect(pong(b"x"), text("answer"))
        async with asyncio.timeout(5):  # they are counted behind the write that the peer has seen
            while await messages("to_client", "text") < 1:
                pass
        up = {op: await messages("to_upstream", op) for op in ("text", "binary", "ping", "pong", "close")}
        assert up == {"text": 2, "binary": 1, "ping": 1, "pong": 0, "close": 0}
        assert (await messages("to_client", "pong"), await messages("to_client", "binary")) == (1, 0)
        assert await counted(data, direction="to_upstream") == 8
        assert await counted(data, direction="to_client") == 6
        assert await bridge.count("tidegate_websocket_connections", route="metered") == 1


# ---- close codes --------------------------------------------------------------------------------------------------

REASONS = [b"", b"bye", "schön, und \N{WAVING HAND SIGN}".encode(), b"r" * 123]
CODES = [1000, 1001, 1002, 1003, *range(1007, 1015), 1016, 1999, 2000, 2999, 3000, 3999, 4000, 4999]


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("code", [None, *CODES])
async def test_a_valid_close_goes_through_bit_for_bit(bridge: Bridge, side: str, code: int | None) -> None:
    reason = b"" if code is None else REASONS[code % len(REASONS)]
    async with bridge.open("plain") as pair:
        sender, receiver = facing(pair, side)
        await sender.send(close(code, reason))
        await receiver.expect(close(code, reason))
        await receiver.send(close(code, reason))
        await sender.expect(close(code, reason))
        pair.server.wire.finish()
        await pair.client.wire.ended()
        await pair.client.wire.close()
        record = await bridge.ended(pair)
    assert record["cause"] == ("client" if side == "client" else "upstream")
    assert record.get("code") == record.get("client_code") == record.get("upstream_code") == code


async def test_every_code_that_may_be_said(bridge: Bridge) -> None:
    """Over the whole range, in batches, so that none of them is special by accident."""
    valid = [code for code in range(1000, 5000) if code not in (1004, 1005, 1006, 1015)]

    async def says(code: int) -> None:
        async with bridge.open("plain") as pair:
            sender, receiver = facing(pair, SIDES[code % 2])
            await sender.send(close(code, str(code)))
            await receiver.expect(close(code, str(code)))

    sample = sorted(random.Random(3).sample(valid, 200))
    for start in range(0, len(sample), 25):
        await asyncio.gather(*map(says, sample[start : start + 25]))


# ---- what is not --------------------------------------------------------------------------------------------------


def control(op: int, length: int, *, fin: bool = True) -> Frame:
    return Frame(op, b"x" * length, fin)


VIOLATIONS: dict[str, Frame | list[Frame]] = {
    "RSV1 without deflate": text("x", rsv=RSV1),
    "RSV2": text("x", rsv=RSV2),
    "RSV3": text("x", rsv=RSV3),
    "RSV1 on a ping": Frame(Op.PING, b"", rsv=RSV1),
    "RSV2 on a close": Frame(Op.CLOSE, b"\x03\xe8", rsv=RSV2),
    "RSV1 on a continuation": [text("x", fin=False), more(b"y", rsv=RSV1)],
    **{f"opcode {op}": Frame(op, b"x") for op in (3, 4, 5, 6, 7, 11, 12, 13, 14, 15)},
    "a ping of 126 bytes": control(Op.PING, 126),
    "a pong of 70000 bytes": control(Op.PONG, 70_000),
    "a close of 126 bytes": Frame(Op.CLOSE, struct.pack("!H", 1000) + b"x" * 124),
    "a ping without FIN": control(Op.PING, 1, fin=False),
    "a pong without FIN": control(Op.PONG, 0, fin=False),
    "a close without FIN": Frame(Op.CLOSE, b"\x03\xe8", fin=False),
    "a continuation of nothing": more(b"x"),
    "a continuation of nothing, to go on": more(b"x", fin=False),
    "a continuation behind a whole message": [text("x"), more(b"y")],
    "a text inside a text": [text("x", fin=False), text("y")],
    "a binary inside a text": [text("x", fin=False), binary(b"y", fin=False)],
    "a close of one byte": Frame(Op.CLOSE, b"\x03"),
    **{f"close {code}": close(code) for code in (0, 1, 999, 1004, 1005, 1006, 1015, 5000, 65_535)},
    "close 1005 with a reason": close(1005, "no"),
}

RAW = {
    "a 16-bit length for 125": b"\x82\x7e\x00\x7d",
    "a 16-bit length for 0": b"\x82\x7e\x00\x00",
    "a 64-bit length for 65535": b"\x82\x7f" + struct.pack("!Q", 65_535),
    "a 64-bit length for 125": b"\x82\x7f" + struct.pack("!Q", 125),
    "a 64-bit length with its top bit": b"\x82\x7f" + struct.pack("!Q", 1 << 63),
    "a 64-bit length of all ones": b"\x82\x7f" + b"\xff" * 8,
}


async def is_broken(
    bridge: Bridge, pair: Pair, side: str, *valid: Frame, code: int = 1002, cause: str = "protocol_error"
) -> None:
    """`side` has sent `valid`, then what is not: who hears what, and what is written down about it."""
    offender, innocent = facing(pair, side)
    await innocent.expect(text("before"), *valid)
    told = await innocent.frame()
    assert told.code == (1001 if side == "client" else 1011)
    assert told.reason.startswith("gw:")
    await innocent.send(close(told.code))
    assert (await offender.closed()).code == code
    innocent.wire.finish()
    await innocent.wire.ended()
    await offender.wire.close()
    record = await bridge.ended(pair)
    assert record["cause"] == cause
    # The code that the client was told.
    assert record["code"] == (code if side == "client" else 1011)


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("form", VIOLATIONS)
async def test_a_broken_rule_ends_both_sides(bridge: Bridge, side: str, form: str) -> None:
    frames = VIOLATIONS[form]
    *valid, bad = frames if isinstance(frames, list) else [frames]
    async with bridge.open("plain") as pair:
        offender, _ = facing(pair, side)
        offender.wire.push(offender.encode(text("before"), *valid, bad, text("behind it")))
        await is_broken(bridge, pair, side, *valid)


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("form", RAW)
async def test_a_length_in_the_wrong_form_ends_both_sides(bridge: Bridge, side: str, form: str) -> None:
    raw = bytearray(RAW[form])
    if side == "client":
        raw[1] |= 0x80
        raw += b"mask"
    async with bridge.open("plain") as pair:
        offender, _ = facing(pair, side)
        await offender.wire.send(offender.encode(text("before")) + raw)
        await is_broken(bridge, pair, side)


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("frame", [text("x"), binary(b"x" * 70_000), ping(b"x"), close(1000), text("")])
async def test_the_wrong_mask_ends_both_sides(bridge: Bridge, side: str, frame: Frame) -> None:
    async with bridge.open("plain") as pair:
        offender, _ = facing(pair, side)
        offender.wire.push(offender.encode(text("before")) + encode(frame, is_client=side != "client"))
        await is_broken(bridge, pair, side)


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize(
    "bad",
    [more(b"x", rsv=RSV1), Frame(Op.PING, rsv=RSV1), more(b"x", rsv=RSV2)],
    ids=["continuation", "ping", "RSV2"],
)
async def test_deflate_allows_rsv1_on_a_message_s_first_frame_alone(bridge: Bridge, side: str, bad: Frame) -> None:
    good = [text("deflated", rsv=RSV1), text("plain"), binary(b"d", fin=False, rsv=RSV1)]
    async with bridge.open("plain", DEFLATE, answer=(DEFLATE,)) as pair:
        offender, _ = facing(pair, side)
        await offender.send(text("before"), *good, bad)
        await is_broken(bridge, pair, side, *good)


@pytest.mark.parametrize("side", SIDES)
async def test_nothing_of_an_invalid_frame_is_passed_on(bridge: Bridge, side: str) -> None:
    """Its header comes byte by byte, and is judged whole."""
    async with bridge.open("plain") as pair:
        offender, _ = facing(pair, side)
        for byte in offender.encode(text("before"), Frame(Op.TEXT, b"secret", rsv=RSV2))[:-6]:
            await offender.wire.send(bytes([byte]))
        await is_broken(bridge, pair, side)


@pytest.mark.parametrize("side", SIDES)
async def test_everything_valid_before_it_is_delivered_first(bridge: Bridge, side: str) -> None:
    frames = [binary(bytes([number]) * 100_000) for number in range(20)]
    async with bridge.open("plain") as pair:
        offender, _ = facing(pair, side)
        offender.wire.push(offender.encode(text("before"), *frames, Frame(3, b"x")))
        await is_broken(bridge, pair, side, *frames)


@pytest.mark.parametrize("side", SIDES)
async def test_an_offender_that_goes_on_sending_still_reads_its_close(bridge: Bridge, side: str) -> None:
    """A socket that is closed with unread bytes is reset, and the Close would be lost on its way."""
    async with bridge.open("plain") as pair:
        offender, innocent = facing(pair, side)
        offender.wire.push(offender.encode(Frame(3, b"x"), *[binary(b"y" * 100_000)] * 30))
        told = await innocent.frame()
        assert told.code == (1001 if side == "client" else 1011)
        await innocent.send(told)
        assert (await offender.closed()).code == 1002


@pytest.mark.parametrize("side", SIDES)
async def test_a_close_waits_for_the_end_of_the_frame_that_is_on_its_way(bridge: Bridge, side: str) -> None:
    async with bridge.open("plain") as pair:
        offender, innocent = facing(pair, side)
        whole = innocent.encode(binary(b"y" * 1000))
        await innocent.wire.send(whole[:500])
        await offender.wire.exactly(2)
        await offender.send(Frame(3))
        told = await innocent.frame()
        assert told.code == (1001 if side == "client" else 1011)
        await innocent.wire.send(whole[500:])
        assert await offender.wire.exactly(len(whole) - 2) == whole[2:]
        await innocent.send(told)
        assert (await offender.closed()).code == 1002


@pytest.mark.parametrize("side", SIDES)
async def test_an_offender_gets_the_answers_to_what_was_valid_before_its_close(bridge: Bridge, side: str) -> None:
    async with bridge.open("plain") as pair:
        offender, innocent = facing(pair, side)
        await offender.send(text("question"), Frame(3))
        await innocent.expect(text("question"))
        told = await innocent.frame()
        answers = [text("answer"), binary(b"y" * 300_000), ping(b"?")]
        innocent.wire.push(innocent.encode(*answers, told))
        await offender.expect(*answers)
        closed = await offender.closed()
        assert (closed.code, closed.reason[:3]) == (1002, "gw:")


@pytest.mark.parametrize("side", SIDES)
async def test_the_close_for_an_offender_is_ours_whatever_the_other_side_says(bridge: Bridge, side: str) -> None:
    async with bridge.open("plain") as pair:
        offender, innocent = facing(pair, side)
        await offender.send(Frame(3))
        assert (await innocent.frame()).op == Op.CLOSE
        await innocent.send(close(4000, "its own words"))
        assert (await offender.closed()).code == 1002


@pytest.mark.parametrize("side", SIDES)
async def test_an_offender_does_not_wait_for_a_silent_other_side(bridge: Bridge, side: str) -> None:
    async with bridge.open("plain") as pair:
        offender, innocent = facing(pair, side)
        await offender.send(Frame(3))
        assert (await offender.closed()).code == 1002
        assert (await innocent.frame()).op == Op.CLOSE


@pytest.mark.parametrize("side", SIDES)
async def test_a_close_never_goes_inside_a_frame(bridge: Bridge, side: str) -> None:
    """The frame's other half does not come: after 2 s the stream is cut, and no byte is put into it."""
    async with bridge.open("plain") as pair:
        offender, innocent = facing(pair, side)
        half = innocent.encode(binary(b"y" * 1000))[:500]
        await innocent.wire.send(half)
        assert await offender.wire.exactly(len(half)) == half
        await offender.send(Frame(3))
        assert (await innocent.frame()).code == (1001 if side == "client" else 1011)
        await offender.wire.ended()


# ---- max_message --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("side", SIDES)
async def test_messages_up_to_the_limit_pass(bridge: Bridge, side: str) -> None:
    frames = [
        binary(b"x" * 1000),
        binary(b"x" * 600, fin=False),
        ping(b"p" * 125),
        more(b"x" * 400, fin=False),
        more(b""),
        text("y" * 1000),
    ]
    async with bridge.open("small") as pair:
        sender, receiver = facing(pair, side)
        await sender.send(*frames)
        await receiver.expect(*frames)


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("length", [1001, 70_000, 1 << 40, (1 << 63) - 1])
async def test_a_frame_that_is_too_big_is_judged_on_its_header(bridge: Bridge, side: str, length: int) -> None:
    async with bridge.open("small") as pair:
        offender, _ = facing(pair, side)
        mask = b"mask" if side == "client" else None
        await offender.wire.send(offender.encode(text("before")) + header(Op.BINARY, length, mask=mask))
        await is_broken(bridge, pair, side, code=1009, cause="message_too_big")


@pytest.mark.parametrize("side", SIDES)
async def test_the_fragments_of_a_message_count_together(bridge: Bridge, side: str) -> None:
    parts = [text("x" * 500, fin=False), ping(b"between"), more(b"x" * 500, fin=False), more(b"", fin=False)]
    async with bridge.open("small") as pair:
        offender, _ = facing(pair, side)
        await offender.send(text("before"), *parts, more(b"x"))
        await is_broken(bridge, pair, side, *parts, code=1009, cause="message_too_big")


# ---- the gateway's own echo ----------------------------------------------------------------------------------------


async def echo(bridge: Bridge, client: Wire, *early: Frame) -> Peer:
    await client.send(attempt(bridge.path("echo")) + encode(*early, is_client=True))
    return Peer(client, await client.head(), is_client=True)


async def test_the_gateway_s_own_echo(bridge: Bridge) -> None:
    frames = [text("early"), binary(b"x" * 300_000), text("a", fin=False), more(b"b"), text("")]
    async with bridge.dial() as wire:
        client = await echo(bridge, wire, frames[0])
        wire.push(client.encode(*frames[1:], ping(b"?"), pong(b"unasked"), close(3000, "bye")))
        await client.expect(*frames, pong(b"?"))
        assert await client.closed() == close(3000, "bye")


@pytest.mark.parametrize(
    ("bad", "code"),
    [(Frame(3), 1002), (text("x", rsv=RSV1), 1002), (close(1005), 1002), (binary(b"x" * 1_000_001), 1009)],
)
async def test_the_gateway_s_own_echo_has_the_same_rules(bridge: Bridge, bad: Frame, code: int) -> None:
    async with bridge.dial() as wire:
        client = await echo(bridge, wire)
        wire.push(client.encode(text("before"), bad))
        while (frame := await client.frame()).op != Op.CLOSE:
            assert frame == text("before")
        assert frame.code == code
        await wire.ended()


async def test_violations_are_counted(bridge: Bridge) -> None:
    async def count() -> tuple[float, float, float]:
        name = "tidegate_websocket_protocol_errors_total"
        sides = [await bridge.count(name, route="small", side=side) for side in ("client", "upstream")]
        closed = await bridge.count(CLOSED, route="small", cause="protocol_error", code="1002")
        return sides[0], sides[1], closed

    before = await count()
    async with bridge.open("small") as pair:
        await pair.client.send(text("before"), Frame(3))
        await is_broken(bridge, pair, "client")
    assert await count() == (before[0] + 1, before[1], before[2] + 1)
