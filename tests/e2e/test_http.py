"""Plain HTTP/1.1 through a gateway: what each side sees on the wire, in the order in which it happens."""

import asyncio
import contextlib
import json
import re
import socket
import ssl
from collections.abc import Iterator

import pytest
import trustme

from tests.e2e.kit.wire import Lanes, Play, Wire, dial, request_bytes
from tidegate.testing import Gateway

CLOSED = "http://127.0.0.1:1"
"""Nobody listens there."""


@pytest.fixture(scope="module")
def lanes() -> Iterator[Lanes]:
    lanes = Lanes(120)
    lanes.play()  # the first one is for /hurry: the kernel accepts there, and nobody answers
    yield lanes
    lanes.close()


@pytest.fixture(scope="module")
def gateway(lanes: Lanes, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    directory = tmp_path_factory.mktemp("http")
    full = socket.create_server(("127.0.0.1", 0), backlog=0)
    # One connection fills the queue of a listener that nobody accepts from; the kernel drops the next SYN.
    fillers = [socket.socket() for _ in range(3)]
    for filler in fillers:
        filler.setblocking(False)
        filler.connect_ex(full.getsockname())
    trustme.CA().issue_cert("gateway.test").private_key_and_cert_chain_pem.write_to_path(str(directory / "site.pem"))
    certificate = {"cert": "site.pem", "key": "site.pem"}
    config = {
        "workers": 1,  # one pool, so that connections can be counted
        "listeners": {
            "edge": {"bind": "127.0.0.1:0"},
            "behind": {"bind": "127.0.0.1:0", "trusted_proxies": ["127.0.0.0/8", "10.0.0.0/8"]},
            "secure": {"bind": f"unix:{directory}/secure.sock", "tls": {"certificates": [certificate]}},
            "brief": {"bind": "127.0.0.1:0", "timeouts": {"head": "300ms", "keep_alive": "300ms"}},
        },
        "routes": [
            *lanes.routes(timeouts={"request": "30s"}),
            {"name": "hurry", "match": {"path": {"prefix": "/hurry"}}, "to": "lane0", "timeouts": {"request": "300ms"}},
            {"name": "closed", "match": {"path": {"prefix": "/closed"}}, "to": "closed"},
            {"name": "full", "match": {"path": {"prefix": "/full"}}, "to": "full"},
            {"name": "nowhere", "match": {"path": {"prefix": "/nowhere"}}, "to": "nowhere"},
            {"name": "unix", "match": {"path": {"prefix": "/unix"}}, "to": "unix"},
            {"name": "echo", "match": {"path": {"prefix": "/echo"}}, "respond": "echo"},
            {"name": "fixed", "match": {"path": {"exact": "/fixed"}}, "respond": {"status": 200, "body": "hello"}},
        ],
        "upstreams": {
            **lanes.upstreams(),
            "unix": {"endpoints": [f"unix:{directory}/upstream.sock"]},
            "closed": {"endpoints": [CLOSED]},
            "full": {"endpoints": [f"http://127.0.0.1:{full.getsockname()[1]}"], "connect_timeout": "300ms"},
            "nowhere": {"endpoints": ["http://nobody.invalid:80"]},
        },
    }
    with Gateway(config, directory=directory) as gateway:
        yield gateway
    for each in [full, *fillers]:
        each.close()


async def exchange(client: Wire, server: Wire, request: bytes, answer: bytes) -> None:
    """One whole exchange on connections that are open already."""
    await client.send(request)
    await server.head()
    await server.send(answer)
    head, _ = await client.answer()
    assert head.status == 200


OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


async def kept(client: Wire, upstream: Play) -> Wire:
    """An upstream connection that has carried an exchange and waits for the next one."""
    await client.send(request_bytes(f"GET {upstream.prefix}"))
    server = await upstream.connection()
    await server.head()
    await server.send(OK)
    assert (await client.answer())[1] == b"ok"
    return server


# ---- connections ----------------------------------------------------------------------------------------------------


async def test_both_sides_keep_their_connections(client: Wire, upstream: Play) -> None:
    await client.send(request_bytes(f"GET {upstream.prefix}/0"))
    server = await upstream.connection()
    for number in range(5):
        head = await server.head()
        assert head.target == f"{upstream.prefix}/{number}"
        await server.send(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n%d" % number)
        answer, body = await client.answer()
        assert (body, answer.get("connection")) == (b"%d" % number, None)
        await client.send(request_bytes(f"GET {upstream.prefix}/{number + 1}"))
    assert upstream.connections == 1


async def test_clients_share_upstream_connections(gateway: Gateway, upstream: Play) -> None:
    server = None
    for _ in range(3):
        async with dial(gateway.port("edge")) as client:
            await client.send(request_bytes(f"GET {upstream.prefix}"))
            server = server or await upstream.connection()
            await server.head()
            await server.send(OK)
            assert (await client.answer())[1] == b"ok"
    assert upstream.connections == 1


async def test_an_upstream_that_says_close_is_not_asked_again(client: Wire, upstream: Play) -> None:
    for number in range(2):
        await client.send(request_bytes(f"GET {upstream.prefix}"))
        server = await upstream.connection()
        await server.head()
        await server.send(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok")
        head, body = await client.answer()
        assert (body, head.get("connection")) == (b"ok", None), "it says nothing about the client's connection"
        await server.ended()
        assert upstream.connections == number + 1


async def test_an_upstream_of_http_1_0_is_closed_after_its_answer(client: Wire, upstream: Play) -> None:
    await client.send(request_bytes(f"GET {upstream.prefix}"))
    server = await upstream.connection()
    assert (await server.head()).start.endswith(" HTTP/1.1")
    await server.send(b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok")
    head, body = await client.answer()
    assert (head.start, body) == ("HTTP/1.1 200 OK", b"ok")
    await server.ended()


async def test_a_client_that_says_close_is_closed(client: Wire, upstream: Play) -> None:
    await client.send(request_bytes(f"GET {upstream.prefix}", "Connection: close"))
    server = await upstream.connection()
    assert (await server.head()).get("connection") in (None, "keep-alive"), "its wish concerns its own connection"
    await server.send(OK)
    head, body = await client.answer()
    assert (head.get("connection"), body) == ("close", b"ok")
    await client.ended()


async def test_pipelined_requests_are_answered_in_order(client: Wire, upstream: Play) -> None:
    requests = [request_bytes(f"GET {upstream.prefix}/{number}") for number in range(20)]
    requests[5] = request_bytes(f"POST {upstream.prefix}/5", "Content-Length: 4", body=b"five")
    requests[7] = request_bytes(
        f"POST {upstream.prefix}/7", "Transfer-Encoding: chunked", body=b"5\r\nseven\r\n0\r\n\r\n"
    )
    await client.send(b"".join(requests))
    server = await upstream.connection()
    for number in range(20):
        head = await server.head()
        assert head.target == f"{upstream.prefix}/{number}"
        assert await server.body(head) == {5: b"five", 7: b"seven"}.get(number, b"")
        await server.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n%02d" % number)
    for number in range(20):
        assert (await client.answer())[1] == b"%02d" % number
    assert upstream.connections == 1


async def test_pipelined_requests_survive_a_stale_connection(client: Wire, upstream: Play) -> None:
    """What the client sent ahead belongs to it, whatever becomes of the connection that the first one went to."""
    server = await kept(client, upstream)
    await client.send(b"".join(request_bytes(f"GET {upstream.prefix}/{number}") for number in range(3)))
    await server.head()
    server.reset()
    server = await upstream.connection()
    for number in range(3):
        assert (await server.head()).target == f"{upstream.prefix}/{number}"
        await server.send(OK)
    for _ in range(3):
        assert (await client.answer())[1] == b"ok"


async def test_an_idle_client_is_closed_without_a_word(gateway: Gateway) -> None:
    async with dial(gateway.port("brief")) as client:
        await client.send(request_bytes("GET /fixed"))
        assert (await client.answer())[1] == b"hello"
        await client.ended()


async def test_a_slow_head_is_answered_with_408(gateway: Gateway) -> None:
    async with dial(gateway.port("brief")) as client:
        await client.send(b"GET /fixed HTTP/1.1\r\nHost: a")
        head, body = await client.answer()
        assert (head.status, head.get("connection"), body[:13]) == (408, "close", b"head_timeout:")
        await client.ended()


# ---- HTTP/1.0, targets ----------------------------------------------------------------------------------------------


async def test_a_client_of_http_1_0_gets_no_chunks(client: Wire, upstream: Play) -> None:
    await client.send(request_bytes(f"GET {upstream.prefix} HTTP/1.0"))
    server = await upstream.connection()
    assert (await server.head()).start == f"GET {upstream.prefix} HTTP/1.1"
    await server.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n")
    head = await client.head()
    assert head.names() & {"transfer-encoding", "content-length"} == set()
    assert head.get("connection") == "close"
    assert await client.rest() == b"abcde"


async def test_a_client_of_http_1_0_may_keep_its_connection(client: Wire, upstream: Play) -> None:
    request = request_bytes(f"GET {upstream.prefix} HTTP/1.0", "Connection: keep-alive")
    await client.send(request)
    server = await upstream.connection()
    await server.head()
    await server.send(OK)
    head, body = await client.answer()
    assert (head.get("connection"), body) == ("keep-alive", b"ok")
    await exchange(client, server, request, OK)


async def test_a_client_of_http_1_0_needs_no_host(client: Wire, upstream: Play) -> None:
    await client.send(request_bytes(f"GET {upstream.prefix} HTTP/1.0", host=""))
    server = await upstream.connection()
    head = await server.head()
    port = upstream.listener.getsockname()[1]
    assert head.get("host") == f"127.0.0.1:{port}", "HTTP/1.1 needs one, and the endpoint's is the only one known"
    assert head.get("x-forwarded-host") is None, "there is none to tell"
    await server.send(OK)
    assert (await client.answer())[1] == b"ok"


async def test_an_absolute_target_goes_up_in_origin_form(client: Wire, upstream: Play) -> None:
    await client.send(request_bytes(f"GET http://gateway.test{upstream.prefix}/a?b=c"))
    server = await upstream.connection()
    head = await server.head()
    assert (head.target, head.get("host")) == (f"{upstream.prefix}/a?b=c", "gateway.test")
    await server.send(OK)
    assert (await client.answer())[1] == b"ok"


async def test_an_absolute_target_for_another_host_is_refused(client: Wire, upstream: Play) -> None:
    await client.send(request_bytes(f"GET http://other.test{upstream.prefix}"))
    head, body = await client.answer()
    assert (head.status, body.split(b":")[0]) == (400, b"host_mismatch")
    await client.ended()
    assert upstream.connections == 0


# ---- bodies ---------------------------------------------------------------------------------------------------------


async def test_server_sent_events_arrive_one_by_one(client: Wire, upstream: Play) -> None:
    await client.send(request_bytes(f"GET {upstream.prefix}", "Accept: text/event-stream"))
    server = await upstream.connection()
    await server.head()
    await server.send(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
    assert (await client.head()).get("content-type") == "text/event-stream", "the head does not wait for the body"
    for number in range(5):
        event = b"data: %d\n\n" % number
        await server.send(b"%x\r\n%s\r\n" % (len(event), event))
        assert await client.chunk() == event
    await server.send(b"0\r\n\r\n")
    assert await client.chunk() == b""


async def test_an_event_over_tls_does_not_wait_for_the_next_one(gateway: Gateway, upstream: Play) -> None:
    """Whatever part of it was still on its way when the client's socket was full, it comes when the client reads."""
    for size in range(64 << 10, 512 << 10, 12 << 10):
        wire = await asyncio.to_thread(dial_tls, str(gateway.directory / "secure.sock"))
        with wire:
            await asyncio.to_thread(wire.sendall, request_bytes(f"GET {upstream.prefix}"))
            server = await upstream.connection()
            await server.head()
            await server.send(b"HTTP/1.1 200 OK\r\n\r\n")
            sending = asyncio.create_task(server.send(b"\0" * size))
            await asyncio.wait([sending], timeout=0.01)  # as much as fits into the sockets
            received = await asyncio.to_thread(read_event, wire, size)
            assert received == size
            await sending
            await server.close()


def dial_tls(path: str) -> ssl.SSLSocket:
    """A connection that takes nothing until it is read from."""
    trust = ssl.create_default_context()
    trust.check_hostname, trust.verify_mode = False, ssl.CERT_NONE
    raw = socket.socket(socket.AF_UNIX)
    raw.settimeout(5)
    raw.connect(path)
    return trust.wrap_socket(raw, server_hostname="gateway.test")


def read_event(wire: ssl.SSLSocket, size: int) -> int:
    """How many zero bytes came, of `size`."""
    seen = 0
    with contextlib.suppress(TimeoutError):
        while seen < size:
            seen += wire.recv(65_536).count(0)
    return seen


async def test_a_request_s_body_streams_up_while_its_answer_streams_down(client: Wire, upstream: Play) -> None:
    await client.send(request_bytes(f"POST {upstream.prefix}", "Transfer-Encoding: chunked"))
    server = await upstream.connection()
    assert (await server.head()).get("transfer-encoding") == "chunked"
    await server.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    assert (await client.head()).get("connection") == "close", "nobody knows yet where the next request begins"
    for number in range(5):
        await client.send(b"1\r\n%d\r\n" % number)
        assert await server.chunk() == b"%d" % number
        await server.send(b"2\r\n%d!\r\n" % number)
        assert await client.chunk() == b"%d!" % number
    await client.send(b"0\r\n\r\n")
    assert await server.chunks() == (b"", b"")
    await server.send(b"0\r\n\r\n")
    assert await client.chunks() == (b"", b"")
    await client.ended()


async def test_a_body_with_a_length_streams_up(client: Wire, upstream: Play) -> None:
    await client.send(request_bytes(f"PUT {upstream.prefix}", "Content-Length: 6", body=b"ab"))
    server = await upstream.connection()
    assert (await server.head()).get("content-length") == "6"
    assert await server.exactly(2) == b"ab"
    await client.send(b"cd")
    assert await server.exactly(2) == b"cd"
    await client.send(b"ef")
    assert await server.exactly(2) == b"ef"
    await server.send(OK)
    assert (await client.answer())[1] == b"ok"


async def test_large_bodies_go_both_ways_unchanged(client: Wire, upstream: Play) -> None:
    content = bytes(range(256)) * 16_384  # 4 MiB
    await client.send(request_bytes(f"POST {upstream.prefix}", f"Content-Length: {len(content)}"))
    server = await upstream.connection()
    head = await server.head()
    _, received = await asyncio.gather(client.send(content), server.body(head))
    assert received == content
    sending = asyncio.create_task(
        server.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(content) + content)
    )
    _, answered = await client.answer()
    await sending
    assert answered == content


async def test_trailers_go_both_ways(client: Wire, upstream: Play) -> None:
    body = b"3\r\nabc\r\n0\r\nX-Checksum: 1\r\nContent-Length: 9\r\nX-Forwarded-For: 6.6.6.6\r\n\r\n"
    await client.send(
        request_bytes(f"POST {upstream.prefix}", "Transfer-Encoding: chunked", "Trailer: X-Checksum", body=body)
    )
    server = await upstream.connection()
    assert (await server.head()).get("trailer") == "X-Checksum"
    assert await server.chunks() == (b"abc", b"X-Checksum: 1\r\n"), "what belongs in a head is dropped"
    await server.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nGrpc-Status: 0\r\n\r\n")
    await client.head()
    assert await client.chunks() == (b"ok", b"Grpc-Status: 0\r\n")
    await exchange(client, server, request_bytes(f"GET {upstream.prefix}"), OK)


async def test_chunk_extensions_are_not_passed_on(client: Wire, upstream: Play) -> None:
    body = b"3;a=b\r\nabc\r\n0;c\r\n\r\n"
    await client.send(request_bytes(f"POST {upstream.prefix}", "Transfer-Encoding: chunked", body=body))
    server = await upstream.connection()
    await server.head()
    assert await server.until(b"0\r\n\r\n") == b"3\r\nabc\r\n0\r\n\r\n"
    await server.send(OK)
    assert (await client.answer())[1] == b"ok"


@pytest.mark.parametrize("status", ["204 No Content", "304 Not Modified"])
async def test_answers_without_a_body_by_status(client: Wire, upstream: Play, status: str) -> None:
    await client.send(request_bytes(f"GET {upstream.prefix}"))
    server = await upstream.connection()
    await server.head()
    await server.send(f'HTTP/1.1 {status}\r\nEtag: "a"\r\n\r\n'.encode())
    head = await client.head()
    assert (head.start, head.get("etag")) == (f"HTTP/1.1 {status}", '"a"')
    assert head.names() & {"transfer-encoding", "content-length", "connection"} == set()
    await exchange(client, server, request_bytes(f"GET {upstream.prefix}"), OK)


async def test_an_answer_to_head_keeps_its_length_and_has_no_body(client: Wire, upstream: Play) -> None:
    await client.send(request_bytes(f"HEAD {upstream.prefix}"))
    server = await upstream.connection()
    assert (await server.head()).method == "HEAD"
    await server.send(b"HTTP/1.1 200 OK\r\nContent-Length: 12345\r\n\r\n")
    assert (await client.head()).get("content-length") == "12345"
    await client.send(request_bytes(f"HEAD {upstream.prefix}"))
    await server.head()
    await server.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    assert (await client.head()).get("content-length") is None
    await exchange(client, server, request_bytes(f"GET {upstream.prefix}"), OK)


@pytest.mark.parametrize("path", ["/fixed", "/echo", "/nothing-here"])
async def test_our_own_answers_to_head_have_no_body(client: Wire, path: str) -> None:
    await client.send(request_bytes(f"HEAD {path}"))
    assert (await client.head()).get("content-length") is not None
    await client.send(request_bytes("GET /fixed"))
    head, body = await client.answer()
    assert (head.status, body) == (200, b"hello")


async def test_an_upstream_that_ends_its_body_by_closing(client: Wire, upstream: Play) -> None:
    await client.send(request_bytes(f"GET {upstream.prefix}"))
    server = await upstream.connection()
    await server.head()
    await server.send(b"HTTP/1.1 200 OK\r\n\r\nabc")
    head = await client.head()
    assert (head.get("transfer-encoding"), head.get("content-length")) == ("chunked", None)
    assert await client.chunk() == b"abc"
    await server.send(b"de")
    assert await client.chunk() == b"de"
    await server.close()
    assert await client.chunks() == (b"", b"")
    await client.send(request_bytes("GET /fixed"))
    assert (await client.answer())[1] == b"hello", "the client's connection goes on"


# ---- interim answers, early answers ---------------------------------------------------------------------------------


async def test_expect_continue_is_the_upstream_s_to_answer(client: Wire, upstream: Play) -> None:
    await client.send(request_bytes(f"POST {upstream.prefix}", "Expect: 100-continue", "Content-Length: 4"))
    server = await upstream.connection()
    assert (await server.head()).get("expect") == "100-continue"
    await server.send(b"HTTP/1.1 100 Continue\r\n\r\n")
    assert (await client.head()).start == "HTTP/1.1 100 Continue"
    await client.send(b"body")
    assert await server.exactly(4) == b"body"
    await server.send(OK)
    assert (await client.answer())[1] == b"ok"
    await exchange(client, server, request_bytes(f"GET {upstream.prefix}"), OK)


async def test_expect_continue_may_be_answered_with_no(client: Wire, upstream: Play) -> None:
    await client.send(request_bytes(f"POST {upstream.prefix}", "Expect: 100-continue", "Content-Length: 4"))
    server = await upstream.connection()
    await server.head()
    await server.send(b"HTTP/1.1 417 Expectation Failed\r\nContent-Length: 2\r\n\r\nno")
    head, body = await client.answer()
    assert (head.status, body, head.get("connection")) == (417, b"no", "close")
    await server.ended()


async def test_we_continue_where_we_read_the_body_ourselves(client: Wire) -> None:
    await client.send(request_bytes("POST /echo", "Expect: 100-continue", "Content-Length: 4"))
    assert (await client.head()).start == "HTTP/1.1 100 Continue"
    await client.send(b"body")
    assert (await client.answer())[1] == b"body"


async def test_early_hints_come_before_the_answer(client: Wire, upstream: Play) -> None:
    await client.send(request_bytes(f"GET {upstream.prefix}"))
    server = await upstream.connection()
    await server.head()
    for number in range(2):
        await server.send(b"HTTP/1.1 103 Early Hints\r\nLink: </%d.css>; rel=preload\r\n\r\n" % number)
        head = await client.head()
        assert (head.status, head.get("link")) == (103, f"</{number}.css>; rel=preload")
        assert head.names() == {"link"}
    await server.send(OK)
    assert (await client.answer())[1] == b"ok"


async def test_a_client_of_http_1_0_gets_no_interim_answer(client: Wire, upstream: Play) -> None:
    await client.send(request_bytes(f"GET {upstream.prefix} HTTP/1.0"))
    server = await upstream.connection()
    await server.head()
    await server.send(b"HTTP/1.1 103 Early Hints\r\n\r\n" + OK)
    assert (await client.answer())[0].status == 200


async def test_an_early_answer_goes_through_and_ends_both_connections(client: Wire, upstream: Play) -> None:
    await client.send(request_bytes(f"POST {upstream.prefix}", "Content-Length: 1000000", body=b"a" * 1000))
    server = await upstream.connection()
    await server.head()
    await server.send(b"HTTP/1.1 413 Content Too Large\r\nContent-Length: 3\r\n\r\nbig")
    head, body = await client.answer()
    assert (head.status, body, head.get("connection")) == (413, b"big", "close")
    await client.ended()
    await server.rest()


async def test_a_body_that_the_upstream_has_not_taken_is_never_mixed_up(gateway: Gateway) -> None:
    """Early answers, with every part of the body somewhere on its way, and a request behind it.

    In some of these sizes the gateway has read the whole body, and a full socket keeps it from sending the rest: then
    neither side's connection may go on, or the next request becomes a part of this body. The upstream has a unix
    socket, whose buffers do not grow.
    """
    async with Play(unix_listener(gateway), "/unix") as upstream:
        for size in range(8 << 10, 512 << 10, 12 << 10):
            async with dial(gateway.port("edge")) as client:
                await answered_early(client, upstream, size)


def unix_listener(gateway: Gateway) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(gateway.directory / "upstream.sock"))
    listener.listen()
    return listener


async def answered_early(client: Wire, upstream: Play, size: int) -> None:
    await client.send(request_bytes(f"POST {upstream.prefix}", f"Content-Length: {size}"))
    server = await upstream.connection()
    await server.head()
    server.pause()
    body = b"a" * size
    sending = asyncio.create_task(client.send(body + request_bytes(f"GET {upstream.prefix}/behind")))
    await asyncio.wait([sending], timeout=0.01)  # as much as fits into the sockets; any part of it will do
    await server.send(OK)
    head, answer = await client.answer()
    assert answer == b"ok"
    server.resume()
    if head.get("connection") == "close":
        received = await server.rest()
        assert received == body[: len(received)]
    else:
        assert await server.exactly(size) == body
        assert (await server.head()).target.endswith("/behind")
        await server.send(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 4\r\n\r\nnext")
        assert (await client.answer())[1] == b"next"
    sending.cancel()
    await asyncio.gather(sending, return_exceptions=True)


# ---- what goes wrong ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "start",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n8\r\nabc",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nX-Trailer: 1",
    ],
    ids=["length", "between-chunks", "in-a-chunk", "in-the-trailers"],
)
@pytest.mark.parametrize("reset", [False, True], ids=["fin", "rst"])
async def test_an_answer_cut_short_is_cut_short(client: Wire, upstream: Play, start: bytes, reset: bool) -> None:
    await client.send(request_bytes(f"GET {upstream.prefix}"))
    server = await upstream.connection()
    await server.head()
    await server.send(start)
    head = await client.head()
    chunked = head.get("transfer-encoding") == "chunked"
    assert (await client.chunk() if chunked else await client.exactly(3)) == b"abc"
    if reset:
        server.reset()
    else:
        await server.close()
    await client.ended()


async def test_an_answer_cut_short_looks_so_in_http_1_0_too(client: Wire, upstream: Play) -> None:
    """There the end of the connection is the end of the body: only a reset tells that it came too early."""
    await client.send(request_bytes(f"GET {upstream.prefix} HTTP/1.0"))
    server = await upstream.connection()
    await server.head()
    await server.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n")
    await client.head()
    assert await client.exactly(3) == b"abc"
    await server.close()
    with pytest.raises(ConnectionResetError):
        await client.exactly(1)


async def test_broken_chunks_from_the_upstream_end_the_answer(client: Wire, upstream: Play) -> None:
    await client.send(request_bytes(f"GET {upstream.prefix}"))
    server = await upstream.connection()
    await server.head()
    await server.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n")
    await client.head()
    assert await client.chunk() == b"abc"
    await server.send(b"zz\r\n\r\n")
    await client.ended()
    await server.ended()


async def test_bytes_behind_an_answer_end_that_connection(client: Wire, upstream: Play) -> None:
    await client.send(request_bytes(f"GET {upstream.prefix}"))
    server = await upstream.connection()
    await server.head()
    await server.send(OK + b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison")
    assert (await client.answer())[1] == b"ok"
    await server.rest()
    await kept(client, upstream)


async def test_bytes_that_come_while_a_connection_idles_end_it(client: Wire, upstream: Play) -> None:
    server = await kept(client, upstream)
    await server.send(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison")
    await server.rest()  # swept
    await kept(client, upstream)


async def stale(client: Wire, upstream: Play, request: bytes) -> None:
    """Has a kept connection end, by RST, as the answer to `request`."""
    server = await kept(client, upstream)
    await client.send(request)
    await server.head()
    server.reset()


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS", "DELETE", "PUT"])
async def test_a_stale_connection_is_replaced_once_for_harmless_requests(
    client: Wire, upstream: Play, method: str
) -> None:
    await stale(client, upstream, request_bytes(f"{method} {upstream.prefix}/again"))
    server = await upstream.connection()
    assert (await server.head()).start == f"{method} {upstream.prefix}/again HTTP/1.1"
    await server.send(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
    assert (await client.head()).status == 200


async def test_a_fresh_connection_that_dies_is_not_replaced(client: Wire, upstream: Play) -> None:
    await stale(client, upstream, request_bytes(f"GET {upstream.prefix}/again"))
    server = await upstream.connection()
    await server.head()
    server.reset()
    head, body = await client.answer()
    assert (head.status, body.split(b":")[0]) == (502, b"upstream_lost")
    assert upstream.connections == 2


@pytest.mark.parametrize(
    "request_line",
    ["POST", "PATCH", "PUT with a body", "GET with a body"],
    ids=["post", "patch", "put-body", "get-body"],
)
async def test_a_stale_connection_is_not_replaced_for_others(client: Wire, upstream: Play, request_line: str) -> None:
    method, _, body = request_line.partition(" with a ")
    fields = [f"Content-Length: {len(body)}"] if body else []
    await stale(client, upstream, request_bytes(f"{method} {upstream.prefix}", *fields, body=body.encode()))
    head, text = await client.answer()
    assert (head.status, text.split(b":")[0]) == (502, b"upstream_lost")
    assert upstream.connections == 1


async def test_a_stale_connection_that_began_to_answer_is_not_replaced(client: Wire, upstream: Play) -> None:
    server = await kept(client, upstream)
    await client.send(request_bytes(f"GET {upstream.prefix}"))
    await server.head()
    await server.send(b"HTTP/1.1 2")
    await server.close()
    head, text = await client.answer()
    assert (head.status, text.split(b":")[0]) == (502, b"upstream_lost")
    assert upstream.connections == 1


async def test_a_connection_that_was_closed_while_idle_is_not_used(client: Wire, upstream: Play) -> None:
    server = await kept(client, upstream)
    await server.close()
    await client.send(request_bytes(f"POST {upstream.prefix}", "Content-Length: 2", body=b"hi"))
    server = await upstream.connection()
    head = await server.head()
    assert await server.body(head) == b"hi"
    await server.send(OK)
    assert (await client.answer())[1] == b"ok"


@pytest.mark.parametrize("reset", [False, True], ids=["fin", "rst"])
@pytest.mark.parametrize("moment", ["before the answer", "in the answer", "in the upload"])
async def test_a_client_that_leaves_ends_its_upstream_work(
    gateway: Gateway, upstream: Play, moment: str, reset: bool
) -> None:
    async with dial(gateway.port("edge")) as client:
        fields = ["Content-Length: 10"] if moment == "in the upload" else []
        await client.send(request_bytes(f"GET {upstream.prefix}", *fields, body=b"abc" if fields else b""))
        server = await upstream.connection()
        await server.head()
        if fields:
            await server.exactly(3)
        if moment == "in the answer":
            await server.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n")
            await client.head()
            assert await client.chunk() == b"abc"
        if reset:
            client.reset()
        else:
            await client.close()
        await server.ended()
        number = upstream.prefix.removeprefix("/")
        record = await asyncio.to_thread(gateway.access_log().wait_for, event="request", route=number)
        assert record["reason"] == "client_lost"
        assert record["status"] == (200 if moment == "in the answer" else 499)


# ---- refusals -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "status", "reason"),
    [
        ("/closed", 502, "connect_failed"),
        ("/full", 504, "connect_timeout"),
        ("/nowhere", 503, "no_endpoint"),
        ("/nothing-here", 404, "no_route"),
    ],
)
async def test_refusals_say_why_in_the_client_s_language(client: Wire, path: str, status: int, reason: str) -> None:
    await client.send(request_bytes(f"GET {path}", "Accept: application/json"))
    head, body = await client.answer()
    assert (head.status, head.get("content-type")) == (status, "application/json")
    told = json.loads(body)
    assert told["error"] == reason
    assert told["reason"] and told["doc"].endswith(f"#{reason}")
    assert re.fullmatch("[0-9a-f]{32}", head.get("x-request-id") or "")
    assert (head.get("retry-after") is not None) == (status == 503)
    await client.send(request_bytes(f"GET {path}", "Accept: text/html, */*"))
    head, body = await client.answer()
    assert (head.status, head.get("content-type")) == (status, "text/plain; charset=utf-8")
    assert body.startswith(f"{reason}: ".encode()) and body.endswith(b"\n")
    await client.send(request_bytes("GET /fixed"))
    assert (await client.answer())[1] == b"hello", "a refusal costs no connection"


async def test_an_answer_that_takes_too_long_is_a_504(client: Wire) -> None:
    await client.send(request_bytes("GET /hurry"))
    head, body = await client.answer()
    assert (head.status, body.split(b":")[0]) == (504, b"request_timeout")


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (b"nonsense\r\n\r\n", b"bad_response"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab", b"bad_response"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", b"bad_response"),
        (b"HTTP/1.1 200 OK\nContent-Length: 0\n\n", b"bad_response"),
        (b"HTTP/1.1 200 OK\r\nX: " + b"a" * 70_000 + b"\r\n\r\n", b"bad_response"),
        (b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n", b"bad_response"),
        (b"HTTP/1.1 200", b"upstream_lost"),
        (b"", b"upstream_lost"),
    ],
    ids=[
        "no-http",
        "two-lengths",
        "length-and-chunked",
        "bare-lf",
        "huge-head",
        "unasked-101",
        "half-a-head",
        "nothing",
    ],
)
async def test_an_answer_that_is_none_is_a_502(client: Wire, upstream: Play, answer: bytes, reason: bytes) -> None:
    await client.send(request_bytes(f"GET {upstream.prefix}"))
    server = await upstream.connection()
    await server.head()
    await server.send(answer)
    if reason == b"upstream_lost":
        await server.close()
    head, body = await client.answer()
    assert (head.status, body.split(b":")[0]) == (502, reason)
    await server.rest()


@pytest.mark.parametrize("path", ["lane", "/echo"])
async def test_a_malformed_body_is_a_400(client: Wire, upstream: Play, path: str) -> None:
    target = upstream.prefix if path == "lane" else path
    await client.send(request_bytes(f"POST {target}", "Transfer-Encoding: chunked", body=b"zz\r\n"))
    head, body = await client.answer()
    assert (head.status, head.get("connection"), body.split(b":")[0]) == (400, "close", b"bad_body")
    await client.ended()
    if path == "lane":
        server = await upstream.connection()
        assert b"0\r\n" not in await server.rest(), "the upstream must not take it for a whole body"


async def test_an_echo_has_a_limit(client: Wire) -> None:
    await client.send(request_bytes("POST /echo", "Content-Length: 2000000"))
    sending = asyncio.create_task(client.send(b"a" * 2_000_000))
    head, body = await client.answer()
    assert (head.status, body.split(b":")[0]) == (413, b"body_too_large")
    sending.cancel()
    await asyncio.gather(sending, return_exceptions=True)


# ---- what is added and taken away -----------------------------------------------------------------------------------


async def test_hop_by_hop_fields_stay_on_their_hop(client: Wire, upstream: Play) -> None:
    hop = ["Keep-Alive: timeout=5", "Proxy-Connection: keep-alive", "TE: gzip;q=0.5, trailers", "Upgrade: h2c"]
    hop += ["HTTP2-Settings: AAMAAABk", "X-Private: 1"]
    kept = ["X-Public: 1", "Cookie: a=b", "Accept: */*"]
    connection = "Connection: keep-alive, Upgrade, X-Private, Cookie"
    await client.send(request_bytes(f"GET {upstream.prefix}", connection, *hop, *kept))
    server = await upstream.connection()
    head = await server.head()
    gone = {"keep-alive", "proxy-connection", "upgrade", "x-private", "http2-settings"}
    assert head.names() & gone == set()
    assert (head.get("te"), head.get("connection")) == ("trailers", "TE"), "trailers go through, so it holds for us"
    assert (head.get("x-public"), head.get("cookie"), head.get("accept")) == ("1", "a=b", "*/*")
    await server.send(
        b"HTTP/1.1 200 OK\r\nConnection: X-Secret\r\nX-Secret: 1\r\nKeep-Alive: timeout=9\r\nUpgrade: h2\r\n"
        b"X-Public: 2\r\nSet-Cookie: a=1\r\nset-cookie: b=2\r\nContent-Length: 2\r\n\r\nok"
    )
    head, _ = await client.answer()
    assert head.names() == {"x-public", "set-cookie", "content-length", "x-request-id"}
    assert head.all("set-cookie") == ["a=1", "b=2"]


@pytest.mark.parametrize("attempt", [False, True], ids=["plain", "websocket"])
async def test_a_426_keeps_what_it_asks_for(client: Wire, upstream: Play, attempt: bool) -> None:
    key = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="
    handshake = ["Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Version: 13", key]
    await client.send(request_bytes(f"GET {upstream.prefix}", *(handshake if attempt else [])))
    server = await upstream.connection()
    await server.head()
    await server.send(
        b"HTTP/1.1 426 Upgrade Required\r\nUpgrade: TLS/1.2, h2\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Version: 14\r\nContent-Length: 2\r\n\r\nno"
    )
    head, body = await client.answer()
    assert (head.status, head.get("upgrade"), body) == (426, "TLS/1.2, h2", b"no")
    assert head.get("connection") == ("Upgrade, close" if attempt else "Upgrade")
    assert head.get("sec-websocket-version") == "14"
    if not attempt:
        await exchange(client, server, request_bytes(f"GET {upstream.prefix}"), OK)


async def test_names_and_order_of_fields_stay(client: Wire, upstream: Play) -> None:
    await client.send(request_bytes(f"GET {upstream.prefix}", "x-B: 1", "X-a: 2", "x-B: 3"))
    server = await upstream.connection()
    head = await server.head()
    assert [pair for pair in head.fields if pair[0].lower() in ("x-a", "x-b")] == [
        ("x-B", "1"),
        ("X-a", "2"),
        ("x-B", "3"),
    ]
    await server.send(b"HTTP/1.1 299 Very Fine\r\nX-oDd: a  b\r\nContent-Length: 0\r\n\r\n")
    head = await client.head()
    assert (head.start, head.fields[0]) == ("HTTP/1.1 299 Very Fine", ("X-oDd", "a  b"))
