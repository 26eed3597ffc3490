"""Attacks on upgrades, each by its name, and the ways to smuggle a request past whoever guards the route.

What they have in common: a gateway that believes a 101, or that a request is one, opens a pipe around everything that
checks requests. So each test looks at both sides: what the client is told, and that the server saw nothing it should
not have seen, to the last byte before the end of its connection.
"""

import base64

import pytest

from tests.e2e.kit.bridge import KEY, UPGRADE, Bridge, attempt, switch
from tests.e2e.kit.frames import Peer, close, encode, text
from tests.e2e.kit.wire import Head, Wire, request_bytes

ROUTES = {
    "plain": {},
    "off": {"websocket": {"enabled": False}},
    "opaque": {"websocket": {"frames": "opaque"}},
    "secret": {"respond": {"status": 200, "body": "secret"}},
}

SMUGGLED = request_bytes("GET /secret/smuggled")


async def refused(bridge: Bridge, request: bytes, path: str, status: int, reason: str = "") -> Head:
    """The gateway answers `request` with `status` and closes, and the server hears nothing of it."""
    async with bridge.dial() as client:
        await client.send(request)
        answer, body = await client.answer()
        assert answer.status == status, (answer, body)
        assert body.decode().startswith(reason), body
        assert "close" in (answer.get("Connection") or "")
        await client.ended()
    assert not bridge.has_heard_of(path)
    return answer


async def plain(bridge: Bridge, request: bytes, path: str) -> Head:
    """The gateway takes `request` for plain HTTP: what it asks the server, whose answer is a 200."""
    async with bridge.dial() as client:
        await client.send(request)
        server, asked = await bridge.asked(path)
        await server.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        answer, body = await client.answer()
        assert (answer.status, body) == (200, b"ok")
        assert not asked.names() & {"upgrade", "sec-websocket-accept", "http2-settings"}
        assert "upgrade" not in (asked.get("Connection") or "").lower()
        return asked


async def bridged(bridge: Bridge, client: Wire, path: str, *, early: bytes = b"") -> tuple[Wire, Head]:
    await client.send(attempt(path) + early)
    return await bridge.asked(path)


# ---- what a client may not pass off as an upgrade ----------------------------------------------------------------


async def test_cve_2024_23326_a_200_to_an_upgrade_opens_no_tunnel(bridge: Bridge) -> None:
    """Envoy took the upstream's 200 for the end of the upgrade, and what followed went through unseen."""
    path = bridge.path("plain")
    async with bridge.dial() as client:
        server, _ = await bridged(bridge, client, path, early=SMUGGLED)
        await server.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        answer, body = await client.answer()
        assert (answer.status, body, answer.get("Connection")) == (200, b"ok", "close")
        await client.send(SMUGGLED)
        await client.ended()
        await server.ended()


@pytest.mark.parametrize("route", ["plain", "opaque"])
@pytest.mark.parametrize("size", [1, 1000, 200_000])
async def test_cve_2026_2833_not_a_byte_goes_before_the_101(bridge: Bridge, size: int, route: str) -> None:
    """Pingora sent what stood behind the head on to the server before it had agreed to switch."""
    path = bridge.path(route)
    async with bridge.dial() as client:
        await client.send(attempt(path))
        server, _ = await bridge.asked(path)
        client.push(SMUGGLED * (size // len(SMUGGLED) + 1))
        await server.send(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno")
        answer, body = await client.answer()
        assert (answer.status, body) == (403, b"no")
        await server.ended()


async def test_cve_2026_2833_bytes_in_one_segment_with_the_head_wait_as_well(bridge: Bridge) -> None:
    path = bridge.path("plain")
    async with bridge.dial() as client:
        server, _ = await bridged(bridge, client, path, early=SMUGGLED)
        await server.send(b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n")
        assert (await client.answer())[0].status == 401
        await client.ended()
        await server.ended()


@pytest.mark.parametrize(
    "body",
    [
        "Content-Length: 44",
        "Content-Length: 1",
        "Transfer-Encoding: chunked",
    ],
)
@pytest.mark.parametrize("route", ["plain", "opaque", "off"])
async def test_cve_2026_58055_an_upgrade_with_a_body_is_refused(bridge: Bridge, route: str, body: str) -> None:
    path = bridge.path(route)
    await refused(bridge, attempt(path, body) + SMUGGLED, path, 400, "websocket_body")


async def test_an_upgrade_that_says_it_has_no_body_has_none(bridge: Bridge) -> None:
    async with bridge.open("plain", "Content-Length: 0") as (client, server):
        assert server.head.get("Content-Length") is None
        await client.send(text("x"))
        await server.expect(text("x"))


@pytest.mark.parametrize("connection", ["notupgrade", "upgrade-insecure-requests", "keep-alive", "up grade", "close"])
async def test_connection_notupgrade_is_plain_http(bridge: Bridge, connection: str) -> None:
    """Gateways that look for `upgrade` anywhere in the field open a tunnel that the server knows nothing of."""
    path = bridge.path("plain")
    await plain(bridge, attempt(path, f"Connection: {connection}", drop="connection"), path)


@pytest.mark.parametrize("upgrade", ["notwebsocket", "websocket2", "web socket", "websocket/13", "h2c", "TLS/1.0"])
async def test_upgrades_to_other_protocols_are_plain_http(bridge: Bridge, upgrade: str) -> None:
    path = bridge.path("plain")
    await plain(bridge, attempt(path, f"Upgrade: {upgrade}", drop="upgrade"), path)


async def test_h2c_is_plain_http_and_its_settings_go_no_further(bridge: Bridge) -> None:
    """h2c smuggling: a server that takes it speaks HTTP/2 on a connection where nobody checks its requests."""
    path = bridge.path("plain")
    fields = ("Upgrade: h2c", "Connection: Upgrade, HTTP2-Settings", "HTTP2-Settings: AAMAAABkAAQAAP__")
    await plain(bridge, request_bytes(f"GET {path}", *fields), path)


@pytest.mark.parametrize("upgrade", ["websocket, h2c", "h2c, websocket", "websocket, websocket"])
async def test_h2c_beside_websocket_is_refused(bridge: Bridge, upgrade: str) -> None:
    path = bridge.path("plain")
    request = attempt(path, f"Upgrade: {upgrade}", "HTTP2-Settings: AAMAAABkAAQAAP__", drop="upgrade")
    await refused(bridge, request, path, 400, "websocket_upgrade")


async def test_h2c_in_a_second_upgrade_field_is_refused(bridge: Bridge) -> None:
    path = bridge.path("plain")
    await refused(bridge, attempt(path, "Upgrade: h2c"), path, 400, "websocket_upgrade")


async def test_a_101_to_h2c_that_nobody_asked_for_opens_no_tunnel(bridge: Bridge) -> None:
    """The server may not say 101 to a request whose upgrade it cannot have seen."""
    path = bridge.path("plain")
    async with bridge.dial() as client:
        await client.send(request_bytes(f"GET {path}", "Upgrade: h2c", "Connection: Upgrade"))
        server, _ = await bridge.asked(path)
        await server.send(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: h2c\r\nConnection: Upgrade\r\n\r\n")
        assert (await client.answer())[0].status == 502
        await server.ended()


async def test_a_websocket_101_that_nobody_asked_for_is_a_502(bridge: Bridge) -> None:
    path = bridge.path("plain")
    async with bridge.dial() as client:
        await client.send(request_bytes(f"GET {path}") + SMUGGLED)
        server, request = await bridge.asked(path)
        await server.send(switch(request) + b"\x81\x02hi")
        assert (await client.answer())[0].status == 502
        assert (await client.answer())[1] == b"secret"  # the next request, answered as one
        await server.ended()


# ---- what a server may not pass off as the end of the handshake --------------------------------------------------


FAKES = {
    "no accept": ("Sec-WebSocket-Accept", ()),
    "another key's accept": ("Sec-WebSocket-Accept", ("Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=",)),
    "the key itself as accept": ("Sec-WebSocket-Accept", ("Sec-WebSocket-Accept: {key}",)),
    "an empty accept": ("Sec-WebSocket-Accept", ("Sec-WebSocket-Accept:",)),
    "two accepts": ("", ("Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=",)),
    "no upgrade": ("Upgrade", ()),
    "another upgrade": ("Upgrade", ("Upgrade: h2c",)),
    "two upgrades": ("", ("Upgrade: h2c",)),
    "two upgrades in one": ("Upgrade", ("Upgrade: websocket, h2c",)),
    "websocket twice": ("", ("Upgrade: websocket",)),
    "no connection": ("Connection", ()),
    "connection: notupgrade": ("Connection", ("Connection: notupgrade",)),
    "connection: keep-alive": ("Connection", ("Connection: keep-alive",)),
    "a length": ("", ("Content-Length: 5",)),
    "chunks": ("", ("Transfer-Encoding: chunked",)),
    "length and chunks": ("", ("Content-Length: 5", "Transfer-Encoding: chunked")),
    "a subprotocol that was not offered": ("", ("Sec-WebSocket-Protocol: chat",)),
    "an extension that was not offered": ("", ("Sec-WebSocket-Extensions: permessage-deflate",)),
    "an extension nobody knows": ("", ("Sec-WebSocket-Extensions: x-shiny",)),
}


@pytest.mark.parametrize("form", FAKES)
async def test_a_fake_101_is_a_502_and_ends_both_connections(bridge: Bridge, form: str) -> None:
    drop, fields = FAKES[form]
    path = bridge.path("plain")
    async with bridge.dial() as client:
        server, request = await bridged(bridge, client, path, early=SMUGGLED)
        answer = switch(request, *fields, drop=drop).replace(
            b"{key}", (request.get("sec-websocket-key") or "").encode()
        )
        await server.send(answer + b"\x81\x02hi")
        told, body = await client.answer()
        assert told.status == 502, (told, body)
        assert body.split(b":")[0] in (b"bad_handshake", b"bad_response")
        assert told.get("Connection") == "close"
        await client.ended()
        await server.ended()
    assert (await bridge.logged("refusal", path))["status"] == 502


@pytest.mark.parametrize("start", ["HTTP/1.1 101 Switching Protocols\r\n", "HTTP/1.1 101 ", "X"])
async def test_a_head_without_an_end_is_a_502(bridge: Bridge, start: str) -> None:
    path = bridge.path("plain")
    async with bridge.dial() as client:
        server, _ = await bridged(bridge, client, path)
        server.push(start.encode() + b"X-Long: " + b"y" * 1_000_000)
        answer, body = await client.answer()
        assert (answer.status, body.split(b":")[0]) == (502, b"bad_response")
        await client.ended()
        await server.ended()


EXTENSION = "Sec-WebSocket-Extensions: permessage-deflate"


@pytest.mark.parametrize(
    ("offer", "answer"),
    [
        ("Sec-WebSocket-Protocol: chat, echo", "Sec-WebSocket-Protocol: chat, echo"),
        ("Sec-WebSocket-Protocol: chat", "Sec-WebSocket-Protocol: CHAT"),
        (EXTENSION, f"{EXTENSION}, permessage-deflate"),
        (EXTENSION, f"{EXTENSION}; client_max_window_bits=10"),
        (EXTENSION, f"{EXTENSION}; server_no_context_takeover; server_no_context_takeover"),
        (EXTENSION, f"{EXTENSION}; server_max_window_bits=7"),
        (EXTENSION, f"{EXTENSION}; shiny"),
        ("Sec-WebSocket-Extensions: x-shiny", "Sec-WebSocket-Extensions: x-shiny"),
    ],
)
async def test_a_101_with_a_choice_outside_the_offer_is_a_502(bridge: Bridge, offer: str, answer: str) -> None:
    path = bridge.path("plain")
    async with bridge.dial() as client:
        await client.send(attempt(path, offer))
        server, request = await bridge.asked(path)
        await server.send(switch(request, answer))
        told, body = await client.answer()
        assert (told.status, body.split(b":")[0]) == (502, b"bad_handshake")
        await client.ended()
        await server.ended()


@pytest.mark.parametrize("route", ["plain", "opaque"])
async def test_an_opaque_pipe_wants_a_101_with_the_same_upgrade_token_too(bridge: Bridge, route: str) -> None:
    path = bridge.path(route)
    async with bridge.dial() as client:
        server, request = await bridged(bridge, client, path)
        await server.send(switch(request, "Upgrade: h2c", drop="upgrade"))
        assert (await client.answer())[0].status == 502
        await client.ended()
        await server.ended()


# ---- answers that are no 101 ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", ["401 Unauthorized", "403 Forbidden", "302 Found", "404 Not Found", "500 Oh"])
async def test_oauth2_proxy_1347_kemal_767_a_reject_goes_through_and_closes(bridge: Bridge, status: str) -> None:
    """Those left the connection open: the client waited for ever, or its next bytes were taken for requests."""
    path = bridge.path("plain")
    async with bridge.dial() as client:
        server, _ = await bridged(bridge, client, path, early=SMUGGLED)
        await server.send(f"HTTP/1.1 {status}\r\nLocation: /login\r\nX-Why: no\r\nContent-Length: 2\r\n\r\nno".encode())
        answer, body = await client.answer()
        assert (answer.start, body) == (f"HTTP/1.1 {status}", b"no")
        assert (answer.get("Location"), answer.get("X-Why")) == ("/login", "no")
        assert answer.get("Connection") == "close"
        await client.ended()
        await server.ended()
    assert (await bridge.logged("request", path))["status"] == int(status[:3])


@pytest.mark.parametrize(
    ("framing", "body"),
    [
        ("Content-Length: 300000", b"n" * 300_000),
        ("Transfer-Encoding: chunked", b"5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n"),
        ("Connection: close", b"until the end"),
    ],
)
async def test_chp_557_nodetool_4673_a_body_goes_through_and_tears_both_sides_down(
    bridge: Bridge, framing: str, body: bytes
) -> None:
    """Those kept one of the two sockets for ever after an answer that was no 101."""
    path = bridge.path("plain")
    before = await bridge.count("tidegate_websocket_handshakes_total", route="plain", status="503")
    async with bridge.dial() as client:
        server, _ = await bridged(bridge, client, path)
        server.push(f"HTTP/1.1 503 Later\r\n{framing}\r\n\r\n".encode() + body)
        if framing == "Connection: close":
            server.finish()
        answer, got = await client.answer()
        assert answer.start == "HTTP/1.1 503 Later"
        assert got == (b"hello world" if b"hello" in body else body)
        await client.ended()
        await server.ended()
    assert await bridge.count("tidegate_websocket_handshakes_total", route="plain", status="503") == before + 1


async def test_nodetool_4673_a_body_that_breaks_off_ends_the_client_too(bridge: Bridge) -> None:
    path = bridge.path("plain")
    async with bridge.dial() as client:
        server, _ = await bridged(bridge, client, path)
        await server.send(b"HTTP/1.1 503 Later\r\nContent-Length: 10\r\n\r\nhalf")
        assert (await client.head()).status == 503
        server.reset()
        assert await client.rest() in (b"half", b"")


async def test_chp_557_a_client_that_leaves_within_the_body_frees_the_server(bridge: Bridge) -> None:
    path = bridge.path("plain")
    async with bridge.dial() as client:
        server, _ = await bridged(bridge, client, path)
        await server.send(b"HTTP/1.1 503 Later\r\nContent-Length: 1000000\r\n\r\nhalf")
        assert (await client.head()).status == 503
        client.reset()
        server.push(b"n" * 900_000)
        assert await server.rest() == b""


async def test_nothing_is_served_behind_a_refused_attempt(bridge: Bridge) -> None:
    path = bridge.path("off")
    await refused(bridge, attempt(path) + SMUGGLED, path, 403, "websocket_disabled")


# ---- frames that come early ---------------------------------------------------------------------------------------


async def test_caddy_6273_frames_in_one_segment_with_the_101_are_not_lost(bridge: Bridge) -> None:
    early = encode(text("first"), text("second"), is_client=False)
    async with bridge.open("plain", server_early=early) as (client, server):
        await client.expect(text("first"), text("second"))
        await server.send(text("third"))
        await client.expect(text("third"))


async def test_caddy_6273_a_101_and_the_first_half_of_a_frame(bridge: Bridge) -> None:
    early = encode(text("first"), is_client=False)
    async with bridge.open("plain", server_early=early[:1]) as (client, server):
        await server.wire.send(early[1:])
        await client.expect(text("first"))


async def test_caddy_6273_frames_in_one_segment_with_the_head_are_not_lost(bridge: Bridge) -> None:
    early = encode(text("first"), text("second"), is_client=True)
    async with bridge.open("plain", client_early=early) as (client, server):
        await server.expect(text("first"), text("second"))
        await client.send(text("third"))
        await server.expect(text("third"))


async def test_caddy_6273_a_close_in_one_segment_with_the_101(bridge: Bridge) -> None:
    early = encode(text("only"), close(4001, "go"), is_client=False)
    async with bridge.open("plain", server_early=early) as (client, server):
        await client.expect(text("only"), close(4001, "go"))
        await client.send(close(4001, "go"))
        await server.expect(close(4001, "go"))


async def test_64_kib_may_wait_and_then_we_stop_reading_but_lose_nothing(bridge: Bridge) -> None:
    message = bytes(range(256)) * 4096
    path = bridge.path("plain")
    async with bridge.dial() as wire:
        await wire.send(attempt(path))
        server_wire, request = await bridge.asked(path)
        frames = [text(message[at : at + 4096]) for at in range(0, len(message), 4096)]
        wire.push(encode(*frames, is_client=True))
        await server_wire.send(switch(request))
        assert (await wire.head()).status == 101
        await Peer(server_wire, request, is_client=False).expect(*frames)


async def test_bytes_that_are_no_frames_behind_the_head_break_the_rules(bridge: Bridge) -> None:
    """A request behind an upgrade is no request any more: its first byte is an unknown opcode without a mask."""
    async with bridge.open("plain", client_early=SMUGGLED) as (client, server):
        assert (await client.closed()).code == 1002
        assert (await server.frame()).code == 1001


# ---- smuggling: DESIGN §8's ambiguous requests, as attempts -------------------------------------------------------


def smuggling(path: str) -> dict[str, tuple[bytes, int, str]]:
    good = attempt(path)
    start, _, fields = good.partition(b"\r\n")

    def more(*lines: str, status: int = 400, reason: str) -> tuple[bytes, int, str]:
        return attempt(path, *lines), status, reason

    def raw(request: bytes, reason: str) -> tuple[bytes, int, str]:
        return request, 400, reason

    return {
        "bare LF everywhere": raw(good.replace(b"\r\n", b"\n"), "bare_line_feed"),
        "bare LF behind the request line": raw(start + b"\n" + fields, "bare_line_feed"),
        "bare LF in the fields": raw(good.replace(b"websocket\r\n", b"websocket\n", 1), "bare_line_feed"),
        "bare LF at the end": raw(good[:-2] + b"\n", "bare_line_feed"),
        "bare CR in a value": raw(good.replace(b"Upgrade\r\n", b"Upgrade\rX: y\r\n", 1), "bare_carriage_return"),
        "obs-fold": more("X-A: 1\r\n folded", reason="obs_fold"),
        "obs-fold of Connection": raw(good.replace(b": Upgrade", b":\r\n Upgrade", 1), "obs_fold"),
        "obs-fold before the first field": raw(start + b"\r\n " + fields, "obs_fold"),
        "CL and TE": more("Content-Length: 5", "Transfer-Encoding: chunked", reason="length_and_encoding"),
        "TE and CL": more("Transfer-Encoding: chunked", "Content-Length: 0", reason="length_and_encoding"),
        "two CL": more("Content-Length: 0", "Content-Length: 44", reason="length_repeated"),
        "two equal CL": more("Content-Length: 0", "Content-Length: 0", reason="length_repeated"),
        "two CL in one": more("Content-Length: 0, 44", reason="length_repeated"),
        "CL +5": more("Content-Length: +5", reason="length_invalid"),
        "CL 0x5": more("Content-Length: 0x5", reason="length_invalid"),
        "CL -1": more("Content-Length: -1", reason="length_invalid"),
        "TE xchunked": more("Transfer-Encoding: xchunked", reason="encoding_invalid"),
        "TE twice": more("Transfer-Encoding: chunked", "Transfer-Encoding: identity", reason="encoding_invalid"),
        "TE chunked, identity": more("Transfer-Encoding: chunked, identity", reason="encoding_invalid"),
        "two Hosts": more("Host: evil.test", reason="host_repeated"),
        "two equal Hosts": more("Host: gateway.test", reason="host_repeated"),
        "no Host": raw(request_bytes(f"GET {path}", *UPGRADE, host=""), "host_missing"),
        "a Host with a path": raw(request_bytes(f"GET {path}", *UPGRADE, host="a/b"), "host_invalid"),
        "a Host that the target denies": raw(
            request_bytes(f"GET http://evil.test{path}", *UPGRADE, host="gateway.test"), "host_mismatch"
        ),
        "space before a colon": more("X-A : 1", reason="field_name"),
        "tab before a colon": more("Transfer-Encoding\t: chunked", reason="field_name"),
        "space in a name": more("X A: 1", reason="field_name"),
        "no name": more(": 1", reason="field_name"),
        "NUL in a value": more("X-A: 1\0", reason="field_value"),
        "two spaces in the request line": raw(good.replace(b"GET ", b"GET  ", 1), "request_line"),
        "a tab in the request line": raw(good.replace(b" HTTP", b"\tHTTP", 1), ""),
        "two empty lines first": raw(b"\r\n\r\n" + good, "empty_lines"),
        "dot segment": raw(attempt(path + "/../x"), "bad_path"),
        "dot segment at the end": raw(attempt(path + "/.."), "bad_path"),
        "encoded dot segment": raw(attempt(path + "/%2e%2E/x"), "bad_path"),
        "half encoded dot segment": raw(attempt(path + "/.%2e/x"), "bad_path"),
        "dot segment behind an encoded slash": raw(attempt(path + "%2f../x"), "bad_path"),
        "dot segment before an encoded slash": raw(attempt(path + "/..%2Fx"), "bad_path"),
        "dot segment with a parameter": raw(attempt(path + "/..;a/x"), "bad_path"),
        "single dot": raw(attempt(path + "/./x"), "bad_path"),
        "backslash": raw(attempt(path + "/..\\x"), "bad_path"),
        "encoded backslash": raw(attempt(path + "/%5cx"), "bad_path"),
        "encoded NUL": raw(attempt(path + "/%00"), "bad_path"),
        "a fragment": raw(attempt(path + "#x"), "target_character"),
    }


@pytest.mark.parametrize("form", smuggling("/"))
async def test_a_smuggling_form_is_refused_and_closes(bridge: Bridge, form: str) -> None:
    path = bridge.path("plain")
    request, status, reason = smuggling(path)[form]
    await refused(bridge, request + SMUGGLED, path, status, reason)


async def test_an_attempt_on_a_bad_path_is_counted_as_one(bridge: Bridge) -> None:
    labels = {"status": "400", "reason": "bad_path"}
    before = await bridge.count("tidegate_websocket_handshakes_total", **labels)
    path = bridge.path("plain")
    await refused(bridge, attempt(f"{path}/.."), path, 400, "bad_path")
    assert await bridge.count("tidegate_websocket_handshakes_total", **labels) == before + 1


@pytest.mark.parametrize(
    "fields",
    [
        (),
        (f"Sec-WebSocket-Key: {KEY}", f"Sec-WebSocket-Key: {KEY}"),
        (f"Sec-WebSocket-Key: {KEY}", "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA=="),
        (f"Sec-WebSocket-Key: {KEY}, {KEY}",),
        ("Sec-WebSocket-Key: short",),
        ("Sec-WebSocket-Key:",),
        ("Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAAAA",),
        ("Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAA_-==",),
        (f"Sec-WebSocket-Key: {base64.b64encode(bytes(17)).decode()}",),
    ],
)
async def test_not_exactly_one_valid_key_is_refused(bridge: Bridge, fields: tuple[str, ...]) -> None:
    path = bridge.path("plain")
    await refused(bridge, attempt(path, *fields, drop="sec-websocket-key"), path, 400, "websocket_key")


async def test_an_encoded_slash_is_an_ordinary_character(bridge: Bridge) -> None:
    path = bridge.path("plain") + "/a%2Fb"
    async with bridge.open("plain", path=path) as (_, server):
        assert server.head.target == path
