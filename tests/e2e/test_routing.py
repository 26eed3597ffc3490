"""Which route takes a request, asked over the wire: each route answers with its name."""

from collections.abc import Iterator
from typing import Any

import pytest

from tests.e2e.kit.wire import Lanes, Play, Wire, dial, request_bytes
from tidegate.testing import Gateway


def named(name: str, match: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"name": name, "match": match, "respond": {"body": name}, **more}


def hosted(name: str, host: str | list[str], **more: Any) -> dict[str, Any]:
    return named(name, {"host": host, "path": {"prefix": "/host"}}, **more)


HOSTS = [
    hosted("exact", "chat.example.com"),
    hosted("suffix", "*.example.com"),
    hosted("longer-suffix", "*.chat.example.com"),
    hosted("prefix", "chat.*"),
    hosted("longer-prefix", "chat.example.*"),
    hosted("several", ["one.test", "two.test"]),
    hosted("address", "127.0.0.1"),
    hosted("address-6", "[::1]"),
    hosted("any", "*"),
    # What the host has for other paths says nothing about these: no fall-through, unless asked for.
    named("strict", {"host": "strict.example.com", "path": {"exact": "/elsewhere"}}),
    named("lenient", {"host": "lenient.example.com", "path": {"exact": "/elsewhere"}}, fall_through=True),
    named("lenient-wildcard", {"host": "*.lenient.test", "path": {"exact": "/elsewhere"}}, fall_through=True),
]

PATHS = [
    named("path-exact", {"path": {"exact": "/p/ws"}}),
    named("path-prefix", {"path": {"prefix": "/p/ws"}}),
    named("path-longer-prefix", {"path": {"prefix": "/p/ws/deep"}}),
    named("path-starts-with", {"path": {"starts_with": "/p/w"}}),
    named("path-regex", {"path": {"regex": "/p/[0-9]+"}}),
    named("path-regex-below", {"path": {"regex": "/p/ws/deep/.*"}}),
    named("path-tilde", {"path": {"exact": "/p/~user"}}),
    named("path-slash", {"path": {"prefix": "/slash/"}}),
]

CONDITIONS = [
    named("c-bare", {"path": {"exact": "/c"}}),
    named("c-post", {"path": {"exact": "/c"}, "method": "POST"}),
    named("c-several", {"path": {"exact": "/c"}, "method": ["PUT", "DELETE"]}),
    named("c-blue", {"path": {"exact": "/c"}, "headers": {"x-team": "blue"}}),
    named("c-blue-v2", {"path": {"exact": "/c"}, "headers": {"x-team": "blue", "x-version": {"prefix": "2"}}}),
    named("c-beta", {"path": {"exact": "/c"}, "headers": {"x-version": {"regex": "[0-9]+-beta"}}}),
    named("c-query", {"path": {"exact": "/c"}, "query": {"v": "2"}}),
    named("c-queries", {"path": {"exact": "/c"}, "query": {"v": "2", "debug": {"present": True}}}),
    named("c-header-and-query", {"path": {"exact": "/c"}, "headers": {"x-team": "blue"}, "query": {"v": "2"}}),
    named("n-known", {"path": {"exact": "/n"}, "headers": {"authorization": {"present": True}}}),
    named("n-unknown", {"path": {"exact": "/n"}, "headers": {"authorization": {"present": False}}}),
    named("n-not-bot", {"path": {"exact": "/m"}, "headers": {"user-agent": {"not": {"regex": ".*bot.*"}}}}),
]

PRIORITIES = [
    named("urgent", {"path": {"prefix": "/prio"}}, priority=10),
    named("usual", {"path": {"exact": "/prio/exact"}}),
    named("late", {"path": {"exact": "/late/exact"}}, priority=-1),
    named("late-prefix", {"path": {"prefix": "/late"}}),
    # Priority counts within a host; it makes no host wider.
    hosted("urgent-any", "*", priority=99) | {"match": {"path": {"prefix": "/prio-host"}}},
    named("host-first", {"host": "chat.example.com", "path": {"prefix": "/prio-host"}}),
    named("tie-first", {"path": {"regex": "/tie/[a-z]+"}}),
    named("tie-second", {"path": {"regex": "/tie/[a-m]+"}}),
]


LANES = 24


@pytest.fixture(scope="module")
def gateway(lanes: Lanes) -> Iterator[Gateway]:
    other = named("other-listener", {"path": {"prefix": "/elsewhere"}}, listeners=["other"])
    config = {
        "listeners": {"edge": {"bind": "127.0.0.1:0"}, "other": {"bind": "127.0.0.1:0"}},
        "routes": [*HOSTS, *PATHS, *CONDITIONS, *PRIORITIES, other, *lanes.routes()],
        "upstreams": lanes.upstreams(),
    }
    with Gateway(config) as gateway:
        yield gateway


async def taken_by(client: Wire, start: str, *fields: str, host: str = "nobody.test") -> str:
    """The name of the route that answers; the reason where none does."""
    await client.send(request_bytes(start, *fields, host=host))
    head, body = await client.answer()
    text = body.decode()
    return text if head.status == 200 else f"{head.status} {text.partition(':')[0]}"


@pytest.mark.parametrize(
    ("host", "route"),
    [
        ("chat.example.com", "exact"),
        ("CHAT.Example.COM", "exact"),
        ("chat.example.com.", "exact"),
        ("chat.example.com:8443", "exact"),
        ("Chat.example.com.:443", "exact"),
        ("other.example.com", "suffix"),
        ("two.labels.example.com", "suffix"),
        ("room.chat.example.com", "longer-suffix"),
        ("example.com", "any"),
        ("xexample.com", "any"),
        ("chat.elsewhere.test", "prefix"),
        ("chat.example.org", "longer-prefix"),
        ("chat", "any"),
        ("two.test", "several"),
        ("127.0.0.1:80", "address"),
        ("[::1]:80", "address-6"),
        ("127.0.0.2", "any"),
        ("strict.example.com", "404 no_route"),
        ("lenient.example.com", "suffix"),
        ("x.lenient.test", "any"),
    ],
)
async def test_the_host_comes_first(client: Wire, host: str, route: str) -> None:
    assert await taken_by(client, "GET /host", host=host) == route


@pytest.mark.parametrize(
    ("path", "route"),
    [
        ("/p/ws", "path-exact"),
        ("/p/ws?a=/../b", "path-exact"),
        ("/p/ws/", "path-prefix"),
        ("/p/ws/x", "path-prefix"),
        ("/p/wsx", "path-starts-with"),
        ("/p/ws%2Fx", "path-starts-with"),
        ("/p/ws/deep", "path-longer-prefix"),
        ("/p/ws/deep/x", "path-longer-prefix"),
        ("/p/ws/deeper", "path-prefix"),
        ("/p/42", "path-regex"),
        ("/p/42x", "404 no_route"),
        ("/p/x42", "404 no_route"),
        ("/P/ws", "404 no_route"),
        ("/p/%77s", "path-exact"),
        ("/p/%77%73/x", "path-prefix"),
        ("/p/%34%32", "path-regex"),
        ("/p/%7euser", "path-tilde"),
        ("/p/%7Euser", "path-tilde"),
        ("/slash/x", "path-slash"),
        ("/slash", "path-slash"),
        ("/slashx", "404 no_route"),
        ("//p/ws", "404 no_route"),
        ("/", "404 no_route"),
    ],
)
async def test_then_the_path(client: Wire, path: str, route: str) -> None:
    assert await taken_by(client, f"GET {path}") == route


@pytest.mark.parametrize(
    ("start", "fields", "route"),
    [
        ("GET /c", [], "c-bare"),
        ("POST /c", [], "c-post"),
        ("DELETE /c", [], "c-several"),
        ("POST /c?v=2", ["X-Team: blue"], "c-post"),
        ("GET /c", ["X-TEAM: blue"], "c-blue"),
        ("GET /c", ["X-Team: Blue"], "c-bare"),
        ("GET /c", ["X-Team: blue", "X-Version: 2.1"], "c-blue-v2"),
        ("GET /c", ["X-Version: 7-beta"], "c-beta"),
        ("GET /c", ["X-Version: 7-beta-1"], "c-bare"),
        ("GET /c?v=2", [], "c-query"),
        ("GET /c?x=1&v=2&y", [], "c-query"),
        ("GET /c?v=%32", [], "c-query"),
        ("GET /c?v=22", [], "c-bare"),
        ("GET /c?V=2", [], "c-bare"),
        ("GET /c?v=2&debug", [], "c-queries"),
        ("GET /c?v=2", ["X-Team: blue"], "c-header-and-query"),
        ("GET /n", ["Authorization: x"], "n-known"),
        ("GET /n", [], "n-unknown"),
        ("GET /m", ["User-Agent: browser"], "n-not-bot"),
        ("GET /m", ["User-Agent: a bot!"], "404 no_route"),
        ("GET /m", [], "n-not-bot"),
    ],
)
async def test_then_method_headers_and_query(client: Wire, start: str, fields: list[str], route: str) -> None:
    assert await taken_by(client, start, *fields) == route


@pytest.mark.parametrize(
    ("path", "host", "route"),
    [
        ("/prio/exact", "nobody.test", "urgent"),
        ("/late/exact", "nobody.test", "late-prefix"),
        ("/prio-host", "chat.example.com", "host-first"),
        ("/prio-host", "nobody.test", "urgent-any"),
        ("/tie/abc", "nobody.test", "tie-first"),
    ],
)
async def test_priority_counts_within_a_host_and_ties_go_by_place(
    client: Wire, path: str, host: str, route: str
) -> None:
    assert await taken_by(client, f"GET {path}", host=host) == route


async def test_routes_belong_to_their_listeners(gateway: Gateway, client: Wire) -> None:
    assert await taken_by(client, "GET /elsewhere") == "404 no_route"
    async with dial(gateway.port("other")) as other:
        assert await taken_by(other, "GET /elsewhere") == "other-listener"


@pytest.mark.parametrize(
    "path",
    [
        "/p/../secret",
        "/p/..",
        "/..",
        "/./p",
        "/p/.",
        "/p/%2e%2e/secret",
        "/p/.%2E/secret",
        "/p/%2e/secret",
        "/p%2f..%2fsecret",
        "/p%2F%2e%2e%2Fsecret",
        "/p%2f../secret",
        "/p/..%2fsecret",
        "/p/..;/secret",
        "/p/..;a=b/secret",
        "/p/..%3b/secret",
        "/p/%00",
        "/p/a%00b",
        "/p\\..\\secret",
        "/p/%5c..%5Csecret",
        "/p/%",
        "/p/%4",
        "/p/%zz",
    ],
)
async def test_paths_that_others_may_read_otherwise_are_refused(client: Wire, path: str) -> None:
    await client.send(request_bytes(f"GET {path}"))
    head, body = await client.answer()
    assert (head.status, body.split(b":")[0], head.get("connection")) == (400, b"bad_path", "close")
    await client.ended()


@pytest.mark.parametrize(
    "target",
    [
        "/a%2Fb",
        "/a%2fb/%7e%41?x=%2e%2e/../&y=\\",
        "/...",
        "/..a/.b/c.",
        "//a///b",
        "/a;v=1/b;c",
        "/%C3%A9%ff",
        "/!$&'()*+,=:@-._~",
        "?",
        "?a?b",
        "/?" + "x" * 2000,
    ],
)
async def test_bytes_go_upstream_as_received(client: Wire, lanes: Lanes, target: str) -> None:
    async with lanes.play() as upstream:
        await client.send(request_bytes(f"GET {upstream.prefix}{target}"))
        server = await upstream.connection()
        assert (await server.head()).target == upstream.prefix + target
        await server.send(b"HTTP/1.1 204 No Content\r\n\r\n")
        assert (await client.head()).status == 204


async def test_an_upgrade_attempt_takes_the_same_routes(client: Wire, lanes: Lanes) -> None:
    fields = (
        "Upgrade: websocket",
        "Connection: Upgrade",
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
        "Sec-WebSocket-Version: 13",
    )
    upstream: Play
    async with lanes.play() as upstream:
        await client.send(request_bytes(f"GET {upstream.prefix}/%7e%2F?a=%20", *fields))
        server = await upstream.connection()
        assert (await server.head()).target == f"{upstream.prefix}/%7e%2F?a=%20"
        await server.send(b"HTTP/1.1 404 Not Found\r\nContent-Length: 4\r\n\r\nhere")
        assert (await client.answer())[1] == b"here"


@pytest.mark.parametrize(("path", "status", "reason"), [("/nothing", 404, "no_route"), ("/p/../x", 400, "bad_path")])
async def test_an_upgrade_attempt_is_refused_for_the_same_reasons(
    client: Wire, path: str, status: int, reason: str
) -> None:
    fields = (
        "Upgrade: websocket",
        "Connection: Upgrade",
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
        "Sec-WebSocket-Version: 13",
    )
    assert await taken_by(client, f"GET {path}", *fields) == f"{status} {reason}"
    await client.ended()
