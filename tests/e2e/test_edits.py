"""What a route changes on the way: paths, hosts, header fields; and the answers that it gives itself.

Everything is asked twice: as a plain request and as an attempt to open a WebSocket.
"""

import asyncio
import re
import socket
import ssl
from collections.abc import AsyncIterator, Iterator
from typing import Any, Literal

import pytest
import trustme
from websockets.asyncio.client import connect

from tests.e2e.kit.bridge import ACCEPT, attempt, switch
from tests.e2e.kit.wire import Head, Play, Wire, dial, request_bytes
from tidegate.testing import Gateway

Way = Literal["request", "attempt"]
WAYS = pytest.mark.parametrize("way", ["request", "attempt"])

TEMPLATE = (
    "ip={client.ip} name={tls.server_name} route={route} id={request.id} host={host} method={method} path={path} "
    "query={query} team={header.x-team} none={header.x-none} one={path.1} two={path.2} {{braces}}"
)

FORWARDED: list[dict[str, Any]] = [
    {"match": {"path": {"prefix": "/strip/this"}}, "rewrite": {"prefix": "/"}},
    {"match": {"path": {"prefix": "/replace"}}, "rewrite": {"prefix": "/with/that"}},
    {"match": {"path": {"exact": "/one"}}, "rewrite": {"prefix": "/other"}},
    {"match": {"path": {"starts_with": "/raw"}}, "rewrite": {"prefix": "/cooked-"}},
    {"match": {"path": {"starts_with": "/img"}}, "rewrite": {"prefix": "/"}},
    {"match": {"path": {"prefix": "/v1"}}, "rewrite": {"regex": "^/v1/(.*)", "to": "/$1/api"}},
    {"match": {"path": {"prefix": "/swap"}}, "rewrite": {"regex": "([a-z]+)-([0-9]+)", "to": "$2-$1"}},
    {"match": {"path": {"prefix": "/host/kept"}}, "host": "preserve"},
    {"match": {"path": {"prefix": "/host/theirs"}}, "host": "upstream"},
    {"match": {"path": {"prefix": "/host/set"}}, "host": {"set": "{header.x-team}.internal:81"}},
    {
        "name": "everything",
        "match": {"path": {"prefix": "/edits"}},
        "headers": {
            "request": {
                "set": {"x-all": TEMPLATE, "x-set": "new", "X-Request-Id": "{request.id}-ours"},
                "add": {"x-add": "second", "x-late": "{header.x-set}"},
                "remove": ["x-gone", "X-Forwarded-Proto"],
            },
            "response": {
                "set": {"server": "tidegate", "x-echo": "{request.id}/{header.x-team}"},
                "add": {"set-cookie": "b=2"},
                "remove": ["x-powered-by"],
            },
        },
    },
    {
        "name": "groups",
        "match": {"path": {"regex": "/groups/([^/]*)/([0-9]+)?.*"}},
        "headers": {"request": {"set": {"x-all": "{path.1}|{path.2}"}}},
    },
    {
        "name": "plain",
        "match": {"path": {"prefix": "/plain"}},
        "headers": {"request": {"set": {"x-all": "{header.x-team}|{query}|{path}"}}},
    },
]

ANSWERED: list[dict[str, Any]] = [
    {"match": {"path": {"exact": "/old"}}, "redirect": {"to": "https://new.test/ws", "status": 308}},
    {"match": {"path": {"prefix": "/moved"}}, "redirect": {"to": "https://{host}{path}?{query}"}},
    {"match": {"path": {"starts_with": "/relative"}}, "redirect": {"to": "{header.x-where}"}},
    {
        "name": "hello",
        "match": {"path": {"exact": "/hello"}},
        "respond": {"status": 203, "body": "hello", "content_type": "text/x-hello"},
        "headers": {"response": {"set": {"x-who": "{client.ip} {route}"}}},
    },
    {"match": {"path": {"exact": "/empty"}}, "respond": {"status": 204}},
    {"match": {"path": {"prefix": "/echo"}}, "respond": "echo"},
    {"match": {"path": {"prefix": "/quiet-echo"}}, "respond": "echo", "websocket": {"enabled": False}},
    {"match": {"path": {"prefix": "/chosen"}}, "respond": "echo", "websocket": {"subprotocols": ["b", "c"]}},
    {"match": {"path": {"exact": "/ready"}}, "respond": "ready"},
]


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="module")
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener


@pytest.fixture(scope="module")
def gateway(
    listener: socket.socket, authority: trustme.CA, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Gateway]:
    directory = tmp_path_factory.mktemp("edits")
    authority.issue_cert("secure.test").private_key_and_cert_chain_pem.write_to_path(str(directory / "site.pem"))
    tls = {"certificates": [{"cert": "site.pem", "key": "site.pem"}]}
    endpoint = f"http://127.0.0.1:{listener.getsockname()[1]}"
    config = {
        "listeners": {"edge": {"bind": "127.0.0.1:0"}, "secure": {"bind": "127.0.0.1:0", "tls": tls}},
        "routes": [*({**route, "to": "server"} for route in FORWARDED), *ANSWERED],
        "upstreams": {"server": {"endpoints": [endpoint], "pool": {"idle": 0}}},
    }
    with Gateway(config, directory=directory) as gateway:
        yield gateway


@pytest.fixture
async def upstream(listener: socket.socket) -> AsyncIterator[Play]:
    async with Play(listener.dup(), "") as upstream:
        yield upstream


def asking(way: Way, path: str, *fields: str) -> bytes:
    return attempt(path, *fields) if way == "attempt" else request_bytes(f"GET {path}", *fields)


async def passed(client: Wire, upstream: Play, way: Way, path: str, *fields: str, host: str = "gateway.test") -> Head:
    """The request's head as the upstream gets it."""
    await client.send(asking(way, path, *fields).replace(b"Host: gateway.test", b"Host: " + host.encode()))
    server = await upstream.connection()
    head = await server.head()
    await server.send(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")
    assert (await client.head()).status == 404
    return head


# ---- paths and hosts ------------------------------------------------------------------------------------------------


@WAYS
@pytest.mark.parametrize(
    ("path", "becomes"),
    [
        ("/strip/this", "/"),
        ("/strip/this?a=b", "/?a=b"),
        ("/strip/this/", "/"),
        ("/strip/this/deep/%7ep?q=%2e", "/deep/%7ep?q=%2e"),
        ("/strip/th%69s/x", "/x"),
        ("/strip/this//x", "/x"),
        ("/replace/x", "/with/that/x"),
        ("/replace", "/with/that"),
        ("/one?two", "/other?two"),
        ("/rawhide", "/cooked-hide"),
        ("/v1/users/7?x=/v1/y", "/users/7/api?x=/v1/y"),
        ("/v1", "/v1"),
        ("/swap/ab-12/cd-34", "/swap/12-ab/34-cd"),
    ],
)
async def test_paths_are_rewritten(client: Wire, upstream: Play, way: Way, path: str, becomes: str) -> None:
    assert (await passed(client, upstream, way, path)).target == becomes


@WAYS
async def test_a_rewrite_cannot_make_a_dot_segment(client: Wire, way: Way) -> None:
    """`/img` for `/` would make `/../secret` of this."""
    await client.send(asking(way, "/img../secret"))
    head, body = await client.answer()
    assert (head.status, body.split(b":")[0]) == (400, b"bad_path")
    await client.ended()


@WAYS
@pytest.mark.parametrize(
    ("path", "host"),
    [("/host/kept", "Edge.test:8080"), ("/host/theirs", "127.0.0.1:{port}"), ("/host/set", "blue.internal:81")],
)
async def test_the_host_that_the_upstream_sees(
    client: Wire, upstream: Play, listener: socket.socket, way: Way, path: str, host: str
) -> None:
    head = await passed(client, upstream, way, path, "X-Team: blue", host="Edge.test:8080")
    assert head.get("host") == host.format(port=listener.getsockname()[1])
    assert head.get("x-forwarded-host") == "Edge.test:8080"


# ---- header fields --------------------------------------------------------------------------------------------------


@WAYS
async def test_templates_know_everything_about_a_request(client: Wire, upstream: Play, way: Way) -> None:
    head = await passed(
        client, upstream, way, "/edits/%41b/c?x=1&y", "X-Team: blue", "X-Team: red", "X-Set: old", "X-Set: older",
        "X-Add: first", "X-Gone: 1", "X-GONE: 2",
    )  # fmt: skip
    text = head.get("x-all")
    assert text and text.endswith(" {braces}")
    values = re.fullmatch(
        r"ip=(.*) name=(.*) route=(.*) id=(.*) host=(.*) method=(.*) path=(.*) query=(.*) team=(.*) none=(.*) "
        r"one=(.*) two=(.*) \{braces\}",
        text,
    )
    assert values
    *first, request_id, host, method, path, query, team, none, one, two = values.groups()
    assert first == ["127.0.0.1", "", "everything"]
    assert re.fullmatch("[0-9a-f]{32}", request_id)
    assert (host, method) == ("gateway.test", "GET")
    assert (path, query) == ("/edits/%41b/c", "x=1&y")
    assert (team, none) == ("blue, red", "")
    assert (one, two) == ("edits", "Ab")
    assert head.all("x-set") == ["new"]
    assert head.all("x-add") == ["first", "second"]
    assert head.get("x-late") == "old, older", "templates name the request as it came"
    assert head.names() & {"x-gone", "x-forwarded-proto"} == set()
    assert head.get("x-request-id") == f"{request_id}-ours"


@WAYS
@pytest.mark.parametrize(
    ("path", "groups"), [("/groups/a%7Eb/12x", "a~b|12"), ("/groups//", "|"), ("/groups/%2F/", "%2F|")]
)
async def test_templates_know_the_groups_of_the_match(
    client: Wire, upstream: Play, way: Way, path: str, groups: str
) -> None:
    assert (await passed(client, upstream, way, path)).get("x-all") == groups


@WAYS
async def test_templates_know_the_server_name(
    gateway: Gateway, authority: trustme.CA, upstream: Play, way: Way
) -> None:
    trust = ssl.create_default_context()
    authority.configure_trust(trust)
    async with dial(gateway.port("secure"), ssl=trust, server_hostname="secure.test") as client:
        head = await passed(client, upstream, way, "/edits", host="secure.test")
    assert "name=secure.test route=everything" in (head.get("x-all") or "")
    trust.check_hostname = False
    trust.verify_mode = ssl.CERT_NONE
    async with dial(gateway.port("secure"), ssl=trust, server_hostname="127.0.0.1") as client:
        head = await passed(client, upstream, way, "/plain")
    assert head.get("x-forwarded-proto") == "https"


async def test_answers_are_edited(client: Wire, upstream: Play) -> None:
    await client.send(asking("request", "/edits", "X-Team: blue"))
    server = await upstream.connection()
    await server.head()
    await server.send(
        b"HTTP/1.1 200 OK\r\nServer: nginx\r\nX-Powered-By: PHP\r\nSet-Cookie: a=1\r\nContent-Length: 2\r\n\r\nok"
    )
    head, body = await client.answer()
    assert body == b"ok"
    check_edited(head)
    assert head.all("set-cookie") == ["a=1", "b=2"]


async def test_the_101_is_edited_too(client: Wire, upstream: Play) -> None:
    await client.send(asking("attempt", "/edits", "X-Team: blue"))
    server = await upstream.connection()
    await server.send(switch(await server.head(), "Server: nginx", "X-Powered-By: PHP"))
    head = await client.head()
    assert (head.status, head.get("sec-websocket-accept")) == (101, ACCEPT)
    check_edited(head)


async def test_a_refused_attempt_s_answer_is_edited_too(client: Wire, upstream: Play) -> None:
    await client.send(asking("attempt", "/edits", "X-Team: blue"))
    server = await upstream.connection()
    await server.head()
    await server.send(b"HTTP/1.1 403 Forbidden\r\nServer: nginx\r\nX-Powered-By: PHP\r\nContent-Length: 2\r\n\r\nno")
    head, body = await client.answer()
    assert (head.status, body) == (403, b"no")
    check_edited(head)


def check_edited(head: Head) -> None:
    assert head.get("server") == "tidegate"
    assert re.fullmatch("[0-9a-f]{32}/blue", head.get("x-echo") or "")
    assert head.get("x-powered-by") is None
    assert "b=2" in head.all("set-cookie")


@WAYS
@pytest.mark.parametrize(
    ("path", "field"),
    [
        ("/plain/%0d%0aX-Evil:%201", "X-Team: a"),
        ("/plain?a=%0d%0aX-Evil:%201", "X-Team: a"),
        ("/plain", "X-Team: \x80\xff\tb"),
    ],
)
async def test_no_value_ends_a_field(client: Wire, upstream: Play, way: Way, path: str, field: str) -> None:
    head = await passed(client, upstream, way, path, field)
    assert "x-evil" not in head.names()
    team = field.partition(": ")[2]
    target, _, query = path.partition("?")
    assert head.get("x-all") == f"{team}|{query}|{target}"


@WAYS
@pytest.mark.parametrize(
    "field",
    [b"X-Team: a\rX-Evil: 1", b"X-Team: a\nX-Evil: 1", b"X-Team: a\x00", b"X-Team: a\r\n X-Evil: 1", b"X-Team : a"],
    ids=["cr", "lf", "nul", "fold", "space"],
)
async def test_fields_that_others_may_read_otherwise_are_refused(
    client: Wire, upstream: Play, way: Way, field: bytes
) -> None:
    await client.send(asking(way, "/plain").replace(b"\r\n\r\n", b"\r\n" + field + b"\r\n\r\n"))
    head, _ = await client.answer()
    assert head.status == 400
    await client.ended()
    assert upstream.connections == 0


# ---- answers of our own ---------------------------------------------------------------------------------------------


@WAYS
@pytest.mark.parametrize(
    ("path", "where", "status", "location"),
    [
        ("/old", "", 308, "https://new.test/ws"),
        ("/moved/%41?a=b", "", 302, "https://gateway.test/moved/%41?a=b"),
        ("/relative", "/there", 302, "/there"),
        ("/relative", "//evil.test/x", 302, "/evil.test/x"),
    ],
)
async def test_redirects(
    client: Wire, upstream: Play, way: Way, path: str, where: str, status: int, location: str
) -> None:
    await client.send(asking(way, path, f"X-Where: {where}"))
    head, body = await client.answer()
    assert (head.status, head.get("location"), body) == (status, location, b"")
    await check_connection(client, way, head)
    assert upstream.connections == 0


async def check_connection(client: Wire, way: Way, head: Head) -> None:
    """After any answer but 101 to an attempt the connection ends; after a request it goes on."""
    if way == "attempt":
        assert head.get("connection") == "close"
        await client.ended()
    else:
        assert head.get("connection") is None
        await client.send(request_bytes("GET /hello"))
        assert (await client.answer())[1] == b"hello"


@WAYS
async def test_fixed_answers(client: Wire, way: Way) -> None:
    await client.send(asking(way, "/hello"))
    head, body = await client.answer()
    assert (head.start, body) == ("HTTP/1.1 203 Non-Authoritative Information", b"hello")
    assert (head.get("content-type"), head.get("x-who")) == ("text/x-hello", "127.0.0.1 hello")
    await check_connection(client, way, head)


@WAYS
async def test_an_empty_answer_says_nothing_of_a_body(client: Wire, way: Way) -> None:
    await client.send(asking(way, "/empty"))
    head, body = await client.answer()
    assert (head.status, body) == (204, b"")
    assert head.names() & {"content-length", "content-type", "transfer-encoding"} == set()
    await check_connection(client, way, head)


@WAYS
async def test_ready(client: Wire, way: Way) -> None:
    await client.send(asking(way, "/ready"))
    head, body = await client.answer()
    assert (head.status, body, head.get("cache-control")) == (200, b"ready\n", "no-store")
    await check_connection(client, way, head)


@pytest.mark.parametrize("framing", ["length", "chunked"])
async def test_an_echo_sends_bodies_back(client: Wire, framing: str) -> None:
    content = b"hello" * 10_000
    chunked = b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in (content[:7], content[7:])) + b"0\r\n\r\n"
    fields = {"length": f"Content-Length: {len(content)}", "chunked": "Transfer-Encoding: chunked"}
    body = {"length": content, "chunked": chunked}[framing]
    await client.send(request_bytes("POST /echo/x", fields[framing], "Content-Type: text/x-test", body=body))
    head, echoed = await client.answer()
    assert (head.status, head.get("content-type"), echoed) == (200, "text/x-test", content)


async def test_an_echo_sends_messages_back(gateway: Gateway) -> None:
    async with connect(gateway.ws("edge", "/echo"), compression=None) as client:
        messages: list[str | bytes] = ["", "a", "ä" * 70_000, b"", b"b" * 200_000]
        for message in messages:
            await client.send(message)
            assert await client.recv() == message
        await client.send(["frag", "men", "ted"])
        assert await client.recv() == "fragmented"
        await (await client.ping(b"are you there"))
        await client.close(4001, "bye")
        assert (client.close_code, client.close_reason) == (4001, "bye")


async def test_an_echo_obeys_the_websocket_settings(gateway: Gateway, client: Wire) -> None:
    await client.send(asking("attempt", "/quiet-echo"))
    head, body = await client.answer()
    assert (head.status, body.split(b":")[0]) == (403, b"websocket_disabled")
    offered = ["a", "c", "b"]
    async with connect(gateway.ws("edge", "/chosen"), subprotocols=offered) as chosen:  # type: ignore[arg-type] # names are texts
        assert chosen.subprotocol == "c"


async def test_ready_says_so_from_the_first_moment_of_a_drain() -> None:
    config = {
        "listeners": {"edge": {"bind": "127.0.0.1:0"}},
        "routes": [
            {"match": {"path": {"exact": "/ready"}}, "respond": "ready"},
            {"match": {"path": {"exact": "/echo"}}, "respond": "echo"},
        ],
        "drain": {"delay": "30s", "timeout": "60s"},
    }
    with Gateway(config) as gateway:
        async with dial(gateway.port()) as client, connect(gateway.ws(path="/echo")) as live:
            await client.send(request_bytes("GET /ready"))
            assert (await client.answer())[0].status == 200
            status, _ = await asyncio.to_thread(gateway.admin, "/drain", "POST")
            assert status == 202
            await client.send(request_bytes("GET /ready"))
            head, body = await client.answer()
            assert (head.status, body) == (503, b"draining\n")
            # Load balancers look away first: until the delay is over, everything goes on.
            async with dial(gateway.port()) as late:
                await late.send(request_bytes("GET /ready"))
                assert (await late.answer())[0].status == 503
            await live.send("still here")
            assert await live.recv() == "still here"
