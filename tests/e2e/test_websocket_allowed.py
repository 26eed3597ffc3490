"""The table "Is a WebSocket allowed here?": each row, on and off, and who decides which of the two it is."""

import json
from pathlib import Path

import pytest

from tests.e2e.kit.bridge import ACCEPT, UPGRADE, Bridge, attempt, switch
from tests.e2e.kit.certificates import Authority, client_context
from tests.e2e.kit.frames import Peer, text
from tests.e2e.kit.wire import Head, dial, request_bytes
from tidegate.testing import Gateway

ROUTES = {
    "inherits": {},
    "on": {"websocket": {"enabled": True}},
    "off": {"websocket": {"enabled": False}},
    "redirect": {"redirect": {"to": "https://other.test/ws", "status": 308}},
    "fixed": {"respond": {"status": 200, "body": "fixed"}},
    "missing": {"respond": {"status": 404, "body": "missing"}},
    "ready": {"respond": "ready"},
    "echo": {"respond": "echo"},
    "silent": {"respond": "echo", "websocket": {"enabled": False}},
}
SETTINGS = {
    "listeners": {
        "open": {"bind": "127.0.0.1:0"},
        "closed": {"bind": "127.0.0.1:0", "websocket": {"enabled": False}},
    }
}
ENABLED = [("open", "inherits"), ("open", "on"), ("closed", "on")]
DISABLED = [("open", "off"), ("closed", "off"), ("closed", "inherits")]
EVERYWHERE = [(*where, True) for where in ENABLED] + [(*where, False) for where in DISABLED]

BAD = {
    "POST": lambda path: attempt(path, start=f"POST {path}"),
    "HEAD": lambda path: attempt(path, start=f"HEAD {path}"),
    "OPTIONS": lambda path: attempt(path, start=f"OPTIONS {path}"),
    "get": lambda path: attempt(path, start=f"get {path}"),
    "a body": lambda path: attempt(path, "Content-Length: 2") + b"hi",
    "a chunked body": lambda path: attempt(path, "Transfer-Encoding: chunked") + b"0\r\n\r\n",
    "no key": lambda path: attempt(path, drop="sec-websocket-key"),
    "two keys": lambda path: attempt(path, UPGRADE[2]),
    "a bad key": lambda path: attempt(path, "Sec-WebSocket-Key: c2hvcnQ=", drop="sec-websocket-key"),
    "h2c too": lambda path: attempt(path, "Upgrade: websocket, h2c", drop="upgrade"),
}
VERSIONS = {
    "no version": (),
    "version 8": ("Sec-WebSocket-Version: 8",),
    "version 14": ("Sec-WebSocket-Version: 14",),
    "version 013": ("Sec-WebSocket-Version: 013",),
    "two versions": ("Sec-WebSocket-Version: 13", "Sec-WebSocket-Version: 8"),
    "a list": ("Sec-WebSocket-Version: 13, 8",),
    "an empty version": ("Sec-WebSocket-Version:",),
}
PLAIN = {
    "no Upgrade": lambda path: attempt(path, drop="upgrade"),
    "no Connection": lambda path: attempt(path, drop="connection"),
    "another Connection": lambda path: attempt(path, "Connection: keep-alive", drop="connection"),
    "h2c": lambda path: attempt(path, "Upgrade: h2c", drop="upgrade"),
    "another token": lambda path: attempt(path, "Upgrade: IRC/6.9", drop="upgrade"),
    "HTTP/1.0": lambda path: attempt(path, start=f"GET {path} HTTP/1.0"),
}


async def told(bridge: Bridge, listener: str, request: bytes) -> tuple[Head, bytes]:
    """The gateway's own answer to `request`, behind which its connection ends."""
    async with dial(bridge.gateway.port(listener)) as client:
        await client.send(request)
        answer = await client.head()
        body = b"" if request.startswith(b"HEAD") else await client.body(answer)
        assert "close" in (answer.get("Connection") or "").split(", ")
        await client.ended()
    return answer, body


@pytest.mark.parametrize(("listener", "route"), ENABLED)
async def test_a_good_attempt_is_bridged_where_it_is_enabled(bridge: Bridge, listener: str, route: str) -> None:
    path = bridge.path(route)
    async with dial(bridge.gateway.port(listener)) as wire:
        await wire.send(attempt(path))
        server, request = await bridge.asked(path)
        await server.send(switch(request))
        client = Peer(wire, await wire.head(), is_client=True)
        assert (client.head.status, client.head.get("Sec-WebSocket-Accept")) == (101, ACCEPT)
        await client.send(text("hello"))
        await Peer(server, request, is_client=False).expect(text("hello"))


@pytest.mark.parametrize(("listener", "route"), DISABLED)
async def test_a_good_attempt_is_a_403_where_it_is_not(bridge: Bridge, listener: str, route: str) -> None:
    labels = {"route": route, "listener": listener, "status": "403", "reason": "websocket_disabled"}
    before = await bridge.count("tidegate_websocket_handshakes_total", **labels)
    path = bridge.path(route)
    answer, body = await told(bridge, listener, attempt(path, "Accept: application/json"))
    assert (answer.status, json.loads(body)["error"]) == (403, "websocket_disabled")
    assert not bridge.has_heard_of(path)
    assert await bridge.count("tidegate_websocket_handshakes_total", **labels) == before + 1
    record = await bridge.logged("refusal", path)
    assert record.items() >= {"status": 403, "reason": "websocket_disabled", "route": route}.items()


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize(("listener", "route", "enabled"), EVERYWHERE)
async def test_any_version_but_13(bridge: Bridge, listener: str, route: str, enabled: bool, version: str) -> None:
    path = bridge.path(route)
    request = attempt(path, *VERSIONS[version], drop="sec-websocket-version")
    answer, body = await told(bridge, listener, request)
    assert not bridge.has_heard_of(path)
    if not enabled:
        assert (answer.status, body.split(b":")[0]) == (403, b"websocket_disabled")
        return
    assert (answer.status, body.split(b":")[0]) == (426, b"websocket_version")
    assert answer.get("Upgrade") == "websocket"
    assert answer.get("Connection") == "Upgrade, close"
    assert answer.get("Sec-WebSocket-Version") == "13"
    assert ("Sec-WebSocket-Version", "13") in answer.fields, "not the spelling of the RFC"


@pytest.mark.parametrize("form", BAD)
@pytest.mark.parametrize(("listener", "route", "enabled"), EVERYWHERE)
async def test_a_bad_attempt_is_a_400(bridge: Bridge, listener: str, route: str, enabled: bool, form: str) -> None:
    path = bridge.path(route)
    answer, _ = await told(bridge, listener, BAD[form](path))
    assert answer.status == 400, f"enabled: {enabled}"
    assert not bridge.has_heard_of(path)


@pytest.mark.parametrize("form", PLAIN)
@pytest.mark.parametrize(("listener", "route"), [("open", "inherits"), ("closed", "inherits"), ("open", "off")])
async def test_everything_else_is_plain_http(bridge: Bridge, listener: str, route: str, form: str) -> None:
    path = bridge.path(route)
    async with dial(bridge.gateway.port(listener)) as client:
        await client.send(PLAIN[form](path))
        server, request = await bridge.asked(path)
        assert not request.names() & {"upgrade", "http2-settings"}
        assert "upgrade" not in (request.get("Connection") or "").lower()
        await server.send(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nplain")
        answer, body = await client.answer()
        assert (answer.status, body) == (200, b"plain")
        if form != "HTTP/1.0":
            await client.send(request_bytes("GET /fixed"))
            assert (await client.answer())[1] == b"fixed"


@pytest.mark.parametrize("listener", ["open", "closed"])
@pytest.mark.parametrize(
    ("route", "status", "content"),
    [("redirect", 308, b""), ("fixed", 200, b"fixed"), ("missing", 404, b"missing"), ("ready", 200, b"ready\n")],
)
@pytest.mark.parametrize("form", ["good", "version 8", "no key"])
async def test_routes_that_answer_themselves_answer_attempts_too(
    bridge: Bridge, listener: str, route: str, status: int, content: bytes, form: str
) -> None:
    path = bridge.path(route)
    request = {
        "good": attempt(path),
        "version 8": attempt(path, "Sec-WebSocket-Version: 8", drop="sec-websocket-version"),
        "no key": attempt(path, drop="sec-websocket-key"),
    }[form]
    answer, body = await told(bridge, listener, request)
    assert (answer.status, body) == (status, content)
    assert answer.get("Location") == ("https://other.test/ws" if route == "redirect" else None)


async def test_an_attempt_that_no_route_takes_is_a_404_and_closes(bridge: Bridge) -> None:
    answer, body = await told(bridge, "open", attempt("/nowhere"))
    assert (answer.status, body.split(b":")[0]) == (404, b"no_route")


async def test_an_attempt_for_another_host_than_the_connection_s_is_a_421_and_closes(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    tls = {"certificates": [authority.issue("one", "one.test")]}
    config = {
        "listeners": {"edge": {"bind": "127.0.0.1:0", "tls": tls}},
        "routes": [{"respond": "echo"}],
    }
    with Gateway(config, directory=tmp_path) as gateway:
        settings = {"ssl": client_context(tmp_path, authority), "server_hostname": "one.test"}
        async with dial(gateway.port(), **settings) as client:
            await client.send(request_bytes("GET /", host="two.test"))
            answer, _ = await client.answer()
            assert (answer.status, answer.get("Connection")) == (421, None)
            await client.send(request_bytes("GET /", *UPGRADE, host="two.test"))
            answer, _ = await client.answer()
            assert (answer.status, answer.get("Connection")) == (421, "close")
            await client.ended()


async def test_the_gateway_s_own_echo_is_on_and_off_like_any_other(bridge: Bridge) -> None:
    async with dial(bridge.gateway.port("open")) as wire:
        await wire.send(attempt(bridge.path("echo")))
        client = Peer(wire, await wire.head(), is_client=True)
        assert client.head.status == 101
        await client.send(text("hello"))
        await client.expect(text("hello"))
    for listener, route in [("open", "silent"), ("closed", "echo")]:
        answer, body = await told(bridge, listener, attempt(bridge.path(route)))
        assert (answer.status, body.split(b":")[0]) == (403, b"websocket_disabled")


async def test_an_answer_of_the_gateway_keeps_plain_connections(bridge: Bridge) -> None:
    async with dial(bridge.gateway.port("closed")) as client:
        for _ in range(3):
            await client.send(request_bytes("GET /fixed"))
            answer, body = await client.answer()
            assert (answer.get("Connection"), body) == (None, b"fixed")
