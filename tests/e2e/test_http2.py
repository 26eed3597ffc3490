"""HTTP/2 from clients to servers of HTTP/1.1: heads, bodies both ways, trailers, what either version does not know."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
import trustme

from tests.e2e.kit.http2 import HOST, ErrorCodes, H2Client, context, dial
from tests.e2e.kit.peers import play, running
from tests.e2e.kit.sites import LOOPBACK, reload, route, site, until
from tests.e2e.kit.wire import Lanes, Play, request_bytes
from tests.e2e.kit.wire import dial as dial_h1
from tidegate.testing import Gateway

LANES = 60


def config(lanes: Lanes) -> dict[str, Any]:
    certificate = {"cert": "site.pem", "key": "site.pem"}
    other = {"cert": "other.pem", "key": "other.pem"}
    return {
        "workers": 1,
        "listeners": {
            "edge": {"bind": LOOPBACK, "limits": {"headers": "4KiB", "body": "1MiB"}, "timeouts": {"body": "300ms"}},
            "patient": {"bind": LOOPBACK},
            "secure": {
                "bind": LOOPBACK,
                "tls": {"certificates": [certificate, other], "protocols": {"legacy.test": ["h1"]}},
            },
            "brief": {"bind": LOOPBACK, "timeouts": {"keep_alive": "1s"}},
            "only1": {"bind": LOOPBACK, "http": ["h1"]},
            "only2": {"bind": LOOPBACK, "http": ["h2"]},
        },
        "routes": [
            *lanes.routes(timeouts={"request": "30s"}),
            {"name": "hurry", "match": {"path": {"prefix": "/hurry"}}, "to": "lane0", "timeouts": {"request": "300ms"}},
            {"name": "echo", "match": {"path": {"prefix": "/echo"}}, "respond": "echo"},
            {"name": "fixed", "match": {"path": {"exact": "/fixed"}}, "respond": {"status": 200, "body": "hello"}},
            {"name": "moved", "match": {"path": {"exact": "/moved"}}, "redirect": {"to": "/fixed", "status": 308}},
            {"name": "closed", "match": {"path": {"prefix": "/closed"}}, "to": "closed"},
        ],
        "upstreams": {**lanes.upstreams(), "closed": {"endpoints": ["http://127.0.0.1:1"]}},
    }


@pytest.fixture(scope="module")
def gateway(lanes: Lanes, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    directory = tmp_path_factory.mktemp("http2")
    authority = trustme.CA()
    lanes.play()  # lane 0 is for /hurry: the kernel accepts there, and nobody answers
    for name, names in {"site": [HOST, "legacy.test", "same.test"], "other": ["other.test"]}.items():
        authority.issue_cert(*names).private_key_and_cert_chain_pem.write_to_path(str(directory / f"{name}.pem"))
    with Gateway(config(lanes), directory=directory) as gateway:
        yield gateway


@pytest.fixture
async def client(gateway: Gateway) -> AsyncIterator[H2Client]:
    async with dial(gateway.port("edge")) as client:
        yield client


@pytest.fixture
async def patient(gateway: Gateway) -> AsyncIterator[H2Client]:
    async with dial(gateway.port("patient")) as client:
        yield client


# ---- how it begins --------------------------------------------------------------------------------------------------


async def test_it_is_offered_by_alpn(gateway: Gateway) -> None:
    async with dial(gateway.port("secure"), ssl=context(), server_hostname=HOST) as client:
        assert client.tls.selected_alpn_protocol() == "h2"
        head, body = await (await client.ask("GET", "/fixed")).answer()
        assert (head.status, body) == (200, b"hello")


async def test_a_preface_in_pieces_is_a_preface(gateway: Gateway) -> None:
    async with dial_h1(gateway.port("edge")) as wire:
        preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\x00\x00\x00\x04\x00\x00\x00\x00\x00"
        for byte in preface:
            await wire.send(bytes([byte]))
        assert (await wire.exactly(9))[3] == 4, "SETTINGS"


async def test_what_begins_like_a_preface_may_be_http_1(gateway: Gateway) -> None:
    async with dial_h1(gateway.port("edge")) as wire:
        await wire.send(b"P")
        await wire.send(request_bytes("POST /echo", "Content-Length: 2", body=b"ok")[1:])
        assert (await wire.answer())[1] == b"ok"


async def test_a_listener_speaks_only_what_it_says(gateway: Gateway) -> None:
    async with dial_h1(gateway.port("only1")) as wire:
        await wire.send(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
        assert (await wire.head()).status == 505
    async with dial_h1(gateway.port("only2")) as wire:
        await wire.send(request_bytes("GET /fixed"))
        head, body = await wire.answer()
        assert (head.status, body[:10]) == (505, b"http_1_off")
    async with dial(gateway.port("only2")) as client:
        assert (await (await client.ask("GET", "/fixed")).answer())[1] == b"hello"


async def test_a_server_name_may_speak_something_else(gateway: Gateway) -> None:
    options: dict[str, Any] = {"ssl": context(), "server_hostname": "legacy.test"}
    async with dial_h1(gateway.port("secure"), **options) as wire:
        await wire.send(request_bytes("GET /fixed", host="legacy.test"))
        assert (await wire.answer())[1] == b"hello"


@pytest.mark.parametrize(
    ("host", "status"), [(HOST, 200), ("same.test", 200), ("other.test", 200), ("legacy.test", 421)]
)
async def test_hosts_share_a_connection_where_they_may(gateway: Gateway, host: str, status: int) -> None:
    """All certificates of the listener count: a client would not come for a name that its certificate has not."""
    async with dial(gateway.port("secure"), ssl=context(), server_hostname=HOST) as client:
        await client.settled()
        fields = [(":method", "GET"), (":scheme", "https"), (":authority", host), (":path", "/fixed")]
        assert (await client.open(fields, ended=True).head()).status == status


# ---- heads ----------------------------------------------------------------------------------------------------------


async def test_a_request_as_the_server_sees_it(client: H2Client, upstream: Play) -> None:
    fields = [
        ("accept", "*/*"),
        ("cookie", "a=1"),
        ("cookie", "b=2"),
        ("te", "trailers"),
        ("x-forwarded-for", "6.6.6.6"),
    ]
    stream = await client.ask("GET", f"{upstream.prefix}/a%20b?c=d", *fields)
    server = await upstream.connection()
    head = await server.head()
    assert head.start == f"GET {upstream.prefix}/a%20b?c=d HTTP/1.1"
    assert (head.get("host"), head.get("cookie"), head.get("te")) == (HOST, "a=1; b=2", "trailers")
    assert (head.get("x-forwarded-for"), head.get("x-forwarded-proto")) == ("127.0.0.1", "http")
    assert not {"transfer-encoding", "content-length"} & head.names()
    await server.send(
        b"HTTP/1.1 200 OK\r\nConnection: keep-alive, X-Own\r\nX-Own: 1\r\nKeep-Alive: timeout=5\r\nUpgrade: x\r\n"
        b"Set-Cookie: a\r\nSet-Cookie: b\r\nContent-Length: 2\r\n\r\nok"
    )
    answer, body = await stream.answer()
    assert (answer.status, body, answer.all("set-cookie")) == (200, b"ok", ["a", "b"])
    assert not {"connection", "keep-alive", "upgrade", "x-own"} & answer.names()
    assert answer.get("x-request-id") == head.get("x-request-id")


async def test_interim_answers_go_through(client: H2Client, upstream: Play) -> None:
    stream = await client.ask("GET", upstream.prefix)
    server = await upstream.connection()
    await server.head()
    await server.send(b"HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\n\r\n")
    await server.send(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
    assert (await stream.answer())[0].status == 200
    assert [(head.status, head.get("link")) for head in stream.interim] == [(103, "</a.css>; rel=preload")]


@pytest.mark.parametrize(
    ("answer", "status", "body"),
    [
        (b"HTTP/1.1 204 No Content\r\n\r\n", 204, b""),
        (b"HTTP/1.1 304 Not Modified\r\nContent-Length: 7\r\n\r\n", 304, b""),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n1\r\nc\r\n0\r\n\r\n", 200, b"abc"),
        (b"HTTP/1.1 404 Nothing\r\nContent-Length: 3\r\n\r\nabc", 404, b"abc"),
    ],
)
async def test_answers_of_every_framing(
    client: H2Client, upstream: Play, answer: bytes, status: int, body: bytes
) -> None:
    stream = await client.ask("GET", upstream.prefix)
    server = await upstream.connection()
    await server.head()
    await server.send(answer)
    head, content = await stream.answer()
    assert (head.status, content) == (status, body)
    assert "transfer-encoding" not in head.names()


async def test_an_answer_up_to_the_end_of_the_connection(client: H2Client, upstream: Play) -> None:
    stream = await client.ask("GET", upstream.prefix)
    server = await upstream.connection()
    await server.head()
    await server.send(b"HTTP/1.1 200 OK\r\n\r\nall of it")
    await server.close()
    assert (await stream.answer())[1] == b"all of it"


async def test_head_has_the_length_and_no_body(client: H2Client, upstream: Play) -> None:
    stream = await client.ask("HEAD", upstream.prefix)
    server = await upstream.connection()
    await server.head()
    await server.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\n")
    head, body = await stream.answer()
    assert (head.get("content-length"), body) == ("10", b"")
    head, body = await (await client.ask("HEAD", "/fixed")).answer()
    assert (head.get("content-length"), body) == ("5", b"")


@pytest.mark.parametrize(
    ("fields", "status", "reason"),
    [
        ([(":path", "/echo/../fixed"), (":authority", HOST)], 400, "bad_path"),
        ([(":path", "/echo"), (":authority", HOST), ("host", "other.test")], 400, "host_mismatch"),
        ([(":path", "/echo"), (":authority", f"me@{HOST}")], 400, "host_invalid"),
        ([(":path", "/" + "x" * 3000), (":authority", HOST)], 414, "first_line_too_long"),
        ([(":path", "/echo"), (":authority", HOST), ("x", "x" * 5000)], 431, "head_too_large"),
        ([(":path", "/echo"), (":authority", HOST), *((f"x{index}", "1") for index in range(101))], 431, "too_many"),
        ([(":path", "/nowhere"), (":authority", HOST)], 404, "no_route"),
        ([(":path", "/closed"), (":authority", HOST)], 502, "connect_failed"),
    ],
)
async def test_refusals_are_the_usual_ones(
    client: H2Client, fields: list[tuple[str, str]], status: int, reason: str
) -> None:
    await client.settled()
    stream = client.open([(":method", "GET"), (":scheme", "http"), *fields], ended=True)
    head, body = await stream.answer()
    assert head.status == status
    assert body.startswith(reason.encode()), body
    # The connection is as good as before.
    assert (await (await client.ask("GET", "/fixed")).answer())[1] == b"hello"


async def test_a_redirect(client: H2Client) -> None:
    head, _ = await (await client.ask("GET", "/moved")).answer()
    assert (head.status, head.get("location")) == (308, "/fixed")


async def test_plain_connect_is_not_served(client: H2Client) -> None:
    await client.settled()
    stream = client.open([(":method", "CONNECT"), (":authority", "db.test:5432")])
    assert (await stream.head()).status == 501


# ---- bodies ---------------------------------------------------------------------------------------------------------


async def test_a_body_with_a_length_keeps_it(client: H2Client, upstream: Play) -> None:
    body = bytes(range(256)) * 1000
    stream = await client.ask("POST", upstream.prefix, ("content-length", str(len(body))), body=body)
    server = await upstream.connection()
    head = await server.head()
    assert head.get("content-length") == str(len(body))
    assert await server.body(head) == body
    await server.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
    assert (await stream.answer())[1] == body


async def test_bodies_and_trailers_stream_both_ways(patient: H2Client, upstream: Play) -> None:
    stream = await _begin(patient, upstream.prefix)
    server = await upstream.connection()
    head = await server.head()
    assert (head.get("transfer-encoding"), head.get("content-length")) == ("chunked", None)
    await stream.send(b"first")
    assert await server.chunk() == b"first"
    await server.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\npong\r\n")
    assert (await stream.head()).status == 200
    assert await stream.exactly(4) == b"pong"
    await stream.send(b"second")
    assert await server.chunk() == b"second"
    stream.end_with(x_sum="1", content_length="7")
    content, trailers = await server.chunks()
    assert (content, trailers) == (b"", b"x-sum: 1\r\n")
    await server.send(b"0\r\nGrpc-Status: 0\r\nTrailer: x\r\n\r\n")
    assert await stream.body() == b""
    assert stream.trailers == {"grpc-status": "0"}


async def _begin(client: H2Client, path: str, method: str = "POST", *more: tuple[str, str]) -> Any:
    await client.settled()
    return client.open([(":method", method), (":scheme", "http"), (":authority", HOST), (":path", path), *more])


async def test_an_answer_before_the_body_is_through(client: H2Client, upstream: Play) -> None:
    stream = await _begin(client, upstream.prefix)
    await stream.send(b"a part")
    server = await upstream.connection()
    await server.head()
    await server.send(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno")
    head, body = await stream.answer()
    assert (head.status, body) == (403, b"no")
    await until(lambda: stream.code is not None)
    assert stream.code == ErrorCodes.NO_ERROR, "RFC 9113 §8.1: the answer stands, and no more of the body is wanted"
    assert (await (await client.ask("GET", "/fixed")).answer())[1] == b"hello"


async def test_expect_continue(patient: H2Client, upstream: Play) -> None:
    stream = await _begin(patient, upstream.prefix, "POST", ("content-length", "2"), ("expect", "100-continue"))
    server = await upstream.connection()
    head = await server.head()
    assert head.get("expect") == "100-continue"
    await server.send(b"HTTP/1.1 100 Continue\r\n\r\n")
    await until(lambda: [head.status for head in stream.interim] == [100])
    await stream.send(b"ok")
    stream.finish()
    assert await server.body(head) == b"ok"
    await server.send(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
    assert (await stream.answer())[0].status == 200


async def test_too_large_a_body(client: H2Client, upstream: Play) -> None:
    stream = await _begin(client, upstream.prefix, "POST", ("content-length", str(2 << 20)))
    head, body = await stream.answer()
    assert (head.status, body[:14]) == (413, b"body_too_large")
    stream = await client.ask("POST", upstream.prefix, body=b"x" * (1 << 20) + b"y")
    assert (await stream.head()).status == 413


async def test_a_slow_body(client: H2Client, upstream: Play) -> None:
    stream = await _begin(client, upstream.prefix)
    head, body = await stream.answer()
    assert (head.status, body[:12]) == (408, b"body_timeout")


async def test_a_slow_server(client: H2Client) -> None:
    head, body = await (await client.ask("GET", "/hurry")).answer()
    assert (head.status, body[:15]) == (504, b"request_timeout")


async def test_an_answer_that_is_cut_is_a_reset(client: H2Client, upstream: Play) -> None:
    stream = await client.ask("GET", upstream.prefix)
    server = await upstream.connection()
    await server.head()
    await server.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf")
    assert await stream.exactly(4) == b"half"
    await server.close()
    assert await stream.was_reset() == ErrorCodes.INTERNAL_ERROR


@pytest.mark.parametrize("when", ["before the answer", "in the answer", "in the body"])
async def test_a_client_that_resets_frees_the_server(client: H2Client, upstream: Play, when: str) -> None:
    if when == "in the body":
        stream = await _begin(client, upstream.prefix)
        await stream.send(b"a part")
    else:
        stream = await client.ask("GET", upstream.prefix)
    server = await upstream.connection()
    await server.head()
    if when == "in the answer":
        await server.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf")
        await stream.exactly(4)
    stream.reset()
    await server.gone()
    assert (await (await client.ask("GET", "/fixed")).answer())[1] == b"hello"


async def test_a_hundred_at_once_and_one_that_is_stalled(client: H2Client, upstream: Play) -> None:
    """A stream whose client takes nothing holds up none of its siblings."""
    stalled = await client.ask("GET", upstream.prefix)
    stalled.pause()
    server = await upstream.connection()
    await server.head()
    server.push(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (1 << 20) + b"x" * (1 << 20))
    assert (await stalled.head()).status == 200
    streams = [await client.ask("POST", "/echo", body=b"%d" % index) for index in range(99)]
    for index, stream in enumerate(streams):
        assert (await stream.answer())[1] == b"%d" % index
    stalled.resume()
    assert len(await stalled.body()) == 1 << 20


# ---- log, metrics, the end of connections ----------------------------------------------------------------------------


async def test_the_log_says_h2(client: H2Client, gateway: Gateway) -> None:
    await (await client.ask("GET", "/echo/logged")).answer()
    record = await asyncio.to_thread(gateway.access_log().wait_for, event="request", path="/echo/logged")
    assert (record["protocol"], record["method"], record["host"], record["status"]) == ("h2", "GET", HOST, 200)


async def test_an_idle_connection_is_ended(gateway: Gateway) -> None:
    async with dial(gateway.port("brief")) as client:
        assert (await (await client.ask("GET", "/fixed")).answer())[1] == b"hello"
        assert (await client.goaway())[1] == ErrorCodes.NO_ERROR
        await client.ended()


async def test_a_listener_that_goes_says_goaway_and_answers_what_is_under_way() -> None:
    async with play() as (upstream, url):
        listeners = {"edge": {"bind": LOOPBACK}, "stay": {"bind": LOOPBACK}}
        described = site(route("all", "server"), listeners=listeners, upstreams={"server": url})
        async with running(described) as gateway, dial(gateway.port("edge")) as client:
            stream = await client.ask("GET", "/all")
            server = await upstream.connection()
            await server.head()
            await reload(gateway, {**described, "listeners": {"stay": listeners["stay"]}})
            assert await client.goaway() == ((1 << 31) - 1, ErrorCodes.NO_ERROR)
            await until(lambda: len(client.goaways) == 2)
            assert client.goaways[1] == (stream.number, ErrorCodes.NO_ERROR)
            await server.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
            assert (await stream.answer())[1] == b"ok"
            await client.ended()
