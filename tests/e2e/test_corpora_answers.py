"""Hostile answers through a gateway (tests/corpora/responses.yaml): the client gets a 502, an answer that is visibly
cut short, or what a strict reader reads; and then, over whatever connection, the answer to its next request.
"""

import asyncio
import contextlib
import itertools
import socket
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from tests.e2e.kit.corpora import load
from tests.e2e.kit.strict import Answer, Fault, Incomplete, read_answer, read_request
from tests.e2e.kit.wire import soon
from tidegate.testing import Gateway

AT_ONCE = 32

_numbers = itertools.count(10000)


@dataclass
class Case:
    name: str
    raw: bytes
    method: str = "GET"
    close: bool = False
    refused: bool = False
    cut: bool = False
    status: int = 0
    body: bytes = b""
    path: bytes = field(default_factory=lambda: b"/r/%d" % next(_numbers))


class Speaker:
    """A server that says what the case of the path says, and answers every other path with that path."""

    def __init__(self, told: dict[bytes, Case]) -> None:
        self.told = told
        self.writers: list[asyncio.StreamWriter] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.writers.append(writer)
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            while True:
                request, _ = read_request(await reader.readuntil(b"\r\n\r\n"))
                case = self.told.get(request.target)
                answer = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s"
                writer.write(case.raw if case else answer % (len(request.target), request.target))
                await writer.drain()
                if case and case.close:
                    break
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


@pytest.fixture(scope="module")
def site() -> Iterator[tuple[Gateway, socket.socket]]:
    with socket.create_server(("127.0.0.1", 0), backlog=512) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        config = {
            "listeners": {"edge": {"bind": "127.0.0.1:0"}},
            "routes": [{"name": "all", "to": "server"}],
            # Connections are kept, so that what one answer leaves behind would meet another request.
            "upstreams": {"server": {"endpoints": [url]}},
        }
        with Gateway(config) as gateway:
            yield gateway, listener


@pytest.fixture
async def told(site: tuple[Gateway, socket.socket]) -> AsyncIterator[dict[bytes, Case]]:
    """The cases by path, while a server says them."""
    told: dict[bytes, Case] = {}
    speaker = Speaker(told)
    server = await asyncio.start_server(speaker.serve, sock=site[1].dup())
    yield told
    server.close()
    for writer in speaker.writers:  # the gateway keeps connections, which nobody would answer
        writer.transport.abort()


async def ask(port: int, method: str, path: bytes) -> tuple[list[Answer], str]:
    """The answers to one request that says close, and what was wrong at their end."""
    reader, writer = await soon(asyncio.open_connection("127.0.0.1", port))
    try:
        writer.write(method.encode() + b" " + path + b" HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n")
        received = b""
        with contextlib.suppress(ConnectionError):
            while piece := await soon(reader.read(1 << 20)):
                received += piece
    finally:
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()
    answers: list[Answer] = []
    try:
        while received:
            answer, received = read_answer(received, method.encode(), ended=True)
            answers.append(answer)
    except Incomplete:
        return answers, "cut"
    except Fault as fault:
        return answers, str(fault)
    return answers, ""


async def run(port: int, case: Case) -> list[str]:
    """Everything that is wrong."""
    answers, end = await ask(port, case.method, case.path)
    final = [answer for answer in answers if answer.status >= 200]
    after, _ = await ask(port, "GET", case.path + b"/after")
    faults = []
    if [answer.body for answer in after] != [case.path + b"/after"]:
        faults.append(f"the next request was answered with {after}")
    if case.cut and final and [answer.status for answer in final] != [502]:
        faults.append("it does not look cut")
    if case.refused and [answer.status for answer in final] != [502]:
        faults.append("it is no 502")
    if case.status and (end or [(each.status, each.body) for each in final] != [(case.status, case.body)]):
        faults.append(f"it is not {case.status} {case.body!r}")
    if any(answer.framing == "close" for answer in final):
        faults.append("its end is not told")
    return [f"{case.name}: {fault}\n    said {case.raw!r}\n    got {answers} {end}" for fault in faults]


async def play(gateway: Gateway, told: dict[bytes, Case], all_cases: list[Case]) -> None:
    told.update({case.path: case for case in all_cases})
    gate = asyncio.Semaphore(AT_ONCE)

    async def one(case: Case) -> list[str]:
        async with gate:
            return await run(gateway.port(), case)

    faults = list(itertools.chain(*await asyncio.gather(*map(one, all_cases))))
    assert not faults, f"{len(faults)} faults\n" + "\n".join(faults[:20])


def cases() -> list[Case]:
    def case(written: dict[str, Any]) -> Case:
        as_bytes = {key: written[key].encode("latin-1") for key in ("raw", "body") if key in written}
        return Case(**{**written, "name": str(written["name"]), **as_bytes})

    return [case(each) for each in load("responses")]


async def test_what_is_written_down(site: tuple[Gateway, socket.socket], told: dict[bytes, Case]) -> None:
    await play(site[0], told, cases())


def floods() -> list[Case]:
    """More than anybody needs."""
    interim = b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"
    ok = b"HTTP/1.1 200 OK\r\n"
    end = b"Content-Length: 5\r\n\r\nhello"
    return [
        Case("100 fields", ok + b"X-A: b\r\n" * 99 + end, status=200, body=b"hello"),
        Case("101 fields", ok + b"X-A: b\r\n" * 100 + end, refused=True),
        Case("10,000 fields", ok + b"X-A: b\r\n" * 10_000 + end, refused=True),
        Case("one large field", ok + b"X-A: " + b"b" * 60_000 + b"\r\n" + end, status=200, body=b"hello"),
        Case("one field that is too large", ok + b"X-A: " + b"b" * 100_000 + b"\r\n" + end, refused=True),
        Case("a field without an end", ok + b"X-A: " + b"b" * 1_000_000, refused=True),
        Case("a reason without an end", b"HTTP/1.1 200 " + b"b" * 1_000_000, refused=True),
        Case("50 interim answers", interim * 50 + ok + end, status=200, body=b"hello"),
        Case("an extension without an end", ok + b"Transfer-Encoding: chunked\r\n\r\n5;" + b"a" * 100_000, cut=True),
        Case("a trailer without an end", ok + b"Transfer-Encoding: chunked\r\n\r\n0\r\nA: " + b"a" * 100_000, cut=True),
        Case("10,000 trailers", ok + b"Transfer-Encoding: chunked\r\n\r\n0\r\n" + b"A: b\r\n" * 10_000, cut=True),
    ]


async def test_floods(site: tuple[Gateway, socket.socket], told: dict[bytes, Case]) -> None:
    await play(site[0], told, floods())


async def test_every_byte_around_a_coding(site: tuple[Gateway, socket.socket], told: dict[bytes, Case]) -> None:
    """Where the coding is not plainly there, no client may take it for one."""
    body = b"\r\n\r\n5\r\nhello\r\n0\r\n\r\n"
    places = {
        "behind the colon": (b"Transfer-Encoding:%cchunked", b" \t"),
        "before the colon": (b"Transfer-Encoding%c: chunked", b""),
        "behind the value": (b"Transfer-Encoding: chunked%c", b""),
    }
    all_cases = [
        Case(f"{byte:#04x} {place}", b"HTTP/1.1 200 OK\r\n" + line % byte + body, close=True, **outcome(byte, good))
        for place, (line, good) in places.items()
        for byte in range(256)
        # A token's characters make another field of it, and the body lasts until the end.
        if not (place == "before the colon" and (chr(byte).isascii() and (chr(byte).isalnum() or byte in TOKEN)))
    ]
    assert len(all_cases) == 3 * 256 - 77
    await play(site[0], told, all_cases)


TOKEN = b"!#$%&'*+-.^_`|~"


def outcome(byte: int, good: bytes) -> dict[str, Any]:
    return {"status": 200, "body": b"hello"} if byte in good else {"refused": True}
