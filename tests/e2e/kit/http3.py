"""A client of HTTP/3 over QUIC, with its streams in the test's hands: many on one connection, each like a `Wire`.

async with dial(port) as client:
    stream = await client.ask("GET", "/path")
    head, body = await stream.answer()
"""

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator
from enum import IntEnum
from typing import Any

from aioquic.asyncio.client import connect
from aioquic.asyncio.protocol import QuicConnectionProtocol
from aioquic.buffer import Buffer
from aioquic.h3.connection import FrameType, H3Connection, Setting
from aioquic.h3.events import DataReceived, H3Event, HeadersReceived
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.events import ConnectionTerminated, QuicEvent, StopSendingReceived, StreamDataReceived, StreamReset

from tests.e2e.kit.http2 import HOST
from tests.e2e.kit.wire import Head, soon

__all__ = ["Code", "H3Client", "H3Stream", "dial"]


class Code(IntEnum):
    """RFC 9114 §8.1, RFC 9204 §6."""

    NO_ERROR = 0x100
    INTERNAL_ERROR = 0x102
    STREAM_CREATION_ERROR = 0x103
    CLOSED_CRITICAL_STREAM = 0x104
    FRAME_UNEXPECTED = 0x105
    FRAME_ERROR = 0x106
    ID_ERROR = 0x108
    MISSING_SETTINGS = 0x10A
    REQUEST_REJECTED = 0x10B
    REQUEST_CANCELLED = 0x10C
    MESSAGE_ERROR = 0x10E
    CONNECT_ERROR = 0x10F
    VERSION_FALLBACK = 0x110
    DECOMPRESSION_FAILED = 0x200
    ENCODER_STREAM_ERROR = 0x201


class Reset(ConnectionResetError):
    """The gateway has reset the stream."""

    def __init__(self, code: int) -> None:
        super().__init__(f"RESET_STREAM {code:#x}")
        self.code = Code(code)


class H3Stream:
    """One stream. It has the methods of a `Wire` that mean something here."""

    def __init__(self, client: "H3Client", number: int) -> None:
        self.client, self.number = client, number
        self.interim: list[Head] = []
        self.trailers: dict[str, str] | None = None
        self.stopped: Code | None = None
        """What the gateway said when it wanted no more of ours."""
        self._head: asyncio.Future[Head] = asyncio.get_running_loop().create_future()
        self._reader = asyncio.StreamReader(limit=1 << 24)
        self._ended = False

    async def send(self, data: bytes) -> None:
        """Content; waits until the windows have let it go."""
        self.push(data)
        await soon(self.client.sent(self.number))

    def push(self, data: bytes) -> None:
        """Like `send`, but does not wait."""
        self.client.http.send_data(self.number, data, end_stream=False)
        self.client.transmit()

    def finish(self) -> None:
        """The end, behind what was sent."""
        self.client.quic.send_stream_data(self.number, b"", end_stream=True)
        self.client.transmit()

    def end_with(self, **trailers: str) -> None:
        """The end, behind trailers."""
        fields = [(name.replace("_", "-").encode(), value.encode()) for name, value in trailers.items()]
        self.client.http.send_headers(self.number, fields, end_stream=True)
        self.client.transmit()

    def ask(self, method: str, path: str) -> None:
        """A request, behind what was written."""
        pseudo = [(":method", method), (":scheme", "https"), (":authority", HOST), (":path", path)]
        encoded = [(name.encode(), value.encode()) for name, value in pseudo]
        self.client.http.send_headers(self.number, encoded, end_stream=True)
        self.client.transmit()

    def write(self, data: bytes) -> None:
        """Raw bytes, past all that the client knows."""
        self.client.quic.send_stream_data(self.number, data)
        self.client.transmit()

    def reset(self, code: int = Code.REQUEST_CANCELLED) -> None:
        """As a client cancels: both directions."""
        with contextlib.suppress(Exception):
            self.client.quic.reset_stream(self.number, code)
        with contextlib.suppress(Exception):
            self.client.quic.stop_stream(self.number, code)
        self.client.transmit()
        self.over(ConnectionResetError("reset by the test"))

    async def close(self) -> None:
        self.reset()

    def pause(self) -> None:
        """Take nothing: the stream's window fills up."""
        self.client.paused.add(self.number)

    async def head(self) -> Head:
        return await soon(asyncio.shield(self._head))

    async def exactly(self, count: int) -> bytes:
        return await soon(self._reader.readexactly(count))

    async def body(self) -> bytes:
        return await soon(self._reader.read())

    async def ended(self) -> None:
        """The end comes next."""
        assert await self.body() == b""

    async def answer(self) -> tuple[Head, bytes]:
        head = await self.head()
        return head, await self.body()

    async def was_reset(self) -> Code:
        """Waits for the reset and returns its code; what comes before it is thrown away."""
        try:
            await self.body()
        except Reset as reset:
            return reset.code
        raise AssertionError("the stream ended well")

    def take(self, event: H3Event) -> None:
        if isinstance(event, HeadersReceived):
            self._take_head([(name.decode("latin-1"), value.decode("latin-1")) for name, value in event.headers])
        elif isinstance(event, DataReceived):
            self._reader.feed_data(event.data)
        if getattr(event, "stream_ended", False):
            self.over()

    def _take_head(self, fields: list[tuple[str, str]]) -> None:
        if self._head.done():
            self.trailers = dict(fields)
            return
        status = dict(fields)[":status"]
        head = Head(f"HTTP/3 {status}", tuple(fields))
        if 100 <= head.status < 200:
            self.interim.append(head)
        else:
            self._head.set_result(head)

    def over(self, error: ConnectionError | None = None) -> None:
        """The gateway sends nothing more."""
        if self._ended:
            return
        self._ended = True
        if error is None:
            return self._reader.feed_eof()
        self._reader.set_exception(error)
        if not self._head.done():
            self._head.set_exception(error)
            self._head.exception()  # nobody need ask


class H3Client(QuicConnectionProtocol):
    """One connection."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.quic = self._quic
        self.http = H3Connection(self._quic)
        self.streams: dict[int, H3Stream] = {}
        self.ending: ConnectionTerminated | None = None
        self._control = b""
        self.paused: set[int] = set()
        self._raise_limits = self._quic._write_stream_limits
        self._quic._write_stream_limits = self._limit  # type: ignore[method-assign]
        self._is_paused = False
        self._raise_limit = self._quic._write_connection_limits
        self._quic._write_connection_limits = self._limit_all  # type: ignore[method-assign]
        self._full = asyncio.Event()
        self._sending: dict[int, asyncio.Future[None]] = {}
        self._settled = asyncio.Event()
        self._ended = asyncio.Event()

    def _limit(self, builder: Any, space: Any, stream: Any) -> None:
        """The library knows of no reader who is slow: it raises a stream's window as soon as the half has come."""
        if stream.stream_id not in self.paused:
            self._raise_limits(builder, space, stream)

    def _limit_all(self, builder: Any, space: Any) -> None:
        if not self._is_paused:
            self._raise_limit(builder, space)

    def pause(self) -> None:
        """Take no more than the connection's window has room for."""
        self._is_paused = True

    def resume(self) -> None:
        self._is_paused = False
        self.transmit()

    async def full(self) -> None:
        """The connection's window is used up."""
        await soon(self._full.wait())

    def transmit(self) -> None:
        super().transmit()
        for number in [number for number in self._sending if self._has_sent(number)]:
            self._sending.pop(number).set_result(None)

    async def sent(self, number: int) -> None:
        """All that was said on the stream has gone out, or nobody wants it any more."""
        if not self._has_sent(number):
            sending = self._sending.setdefault(number, asyncio.get_running_loop().create_future())
            await asyncio.shield(sending)

    def _has_sent(self, number: int) -> bool:
        stream = self.quic._streams.get(number)
        return stream is None or stream.sender.buffer_is_empty or self.ending is not None

    @property
    def goaways(self) -> list[int]:
        """The streams that GOAWAYs named. The library passes over them."""
        named, buffer = [], Buffer(data=self._control)
        buffer.pull_uint_var()  # the kind of the stream
        while not buffer.eof():
            kind, length = buffer.pull_uint_var(), buffer.pull_uint_var()
            payload = buffer.pull_bytes(length)
            if kind == FrameType.GOAWAY:
                named.append(Buffer(data=payload).pull_uint_var())
        return named

    @property
    def takes_websockets(self) -> bool:
        """Whether the gateway has said that it knows extended CONNECT."""
        return bool((self.http.received_settings or {}).get(Setting.ENABLE_CONNECT_PROTOCOL))

    async def settled(self) -> None:
        """The gateway's settings are here."""
        await soon(self._settled.wait())

    async def ended(self) -> int:
        """Waits for the end of the connection, and returns its code."""
        await soon(self._ended.wait())
        assert self.ending is not None
        return self.ending.error_code

    def raw(self) -> H3Stream:
        """A stream without anything."""
        number = self.quic.get_next_available_stream_id()
        self.quic.send_stream_data(number, b"")
        stream = self.streams[number] = H3Stream(self, number)
        return stream

    def open(self, fields: list[tuple[str, str]], *, ended: bool = False) -> H3Stream:
        """A stream with this head, exactly."""
        number = self.quic.get_next_available_stream_id()
        stream = self.streams[number] = H3Stream(self, number)
        encoded = [(name.encode(), value.encode()) for name, value in fields]
        self.http.send_headers(number, encoded, end_stream=ended)
        self.transmit()
        return stream

    async def ask(self, method: str, path: str, *fields: tuple[str, str], body: bytes | None = None) -> H3Stream:
        """A request; without a body it ends with its head."""
        pseudo = [(":method", method), (":scheme", "https"), (":authority", HOST), (":path", path)]
        stream = self.open([*pseudo, *fields], ended=body is None)
        if body is not None:
            stream.push(body)
            stream.finish()
        return stream

    async def connect_to(self, path: str, *fields: tuple[str, str], protocol: str = "websocket") -> H3Stream:
        """An extended CONNECT (RFC 9220)."""
        await self.settled()
        pseudo = [(":method", "CONNECT"), (":protocol", protocol), (":scheme", "https"), (":authority", HOST)]
        return self.open([*pseudo, (":path", path), ("sec-websocket-version", "13"), *fields])

    def quic_event_received(self, event: QuicEvent) -> None:
        match event:
            case StreamReset() if event.stream_id in self.streams:
                self.streams[event.stream_id].over(Reset(event.error_code))
            case StopSendingReceived() if event.stream_id in self.streams:
                self.streams[event.stream_id].stopped = Code(event.error_code)
            case StreamDataReceived(stream_id=3):
                self._control += event.data
            case ConnectionTerminated():
                self.ending = event
                for stream in self.streams.values():
                    stream.over(ConnectionResetError(f"the connection has ended: {event}"))
                self._ended.set()
        for heard in self.http.handle_event(event):
            stream_id = getattr(heard, "stream_id", None)
            if stream_id in self.streams:
                self.streams[stream_id].take(heard)
        if self.http.received_settings is not None:
            self._settled.set()
        window = self.quic._local_max_data
        if window.used >= window.value:
            self._full.set()


@contextlib.asynccontextmanager
async def dial(
    port: int, server_name: str = HOST, authority: str | None = None, **options: Any
) -> AsyncIterator[H3Client]:
    """A connection; without an `authority`, a file, the certificate may be anybody's."""
    configuration = QuicConfiguration(is_client=True, alpn_protocols=["h3"], server_name=server_name, **options)
    if authority is None:
        configuration.verify_mode = ssl.CERT_NONE
    else:
        configuration.load_verify_locations(authority)
    async with connect("127.0.0.1", port, configuration=configuration, create_protocol=H3Client) as client:
        assert isinstance(client, H3Client)
        yield client
