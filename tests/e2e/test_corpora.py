"""Hostile HTTP/1.1 through a gateway: each case is refused and its connection closed, or means to the upstream what it
means to a strict reader of the client's bytes (tests/corpora/README.md).

Three readings are compared: the client's bytes by a reader of ours that shares no code with the gateway, the upstream's
bytes by the same reader, and these once more by h11.
"""

import asyncio
import contextlib
import itertools
import socket
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass

import h11
import pytest

from tests.e2e.kit.corpora import Case, cases, doubles, exhaustive, named_mutations
from tests.e2e.kit.recorder import Recorder, Story
from tests.e2e.kit.strict import Answer, Fault, Incomplete, Reading, Request, read_answer, read_requests
from tests.e2e.kit.wire import soon
from tidegate.testing import Gateway

WRITTEN = ["chunks", "content-length", "transfer-encoding", "lines", "first-line", "pipelines"]

AT_ONCE = 32
"""Connections at one time."""

LAST = b"GET {path}/last HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n"

REFUSALS = {400, 403, 413, 414, 426, 431, 501, 505}

HOP_BY_HOP = {b"connection", b"keep-alive", b"te", b"upgrade", b"http2-settings", b"proxy-connection"}
FRAMING = {b"content-length", b"transfer-encoding"}
OURS = {b"forwarded", b"x-request-id", b"host"}

_numbers = itertools.count(10000)


@dataclass
class Told:
    """What a client was told."""

    answers: list[Answer]
    left: bytes


@pytest.fixture(scope="module")
def site() -> Iterator[tuple[Gateway, socket.socket]]:
    with socket.create_server(("127.0.0.1", 0), backlog=512) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        config = {
            # Nothing but HTTP/1.1, to which the preface of HTTP/2 is a request line like any other.
            "listeners": {"edge": {"bind": "127.0.0.1:0", "http": ["h1"]}},
            "routes": [
                {"name": "kept", "match": {"path": {"prefix": "/k"}}, "to": "kept"},
                {"name": "all", "to": "server"},
            ],
            # Each request on a connection of its own, so that each byte there is the doing of one case.
            "upstreams": {"server": {"endpoints": [url], "pool": {"idle": 0}}, "kept": {"endpoints": [url]}},
        }
        with Gateway(config) as gateway:
            yield gateway, listener


@pytest.fixture
async def recorder(site: tuple[Gateway, socket.socket]) -> AsyncIterator[Recorder]:
    recorder = Recorder()
    server = await asyncio.get_running_loop().create_server(recorder, sock=site[1].dup())
    yield recorder
    server.close()
    await recorder.close()


async def play(gateway: Gateway, recorder: Recorder, all_cases: list[Case]) -> int:
    """Sends all cases, then judges each. Returns how many had their first request served."""
    gate = asyncio.Semaphore(AT_ONCE)
    paths = {b"/c/%d" % next(_numbers): case for case in all_cases}

    async def run(path: bytes, case: Case) -> Told:
        async with gate:
            return await send(gateway.port(), case.sent(path) + LAST.replace(b"{path}", path), case.unfinished)

    told = dict(zip(paths, await asyncio.gather(*(run(*each) for each in paths.items())), strict=True))
    await recorder.ended()
    stories = by_path(recorder.stories)
    faults = [
        f"{case.name}: {fault}\n    sent {case.sent(path)!r}\n    told {told[path]}\n    seen {stories.get(path)}"
        for path, case in paths.items()
        for fault in judge(case, path, told[path], stories.get(path, []))
    ]
    assert not faults, f"{len(faults)} faults\n" + "\n".join(faults[:20])
    assert stories.keys() <= paths.keys(), f"requests of no case: {stories.keys() - paths.keys()}"
    return sum(bool(each.answers) and each.answers[0].status == 200 for each in told.values())


async def send(port: int, data: bytes, unfinished: bool) -> Told:
    """What comes back until the gateway ends the connection."""
    reader, writer = await soon(asyncio.open_connection("127.0.0.1", port))
    try:
        writer.write(data)
        if unfinished or not is_finished(data):
            writer.write_eof()
        received = await soon(reader.read())
    finally:
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()
    return hear(received, data)


def is_finished(data: bytes) -> bool:
    """Whether no reader would wait for more: it ends with a whole request that says close, or before that."""
    reading = read_requests(data)
    return bool(reading.fault) or not reading.left


def hear(received: bytes, sent: bytes) -> Told:
    methods = [request.method for request in read_requests(sent).requests]
    answers: list[Answer] = []
    with contextlib.suppress(Incomplete):
        while received:
            method = methods[len(answers)] if len(answers) < len(methods) else b"GET"
            answer, received = read_answer(received, method, ended=True)
            if answer.status >= 200:
                answers.append(answer)
    return Told(answers, received)


def by_path(stories: list[Story]) -> dict[bytes, list[Story]]:
    """The connections of each case, by the path in the first line on it."""
    found: dict[bytes, list[Story]] = {}
    for story in stories:
        if not story.received:
            continue  # the body was bad before a byte of the request was sent
        at = story.received.find(b"/c/")
        found.setdefault(story.received[at : at + 8] if at >= 0 else story.received, []).append(story)
    return found


# ---- what is right --------------------------------------------------------------------------------------------------


def judge(case: Case, path: bytes, told: Told, stories: list[Story]) -> Iterator[str]:
    """Everything that is wrong."""
    reading = read_requests(case.sent(path) + LAST.replace(b"{path}", path))
    seen = [request for story in stories for request in story.requests]
    yield from judge_stories(stories)
    yield from judge_meaning(reading, seen)
    yield from judge_answers(told, seen, reading)
    if case.seen is not None:
        yield from judge_written(case, path, told, seen)


def judge_stories(stories: list[Story]) -> Iterator[str]:
    for story in stories:
        if story.fault:
            yield f"the upstream cannot read this ({story.fault}): {story.received!r}"
        elif len(story.requests) > 1:
            yield f"the upstream read several requests: {story.received!r}"
        elif story.requests and story.left:
            yield f"bytes behind a request: {story.left!r}"
        if story.requests and not story.fault and (fault := ask_h11(story)):
            yield f"h11 disagrees: {fault}"


def judge_meaning(reading: Reading, seen: list[Request]) -> Iterator[str]:
    """The upstream saw the first of the requests that were sent, as they were meant, and no other."""
    if len(seen) > len(reading.requests):
        yield f"the upstream saw {len(seen)} requests, a strict reader {len(reading.requests)}"
    for meant, request in zip(reading.requests, seen, strict=False):
        if (meant.method, origin_form(meant.target)) != (request.method, request.target):
            yield f"meant {meant.method!r} {meant.target!r}, seen {request.method!r} {request.target!r}"
        if (meant.framing, meant.body) != (request.framing, request.body):
            yield f"meant {meant.framing} {meant.body!r}, seen {request.framing} {request.body!r}"
        if end_to_end(meant) != end_to_end(request):
            yield f"meant {end_to_end(meant)}, seen {end_to_end(request)}"
        if any(length != str(int(length)).encode() for length in request.all(b"content-length")):
            yield f"a length that may be read as octal: {request.fields}"
        if twins := [name for name, _ in request.fields if is_twin(name)]:
            yield f"names that may be read as framing: {twins}"


def judge_answers(told: Told, seen: list[Request], reading: Reading) -> Iterator[str]:
    """An answer to each request that was seen; then, unless all was understood, a refusal."""
    if told.left:
        yield f"the answers cannot be read: {told.left!r}"
    served, rest = told.answers[: len(seen)], told.answers[len(seen) :]
    for request, answer in zip(seen, served, strict=False):
        if answer.status != 200 or (request.method != b"HEAD" and answer.body != request.target):
            yield f"{request.target!r} was answered with {answer}"
    if len(served) < len(seen):
        yield "a request was seen and not answered"
    is_whole = len(seen) == len(reading.requests) and reading.fault in ("", "closed") and not reading.left
    if is_whole or len(rest) == 0:
        if rest:
            yield f"answers that nobody asked for: {rest}"
    elif len(rest) > 1 or rest[0].status not in REFUSALS:
        yield f"this is no refusal: {rest}"


def judge_written(case: Case, path: bytes, told: Told, seen: list[Request]) -> Iterator[str]:
    """What the case says must come of it."""
    goes_on = not (case.refused or case.closes or case.unfinished)
    expected = [*(case.seen or ()), *([b""] if goes_on else [])]
    if [request.body for request in seen] != expected:
        yield f"bodies {[request.body for request in seen]} are not {expected}"
    if goes_on and seen and seen[-1].target != path + b"/last":
        yield "the connection did not go on"
    if case.refused and not told.answers:
        yield "no refusal"
    elif case.refused:
        status, reason = told.answers[-1].status, told.answers[-1].body.partition(b":")[0].decode()
        if (status, reason) != (case.status, case.refused):
            yield f"refused with {status} {reason}, not {case.status} {case.refused}"


def end_to_end(request: Request) -> list[tuple[bytes, bytes]]:
    """The fields that go from one end to the other."""
    named = {each.strip().lower() for value in request.all(b"connection") for each in value.split(b",")}
    gone = HOP_BY_HOP | FRAMING | OURS | {name for name in named if name.startswith(b"x-")}
    return [
        (name, value)
        for name, value in request.fields
        if name.lower() not in gone and not name.lower().startswith(b"x-forwarded-")
    ]


def is_twin(name: bytes) -> bool:
    """Whether a server that gives fields to applications as variables takes this one for a framing field."""
    return b"_" in name and name.lower().replace(b"_", b"-") in FRAMING


def origin_form(target: bytes) -> bytes:
    """Path and query of a target, which may have a scheme and an authority before them."""
    return b"/" + target.split(b"/", 3)[3] if target.startswith((b"http://", b"https://")) else target


def ask_h11(story: Story) -> str:
    """How h11 reads what the upstream got, where that differs."""
    request = story.requests[0]
    connection = h11.Connection(h11.SERVER)
    connection.receive_data(story.received)
    body = b""
    try:
        head = connection.next_event()
        while isinstance(event := connection.next_event(), h11.Data):
            body += bytes(event.data)
    except h11.RemoteProtocolError as error:
        return str(error)
    if not isinstance(head, h11.Request) or not isinstance(event, h11.EndOfMessage):
        return f"{head} and {event}"
    ours = (request.method, request.target, [(name.lower(), value) for name, value in request.fields], request.body)
    theirs = (head.method, head.target, list(head.headers), body)
    return "" if ours == theirs and not connection.trailing_data[0] else f"{theirs} is not {ours}"


# ---- the cases ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", WRITTEN)
async def test_what_is_written_down(site: tuple[Gateway, socket.socket], recorder: Recorder, name: str) -> None:
    await play(site[0], recorder, cases(name))


async def test_the_mutations_that_smuggling_tools_try(site: tuple[Gateway, socket.socket], recorder: Recorder) -> None:
    all_cases = list(named_mutations())
    assert (len(all_cases), await play(site[0], recorder, all_cases)) == (320, 20)


async def test_two_bytes_in_every_place(site: tuple[Gateway, socket.socket], recorder: Recorder) -> None:
    all_cases = list(doubles())
    assert (len(all_cases), await play(site[0], recorder, all_cases)) == (4394, 44)


async def test_every_byte_in_every_place(site: tuple[Gateway, socket.socket], recorder: Recorder) -> None:
    all_cases = list(exhaustive())
    assert (len(all_cases), await play(site[0], recorder, all_cases)) == (6656, 916)


@pytest.mark.parametrize("name", WRITTEN)
async def test_nobody_else_is_hurt(site: tuple[Gateway, socket.socket], recorder: Recorder, name: str) -> None:
    """On connections that are kept, others are served between the cases: they get their own answers."""
    gate = asyncio.Semaphore(AT_ONCE)

    async def run(case: Case) -> None:
        path = b"/k/%d" % next(_numbers)
        async with gate:
            await send(site[0].port(), case.sent(path) + LAST.replace(b"{path}", path), case.unfinished)
            told = await send(site[0].port(), LAST.replace(b"{path}", path + b"/other"), False)
        assert [answer.body for answer in told.answers] == [path + b"/other/last"], case.name

    await asyncio.gather(*map(run, cases(name)))
    requests = [request for story in recorder.stories for request in story.requests]
    assert len(recorder.stories) < len(requests), "connections are kept"
    assert [story for story in recorder.stories if story.fault] == []
    assert [request for request in requests if b"smuggled" in request.target] == []


def test_the_judge_can_say_no() -> None:
    """A gateway that took one side of an ambiguity would be found out."""
    case = Case("", b"POST {path} HTTP/1.1\r\nHost: h\r\nContent-Length: {length}\r\n\r\n0\r\n\r\n{smuggled}")
    path = b"/c/99999"
    meant = read_requests(case.sent(path)).requests[0]
    smuggled = Story(b"", [meant._replace(framing="chunked", body=b""), meant._replace(target=path + b"/smuggled")])
    faults = list(judge(case, path, Told([], b""), [smuggled]))
    assert any("several requests" in fault for fault in faults)
    assert any("meant length" in fault for fault in faults)
    assert any("not answered" in fault for fault in faults)
    with pytest.raises(Fault):
        read_answer(b"HTTP/1.1 200 OK\nX: 1\r\n\r\n", b"GET", True)
