"""Clients of a soak: each does one thing from its beginning to its end, well or badly, and says what it did.

An actor may fail in any way that an endpoint's death makes it fail; but what it gets must be right: an echo is its
message, a body has its length.
"""

import asyncio
import contextlib
import random
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field

from tests.e2e.kit.bridge import attempt
from tests.e2e.kit.frames import Frame, Op, binary, close, more, ping, text
from tests.e2e.kit.origin import read_frame
from tests.e2e.kit.wire import Head, request_bytes

__all__ = ["ACTORS", "Tally", "Troubled", "acted"]

SIZES = (0, 1, 125, 126, 127, 1_000, 16_384, 65_535, 65_536, 65_537, 300_000)
LARGE = 4 << 20
PATIENCE = 30.0
"""Seconds for any one answer: the machine is busy."""


class Wrong(AssertionError):
    """The gateway gave what nobody had said."""


Troubled = (ConnectionError, asyncio.IncompleteReadError, TimeoutError)
"""How an actor may see that an endpoint has died."""


@dataclass(slots=True)
class Tally:
    """What the clients saw."""

    connects: int = 0
    switched: set[str] = field(default_factory=set)
    """The targets of WebSockets whose 101 came."""
    answers: dict[str, int] = field(default_factory=dict)
    """How often which status came."""
    acts: dict[str, int] = field(default_factory=dict)
    troubles: dict[str, int] = field(default_factory=dict)
    serial: int = 0

    def next(self, path: str) -> str:
        self.serial += 1
        return f"{path}/{self.serial}"


@dataclass(slots=True)
class Client:
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    chance: random.Random
    tally: Tally

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        async with asyncio.timeout(PATIENCE):
            await self.writer.drain()

    async def frames(self, *frames: Frame) -> None:
        await self.send(b"".join(frame.encode(self.chance.randbytes(4)) for frame in frames))

    async def head(self) -> Head:
        async with asyncio.timeout(PATIENCE):
            head = Head.parse(await self.reader.readuntil(b"\r\n\r\n"))
        status = str(head.status)
        self.tally.answers[status] = self.tally.answers.get(status, 0) + 1
        return head

    async def frame(self) -> Frame:
        async with asyncio.timeout(PATIENCE):
            return await read_frame(self.reader)

    async def message(self) -> Frame:
        """The next data frame, put together; a Close ends the conversation as a lost connection does."""
        parts: list[Frame] = []
        while not parts or not parts[-1].fin:
            frame = await self.frame()
            if frame.op == Op.CLOSE:
                raise ConnectionResetError(frame.reason)
            if frame.op not in (Op.PING, Op.PONG):
                parts.append(frame)
        return Frame(parts[0].op, b"".join(part.payload for part in parts))

    async def answer(self) -> None:
        """A whole answer; it must have the length that it says."""
        head = await self.head()
        async with asyncio.timeout(PATIENCE):
            left = int(head.get("content-length") or 0)
            while left:
                left -= len(await self.reader.readexactly(min(left, 1 << 16)))

    async def upgrade(self, path: str) -> bool:
        target = self.tally.next(path)
        await self.send(attempt(target))
        head = await self.head()
        if head.status == 101:
            self.tally.switched.add(target)
        return head.status == 101

    async def leave(self) -> None:
        await self.frames(close(self.chance.choice((1000, 1001, 3000, 4999))))
        with contextlib.suppress(*Troubled):
            while (await self.frame()).op != Op.CLOSE:
                pass

    def reset(self) -> None:
        raw: socket.socket = self.writer.get_extra_info("socket")
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()

    def size(self) -> int:
        return LARGE if self.chance.random() < 0.01 else self.chance.choice(SIZES)


Actor = Callable[[Client], Awaitable[None]]


async def talker(client: Client) -> None:
    """Messages of all sizes, also in fragments with a Ping between, and a goodbye."""
    if not await client.upgrade("/app/talker"):
        return
    for _ in range(client.chance.randint(1, 20)):
        payload = client.chance.randbytes(client.size())
        cut = client.chance.randint(0, len(payload))
        whole = [binary(payload)]
        parts = [binary(payload[:cut], fin=False), ping(b"?"), more(payload[cut:])]
        await client.frames(*client.chance.choice((whole, parts)))
        if (await client.message()).payload != payload:
            raise Wrong(f"an echo of {len(payload)} bytes is another one")
    await client.leave()


async def dismissed(client: Client) -> None:
    """The server says goodbye, or dies."""
    if await client.upgrade("/app/dismissed"):
        await client.frames(text(client.chance.choice(("close 1000", "close 4001", "close 1013", "die"))))
        frame = await client.frame()
        if frame.op != Op.CLOSE:
            raise Wrong(f"{frame} instead of a Close")
        await client.frames(frame)


async def breaker(client: Client) -> None:
    """Frames that break a rule."""
    if await client.upgrade("/app/breaker"):
        bad = client.chance.choice((Frame(3), text("x", rsv=0x20), more(b"x"), close(1005), Frame(Op.PING, b"x" * 126)))
        await client.frames(text("before"), bad)
        with contextlib.suppress(*Troubled):
            while (await client.frame()).op != Op.CLOSE:
                pass


async def quitter(client: Client) -> None:
    """Gone at any byte: of the head, of the handshake, of a frame, or between frames; by FIN or by RST."""
    message = binary(client.chance.randbytes(client.size())).encode(b"mask")
    whole = attempt(client.tally.next("/app/quitter")) + message
    await client.send(whole[: client.chance.randint(0, min(len(whole), 3000))])
    if client.chance.random() < 0.5:
        with contextlib.suppress(*Troubled):
            async with asyncio.timeout(client.chance.random() * 0.2):
                await client.reader.read(client.chance.randint(1, 1000))
    if client.chance.random() < 0.5:
        client.reset()


async def slow_reader(client: Client) -> None:
    """Asks for far more than it reads, for a while."""
    if client.chance.random() < 0.5:
        await client.send(request_bytes(f"GET {client.tally.next('/app/slow')}?size={LARGE}"))
    elif await client.upgrade("/app/slow"):
        client.writer.write(b"".join(binary(bytes(65_536)).encode(b"mask") for _ in range(16)))
    with contextlib.suppress(*Troubled):
        for _ in range(20):
            async with asyncio.timeout(PATIENCE):
                if not await client.reader.read(500):
                    break
            await asyncio.sleep(0.05)  # this is what it is for
    client.reset()


async def asker(client: Client) -> None:
    """Plain requests on one connection."""
    for _ in range(client.chance.randint(1, 10)):
        size = client.size()
        match client.chance.randint(0, 3):
            case 0:
                await client.send(request_bytes(f"GET {client.tally.next('/app/get')}?size={size}"))
            case 1:
                body = client.chance.randbytes(size)
                length = f"Content-Length: {size}"
                await client.send(request_bytes(f"POST {client.tally.next('/app/post')}?size=10", length, body=body))
            case 2:
                body = b"5\r\nhello\r\n" * client.chance.randint(0, 9) + b"0\r\n\r\n"
                field_ = "Transfer-Encoding: chunked"
                await client.send(request_bytes(f"POST {client.tally.next('/app/chunked')}", field_, body=body))
            case _:
                await client.send(request_bytes(f"GET {client.tally.next('/own')}"))
        await client.answer()


async def cut_short(client: Client) -> None:
    """The server ends in the middle of its answer; ours must end as well, and never be completed."""
    await client.send(request_bytes(f"GET {client.tally.next('/app/cut')}?size=200000&cut=1"))
    if (await client.head()).status != 200:
        return
    async with asyncio.timeout(PATIENCE):
        got = await client.reader.read(-1)
    if len(got) >= 200_000:
        raise Wrong("an answer that was cut short has been completed")


async def body_quitter(client: Client) -> None:
    """Gone in the middle of its body, or of the answer."""
    if client.chance.random() < 0.5:
        await client.send(
            request_bytes(f"POST {client.tally.next('/app/half')}", "Content-Length: 100000", body=b"x" * 999)
        )
    else:
        await client.send(request_bytes(f"GET {client.tally.next('/app/half')}?size=1000000"))
        with contextlib.suppress(*Troubled):
            async with asyncio.timeout(PATIENCE):
                await client.reader.read(client.chance.randint(1, 100_000))
    client.reset()


ACTORS: dict[Actor, int] = {
    talker: 8,
    asker: 6,
    quitter: 4,
    dismissed: 2,
    breaker: 2,
    slow_reader: 2,
    cut_short: 1,
    body_quitter: 2,
}
"""And how often each has its turn."""


@contextlib.asynccontextmanager
async def connected(port: int, chance: random.Random, tally: Tally) -> AsyncIterator[Client]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1 << 20)
    tally.connects += 1
    try:
        yield Client(reader, writer, chance, tally)
    finally:
        writer.close()
        with contextlib.suppress(*Troubled):
            async with asyncio.timeout(PATIENCE):
                await writer.wait_closed()


async def acted(port: int, chance: random.Random, tally: Tally) -> None:
    """One actor's whole part."""
    (actor,) = chance.choices(list(ACTORS), list(ACTORS.values()))
    name = getattr(actor, "__name__", "")
    tally.acts[name] = tally.acts.get(name, 0) + 1
    try:
        async with connected(port, chance, tally) as client:
            await actor(client)
    except Troubled as trouble:
        label = f"{name}: {type(trouble).__name__}"
        tally.troubles[label] = tally.troubles.get(label, 0) + 1
