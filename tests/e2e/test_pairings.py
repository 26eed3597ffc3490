"""The same tests over every pairing: clients of HTTP/1.1, HTTP/2 and HTTP/3, servers of all three, and a second gateway
in between that is reached over HTTP/2 and HTTP/3."""

import asyncio
import contextlib
import itertools
import signal
import zlib
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
from aioquic.h3.connection import ProtocolError as H3ConnectionError

from tests.e2e.kit.frames import RSV1, Op, Peer, binary, close, more, ping, pong, text
from tests.e2e.kit.pairings import CLIENTS, SERVERS, Asked, Call, Client, Versions
from tests.e2e.kit.peers import echoes

pytestmark = pytest.mark.asyncio(loop_scope="module")

KINDS = {"small": {"max_message": "1KiB"}, "closed": {"enabled": False}, "bare": {"deflate": "off"}}
PAIRINGS = list(itertools.product(CLIENTS, SERVERS))

_serial = itertools.count(1)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def versions(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Versions]:
    async with Versions(tmp_path_factory.mktemp("pairings"), KINDS) as versions:
        yield versions


class Pairing:
    """A client of one version, and the server of another."""

    def __init__(self, versions: Versions, client: Client, server: str) -> None:
        self.versions, self.client, self.server = versions, client, server

    def path(self, kind: str = "") -> str:
        """One that no other request has."""
        return f"/{self.server.replace(' ', '-')}{kind and '-' + kind}/{next(_serial)}"

    async def open(self, kind: str = "", *fields: tuple[str, str], answer: Any = ()) -> tuple[Peer, Peer, Asked]:
        return await self.versions.open(self.client, self.path(kind), *fields, answer=answer)

    async def ask(self, method: str = "POST", *fields: tuple[str, str], ended: bool = False) -> tuple[Call, Asked]:
        path = self.path()
        call = await self.client.ask(method, path, *fields, ended=ended)
        return call, await self.versions.asked(path)

    async def logged(self, event: str, asked: Asked) -> dict[str, Any]:
        log = self.versions.gateway.access_log()
        return await asyncio.to_thread(log.wait_for, event=event, path=asked.head.target)


@pytest_asyncio.fixture(params=PAIRINGS, ids=lambda pair: f"{pair[0]}-{pair[1].replace(' ', '-')}", loop_scope="module")
async def pairing(versions: Versions, request: pytest.FixtureRequest) -> AsyncIterator[Pairing]:
    version, server = request.param
    async with versions.dial(version) as client:
        yield Pairing(versions, client, server)


async def closes(client: Peer, far: Peer, asked: Asked, code: int = 1000) -> None:
    """The close handshake, from the client's end."""
    await client.send(close(code))
    await far.expect(close(code))
    await far.send(close(code))
    await client.expect(close(code))


# ---- WebSockets -----------------------------------------------------------------------------------------------------


async def test_messages_go_both_ways(pairing: Pairing) -> None:
    client, far, asked = await pairing.open()
    for near, other in ((client, far), (far, client)):
        await near.send(text("hällo"), binary(b"\0\1"), binary(), text("be", fin=False), ping(b"p"), more(b"fore"))
        await other.expect(text("hällo"), binary(b"\0\1"), binary(), text("be", fin=False), ping(b"p"), more(b"fore"))
        await other.send(pong(b"p"))
        await near.expect(pong(b"p"))
    await closes(client, far, asked)
    record = await pairing.logged("close", asked)
    spoken = pairing.server.split(" ")[0]
    assert (record["protocol"], record["upstream_protocol"]) == (pairing.client.version, spoken)
    assert (record["code"], record["cause"]) == (1000, "client")


async def test_large_messages(pairing: Pairing) -> None:
    client, far, asked = await pairing.open()
    content = bytes(range(256)) * 4096
    for near, other in ((client, far), (far, client)):
        sending = asyncio.create_task(near.send(binary(content)))
        await other.expect(binary(content))
        await sending
    await closes(client, far, asked)


async def test_deflate_goes_through(pairing: Pairing) -> None:
    offer = ("sec-websocket-extensions", "permessage-deflate; client_max_window_bits")
    chosen = ("sec-websocket-extensions", "permessage-deflate; client_max_window_bits=10")
    client, far, asked = await pairing.open("", offer, answer=[chosen])
    assert asked.head.get("sec-websocket-extensions") == offer[1]
    assert client.head.get("sec-websocket-extensions") == chosen[1]
    packer = zlib.compressobj(wbits=-10)
    packed = (packer.compress(b"tide " * 1000) + packer.flush(zlib.Z_SYNC_FLUSH))[:-4]
    for near, other in ((client, far), (far, client)):
        await near.send(text(packed, rsv=RSV1))
        await other.expect(text(packed, rsv=RSV1))
    await closes(client, far, asked)


async def test_deflate_is_not_offered_where_it_is_off(pairing: Pairing) -> None:
    offer = ("sec-websocket-extensions", "permessage-deflate")
    client, far, asked = await pairing.open("bare", offer)
    assert asked.head.get("sec-websocket-extensions") is None
    assert client.head.get("sec-websocket-extensions") is None
    await closes(client, far, asked)


async def test_what_a_handshake_says_goes_both_ways(pairing: Pairing) -> None:
    fields = (
        ("origin", "https://a.test"),
        ("cookie", "a=1"),
        ("authorization", "Bearer x"),
        ("sec-websocket-protocol", "chat.v1, chat.v2"),
    )
    answer = (("sec-websocket-protocol", "chat.v2"), ("set-cookie", "b=2"))
    client, far, asked = await pairing.open("", *fields, answer=answer)
    assert {name: asked.head.get(name) for name, _ in fields} == dict(fields)
    assert asked.head.get("sec-websocket-version") == "13"
    assert (asked.head.get("sec-websocket-key") is None) == (pairing.server in ("h2", "h3"))
    assert asked.head.get("x-forwarded-for") == "127.0.0.1" + (", 127.0.0.1" if "twice" in pairing.server else "")
    assert asked.head.get("x-forwarded-proto") == "https"
    assert {name: client.head.get(name) for name, _ in answer} == dict(answer)
    await closes(client, far, asked)


@pytest.mark.parametrize("code", [1000, 1001, 3000, 4999, None])
async def test_close_codes(pairing: Pairing, code: int | None) -> None:
    for is_client_first in (True, False):
        client, far, _ = await pairing.open()
        first, second = (client, far) if is_client_first else (far, client)
        await first.send(close(code, "why" if code else ""))
        await second.expect(close(code, "why" if code else ""))
        await second.send(close(code))
        await first.expect(close(code))


@pytest.mark.parametrize("status", [302, 401, 403, 404, 500])
async def test_refusals_with_a_body(pairing: Pairing, status: int) -> None:
    path, body = pairing.path(), b"no, " * 20_000
    stream = await pairing.client.attempt(path)
    asked = await pairing.versions.asked(path)
    asked.answer(status, ("x-why", "so"), ("location", "/login"))
    asked.push(body, end=True)
    head = await stream.head()
    assert (head.status, head.get("x-why")) == (status, "so")
    assert (await stream.body(head) if pairing.client.version == "h1" else await stream.body()) == body  # type: ignore


async def test_where_none_are_allowed(pairing: Pairing) -> None:
    stream = await pairing.client.attempt(pairing.path("closed"))
    assert (await stream.head()).status == 403


async def test_a_client_that_breaks_off(pairing: Pairing) -> None:
    client, _, asked = await pairing.open()
    client.wire.reset()
    await asked.was_reset()
    record = await pairing.logged("close", asked)
    assert record["cause"] == "client_lost"


async def test_a_server_that_breaks_off(pairing: Pairing) -> None:
    client, _, asked = await pairing.open()
    asked.reset()
    frame = await client.frame()
    assert (frame.op, frame.code, frame.reason[:3]) == (Op.CLOSE, 1011, "gw:")
    record = await pairing.logged("close", asked)
    # The second gateway says so in a Close.
    assert record["cause"] == ("upstream" if "twice" in pairing.server else "upstream_lost")


async def test_a_message_that_is_too_big(pairing: Pairing) -> None:
    for is_client in (True, False):
        client, far, asked = await pairing.open("small")
        await (client if is_client else far).send(binary(b"x" * 1025))
        if is_client:
            assert (await client.frame()).code == 1009
            assert (await far.frame()).code == 1001
        else:
            assert (await far.frame()).code == 1009
            assert (await client.frame()).code == 1011
        assert (await pairing.logged("close", asked))["cause"] == "message_too_big"


async def test_a_frame_that_breaks_the_rules(pairing: Pairing) -> None:
    client, far, asked = await pairing.open()
    await client.send(text("good"), text(b"bad", rsv=RSV1))
    await far.expect(text("good"))
    assert (await client.frame()).code == 1002
    assert (await far.frame()).code == 1001
    assert (await pairing.logged("close", asked))["cause"] == "protocol_error"


async def test_a_hundred_on_one_connection(pairing: Pairing) -> None:
    opened = [await pairing.open() for _ in range(100)]
    for number, (client, far, _) in enumerate(opened):
        await client.send(text(str(number)))
        await far.send(text(f"-{number}"))
    for number, (client, far, _) in enumerate(opened):
        await far.expect(text(str(number)))
        await client.expect(text(f"-{number}"))
    # One goes, and the others do not notice.
    opened[50][0].wire.reset()
    await opened[50][2].was_reset()
    for client, far, _ in [*opened[:50], *opened[51:]]:
        await client.send(text("still here"))
        await far.expect(text("still here"))


async def test_a_stalled_one_stalls_no_other(pairing: Pairing) -> None:
    stalled, far, asked = await pairing.open()
    stalled.wire.pause()
    flood = asyncio.create_task(flooding(far))
    client, other, _ = await pairing.open()
    for _ in range(50):
        await other.send(binary(b"d" * 10_000))
        await client.expect(binary(b"d" * 10_000))
        await client.send(binary(b"u" * 10_000))
        await other.expect(binary(b"u" * 10_000))
    flood.cancel()
    with contextlib.suppress(asyncio.CancelledError, TimeoutError):
        await flood
    stalled.wire.reset()
    await asked.was_reset()


async def flooding(peer: Peer) -> None:
    """More than all windows and buffers on the way take."""
    for _ in range(1000):
        await peer.send(binary(b"x" * 10_000))
        await asyncio.sleep(0)


# ---- plain HTTP -----------------------------------------------------------------------------------------------------


async def test_requests_with_bodies_and_trailers(pairing: Pairing) -> None:
    call, asked = await pairing.ask("POST", ("te", "trailers"), ("x-team", "Blue"))
    content = bytes(range(256)) * 2000
    await call.send(content)
    call.end_with(x_sum="7")
    assert (asked.head.method, asked.head.get("x-team")) == ("POST", "Blue")
    assert await asked.body() == content
    assert asked.trailers == {"x-sum": "7"}
    asked.answer(201, ("x-served", "yes"))
    asked.push(content, trailers=[("x-end", "so")])
    head = await call.head()
    assert (head.status, head.get("x-served")) == (201, "yes")
    assert await call.body() == content
    assert call.trailers == {"x-end": "so"}


async def test_bodies_stream_both_ways_at_once(pairing: Pairing) -> None:
    call, asked = await pairing.ask("POST")
    asked.answer(200)
    assert (await call.head()).status == 200
    for number in range(10):
        call.push(b"up%d" % number)
        assert await asked.exactly(3) == b"up%d" % number
        asked.push(b"down%d" % number)
        assert await call.exactly(5) == b"down%d" % number
    call.finish()
    assert await asked.body() == b""
    asked.push(b"", end=True)
    assert await call.body() == b""


async def test_answers_without_a_body(pairing: Pairing) -> None:
    for status in (204, 304):
        call, asked = await pairing.ask("GET", ended=True)
        if pairing.server in ("h1", "h2 twice", "h3 twice"):
            asked.wire.push(f"HTTP/1.1 {status} Any\r\nConnection: close\r\n\r\n".encode())  # type: ignore[attr-defined]
        else:
            asked.answer(status, end=True)
        assert (await call.head()).status == status


async def test_a_client_that_cancels_its_request(pairing: Pairing) -> None:
    call, asked = await pairing.ask("GET", ended=True)
    call.reset()
    await asked.was_reset()


async def test_an_answer_that_is_cut(pairing: Pairing) -> None:
    call, asked = await pairing.ask("GET", ended=True)
    asked.answer(200)
    asked.push(b"half")
    assert await call.exactly(4) == b"half"
    asked.reset()
    with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
        await call.exactly(1)


@pytest.mark.parametrize(
    "pairing", [pair for pair in PAIRINGS if "h1" not in pair and "twice" not in pair[1]], indirect=True
)
async def test_calls_of_grpc(pairing: Pairing) -> None:
    """Both directions at once, and the outcome in trailers."""
    message = b"\0\0\0\0\5hello"
    fields = (("content-type", "application/grpc"), ("te", "trailers"), ("grpc-timeout", "9S"))
    call, asked = await pairing.ask("POST", *fields)
    assert {name: asked.head.get(name) for name, _ in fields} == dict(fields)
    asked.answer(200, ("content-type", "application/grpc"))
    for _ in range(3):
        call.push(message)
        assert await asked.exactly(len(message)) == message
        asked.push(message)
        assert await call.exactly(len(message)) == message
    call.finish()
    assert await asked.body() == b""
    asked.push(b"", trailers=[("grpc-status", "5"), ("grpc-message", "none")])
    assert await call.body() == b""
    assert call.trailers == {"grpc-status": "5", "grpc-message": "none"}


# ---- drain ----------------------------------------------------------------------------------------------------------


async def test_a_drain_tells_everyone(tmp_path_factory: pytest.TempPathFactory) -> None:
    async with Versions(tmp_path_factory.mktemp("drained")) as versions, contextlib.AsyncExitStack() as stack:
        opened = []
        for version, server in PAIRINGS:
            client = await stack.enter_async_context(versions.dial(version))
            opened.append(await Pairing(versions, client, server).open())
        for client, far, _ in opened:
            await echoes_once(client, far)
        versions.gateway.signal(signal.SIGTERM)
        await asyncio.gather(*(told(client, far) for client, far, _ in opened))
        assert await asyncio.to_thread(versions.gateway.wait) == 0


async def echoes_once(client: Peer, far: Peer) -> None:
    echo = asyncio.create_task(echoes(client))
    await far.send(await far.frame())
    await echo


async def told(client: Peer, far: Peer) -> None:
    frame = await client.frame()
    assert (frame.op, frame.code, "retry=" in frame.reason) == (Op.CLOSE, 1012, True)
    assert (await far.frame()).code == 1001
    # As soon as one side has answered the other may be cut, and its library takes nothing more.
    with contextlib.suppress(ConnectionError, TimeoutError, H3ConnectionError):
        await asyncio.gather(client.send(close(1012)), far.send(close(1001)))
