"""permessage-deflate (RFC 7692): between the endpoints, who agree on it through us, or not at all."""

import os
import random
from collections.abc import AsyncIterator

import pytest
from websockets.asyncio.client import connect
from websockets.asyncio.server import ServerConnection, serve
from websockets.extensions.permessage_deflate import (
    ClientPerMessageDeflateFactory,
    PerMessageDeflate,
    ServerPerMessageDeflateFactory,
)

from tests.e2e.kit.bridge import Bridge, Pier
from tests.e2e.kit.frames import RSV1, binary, more, text

CLIENTS = ["h1", "h2"]
ROUTES = {
    "pass": {},
    "off": {"websocket": {"deflate": "off"}},
    "counted": {},
}

FIELD = "Sec-WebSocket-Extensions"
DEFLATE = f"{FIELD}: permessage-deflate"


@pytest.fixture
async def echo(pier: Pier) -> AsyncIterator[list[list[str]]]:
    """A real server on the other side; says which extensions each of its connections has."""
    agreed: list[list[str]] = []

    async def handler(socket: ServerConnection) -> None:
        agreed.append([extension.name for extension in socket.protocol.extensions])
        async for message in socket:
            await socket.send(message)

    async with serve(handler, sock=pier.listener.dup(), max_size=None):
        yield agreed


def messages() -> list[str | bytes]:
    draw = random.Random(11)
    words = ["tide", "gate", "lock", "sluice", "ebb"]
    texts: list[str | bytes] = [" ".join(draw.choices(words, k=draw.choice([0, 1, 10, 5000]))) for _ in range(40)]
    return [*texts, b"", os.urandom(100_000), b"\0" * 1_000_000, *texts]


async def test_real_peers_deflate_through_the_gateway(pier: Pier, echo: list[list[str]]) -> None:
    """With context takeover, so one lost or changed byte would break every message behind it."""
    async with connect(pier.gateway.ws(path="/pass"), proxy=None, max_size=None) as client:
        assert [extension.name for extension in client.protocol.extensions] == ["permessage-deflate"]
        for message in messages():
            await client.send(message)
            assert await client.recv() == message
    assert echo == [["permessage-deflate"]]


async def test_deflated_bytes_are_what_goes_over_the_wire(bridge: Bridge, pier: Pier) -> None:
    await bridge.__aexit__()  # the test's own server gives way to a real one

    async def handler(socket: ServerConnection) -> None:
        await socket.send(await socket.recv())

    async with (
        serve(handler, sock=pier.listener.dup()),
        connect(pier.gateway.ws(path="/counted"), proxy=None) as client,
    ):
        await client.send("x" * 500_000)
        assert await client.recv() == "x" * 500_000
    for direction in ("to_upstream", "to_client"):
        sent = await bridge.count("tidegate_websocket_bytes_total", route="counted", direction=direction)
        assert 0 < sent < 5000


@pytest.mark.parametrize(
    ("client_says", "server_says"),
    [
        ({"client_max_window_bits": 9}, {"client_max_window_bits": 9}),
        ({"server_max_window_bits": 10}, {}),
        ({"server_no_context_takeover": True, "client_no_context_takeover": True}, {}),
        ({"client_max_window_bits": True}, {"server_no_context_takeover": True, "server_max_window_bits": 9}),
    ],
)
async def test_real_peers_agree_on_parameters(
    pier: Pier, client_says: dict[str, int | bool], server_says: dict[str, int | bool]
) -> None:
    agreed: list[str] = []

    async def handler(socket: ServerConnection) -> None:
        agreed.append(str(socket.protocol.extensions[0]))
        async for message in socket:
            await socket.send(message)

    client_factory = ClientPerMessageDeflateFactory(**client_says)  # type: ignore[arg-type]
    server_factory = ServerPerMessageDeflateFactory(**server_says)  # type: ignore[arg-type]
    async with (
        serve(handler, sock=pier.listener.dup(), compression=None, extensions=[server_factory]),
        connect(
            pier.gateway.ws(path="/pass"), proxy=None, compression=None, extensions=[client_factory], max_size=None
        ) as client,
    ):
        (extension,) = client.protocol.extensions
        assert isinstance(extension, PerMessageDeflate)
        for message in messages():
            if len(message) < 1 << 20:
                await client.send(message)
                assert await client.recv() == message
        mine = [extension.local_max_window_bits, extension.local_no_context_takeover]
        theirs = [extension.remote_max_window_bits, extension.remote_no_context_takeover]
    assert agreed == [
        f"PerMessageDeflate(remote_no_context_takeover={mine[1]}, local_no_context_takeover={theirs[1]}, "
        f"remote_max_window_bits={mine[0]}, local_max_window_bits={theirs[0]})"
    ]


async def test_deflate_off_takes_the_offer_away(pier: Pier, echo: list[list[str]]) -> None:
    async with connect(pier.gateway.ws(path="/off"), proxy=None, max_size=None) as client:
        assert client.protocol.extensions == []
        for message in messages():
            await client.send(message)
            assert await client.recv() == message
    assert echo == [[]]


async def test_deflate_off_on_the_wire(bridge: Bridge) -> None:
    async with bridge.open("off", f"{DEFLATE}; client_max_window_bits, x-other") as (client, server):
        assert server.head.get(FIELD) is None
        assert client.head.get(FIELD) is None
        await client.send(text("before"), text("x", rsv=RSV1))
        await server.expect(text("before"))
        assert (await server.frame()).code == 1001
        assert (await client.closed()).code == 1002


@pytest.mark.parametrize(
    ("offer", "asked"),
    [
        ("permessage-deflate", "permessage-deflate"),
        ("permessage-deflate; client_max_window_bits", "permessage-deflate; client_max_window_bits"),
        ("x-webkit-deflate-frame, permessage-deflate", "permessage-deflate"),
        ("permessage-deflate; shiny=1", None),
        ("permessage-bzip2", None),
        (
            "permessage-deflate; server_max_window_bits=10, permessage-deflate",
            "permessage-deflate; server_max_window_bits=10, permessage-deflate",
        ),
    ],
)
async def test_permessage_deflate_alone_is_offered(bridge: Bridge, offer: str, asked: str | None) -> None:
    async with bridge.open("pass", f"{FIELD}: {offer}") as (client, server):
        assert server.head.get(FIELD) == asked
        assert client.head.get(FIELD) is None


async def test_the_answer_goes_to_the_client_as_it_is_and_into_the_log(bridge: Bridge) -> None:
    answer = "permessage-deflate; server_no_context_takeover; client_max_window_bits=10"
    offer = f"{DEFLATE}; client_max_window_bits"
    async with bridge.open("pass", offer, answer=(f"{FIELD.lower()}: {answer}",)) as (client, server):
        assert client.head.get(FIELD) == answer
        assert (await bridge.logged("open", server.head.target))["extensions"] == answer


@pytest.mark.parametrize("side", ["client", "server"])
async def test_rsv1_passes_once_it_is_agreed_on(bridge: Bridge, side: str) -> None:
    frames = [text("a", rsv=RSV1), binary(b"b", fin=False, rsv=RSV1), more(b"c"), text("plain"), text("", rsv=RSV1)]
    async with bridge.open("pass", DEFLATE, answer=(DEFLATE,)) as (client, server):
        sender, receiver = (client, server) if side == "client" else (server, client)
        await sender.send(*frames)
        await receiver.expect(*frames)


@pytest.mark.parametrize("side", ["client", "server"])
async def test_rsv1_is_refused_where_the_server_did_not_agree(bridge: Bridge, side: str) -> None:
    async with bridge.open("pass", DEFLATE) as (client, server):
        offender, innocent = (client, server) if side == "client" else (server, client)
        await offender.send(text("before"), text("x", rsv=RSV1))
        await innocent.expect(text("before"))
        assert (await innocent.frame()).code == (1001 if side == "client" else 1011)
        assert (await offender.closed()).code == 1002
