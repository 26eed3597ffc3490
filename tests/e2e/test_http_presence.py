"""Clients that end their sending, and clients that are gone: the same FIN, and not the same answer."""

import asyncio
import ssl
from collections.abc import Iterator

import pytest
import trustme

from tests.e2e.kit.peers import dial_unix
from tests.e2e.kit.wire import Lanes, Play, Wire, dial, request_bytes
from tidegate.testing import Gateway

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
PAUSE = 1.0
"""How long an answer under way may pause once its client has ended its sending."""


LANES = 40


@pytest.fixture(scope="module")
def gateway(lanes: Lanes, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    directory = tmp_path_factory.mktemp("presence")
    trustme.CA().issue_cert("gateway.test").private_key_and_cert_chain_pem.write_to_path(str(directory / "site.pem"))
    config = {
        "workers": 1,
        "listeners": {
            "edge": {"bind": ["127.0.0.1:0", f"unix:{directory}/edge.sock"]},
            "secure": {
                "bind": "127.0.0.1:0",
                "tls": {"certificates": [{"cert": "site.pem", "key": "site.pem"}]},
            },
        },
        "routes": lanes.routes(),
        "upstreams": lanes.upstreams(),
    }
    with Gateway(config, directory=directory) as gateway:
        yield gateway


async def answer(client: Wire) -> tuple[int, bytes]:
    """The final answer; a `100 Continue` that asks whether anybody is there may come before it."""
    while True:
        head = await client.head()
        if head.status != 100:
            return head.status, await client.body(head)


@pytest.mark.parametrize("version", ["1.1", "1.0"])
@pytest.mark.parametrize("body", [b"", b"abc"], ids=["bodiless", "with-a-body"])
async def test_a_client_that_ends_its_sending_gets_its_answer(
    client: Wire, upstream: Play, version: str, body: bytes
) -> None:
    """`printf 'GET …' | nc`: what it has to say is said."""
    await client.send(
        request_bytes(f"POST {upstream.prefix} HTTP/{version}", f"Content-Length: {len(body)}", body=body)
    )
    client.finish()
    server = await upstream.connection()
    assert await server.body(await server.head()) == body
    await asyncio.sleep(2 * PAUSE)  # an answer that takes its time
    await server.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n")
    await asyncio.sleep(1.5 * PAUSE)  # and pauses
    await server.send(b"1\r\nb\r\n0\r\n\r\n")
    if version == "1.1":
        assert await answer(client) == (200, b"ab")
    else:
        assert (await client.head()).status == 200, "HTTP/1.0 knows no interim answers"
        assert await client.rest() == b"ab"


async def test_over_a_unix_socket_too(gateway: Gateway, upstream: Play) -> None:
    async with dial_unix(str(gateway.directory / "edge.sock")) as client:
        await client.send(request_bytes(f"GET {upstream.prefix}"))
        client.finish()
        server = await upstream.connection()
        await server.head()
        assert (await client.head()).status == 100
        await server.send(OK)
        assert await answer(client) == (200, b"ok")


async def test_pipelined_requests_before_the_end_are_answered(client: Wire, upstream: Play) -> None:
    await client.send(b"".join(request_bytes(f"GET {upstream.prefix}/{number}") for number in range(3)))
    client.finish()
    server = await upstream.connection()
    for number in range(3):
        assert (await server.head()).target == f"{upstream.prefix}/{number}"
        await server.send(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n%d" % number)
        assert await answer(client) == (200, b"%d" % number)
    await client.ended()


async def test_a_client_that_ends_its_sending_in_a_long_answer_gets_the_rest(client: Wire, upstream: Play) -> None:
    await client.send(request_bytes(f"GET {upstream.prefix}"))
    server = await upstream.connection()
    await server.head()
    await server.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n")
    await client.head()
    assert await client.chunk() == b"a"
    client.finish()
    for _ in range(30):
        await server.send(b"1\r\nb\r\n")
        assert await client.chunk() == b"b"
        await asyncio.sleep(PAUSE / 10)
    await asyncio.sleep(1.5 * PAUSE)  # somebody has read since: a pause is only a pause
    await server.send(b"0\r\n\r\n")
    assert await client.chunks() == (b"", b"")


@pytest.mark.parametrize("socket", ["tcp", "unix", "tls"])
@pytest.mark.parametrize("moment", ["before the answer", "in the answer"])
async def test_a_client_that_is_gone_ends_its_upstream_work(
    gateway: Gateway, upstream: Play, socket: str, moment: str
) -> None:
    """Its close says FIN as well; nobody answers what comes then but RST."""
    trust = ssl.create_default_context()
    trust.check_hostname, trust.verify_mode = False, ssl.CERT_NONE
    dialled = {
        "tcp": lambda: dial(gateway.port("edge")),
        "unix": lambda: dial_unix(str(gateway.directory / "edge.sock")),
        "tls": lambda: dial(gateway.port("secure"), ssl=trust, server_hostname="gateway.test"),
    }
    async with dialled[socket]() as client:
        await client.send(request_bytes(f"GET {upstream.prefix}"))
        server = await upstream.connection()
        await server.head()
        if moment == "in the answer":
            await server.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n")
            await client.head()
            assert await client.chunk() == b"a"
        await client.close()
        await server.ended()
    route = upstream.prefix.removeprefix("/")
    record = await asyncio.to_thread(gateway.access_log().wait_for, route=route)
    assert (record["status"], record["reason"]) == (200 if moment == "in the answer" else 499, "client_lost")
    metrics = await asyncio.to_thread(gateway.metrics)
    assert metrics.value("tidegate_http_failed_total", route=route, reason="client_lost") == 1


async def test_a_body_that_is_cut_off_is_a_client_that_is_gone(gateway: Gateway, client: Wire, upstream: Play) -> None:
    await client.send(request_bytes(f"POST {upstream.prefix}", "Content-Length: 10", body=b"abc"))
    client.finish()
    server = await upstream.connection()
    await server.head()
    assert await server.rest() == b"abc"
    await client.ended()
    record = await asyncio.to_thread(gateway.access_log().wait_for, route=upstream.prefix.removeprefix("/"))
    assert (record["status"], record["reason"]) == (499, "client_lost")


# ---- Expect: 100-continue -------------------------------------------------------------------------------------------


async def expecting(client: Wire, upstream: Play, version: str = "1.1") -> Wire:
    """A client that waits for leave to send its body, and the upstream that has the head."""
    start = f"POST {upstream.prefix} HTTP/{version}"
    await client.send(request_bytes(start, "Expect: 100-continue", "Content-Length: 4"))
    server = await upstream.connection()
    assert (await server.head()).get("expect") == "100-continue"
    return server


async def test_a_client_is_not_kept_waiting_by_an_upstream_that_ignores_it(client: Wire, upstream: Play) -> None:
    server = await expecting(client, upstream)
    head = await client.head()
    assert (head.status, head.names()) == (100, set())
    await client.send(b"body")
    assert await server.exactly(4) == b"body"
    await server.send(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\n\r\n" + OK)
    assert (await client.head()).status == 103, "one leave is enough"
    assert (await client.answer())[1] == b"ok"


async def test_nothing_of_the_body_is_sent_before_the_upstream_s_leave(client: Wire, upstream: Play) -> None:
    server = await expecting(client, upstream)
    await server.send(b"HTTP/1.1 100 Continue\r\n\r\n")
    assert (await client.head()).status == 100
    await client.send(b"body")
    assert await server.exactly(4) == b"body"
    await server.send(OK)
    assert (await client.answer())[1] == b"ok"


async def test_a_client_that_does_not_wait_is_not_told(client: Wire, upstream: Play) -> None:
    server = await expecting(client, upstream)
    await client.send(b"body")
    assert await server.exactly(4) == b"body"
    await asyncio.sleep(1.5)  # longer than a client that waits would wait
    await server.send(OK)
    assert (await client.answer())[0].status == 200


async def test_interim_answers_keep_their_order(client: Wire, upstream: Play) -> None:
    server = await expecting(client, upstream)
    await server.send(
        b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n"
        b"HTTP/1.1 102 Processing\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: </b>\r\n\r\n"
    )
    heads = [await client.head() for _ in range(4)]
    assert [(head.status, head.get("link")) for head in heads] == [
        (103, "</a>"),
        (100, None),
        (102, None),
        (103, "</b>"),
    ]
    await client.send(b"body")
    assert await server.exactly(4) == b"body"
    await server.send(OK)
    assert (await client.answer())[1] == b"ok"


async def test_http_1_0_gets_no_leave_and_needs_none(client: Wire, upstream: Play) -> None:
    await client.send(request_bytes(f"POST {upstream.prefix} HTTP/1.0", "Expect: 100-continue", "Content-Length: 4"))
    server = await upstream.connection()
    await server.head()
    await server.send(b"HTTP/1.1 100 Continue\r\n\r\n")
    await client.send(b"body")
    assert await server.exactly(4) == b"body"
    await server.send(OK)
    assert (await client.answer())[0].status == 200
