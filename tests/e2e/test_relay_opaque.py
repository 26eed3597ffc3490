"""The opaque relay: any draft, any private dialect. Bytes are as they are, and a FIN is a FIN."""

import asyncio
import hashlib
import os
import struct

import pytest

from tests.e2e.kit.bridge import ACCEPT, KEY, Bridge, attempt, switch
from tests.e2e.kit.frames import close, encode, text
from tests.e2e.kit.wire import Head, Wire, request_bytes

ROUTES = {
    "opaque": {"websocket": {"frames": "opaque"}},
    "brief": {"websocket": {"frames": "opaque", "max_lifetime": "300ms"}},
    "idle": {"websocket": {"frames": "opaque", "idle": {"after": "300ms"}}},
    "metered": {"websocket": {"frames": "opaque"}},
    "strict": {},
}
# What needs frames is for the listener's other routes.
SETTINGS = {
    "listeners": {
        "edge": {
            "bind": "127.0.0.1:0",
            "websocket": {"ping": {"every": "100ms", "timeout": "100ms"}, "max_message": "10"},
        }
    }
}


async def opened(bridge: Bridge, client: Wire, route: str, *fields: str) -> Wire:
    """The server's end of a pipe."""
    path = bridge.path(route)
    await client.send(attempt(path, *fields))
    server, request = await bridge.asked(path)
    await server.send(switch(request))
    assert (await client.head()).status == 101
    return server


# ---- handshake ----------------------------------------------------------------------------------------------------


async def test_the_handshake_passes_both_ways_as_it_is(bridge: Bridge) -> None:
    path = bridge.path("opaque")
    fields = (
        "Sec-WebSocket-Extensions: x-private; a=1, permessage-deflate",
        "sec-websocket-protocol: b, a",
        "Sec-WebSocket-Future: 1",
        "Cookie: sid=1",
    )
    async with bridge.dial() as client:
        await client.send(attempt(path, *fields))
        server, request = await bridge.asked(path)
        assert [": ".join(each) for each in request.fields if ": ".join(each) in fields] == list(fields)
        assert request.get("Sec-WebSocket-Key") == KEY
        assert request.get("Sec-WebSocket-Version") == "13"
        answer = switch(request, "sec-websocket-extensions: x-private; a=1", "X-Odd: 1", "Set-Cookie: a=1")
        await server.send(answer)
        told = await client.until(b"\r\n\r\n")
        assert told == answer
        assert Head.parse(told).get("Sec-WebSocket-Accept") == ACCEPT


@pytest.mark.parametrize(
    "fields",
    [("Sec-WebSocket-Version: 8",), ("Sec-WebSocket-Version: 0",), ("Sec-WebSocket-Draft: 2",), ()],
)
async def test_key_and_version_are_the_dialect_s_business(bridge: Bridge, fields: tuple[str, ...]) -> None:
    path = bridge.path("opaque")
    async with bridge.dial() as client:
        await client.send(attempt(path, *fields, drop="sec-websocket-key sec-websocket-version"))
        server, _ = await bridge.asked(path)
        await server.send(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n")
        assert (await client.head()).status == 101
        await client.send(b"hello")
        assert await server.exactly(5) == b"hello"


async def test_an_answer_that_is_no_101_goes_through_and_closes(bridge: Bridge) -> None:
    path = bridge.path("opaque")
    async with bridge.dial() as client:
        await client.send(attempt(path) + b"early")
        server, _ = await bridge.asked(path)
        await server.send(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno")
        answer, body = await client.answer()
        assert (answer.status, body) == (403, b"no")
        await client.ended()
        await server.ended()


async def test_early_bytes_wait_for_the_101_and_are_not_lost(bridge: Bridge) -> None:
    path = bridge.path("opaque")
    async with bridge.dial() as client:
        await client.send(attempt(path) + b"early client")
        server, request = await bridge.asked(path)
        await server.send(switch(request) + b"early server")
        assert (await client.head()).status == 101
        assert await client.exactly(12) == b"early server"
        assert await server.exactly(12) == b"early client"


# ---- hixie-76 -----------------------------------------------------------------------------------------------------

# The example of draft-hixie-thewebsocketprotocol-76 §1.2.
KEY1, KEY2, KEY3 = "4 @1  46546xW%0l 1 5", "12998 5 Y3 1  .P00", b"^n:ds[4U"
ANSWER3 = b"8jKS'y:G*Co,Wxa-"


def number_of(key: str) -> int:
    digits = int("".join(letter for letter in key if letter.isdigit()))
    return digits // key.count(" ")


def hixie(path: str) -> bytes:
    return request_bytes(
        f"GET {path}",
        "Connection: Upgrade",
        f"Sec-WebSocket-Key2: {KEY2}",
        "Sec-WebSocket-Protocol: sample",
        "Upgrade: WebSocket",
        f"Sec-WebSocket-Key1: {KEY1}",
        "Origin: http://example.com",
    )


def hixie_answer(request: Head, key3: bytes) -> bytes:
    """What a server of that draft works out of what it was sent."""
    numbers = [number_of(request.get(f"Sec-WebSocket-Key{which}") or "") for which in (1, 2)]
    challenge = hashlib.md5(struct.pack("!II", *numbers) + key3).digest()
    lines = [
        "HTTP/1.1 101 WebSocket Protocol Handshake",
        "Upgrade: WebSocket",
        "Connection: Upgrade",
        "Sec-WebSocket-Origin: http://example.com",
        f"Sec-WebSocket-Location: ws://example.com{request.target}",
        "Sec-WebSocket-Protocol: sample",
        "",
        "",
    ]
    return "\r\n".join(lines).encode() + challenge


@pytest.mark.parametrize("pieces", [[8], [0, 8], [3, 5], [1] * 8], ids=["with the head", "behind", "cut", "bytes"])
async def test_hixie_76_has_8_bytes_before_and_16_after(bridge: Bridge, pieces: list[int]) -> None:
    path = bridge.path("opaque")
    async with bridge.dial() as client:
        await client.send(hixie(path) + KEY3[: pieces[0]])
        sent = pieces[0]
        for piece in pieces[1:]:
            await asyncio.sleep(0)
            await client.send(KEY3[sent : sent + piece])
            sent += piece
        server, request = await bridge.asked(path)
        key3 = await server.exactly(8)
        assert key3 == KEY3
        answer = hixie_answer(request, key3)
        await server.send(answer)
        told = await client.until(b"\r\n\r\n")
        assert told + await client.exactly(16) == answer
        assert answer.endswith(ANSWER3), "not the example of the draft"
        await client.send(b"\x00hello\xff")
        assert await server.exactly(7) == b"\x00hello\xff"
        await server.send(b"\x00h\xc3\xa9\xff\xff\x00")
        assert await client.exactly(7) == b"\x00h\xc3\xa9\xff\xff\x00"


async def test_hixie_76_exactly_8_bytes_go_before_the_101(bridge: Bridge) -> None:
    path = bridge.path("opaque")
    async with bridge.dial() as client:
        await client.send(hixie(path) + KEY3 + b"\x00too early\xff")
        server, _ = await bridge.asked(path)
        assert await server.exactly(8) == KEY3
        await server.send(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")
        assert (await client.answer())[0].status == 403
        await server.ended()


async def test_hixie_76_what_follows_the_8_bytes_follows_the_101(bridge: Bridge) -> None:
    path = bridge.path("opaque")
    async with bridge.dial() as client:
        await client.send(hixie(path) + KEY3 + b"\x00early\xff")
        server, request = await bridge.asked(path)
        await server.send(hixie_answer(request, await server.exactly(8)))
        assert await server.exactly(7) == b"\x00early\xff"


async def test_hixie_76_a_client_that_leaves_before_its_8_bytes_is_no_request(bridge: Bridge) -> None:
    path = bridge.path("opaque")
    async with bridge.dial() as client:
        await client.send(hixie(path) + KEY3[:7])
        client.finish()
        await client.ended()
    assert not bridge.has_heard_of(path)


async def test_hixie_75_clients_compare_the_status_line_byte_by_byte(bridge: Bridge) -> None:
    path = bridge.path("opaque")
    answer = b"HTTP/1.1 101 Web Socket Protocol Handshake\r\nUpgrade: WebSocket\r\nConnection: Upgrade\r\n\r\n"
    async with bridge.dial() as client:
        await client.send(request_bytes(f"GET {path}", "Upgrade: WebSocket", "Connection: Upgrade"))
        server, _ = await bridge.asked(path)
        await server.send(answer)
        assert await client.exactly(len(answer)) == answer


async def test_strict_routes_do_not_speak_hixie(bridge: Bridge) -> None:
    path = bridge.path("strict")
    async with bridge.dial() as client:
        await client.send(hixie(path) + KEY3)
        assert (await client.answer())[0].status == 400
    assert not bridge.has_heard_of(path)


# ---- the pipe -----------------------------------------------------------------------------------------------------


async def test_bytes_are_as_they_are(bridge: Bridge) -> None:
    """Frames that no strict route would take, and what is no frame at all."""
    said = b"\xff\xff\xff" + bytes(range(256)) + encode(text("x" * 300), close(1005), text("y"), is_client=False)
    async with bridge.dial() as client:
        server = await opened(bridge, client, "opaque")
        await client.send(said)
        assert await server.exactly(len(said)) == said
        await server.send(said)
        assert await client.exactly(len(said)) == said


async def test_much_both_ways_at_once(bridge: Bridge) -> None:
    up, down = os.urandom(4_000_000), os.urandom(3_000_000)
    async with bridge.dial() as client:
        server = await opened(bridge, client, "opaque")
        client.push(up)
        server.push(down)
        got = await asyncio.gather(server.exactly(len(up)), client.exactly(len(down)))
        assert (got[0] == up, got[1] == down) == (True, True)


async def test_no_pings_of_ours(bridge: Bridge) -> None:
    """Another route's silent client is pinged and lost meanwhile."""
    async with bridge.dial() as client:
        server = await opened(bridge, client, "opaque")
        async with bridge.open("strict") as (silent, _):
            assert (await silent.frame()).payload
            assert (await silent.frame()).code == 1001
        await server.send(b"first of all")
        assert await client.exactly(12) == b"first of all"


@pytest.mark.parametrize("first", ["client", "server"])
async def test_half_close_goes_on_as_a_fin_and_the_other_half_lives(bridge: Bridge, first: str) -> None:
    async with bridge.dial() as client:
        server = await opened(bridge, client, "opaque")
        one, other = (client, server) if first == "client" else (server, client)
        await one.send(b"the last words")
        one.finish()
        assert await other.rest() == b"the last words"
        for number in range(3):
            await other.send(b"%d" % number)
            assert await one.exactly(1) == b"%d" % number
        other.push(b"x" * 1_000_000)
        other.finish()
        assert await one.rest() == b"x" * 1_000_000


@pytest.mark.parametrize(("first", "cause"), [("client", "client"), ("server", "upstream")])
async def test_who_ends_first_is_the_cause(bridge: Bridge, first: str, cause: str) -> None:
    labels = {"route": "metered", "cause": cause, "code": "none"}
    before = await bridge.count("tidegate_websocket_closed_total", **labels)
    sent = await bridge.count("tidegate_websocket_bytes_total", route="metered", direction="to_upstream")
    path = bridge.path("metered")
    async with bridge.dial() as client:
        await client.send(attempt(path))
        server, request = await bridge.asked(path)
        await server.send(switch(request))
        assert (await client.head()).status == 101
        await client.send(b"12345")
        assert await server.exactly(5) == b"12345"
        one, other = (client, server) if first == "client" else (server, client)
        one.finish()
        await other.ended()
        other.finish()
        await one.ended()
        record = await bridge.logged("close", path)
    assert (record["cause"], record["bytes_in"], "code" in record) == (cause, 5, False)
    assert await bridge.count("tidegate_websocket_closed_total", **labels) == before + 1
    now = await bridge.count("tidegate_websocket_bytes_total", route="metered", direction="to_upstream")
    assert now == sent + 5


@pytest.mark.parametrize("lost", ["client", "server"])
async def test_a_reset_ends_the_other_side_too(bridge: Bridge, lost: str) -> None:
    async with bridge.dial() as client:
        server = await opened(bridge, client, "opaque")
        one, other = (client, server) if lost == "client" else (server, client)
        one.reset()
        await other.ended()


@pytest.mark.parametrize(("route", "cause"), [("brief", "lifetime"), ("idle", "idle")])
async def test_our_own_ends_are_fins_without_a_close_frame(bridge: Bridge, route: str, cause: str) -> None:
    path = bridge.path(route)
    async with bridge.dial() as client:
        await client.send(attempt(path))
        server, request = await bridge.asked(path)
        await server.send(switch(request))
        assert (await client.head()).status == 101
        await asyncio.gather(client.ended(), server.ended())
        client.finish()
        server.finish()
        assert (await bridge.logged("close", path))["cause"] == cause


async def test_idle_counts_every_byte(bridge: Bridge) -> None:
    loop = asyncio.get_running_loop()
    async with bridge.dial() as client:
        server = await opened(bridge, client, "idle")
        ended = asyncio.ensure_future(client.rest())
        end = loop.time() + 0.7
        said = loop.time()
        while loop.time() < end and not ended.done():
            said = loop.time()
            await server.send(b".")
            await asyncio.sleep(0.02)
        await ended
        assert loop.time() - said > 0.25
