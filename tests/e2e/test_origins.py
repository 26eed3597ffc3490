"""Whose pages may open WebSockets: `websocket.origins` over every version of HTTP."""

import asyncio
import json
from collections.abc import Iterator

import pytest

from tests.e2e.kit.attempts import PROTOCOLS, attempts, everywhere
from tests.e2e.kit.bridge import attempt
from tests.e2e.kit.frames import binary
from tests.e2e.kit.http2 import HOST
from tests.e2e.kit.sites import LOOPBACK, route, site
from tests.e2e.kit.wire import dial, request_bytes
from tidegate.testing import Gateway

HANDSHAKES = "tidegate_websocket_handshakes_total"
PAGE = f"Origin: https://{HOST}"


def echo(**websocket: object) -> dict[str, object]:
    return {"respond": "echo", "websocket": websocket}


ROUTES = {
    "any": {"respond": "echo"},
    "same": echo(origins="same"),
    "named": echo(origins=["https://*.a.test", "https://b.test:8443", "http://localhost:*"]),
    "null": echo(origins=["same", "null"]),
    "known": echo(origins="any", missing_origin="refuse"),
    "fixed": {"respond": {"body": "hello"}},
}


@pytest.fixture(scope="module")
def gateway() -> Iterator[Gateway]:
    with everywhere(ROUTES) as gateway:
        yield gateway


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize(
    ("path", "fields", "status"),
    [
        ("any", ["Origin: https://evil.test"], 101),
        ("any", ["Origin: null"], 101),
        ("same", [PAGE], 101),
        ("same", [PAGE + ":443"], 101),
        ("same", [PAGE.upper().replace("ORIGIN", "Origin")], 101),
        ("same", [], 101),
        ("same", ["Origin: https://evil.test"], 403),
        ("same", [PAGE + ":8443"], 403),
        ("same", [PAGE + ".evil.test"], 403),
        ("same", [f"Origin: http://{HOST}"], 403),
        ("same", ["Origin: null"], 403),
        ("same", [PAGE, PAGE], 403),
        ("same", [PAGE, "Sec-Fetch-Site: same-origin"], 101),
        ("same", [PAGE, "Sec-Fetch-Site: cross-site"], 403),
        ("same", ["Sec-Fetch-Site: cross-site"], 403),
        ("same", [f"X-Forwarded-Host: {HOST}", "Origin: https://evil.test"], 403),
        ("same", ["X-Forwarded-Host: evil.test", "Origin: https://evil.test"], 403),
        ("named", ["Origin: https://x.y.a.test"], 101),
        ("named", ["Origin: https://x.a.test", "Sec-Fetch-Site: cross-site"], 101),
        ("named", ["Origin: https://b.test:8443"], 101),
        ("named", ["Origin: http://localhost:5173"], 101),
        ("named", ["Origin: https://a.test"], 403),
        ("named", ["Origin: http://x.a.test"], 403),
        ("named", ["Origin: https://b.test"], 403),
        ("named", [PAGE], 403),
        ("null", ["Origin: null"], 101),
        ("null", [PAGE], 101),
        ("null", ["Origin: https://evil.test"], 403),
        ("known", [], 403),
        ("known", ["Origin: https://evil.test"], 101),
    ],
)
async def test_who_may(gateway: Gateway, protocol: str, path: str, fields: list[str], status: int) -> None:
    async with attempts(gateway, protocol, f"/{path}", *fields) as tried:
        assert (tried.status, tried.reason) == (status, "" if status == 101 else "origin_refused")
        if status == 101:
            await tried.open.send(binary(b"in"))
            await tried.open.expect(binary(b"in"))


async def test_the_refusal_is_told_counted_and_logged_and_ends_the_connection(gateway: Gateway) -> None:
    labels = {"route": "same", "status": "403", "reason": "origin_refused", "protocol": "h1"}
    before = (await asyncio.to_thread(gateway.metrics)).value(HANDSHAKES, **labels)
    fields = ("Origin: https://evil.test", "Accept: application/json")
    async with attempts(gateway, "h1", "/same/told", *fields) as tried:
        assert json.loads(tried.body)["error"] == "origin_refused"
        assert tried.head.get("Connection") == "close"
        assert tried.wire
        await tried.wire.ended()
    log = gateway.access_log()
    record = await asyncio.to_thread(log.wait_for, event="refusal", path="/same/told", reason="origin_refused")
    assert record["status"] == 403
    assert (await asyncio.to_thread(gateway.metrics)).value(HANDSHAKES, **labels) == before + 1


async def test_only_websockets_are_asked(gateway: Gateway) -> None:
    async with attempts(gateway, "h1", "/fixed", "Origin: https://evil.test") as tried:
        assert (tried.head.status, tried.body) == (200, "hello")


async def test_a_trusted_proxy_says_which_host_was_asked_for() -> None:
    """And that the client has come by TLS, so that a page without it is another one."""
    config = site(
        route("same", respond="echo", websocket={"origins": "same"}),
        listeners={"edge": {"bind": LOOPBACK, "trusted_proxies": ["127.0.0.0/8"]}, "plain": {"bind": LOOPBACK}},
    )
    told = ("X-Forwarded-Host: app.test", "X-Forwarded-Proto: https")
    cases = [
        ("edge", [*told, "Origin: https://app.test"], 101),
        ("edge", [*told, "Origin: http://app.test"], 403),
        ("edge", [*told, f"Origin: https://{HOST}"], 403),
        ("edge", ["Forwarded: for=192.0.2.1;host=app.test;proto=https", "Origin: https://app.test"], 101),
        ("edge", ["Origin: https://gateway.test"], 101),
        ("plain", [*told, "Origin: https://app.test"], 403),
        ("plain", ["Origin: http://gateway.test"], 101),
        ("plain", ["Origin: https://gateway.test"], 101),
    ]
    with Gateway(config) as gateway:
        for listener, fields, status in cases:
            async with dial(gateway.port(listener)) as wire:
                await wire.send(attempt("/same", *fields))
                assert (await wire.head()).status == status, (listener, fields)


async def test_old_drafts_say_it_in_a_field_of_their_own() -> None:
    config = site(
        route("old", to="app", websocket={"frames": "opaque", "origins": ["https://a.test"]}),
        upstreams={"app": "unix:/nowhere/at/all.sock"},
    )
    with Gateway(config) as gateway:
        for origin, status in (("https://a.test", 502), ("https://evil.test", 403)):
            async with dial(gateway.port()) as wire:
                fields = ("Upgrade: websocket", "Connection: Upgrade", f"Sec-WebSocket-Origin: {origin}")
                await wire.send(request_bytes("GET /old", *fields))
                assert (await wire.head()).status == status
