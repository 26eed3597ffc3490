"""The access log: what is told of requests, WebSockets and refusals, and what never is."""

import asyncio
import json
import os
import re
import socket
import stat
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from websockets.asyncio.client import connect
from websockets.typing import Subprotocol

from tests.e2e.kit.bridge import attempt
from tests.e2e.kit.named import asked
from tests.e2e.kit.sites import route, site
from tests.e2e.kit.wire import Play, Wire, dial, request_bytes
from tidegate.testing import EchoUpstream, Gateway, Record

SECRET = "s3cr3t-token"
COMMON = {
    "time", "event", "connection", "listener", "route", "client", "protocol", "upstream", "endpoint",
    "upstream_protocol", "method", "host", "path", "user_agent", "request_id", "duration_ms",
}  # fmt: skip


@pytest.fixture(scope="module")
def upstream() -> Iterator[EchoUpstream]:
    with EchoUpstream() as upstream:
        yield upstream


def configuration(upstream: EchoUpstream, **more: Any) -> dict[str, Any]:
    return {
        "listeners": {"edge": {"bind": "127.0.0.1:0"}},
        "routes": [
            {"name": "app", "match": {"path": {"prefix": "/app"}}, "to": "app"},
            {"name": "dead", "match": {"path": {"prefix": "/dead"}}, "to": "dead"},
            {"name": "quiet", "match": {"path": {"prefix": "/quiet"}}, "to": "app", "websocket": {"enabled": False}},
            {"name": "fixed", "match": {"path": {"prefix": "/fixed"}}, "respond": {"body": "fixed"}},
        ],
        "upstreams": {"app": {"endpoints": [upstream.url]}, "dead": {"endpoints": ["http://127.0.0.1:1"]}},
        **more,
    }


@pytest.fixture(scope="module")
def gateway(upstream: EchoUpstream) -> Iterator[Gateway]:
    with Gateway(configuration(upstream)) as gateway:
        yield gateway


@pytest.fixture
async def client(gateway: Gateway) -> AsyncIterator[Wire]:
    async with dial(gateway.port()) as client:
        yield client


async def logged(gateway: Gateway, **fields: Any) -> Record:
    return await asyncio.to_thread(gateway.access_log().wait_for, **fields)


async def test_a_request(gateway: Gateway, upstream: EchoUpstream, client: Wire) -> None:
    fields = ("User-Agent: curl/8", "Content-Length: 5")
    await client.send(request_bytes(f"POST /app/request?token={SECRET}", *fields, body=b"12345"))
    _, body = await client.answer()
    record = await logged(gateway, path="/app/request")
    assert record.keys() == COMMON | {"attempts", "status", "bytes_in", "bytes_out"}
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", record.pop("time"))
    assert 0 <= record.pop("duration_ms") < 10_000
    assert record.pop("connection") and record.pop("request_id") == json.loads(body)["headers"]["x-request-id"]
    assert record == {
        "event": "request", "listener": "edge", "route": "app", "client": "127.0.0.1", "protocol": "h1",
        "upstream": "app", "endpoint": upstream.url, "upstream_protocol": "h1", "attempts": 1, "method": "POST",
        "host": "gateway.test", "path": "/app/request", "user_agent": "curl/8", "status": 200, "bytes_in": 5,
        "bytes_out": len(body),
    }  # fmt: skip


async def test_requests_of_one_connection_have_its_id(gateway: Gateway, client: Wire) -> None:
    for number in range(2):
        await asked(client, f"/app/same/{number}")
    records = [await logged(gateway, path=f"/app/same/{number}") for number in range(2)]
    assert records[0]["connection"] == records[1]["connection"]
    assert records[0]["request_id"] != records[1]["request_id"]
    async with dial(gateway.port()) as other:
        await asked(other, "/app/same/other")
    assert (await logged(gateway, path="/app/same/other"))["connection"] != records[0]["connection"]


async def test_an_answer_of_our_own(gateway: Gateway, client: Wire) -> None:
    assert await asked(client, "/fixed/answer") == "fixed"
    record = await logged(gateway, path="/fixed/answer")
    assert (record["event"], record["status"], record["bytes_out"]) == ("request", 200, 5)
    assert record.keys() & {"upstream", "endpoint", "upstream_protocol", "user_agent"} == set()


async def test_a_websocket_opens_and_closes(gateway: Gateway, upstream: EchoUpstream) -> None:
    url = gateway.ws(path=f"/app/socket?token={SECRET}")
    agent = "tester/1"
    async with connect(url, subprotocols=[Subprotocol("chat")], user_agent_header=agent) as client:
        opened = await logged(gateway, event="open", path="/app/socket")
        assert not gateway.access_log().matching(event="close", path="/app/socket"), "the open does not wait for it"
        for _ in range(2):
            await client.send("12345" * 40)
            await client.recv()
        await (await client.ping())
        await client.close(4000, "enough")
    closed = await logged(gateway, event="close", path="/app/socket")
    assert opened.keys() == COMMON | {"attempts", "status", "subprotocol", "extensions"}
    assert (opened["status"], opened["subprotocol"]) == (101, "chat")
    assert opened["extensions"].startswith("permessage-deflate")
    shared = COMMON - {"time", "event", "duration_ms"}
    assert {name: opened[name] for name in shared} == {name: closed[name] for name in shared}
    assert (opened["upstream"], opened["endpoint"]) == ("app", upstream.url)
    assert (opened["protocol"], opened["upstream_protocol"], opened["user_agent"]) == ("h1", "h1", agent)
    assert (closed["cause"], closed["code"]) == ("client", 4000)
    assert (closed["client_code"], closed["upstream_code"]) == (4000, 4000)
    assert (closed["messages_in"], closed["messages_out"], closed["pings_in"], closed["pings_out"]) == (2, 2, 1, 0)
    assert 0 < closed["bytes_in"] < 400, "as on the wire: compressed"


async def test_a_client_that_vanishes(gateway: Gateway) -> None:
    async with dial(gateway.port()) as client:
        await client.send(attempt("/app/vanish"))
        assert (await client.head()).status == 101
        client.reset()
    record = await logged(gateway, event="close", path="/app/vanish")
    assert record["cause"] == "client_lost"
    assert record.keys() & {"code", "client_code", "upstream_code"} == set()


@pytest.mark.parametrize(
    ("path", "status", "reason", "route"),
    [
        ("/nothing", 404, "no_route", None),
        ("/dead/end", 502, "connect_failed", "dead"),
        ("/app/%00", 400, "bad_path", None),
    ],
)
async def test_a_refusal(
    gateway: Gateway, client: Wire, path: str, status: int, reason: str, route: str | None
) -> None:
    await client.send(request_bytes(f"GET {path}?token={SECRET}", "User-Agent: curl/8"))
    head, _ = await client.answer()
    record = await logged(gateway, event="refusal", path=path)
    assert (record["status"], record["reason"], record.get("route")) == (status, reason, route)
    assert (record["user_agent"], record["client"], record["protocol"]) == ("curl/8", "127.0.0.1", "h1")
    assert record["request_id"] == head.get("x-request-id")
    assert not gateway.access_log().matching(event="request", path=path), "one line for one thing"


async def test_a_refused_attempt(gateway: Gateway, client: Wire) -> None:
    await client.send(attempt("/quiet/attempt", "User-Agent: browser"))
    assert (await client.answer())[0].status == 403
    record = await logged(gateway, event="refusal", path="/quiet/attempt")
    assert (record["status"], record["reason"], record["user_agent"]) == (403, "websocket_disabled", "browser")


async def test_an_attempt_that_the_upstream_refuses_is_a_request() -> None:
    async with Play(socket.create_server(("127.0.0.1", 0)), "") as upstream:
        address = f"http://127.0.0.1:{upstream.listener.getsockname()[1]}"
        config = site(route("no", "no"), upstreams={"no": address})
        with Gateway(config) as gateway:
            async with dial(gateway.port()) as client:
                await client.send(attempt("/no/entry", "User-Agent: browser"))
                server = await upstream.connection()
                await server.head()
                await server.send(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno")
                assert (await client.answer())[1] == b"no"
            record = await logged(gateway, path="/no/entry")
    assert (record["event"], record["status"], record["bytes_out"], record["user_agent"]) == (
        "request",
        403,
        2,
        "browser",
    )


@pytest.mark.parametrize(
    ("sent", "status", "reason"),
    [
        (b"nonsense\r\n\r\n", 400, "request_line"),
        (b"GET / HTTP/1.1\r\n\r\n", 400, "host_missing"),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"a" * 40_000, 431, "head_too_large"),
        (b"GET / HTTP/3.0\r\nHost: a\r\n\r\n", 505, "version_unsupported"),
    ],
    ids=["nonsense", "no-host", "huge", "version"],
)
async def test_what_is_no_request(gateway: Gateway, client: Wire, sent: bytes, status: int, reason: str) -> None:
    before = len(gateway.access_log())
    await client.send(sent)
    assert (await client.answer())[0].status == status
    record = await asyncio.to_thread(gateway.access_log().wait_for, after=before, reason=reason)
    assert (record["event"], record["status"], record["client"]) == ("refusal", status, "127.0.0.1")
    assert record.keys() & {"method", "path", "route"} == set()


async def test_hostile_bytes_stay_in_their_line(gateway: Gateway, client: Wire) -> None:
    agent = '"},{"event":"fake\\"\t\x80\xff\u00e9 \x1b[31m'.replace("\x1b", "")
    await client.send(request_bytes("GET /app/hostile;%22%0a%7B", f"User-Agent: {agent}", "X-Late: 1"))
    await client.answer()
    record = await logged(gateway, path="/app/hostile;%22%0a%7B")
    # What is no UTF-8 is told as U+FFFD.
    assert record["user_agent"] == agent.encode("latin-1").decode(errors="replace")
    assert not gateway.access_log().matching(event="fake")
    assert not gateway.access_log().matching(event="text"), "every line is JSON"


async def test_a_long_value_is_cut(gateway: Gateway, client: Wire) -> None:
    await client.send(request_bytes("GET /app/long/" + "p" * 10_000, "User-Agent: " + "a" * 10_000))
    await client.answer()
    record = await asyncio.to_thread(
        gateway.access_log().wait_for, lambda each: str(each.get("path")).startswith("/app/long/")
    )
    assert 1000 < len(record["path"]) < 5000 and 1000 < len(record["user_agent"]) < 5000


async def test_queries_are_told_nowhere(gateway: Gateway, client: Wire) -> None:
    await client.send(request_bytes(f"GET http://gateway.test/app/absolute?token={SECRET}"))
    await client.answer()
    await logged(gateway, path="/app/absolute")
    async with dial(gateway.port()) as other:
        await other.send(request_bytes(f"GET /app/../x?token={SECRET}"))
        await other.answer()
    await logged(gateway, reason="bad_path")
    texts = [json.dumps(record) for records in (gateway.access_log(), gateway.log()) for record in records]
    assert len(texts) > 2 and not any(SECRET in text for text in texts)


# ---- where it goes --------------------------------------------------------------------------------------------------


def lines(path: Path) -> list[Record]:
    text = path.read_text()
    assert not text or text.endswith("\n")
    return [json.loads(line) for line in text.splitlines()]


async def until_line(path: Path, client: Wire, target: str) -> None:
    """Ask for `target` until the file `path` tells of it: the log has a thread, and looks for its file now and then."""
    async with asyncio.timeout(10):
        while not (path.exists() and any(line["path"] == target for line in lines(path))):
            assert await asked(client, target) == "fixed"
            await asyncio.sleep(0.02)


async def test_a_file_is_followed_when_it_is_renamed(
    upstream: EchoUpstream, tmp_path_factory: pytest.TempPathFactory
) -> None:
    directory = tmp_path_factory.mktemp("log")
    log = directory / "access.log"
    log.write_text('{"path": "older"}\n')
    config = configuration(upstream, access_log={"path": "access.log", "format": "json"})
    with Gateway(config, directory=directory) as gateway:
        async with dial(gateway.port()) as client:
            await until_line(log, client, "/fixed/first")
            assert lines(log)[0]["path"] == "older", "it is appended to"
            log.rename(directory / "access.log.1")
            await until_line(log, client, "/fixed/second")
            log.unlink()
            await until_line(log, client, "/fixed/third")
            assert stat.S_IMODE(os.stat(log).st_mode) == 0o640
            await asked(client, "/fixed/last")
    told = [line["path"] for name in ("access.log.1", "access.log") for line in lines(directory / name)]
    assert told.count("/fixed/first") >= 1 and told.count("/fixed/last") == 1, "what was queued is written at the end"


async def test_text_is_for_people(upstream: EchoUpstream, tmp_path_factory: pytest.TempPathFactory) -> None:
    directory = tmp_path_factory.mktemp("text")
    config = configuration(upstream, access_log={"path": "access.log", "format": "text"})
    with Gateway(config, directory=directory) as gateway:
        async with dial(gateway.port()) as client:
            await asked(client, f"/fixed/text?token={SECRET}")
    line = (directory / "access.log").read_text()
    assert " request connection=" in line and " path=/fixed/text " in line and " status=200 " in line
    assert SECRET not in line


async def test_it_may_be_off(upstream: EchoUpstream) -> None:
    with Gateway(configuration(upstream, access_log="off")) as gateway:
        async with dial(gateway.port()) as client:
            assert await asked(client, "/fixed/off") == "fixed"
    assert list(gateway.access_log()) == []
