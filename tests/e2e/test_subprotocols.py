"""Subprotocols: what is offered to the server, and what its choice may be (RFC 6455 §1.9)."""

import pytest
from websockets.asyncio.client import connect
from websockets.asyncio.server import ServerConnection, serve
from websockets.typing import Subprotocol

from tests.e2e.kit.bridge import Bridge, Pier, attempt, switch

ROUTES = {
    "any": {},
    "some": {"websocket": {"subprotocols": ["chat.v2", "chat.v1"]}},
    "echo": {"respond": "echo"},
    "echo-some": {"respond": "echo", "websocket": {"subprotocols": ["chat.v2", "chat.v1"]}},
}

FIELD = "Sec-WebSocket-Protocol"


def offer(*names: str) -> str:
    return f"{FIELD}: {', '.join(names)}"


@pytest.mark.parametrize(
    ("fields", "offered"),
    [
        ((), None),
        ((offer("chat.v1"),), "chat.v1"),
        ((offer("z", "a", "chat.v1"),), "z, a, chat.v1"),
        ((offer("z"), offer("a", "b")), "z, a, b"),
        ((f"{FIELD}:  a ,\tb,, c ",), "a, b, c"),
        ((f"{FIELD}:",), None),
        ((f"{FIELD.lower()}: a",), "a"),
    ],
)
async def test_all_go_on_in_the_client_s_order(bridge: Bridge, fields: tuple[str, ...], offered: str | None) -> None:
    async with bridge.open("any", *fields) as (client, server):
        assert server.head.get(FIELD) == offered
        assert client.head.get(FIELD) is None


@pytest.mark.parametrize(
    ("names", "offered"),
    [
        (("chat.v1", "chat.v2"), "chat.v1, chat.v2"),
        (("chat.v3", "chat.v2", "token.abc"), "chat.v2"),
        (("CHAT.V2",), None),
        (("chat.v3",), None),
        (("chat.v",), None),
    ],
)
async def test_only_allowed_ones_are_offered(bridge: Bridge, names: tuple[str, ...], offered: str | None) -> None:
    async with bridge.open("some", offer(*names)) as (client, server):
        assert server.head.get(FIELD) == offered
        assert client.head.get(FIELD) is None


async def test_the_server_chooses_and_the_log_says_what(bridge: Bridge) -> None:
    async with bridge.open("some", offer("chat.v1", "chat.v2"), answer=(f"{FIELD}: chat.v2",)) as (client, server):
        assert (FIELD, "chat.v2") in client.head.fields
        assert (await bridge.logged("open", server.head.target))["subprotocol"] == "chat.v2"


@pytest.mark.parametrize(
    ("route", "names", "choice"),
    [
        ("any", (), "chat.v2"),
        ("any", ("chat.v1",), "chat.v2"),
        ("any", ("chat.v1",), ""),
        ("some", ("chat.v3",), "chat.v3"),
        ("some", ("chat.v1", "chat.v3"), "chat.v3"),
        ("some", ("chat.v1",), "chat.v2"),
    ],
)
async def test_a_choice_that_was_not_offered_is_a_502(
    bridge: Bridge, route: str, names: tuple[str, ...], choice: str
) -> None:
    """What the client offered and we did not is not the server's to choose either."""
    path = bridge.path(route)
    async with bridge.dial() as client:
        await client.send(attempt(path, *([offer(*names)] if names else [])))
        server, request = await bridge.asked(path)
        await server.send(switch(request, f"{FIELD}: {choice}"))
        answer, body = await client.answer()
        assert (answer.status, body.split(b":")[0]) == (502, b"bad_handshake")
        await server.ended()


@pytest.mark.parametrize(
    ("route", "names", "choice"),
    [
        ("echo", ("z", "a"), "z"),
        ("echo", (), None),
        ("echo-some", ("z", "chat.v1", "chat.v2"), "chat.v1"),
        ("echo-some", ("z",), None),
    ],
)
async def test_the_gateway_s_own_echo_takes_the_first_allowed_one(
    bridge: Bridge, route: str, names: tuple[str, ...], choice: str | None
) -> None:
    async with bridge.dial() as client:
        await client.send(attempt(bridge.path(route), *([offer(*names)] if names else [])))
        answer = await client.head()
        assert (answer.status, answer.get(FIELD)) == (101, choice)


@pytest.mark.parametrize(("route", "agreed"), [("any", "token.secret"), ("some", "chat.v2")])
async def test_real_peers_agree(pier: Pier, route: str, agreed: str) -> None:
    """A server that takes the first of its own list that it is offered, and a client that offers three."""

    async def handler(socket: ServerConnection) -> None:
        await socket.send(f"{socket.subprotocol}")

    known = [Subprotocol(name) for name in ("token.secret", "chat.v2", "chat.v1")]
    async with (
        serve(handler, sock=pier.listener.dup(), subprotocols=known),
        connect(pier.gateway.ws(path=f"/{route}"), subprotocols=[*reversed(known)], proxy=None) as client,
    ):
        assert client.subprotocol == agreed == await client.recv()
