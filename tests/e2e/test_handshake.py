"""The two handshakes of a bridged WebSocket: what the server is asked, and what the client is told (RFC 6455 §4)."""

import asyncio
import base64
import contextlib

import pytest

from tests.e2e.kit.bridge import ACCEPT, KEY, Bridge, attempt, switch
from tests.e2e.kit.frames import Peer, close, text
from tests.e2e.kit.wire import Head, request_bytes

ROUTES = {
    "plain": {},
    "hurried": {"timeouts": {"handshake": "500ms"}},
    "edited": {
        "rewrite": {"prefix": "/inner"},
        "host": {"set": "chat.internal"},
        "headers": {
            "request": {"set": {"X-Team": "{path.2}"}, "remove": ["Cookie"]},
            "response": {"set": {"X-Served-By": "{route}"}, "remove": ["Server"]},
        },
    },
    "gone": {"to": "gone"},  # nobody listens on that socket
    "echo": {"respond": "echo"},
}
UPSTREAMS = {"gone": {"endpoints": ["unix:/nowhere/at/all.sock"]}}


async def ask(bridge: Bridge, *fields: str, path: str = "") -> Head:
    """The request that the server gets of an attempt with these fields."""
    async with bridge.open("plain", *fields, path=path) as (_, server):
        return server.head


async def told(bridge: Bridge, *answer: str) -> Head:
    """The answer that the client gets when the server's 101 has these fields."""
    async with bridge.open("plain", answer=answer) as (client, _):
        return client.head


@pytest.mark.parametrize("route", ["plain", "echo"])
async def test_the_client_s_key_gets_the_answer_of_the_rfc(bridge: Bridge, route: str) -> None:
    path = bridge.path(route)
    async with bridge.dial() as client:
        await client.send(attempt(path))
        if route == "plain":
            server, request = await bridge.asked(path)
            await server.send(switch(request))
        answer = await client.head()
    assert KEY == "dfQAy9mlQ0EjD5MmvvsZaQ=="
    assert answer.get("Sec-WebSocket-Accept") == ACCEPT == "+mKC4huknIfMGJFOzclP9fO058g="


async def test_the_client_s_101_is_spelt_as_in_the_rfc(bridge: Bridge) -> None:
    answer = await told(bridge)
    assert answer.start == "HTTP/1.1 101 Switching Protocols"
    assert answer.fields == (
        ("Upgrade", "websocket"),
        ("Connection", "Upgrade"),
        ("Sec-WebSocket-Accept", ACCEPT),
    )


async def test_the_server_s_request_is_spelt_as_in_the_rfc_however_the_client_spells_it(bridge: Bridge) -> None:
    path = bridge.path("plain")
    request = request_bytes(
        f"GET {path}",
        "UPGRADE: WebSocket",
        "connection: keep-alive, upgrade",
        f"sec-websocket-key: {KEY}",
        "SEC-WEBSOCKET-VERSION: 13",
        "Sec-Websocket-Protocol: chat",
        "sec-webSocket-extensions: permessage-deflate",
    )
    async with bridge.dial() as client:
        await client.send(request)
        server, head = await bridge.asked(path)
        assert head.start == f"GET {path} HTTP/1.1"
        handshake = [each for each in head.fields if each[0].lower().startswith(("sec-", "upgrade", "connection"))]
        assert handshake == [
            ("Upgrade", "websocket"),
            ("Connection", "Upgrade"),
            ("Sec-WebSocket-Key", head.get("Sec-WebSocket-Key")),
            ("Sec-WebSocket-Version", "13"),
            ("Sec-WebSocket-Protocol", "chat"),
            ("Sec-WebSocket-Extensions", "permessage-deflate"),
        ]
        await server.send(switch(head))
        assert (await client.head()).status == 101


async def test_each_server_gets_a_fresh_key_of_ours(bridge: Bridge) -> None:
    keys = {(await ask(bridge)).get("sec-websocket-key") or "" for _ in range(3)}
    assert len(keys) == 3
    assert KEY not in keys
    assert [len(base64.b64decode(key, validate=True)) for key in keys] == [16, 16, 16]


async def test_a_server_s_answer_may_be_spelt_in_any_way(bridge: Bridge) -> None:
    path = bridge.path("plain")
    async with bridge.dial() as client:
        await client.send(attempt(path))
        server, request = await bridge.asked(path)
        odd = switch(request).decode().replace("Switching Protocols", "")
        odd = odd.replace("Upgrade: websocket", "UPGRADE:WebSocket")
        odd = odd.replace("Connection: Upgrade", "connection:  keep-alive ,\tUPGRADE ")
        odd = odd.replace("Sec-WebSocket-Accept", "sec-websocket-accept")
        await server.send(odd.encode())
        answer = await client.head()
    assert (answer.status, answer.get("Connection"), answer.get("Upgrade")) == (101, "Upgrade", "websocket")


async def test_a_101_may_say_that_it_has_no_body(bridge: Bridge) -> None:
    """Some servers put this on every answer. It takes nothing away from the frames behind it."""
    async with bridge.open("plain", answer=("Content-Length: 0",), server_early=b"\x81\x02hi") as (client, _):
        assert client.head.get("Content-Length") is None
        await client.expect(text("hi"))


async def test_the_message_s_own_fields_go_both_ways(bridge: Bridge) -> None:
    own = ("Origin: https://a.test", "Cookie: sid=1", "user-agent: probe/1", "X-Twice: 1", "X-Twice: 2")
    answer = ("Set-Cookie: a=1", "Server: behind", "set-cookie: b=2", "Date: today")
    async with bridge.open("plain", *own, answer=answer) as (client, server):
        asked, answered = server.head, client.head
    assert [": ".join(each) for each in asked.fields if ": ".join(each) in own] == list(own)
    assert [": ".join(each) for each in answered.fields[3:]] == list(answer)


async def test_fields_of_one_connection_go_no_further(bridge: Bridge) -> None:
    asked = await ask(
        bridge,
        "Connection: X-Secret",
        "X-Secret: 1",
        "Keep-Alive: timeout=5",
        "Proxy-Connection: keep-alive",
        "TE: trailers",
        "Sec-WebSocket-Accept: nonsense",
        "Sec-WebSocket-Future: 1",
    )
    gone = {"x-secret", "keep-alive", "proxy-connection", "te", "sec-websocket-accept", "sec-websocket-future"}
    assert not gone & asked.names()
    assert asked.get("Connection") == "Upgrade"
    answered = await told(
        bridge, "Connection: X-Secret", "X-Secret: 1", "Keep-Alive: timeout=5", "Sec-WebSocket-Version: 13"
    )
    assert answered.names() == {"upgrade", "connection", "sec-websocket-accept"}


async def test_a_client_cannot_name_away_what_the_gateway_adds(bridge: Bridge) -> None:
    names = "X-Forwarded-For, X-Request-ID, Host, Sec-WebSocket-Key, X-Forwarded-Proto"
    asked = await ask(bridge, f"Connection: {names}")
    assert asked.get("X-Forwarded-For") == "127.0.0.1"
    assert asked.get("X-Forwarded-Proto") == "http"
    assert asked.get("Host") == "gateway.test"
    assert asked.get("X-Request-ID")
    assert asked.get("Sec-WebSocket-Key") not in (None, KEY)


async def test_query_and_path_go_on_byte_for_byte(bridge: Bridge) -> None:
    path = bridge.path("plain") + "/%7Euser/a%2Fb;v=1/%c3%BC?token=%zz&x=1+2&?"
    assert (await ask(bridge, path=path)).target == path


async def test_a_whole_address_as_target_is_a_path_for_the_server(bridge: Bridge) -> None:
    path = bridge.path("plain")
    async with bridge.dial() as client:
        await client.send(attempt(path, start=f"GET http://gateway.test{path}?a=b"))
        server, request = await bridge.asked(f"{path}?a=b")
        assert request.get("Host") == "gateway.test"
        await server.send(switch(request))
        assert (await client.head()).status == 101


@pytest.mark.parametrize(
    ("drop", "fields"),
    [
        ("connection", ("Connection: keep-alive", "Connection: Upgrade")),
        ("connection", ("Connection: keep-alive,,UPGRADE , x",)),
        ("upgrade", ("Upgrade:   WebSocket\t",)),
        ("sec-websocket-key", ("Sec-WebSocket-Key:   AAAAAAAAAAAAAAAAAAAAAA==  ",)),
        ("sec-websocket-key", ("Sec-WebSocket-Key: abcdefghijklmnopqrstu/==",)),  # unused bits that are not 0
    ],
)
async def test_odd_but_good_attempts(bridge: Bridge, drop: str, fields: tuple[str, ...]) -> None:
    path = bridge.path("plain")
    async with bridge.dial() as client:
        await client.send(attempt(path, *fields, drop=drop))
        server, request = await bridge.asked(path)
        await server.send(switch(request))
        assert (await client.head()).status == 101


async def test_bytes_beyond_ascii_in_fields_go_on_as_they_are(bridge: Bridge) -> None:
    async with bridge.open("plain", "X-Name: caf\xe9 \xff", answer=("X-Name: \x80\xfe",)) as (client, server):
        assert server.head.get("X-Name") == "caf\xe9 \xff"
        assert client.head.get("X-Name") == "\x80\xfe"


async def test_rewrite_host_and_header_edits_apply_to_attempts(bridge: Bridge) -> None:
    path = bridge.path("edited")
    inner = path.replace("/edited", "/inner") + "?q=1"
    async with bridge.dial() as wire:
        await wire.send(attempt(path + "?q=1", "Cookie: sid=1"))
        server, request = await bridge.asked(inner)
        assert (request.get("Host"), request.get("X-Team")) == ("chat.internal", path.split("/")[2])
        assert "cookie" not in request.names()
        await server.send(switch(request, "Server: behind"))
        answer = await wire.head()
        assert (answer.status, answer.get("X-Served-By"), answer.get("Server")) == (101, "edited", None)


async def test_heads_that_come_byte_by_byte(bridge: Bridge) -> None:
    path = bridge.path("plain")
    async with bridge.dial() as wire:
        for byte in attempt(path):
            await wire.send(bytes([byte]))
        server, request = await bridge.asked(path)
        for byte in switch(request):
            await server.send(bytes([byte]))
        client = Peer(wire, await wire.head(), is_client=True)
        assert client.head.get("Sec-WebSocket-Accept") == ACCEPT
        await client.send(text("hello"))
        await Peer(server, request, is_client=False).expect(text("hello"))


async def test_interim_answers_are_not_for_the_client(bridge: Bridge) -> None:
    path = bridge.path("plain")
    async with bridge.dial() as client:
        await client.send(attempt(path))
        server, request = await bridge.asked(path)
        await server.send(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n")
        await server.send(switch(request))
        assert (await client.head()).status == 101


async def test_an_answer_that_does_not_come_in_time_is_a_504(bridge: Bridge) -> None:
    path = bridge.path("hurried")
    async with bridge.dial() as client:
        await client.send(attempt(path))
        server, _ = await bridge.asked(path)
        answer, body = await client.answer()
        assert (answer.status, body.split(b":")[0]) == (504, b"handshake_timeout")
        await client.ended()
        await server.ended()
    assert (await bridge.logged("refusal", path))["reason"] == "handshake_timeout"


async def test_interim_answers_do_not_stop_the_clock(bridge: Bridge) -> None:
    path = bridge.path("hurried")
    async with bridge.dial() as client:
        await client.send(attempt(path))
        server, _ = await bridge.asked(path)
        answered = asyncio.ensure_future(client.answer())
        with contextlib.suppress(ConnectionError):
            while not answered.done():
                await server.send(b"HTTP/1.1 102 Processing\r\n\r\n")
                await asyncio.sleep(0.01)
        assert (await answered)[0].status == 504


async def test_the_handshake_s_time_does_not_bound_the_relay(bridge: Bridge) -> None:
    """The first one's 500 ms are over when a second one, opened after it, has waited for its own in vain."""
    async with bridge.open("hurried") as (client, server):
        async with bridge.dial() as other:
            await other.send(attempt(bridge.path("hurried")))
            assert (await other.answer())[0].status == 504
        await client.send(text("still here"))
        await server.expect(text("still here"))


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        (b"", b"upstream_lost"),
        (b"HTTP/1.1 101 Switching", b"upstream_lost"),
        (b"SSH-2.0-OpenSSH_9.2\r\n\r\n", b"bad_response"),
        (b"HTTP/1.1 101 Switching Protocols\nUpgrade: websocket\n\n", b"bad_response"),
        (b"\x81\x05Hello\r\n\r\n", b"bad_response"),
    ],
)
async def test_a_server_that_does_not_answer_is_a_502(bridge: Bridge, said: bytes, reason: bytes) -> None:
    path = bridge.path("plain")
    async with bridge.dial() as client:
        await client.send(attempt(path))
        server, _ = await bridge.asked(path)
        await server.send(said)
        server.finish()
        answer, body = await client.answer()
        assert (answer.status, body.split(b":")[0]) == (502, reason)
        assert answer.get("Connection") == "close"
        await client.ended()


async def test_a_server_that_is_not_there_is_a_502(bridge: Bridge) -> None:
    before = await bridge.count("tidegate_websocket_handshakes_total", route="gone", status="502")
    async with bridge.dial() as client:
        await client.send(attempt(bridge.path("gone"), "Accept: application/json"))
        answer, body = await client.answer()
        assert (answer.status, answer.get("Content-Type")) == (502, "application/json")
        assert b'"error":"connect_failed"' in body
        await client.ended()
    assert await bridge.count("tidegate_websocket_handshakes_total", route="gone", status="502") == before + 1


async def test_a_client_that_leaves_takes_the_server_s_connection_with_it(bridge: Bridge) -> None:
    path = bridge.path("plain")
    async with bridge.dial() as client:
        await client.send(attempt(path))
        server, _ = await bridge.asked(path)
    await server.ended()
    record = await bridge.logged("request", path)
    assert (record["status"], record["reason"]) == (499, "client_lost")


async def test_open_and_close_are_logged_with_one_connection_id(bridge: Bridge) -> None:
    opened = await bridge.count("tidegate_websocket_handshakes_total", route="plain", status="101", protocol="h1")
    async with bridge.open("plain", "User-Agent: probe/1", "X-Request-ID: mine") as pair:
        record = await bridge.logged("open", pair.server.head.target)
        expected = {
            "status": 101,
            "route": "plain",
            "listener": "edge",
            "client": "127.0.0.1",
            "protocol": "h1",
            "upstream": "server",
            "upstream_protocol": "h1",
            "method": "GET",
            "host": "gateway.test",
            "user_agent": "probe/1",
        }
        assert record.items() >= expected.items()
        assert record["request_id"] == pair.server.head.get("X-Request-ID") != "mine"
        assert await bridge.count("tidegate_websocket_connections", route="plain", upstream="server") >= 1
        await pair.client.send(text("héllo"), close(1000, "bye"))
        await pair.server.expect(text("héllo"), close(1000, "bye"))
        await pair.server.send(close(1000, "bye"))
        assert (await pair.client.closed()).code == 1000
        pair.server.wire.finish()
        await pair.client.wire.close()
        end = await bridge.ended(pair)
    assert end["connection"] == record["connection"]
    assert end.items() >= {"cause": "client", "code": 1000, "user_agent": "probe/1"}.items()
    now = await bridge.count("tidegate_websocket_handshakes_total", route="plain", status="101", protocol="h1")
    assert now == opened + 1
    assert await bridge.count("tidegate_http_requests_total", route="plain", status="101") == 0


async def test_an_attempt_may_follow_requests_on_its_connection(bridge: Bridge) -> None:
    async with bridge.dial() as wire:
        await wire.send(request_bytes(f"GET {bridge.path('echo')}"))
        assert (await wire.answer())[0].status == 200
        path = bridge.path("plain")
        await wire.send(attempt(path))
        server, request = await bridge.asked(path)
        await server.send(switch(request))
        assert (await wire.head()).status == 101
