"""Connections that begin and end in every way there is: afterwards nothing of them is left.

In full with `TIDEGATE_LONG=1`: 100,000 lifecycles.
"""

import asyncio
import contextlib
import itertools
import json
import os
import socket
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from tests.e2e.kit.bridge import attempt, switch
from tests.e2e.kit.frames import Op, Peer, binary, close, text
from tests.e2e.kit.peers import running
from tests.e2e.kit.processes import close_wait, open_files, resident_kib
from tests.e2e.kit.sites import Config, route, site, until
from tests.e2e.kit.wire import Head, Wire, request_bytes
from tidegate.testing import Gateway

LONG = bool(os.environ.get("TIDEGATE_LONG"))
COUNT, WARM_UP = (100_000, 10_000) if LONG else (3_000, 600)
TOGETHER = 40
"""How many are under way at the same time."""

MOST_KIB = 4096
"""What memory may grow by: less than 100,000 times anything."""


# ---- the server's side ----------------------------------------------------------------------------------------------


class Fates:
    """A server that does with each connection what its path says: `/app/{fate}/{number}`."""

    async def __aenter__(self) -> "Fates":
        self._tasks: set[asyncio.Task[None]] = set()
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, backlog=4096)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task
        self._tasks.add(task)
        wire = Wire(reader, writer)
        try:
            while True:
                head = await wire.head()
                _, _, fate, number = head.target.split("/")
                await FATES[fate](wire, head, int(number))
        except (asyncio.IncompleteReadError, ConnectionError, TimeoutError, asyncio.CancelledError):
            pass  # the other end is gone, which is the point
        finally:
            self._tasks.discard(task)
            await wire.close()


async def _echo(wire: Wire, head: Head, _: int) -> None:
    await wire.send(switch(head))
    peer = Peer(wire, head, is_client=False)
    while True:
        frame = await peer.frame()
        await peer.send(frame)
        if frame.op == Op.CLOSE:
            raise ConnectionError


async def _answer(wire: Wire, _: Head, number: int) -> None:
    """No 101, but a whole answer, in each framing."""
    body = b"no " * (number % 500)
    if number % 3 == 0:
        chunks = b"".join(b"%x\r\n%s\r\n" % (len(body), body) for _ in range(3) if body) + b"0\r\n\r\n"
        await wire.send(b"HTTP/1.1 403 No\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks)
    elif number % 3 == 1:
        await wire.send(b"HTTP/1.1 503 No\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
    else:
        await wire.send(b"HTTP/1.1 401 No\r\nConnection: close\r\n\r\n" + body)
        raise ConnectionError


async def _partial(wire: Wire, head: Head, number: int) -> None:
    """The 101 ends after so many bytes: by an end or by a reset."""
    answer = switch(head)
    await wire.send(answer[: number % len(answer)])
    end(wire, number)


async def _kill(wire: Wire, head: Head, number: int) -> None:
    """A WebSocket whose server is gone after its first message, between frames or inside of one."""
    await wire.send(switch(head))
    await Peer(wire, head, is_client=False).frame()
    await wire.send(binary(b"x" * 300).encode(None)[: (0, 302, 304, 100)[number % 4]])
    end(wire, number)


async def _fake(wire: Wire, head: Head, _: int) -> None:
    await wire.send(switch(head).replace(b"Accept: ", b"Accept: A"))


async def _break(wire: Wire, head: Head, _: int) -> None:
    """A server that breaks the protocol: its frame has a mask."""
    await wire.send(switch(head))
    peer = Peer(wire, head, is_client=False)
    await peer.frame()
    await wire.send(text("oops").encode(b"mask"))
    with contextlib.suppress(asyncio.IncompleteReadError):
        await peer.frame()
    raise ConnectionError


async def _silent(wire: Wire, _: Head, number: int) -> None:
    await wire.rest()
    end(wire, number)


async def _plain(wire: Wire, head: Head, number: int) -> None:
    await wire.body(head)
    body = b"y" * (number % 3000)
    await wire.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)


async def _plain_cut(wire: Wire, head: Head, number: int) -> None:
    await wire.body(head)
    await wire.send(b"HTTP/1.1 200 OK\r\nContent-Length: 5000\r\n\r\n" + b"y" * (number % 5000))
    end(wire, number)


FATES: dict[str, Callable[[Wire, Head, int], Awaitable[None]]] = {
    "echo": _echo,
    "answer": _answer,
    "partial": _partial,
    "kill": _kill,
    "fake": _fake,
    "break": _break,
    "silent": _silent,
    "plain": _plain,
    "cut": _plain_cut,
}


def end(wire: Wire, number: int) -> None:
    """By a reset or by FIN, in turn."""
    if number % 2:
        wire.reset()
    raise ConnectionError


# ---- the client's side ----------------------------------------------------------------------------------------------


async def opened(wire: Wire, path: str) -> Peer:
    await wire.send(attempt(path))
    head = await wire.head()
    assert head.status == 101, head
    return Peer(wire, head, is_client=True)


async def normal(wire: Wire, number: int) -> None:
    peer = await opened(wire, f"/app/echo/{number}")
    message = binary(b"z" * (number % 2000))
    await peer.send(message)
    await peer.expect(message)
    await peer.send(close(1000))
    assert (await peer.frame()).code == 1000
    await wire.ended()


async def client_killed(wire: Wire, number: int) -> None:
    peer = await opened(wire, f"/app/echo/{number}")
    await wire.send(peer.encode(binary(b"z" * 300))[: (0, 50, 308)[number % 3]])
    end(wire, number)


async def farewell(peer: Peer, number: int, code: int | None = None) -> None:
    """Whatever comes up to the Close, which most answer, and the end. Some get no Close: there is no place for it."""
    try:
        while (frame := await peer.frame()).op != Op.CLOSE:
            pass
    except asyncio.IncompleteReadError:
        assert code is None
        return
    assert code in (None, frame.code)
    if number % 16:
        await peer.send(frame)
    await peer.wire.rest()


async def server_killed(wire: Wire, number: int) -> None:
    peer = await opened(wire, f"/app/kill/{number}")
    await peer.send(text("now"))
    await farewell(peer, number)


async def client_breaks(wire: Wire, number: int) -> None:
    peer = await opened(wire, f"/app/echo/{number}")
    await wire.send(text("no mask").encode(None))
    await farewell(peer, number, 1002)


async def server_breaks(wire: Wire, number: int) -> None:
    peer = await opened(wire, f"/app/break/{number}")
    await peer.send(text("now"))
    await farewell(peer, number, 1011)


async def no_101(wire: Wire, number: int) -> None:
    await wire.send(attempt(f"/app/answer/{number}"))
    head, _ = await wire.answer()
    assert head.status == (403, 503, 401)[number % 3]
    await wire.rest()


async def fake_101(wire: Wire, number: int) -> None:
    await wire.send(attempt(f"/app/fake/{number}"))
    assert (await wire.answer())[0].status == 502
    await wire.rest()


async def partial_101(wire: Wire, number: int) -> None:
    await wire.send(attempt(f"/app/partial/{number}"))
    assert (await wire.answer())[0].status == 502
    await wire.rest()


REFUSED = [
    (attempt("/nowhere"), 404),
    (attempt("/closed"), 403),
    (attempt("/app/echo/1", drop="sec-websocket-key"), 400),
    (attempt("/app/echo/1").replace(b"Version: 13", b"Version: 8"), 426),
    (attempt("/dead"), 502),
    (b"GET / HTTP/1.1\r\nHost : a\r\n\r\n", 400),
    (request_bytes("GET /app/../../x"), 400),
    (b"\x16\x03\x01\r\n\r\n", 400),
]


async def refused(wire: Wire, number: int) -> None:
    request, status = REFUSED[number % len(REFUSED)]
    await wire.send(request)
    assert (await wire.answer())[0].status == status
    if number % 2:
        await wire.rest()


async def aborted(wire: Wire, number: int) -> None:
    """The handshake ends after so many bytes, from none to all."""
    request = attempt("/app/echo/1")
    await wire.send(request[: number // 2 % (len(request) + 1)])
    end(wire, number)


async def impatient(wire: Wire, number: int) -> None:
    """The client goes while the upstream thinks."""
    await wire.send(attempt(f"/app/silent/{number}"))
    if number % 4 < 2:
        await asyncio.sleep(0.01)
    end(wire, number)


async def plain(wire: Wire, number: int) -> None:
    for turn in range(3):
        body = b"b" * (number * 7 % 4000)
        await wire.send(request_bytes(f"POST /app/plain/{number + turn}", f"Content-Length: {len(body)}", body=body))
        head, got = await wire.answer()
        assert (head.status, len(got)) == (200, (number + turn) % 3000)


async def plain_cut(wire: Wire, number: int) -> None:
    await wire.send(request_bytes(f"GET /app/cut/{number}"))
    await wire.rest()


async def upload_cut(wire: Wire, number: int) -> None:
    await wire.send(request_bytes(f"POST /app/plain/{number}", "Content-Length: 5000", body=b"b" * (number % 5000)))
    end(wire, number)


LIVES: list[Callable[[Wire, int], Awaitable[None]]] = [
    normal,
    client_killed,
    server_killed,
    client_breaks,
    server_breaks,
    no_101,
    fake_101,
    partial_101,
    refused,
    aborted,
    aborted,
    impatient,
    plain,
    plain_cut,
    upload_cut,
]


class Lives:
    """Leads lives against a gateway."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._number = itertools.count()
        self.led: Counter[str] = Counter()

    async def lead(self, count: int) -> None:
        """So many, a few at the same time; each kind gets each of its numbers in turn."""
        turns = iter(range(count))
        await asyncio.gather(*(self._one_after_another(turns) for _ in range(TOGETHER)))

    async def _one_after_another(self, turns: Iterator[int]) -> None:
        for _ in turns:
            number = next(self._number)
            kind = LIVES[number % len(LIVES)]
            try:
                await self._lead(kind, number // len(LIVES))
            except Exception as error:
                raise AssertionError(f"{kind.__name__} number {number // len(LIVES)}: {error!r}") from error
            self.led[kind.__name__] += 1

    async def _lead(self, kind: Callable[[Wire, int], Awaitable[None]], number: int) -> None:
        wire = Wire(*await asyncio.open_connection("127.0.0.1", self._port))
        try:
            await kind(wire, number)
        except ConnectionError:
            if kind in (normal, plain, refused, no_101):
                raise
        finally:
            await wire.close()


def config(url: str, log: Path) -> Config:
    pool = {"idle_timeout": "100ms"}
    with socket.create_server(("127.0.0.1", 0)) as gone:
        dead = f"http://127.0.0.1:{gone.getsockname()[1]}"
    return site(
        route("app", "app"),
        route("dead", "dead"),
        route("closed", "app", websocket={"enabled": False}),
        upstreams={"app": {"endpoints": [url], "pool": pool}, "dead": dead},
        access_log={"path": str(log), "format": "json"},
    )


GAUGES = (
    "tidegate_websocket_connections",
    "tidegate_connections",
    "tidegate_worker_connections",
    "tidegate_endpoint_connections",
)


def is_quiet(gateway: Gateway) -> bool:
    """Nothing is under way, as far as the gateway knows."""
    metrics = gateway.metrics()
    return gateway.connections() == [] and not any(metrics.value(gauge) for gauge in GAUGES)


async def settled(gateway: Gateway) -> int:
    """How many files are open when nothing is under way and no upstream connection is kept."""
    await until(lambda: is_quiet(gateway), limit=30)
    found = [-1, -2]
    while found[-1] != found[-2] or close_wait(gateway.pid):
        assert len(found) < 60, found
        await asyncio.sleep(0.4)
        found.append(len(open_files(gateway.pid)))
    return found[-1]


@pytest.mark.timeout(3600 if LONG else 120)
async def test_nothing_is_left_of_them(tmp_path: Path) -> None:
    log = tmp_path / "access.log"
    async with Fates() as fates, running(config(fates.url, log)) as gateway:
        lives = Lives(gateway.port())
        await lives.lead(WARM_UP)
        files, memory, began = await settled(gateway), resident_kib(gateway.pid), time.monotonic()
        await lives.lead(COUNT)
        took = time.monotonic() - began
        files_after, memory_after = await settled(gateway), resident_kib(gateway.pid)

        print(
            f"{COUNT} lifecycles in {took:.1f} s: {files} descriptors before, {files_after} after; "
            f"{memory} KiB before, {memory_after} KiB after",
            file=sys.stderr,
        )
        assert files_after <= files, sorted(open_files(gateway.pid).values())
        assert memory_after <= memory + MOST_KIB
        assert close_wait(gateway.pid) == []
        metrics = await asyncio.to_thread(gateway.metrics)
        assert metrics.value("tidegate_panics_total") == 0
        assert metrics.value("tidegate_log_dropped_total") == 0
    records = [json.loads(line) for line in log.read_text().splitlines()]
    events = Counter(record["event"] for record in records)
    assert events["open"] == events["close"] > 0
    opened_ids = {record["connection"] for record in records if record["event"] == "open"}
    closed_ids = [record["connection"] for record in records if record["event"] == "close"]
    assert len(closed_ids) == len(set(closed_ids)) and opened_ids == set(closed_ids)
    assert sum(lives.led.values()) == WARM_UP + COUNT
