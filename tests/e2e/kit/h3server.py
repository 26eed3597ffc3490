"""A server of HTTP/3 whose part the test plays, stream by stream, as `h2server` has one of HTTP/2.

async with H3Server(directory, "here") as server, running(site(...)) as gateway:
    asked = await server.asked()
    asked.answer(200)
    asked.push(b"content", end=True)
"""

import asyncio
import contextlib
import socket
import ssl
from collections.abc import Sequence
from enum import IntEnum
from pathlib import Path
from typing import Any, Self

from aioquic.asyncio.protocol import QuicConnectionProtocol
from aioquic.asyncio.server import QuicServer, serve
from aioquic.h3.connection import H3Connection, Setting
from aioquic.h3.events import DataReceived, HeadersReceived
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.events import (
    ConnectionTerminated,
    HandshakeCompleted,
    ProtocolNegotiated,
    QuicEvent,
    StopSendingReceived,
    StreamReset,
)

from tests.e2e.kit.bridge import switch
from tests.e2e.kit.frames import Peer
from tests.e2e.kit.http3 import Code
from tests.e2e.kit.wire import Head, soon

__all__ = ["Asked", "Connection", "H3Server"]

Field = tuple[str, str]


class Asked:
    """A stream that the gateway has opened. It has the methods of a `Wire` that frames need."""

    def __init__(self, connection: "Connection", number: int, fields: Sequence[Field]) -> None:
        self.connection, self.number = connection, number
        self.fields = tuple(fields)
        self.head = Head(f"{self[':method']} {self.get(':path')} HTTP/3", self.fields)
        self.trailers: dict[str, str] | None = None
        self._reader = asyncio.StreamReader(limit=1 << 24)
        self._over = False
        self.is_answered = False
        self.reset_by_gateway: asyncio.Future[Code] = asyncio.get_running_loop().create_future()

    def __getitem__(self, name: str) -> str:
        return dict(self.fields)[name]

    def get(self, name: str) -> str | None:
        return dict(self.fields).get(name)

    def answer(self, status: int, *fields: Field, end: bool = False) -> None:
        """The head of an answer, interim ones too."""
        self._send_fields([(":status", str(status)), *fields], end)

    def _send_fields(self, fields: Sequence[Field], end: bool) -> None:
        encoded = [(name.encode(), value.encode("latin-1")) for name, value in fields]
        self.connection.http.send_headers(self.number, encoded, end_stream=end)
        self.is_answered |= end
        self.connection.transmit()

    def push(self, data: bytes, *, end: bool = False, trailers: Sequence[Field] = ()) -> None:
        """Content; the library keeps what the windows do not let go."""
        if data:
            self.connection.http.send_data(self.number, data, end_stream=end and not trailers)
        elif end and not trailers:
            self.connection.quic.send_stream_data(self.number, b"", end_stream=True)
        self.is_answered |= end
        if trailers:
            self._send_fields(trailers, True)
        self.connection.transmit()

    async def send(self, data: bytes) -> None:
        self.push(data)

    def write(self, data: bytes, *, end: bool = False) -> None:
        """Raw bytes, past all that the library knows."""
        self.connection.quic.send_stream_data(self.number, data, end_stream=end)
        self.connection.transmit()

    def reset(self, code: IntEnum = Code.REQUEST_CANCELLED) -> None:
        self.connection.quic.reset_stream(self.number, code)
        if not self._over:
            self.connection.quic.stop_stream(self.number, code)
        self.connection.transmit()

    async def body(self) -> bytes:
        """What is left of the request's body."""
        return await soon(self._reader.read())

    async def exactly(self, count: int) -> bytes:
        return await soon(self._reader.readexactly(count))

    async def ended(self) -> None:
        """The end comes next."""
        assert await self.body() == b""

    async def was_reset(self) -> Code:
        return await soon(asyncio.shield(self.reset_by_gateway))

    def accept(self, *fields: Field) -> Peer:
        """Take a WebSocket (RFC 9220): a server's end of it."""
        self.answer(200, *fields)
        return Peer(self, self.head, is_client=False)  # type: ignore[arg-type]

    # For the connection.

    def received(self, event: DataReceived | HeadersReceived) -> None:
        if isinstance(event, DataReceived):
            self._reader.feed_data(event.data or b"")
        else:
            self.trailers = {name.decode(): value.decode("latin-1") for name, value in event.headers}

    def stopped(self, code: int) -> None:
        """The gateway takes nothing more."""
        if not self.reset_by_gateway.done():
            self.reset_by_gateway.set_result(Code(code))

    def over(self, code: int | None = None) -> None:
        """The gateway sends nothing more; with a code, that is no good end."""
        if code is not None:
            self.stopped(code)
            self._reader.set_exception(ConnectionResetError(Code(code).name))
        elif not self._reader.at_eof():
            self._reader.feed_eof()
        self._over = True


class _Http(H3Connection):
    """Says what the test wants of WebSockets."""

    websockets = True

    def _get_local_settings(self) -> dict[int, int]:
        settings = super()._get_local_settings()
        if not self.websockets:
            del settings[Setting.ENABLE_CONNECT_PROTOCOL]
        return settings


class _HttpWithout(_Http):
    websockets = False


class Connection(QuicConnectionProtocol):
    """One connection of the gateway's."""

    def __init__(self, *args: Any, server: "H3Server", **options: Any) -> None:
        super().__init__(*args, **options)
        self.quic, self.server = self._quic, server
        self.http: H3Connection
        self.streams: dict[int, Asked] = {}
        self.ending: asyncio.Future[ConnectionTerminated] = asyncio.get_running_loop().create_future()

    def go_away(self, stream: int) -> None:
        """GOAWAY: from this stream on nothing is served."""
        control = self.http._local_control_stream_id
        assert control is not None and stream < 64
        self.quic.send_stream_data(control, bytes([0x7, 1, stream]))
        self.transmit()

    def say(self, data: bytes) -> None:
        """Raw bytes on the control stream."""
        control = self.http._local_control_stream_id
        assert control is not None
        self.quic.send_stream_data(control, data)
        self.transmit()

    def close_now(self, code: int = Code.NO_ERROR) -> None:
        self.quic.close(error_code=code)
        self.transmit()

    @property
    def live(self) -> int:
        """Streams that are neither answered nor reset."""
        streams = self.streams.values()
        return sum(not stream.reset_by_gateway.done() and not stream.is_answered for stream in streams)

    def quic_event_received(self, event: QuicEvent) -> None:
        match event:
            case ProtocolNegotiated():
                self.http = (_Http if self.server.websockets else _HttpWithout)(self._quic)
            case HandshakeCompleted():
                self.server.connections.append(self)
            case StreamReset() if event.stream_id in self.streams:
                self.streams[event.stream_id].over(event.error_code)
            case StopSendingReceived() if event.stream_id in self.streams:
                self.streams[event.stream_id].stopped(event.error_code)
            case ConnectionTerminated():
                if not self.ending.done():
                    self.ending.set_result(event)
                for stream in self.streams.values():
                    if not stream.reset_by_gateway.done():
                        stream.over()
        if hasattr(self, "http"):
            for heard in self.http.handle_event(event):
                self._take(heard)

    def _take(self, event: Any) -> None:
        number = getattr(event, "stream_id", None)
        stream = self.streams.get(number) if number is not None else None
        if isinstance(event, HeadersReceived) and stream is None:
            fields = [(name.decode(), value.decode("latin-1")) for name, value in event.headers]
            self.streams[event.stream_id] = stream = Asked(self, event.stream_id, fields)
            self.server.requests.put_nowait(stream)
        elif isinstance(event, (DataReceived, HeadersReceived)) and stream:
            stream.received(event)
        if stream and getattr(event, "stream_ended", False):
            stream.over()


class H3Server:
    """On a free port of UDP, with the certificate `name` in `directory`. `websockets`: whether it says that it takes
    them (RFC 9220 §3). With `h1`, TCP on the same port speaks HTTP/1.1 over TLS: an echo of bytes behind a 101."""

    def __init__(
        self,
        directory: Path,
        name: str = "here",
        *,
        websockets: bool = True,
        h1: bool = False,
        port: int = 0,
        alpn: Sequence[str] = ("h3",),
        **options: Any,
    ) -> None:
        self.configuration = QuicConfiguration(is_client=False, alpn_protocols=list(alpn), **options)
        self.configuration.load_cert_chain(directory / f"{name}.pem", directory / f"{name}.key")
        self.websockets = websockets
        self.connections: list[Connection] = []
        """All that there ever were."""
        self.plain: list[bytes] = []
        """What came over HTTP/1.1 instead, by connection."""
        self.requests: asyncio.Queue[Asked] = asyncio.Queue()
        self.port = port
        self._context: ssl.SSLContext | None = None
        if h1:
            self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self._context.load_cert_chain(directory / f"{name}.pem", directory / f"{name}.key")
            self._context.set_alpn_protocols(["http/1.1"])
        self._tasks: set[asyncio.Task[None]] = set()
        self._quic: QuicServer
        self._tcp: asyncio.Server | None = None

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self.port}"

    async def __aenter__(self) -> Self:
        # TCP first, and UDP with its number: few have that.
        sock = socket.create_server(("127.0.0.1", self.port))
        self.port = int(sock.getsockname()[1])
        self._quic = await serve(
            "127.0.0.1",
            self.port,
            configuration=self.configuration,
            create_protocol=lambda *args, **options: Connection(*args, server=self, **options),
        )
        if self._context:
            self._tcp = await asyncio.start_server(self._serve_plain, sock=sock, ssl=self._context)
        else:
            sock.close()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()
        if self._tcp:
            self._tcp.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def stop(self) -> None:
        """Close the socket: whoever comes is told by the system that nobody is there."""
        for connection in self.connections:
            connection.close_now()
        self._quic.close()
        # The transport closes its socket in the next turn of the loop.
        await asyncio.sleep(0)

    async def asked(self) -> Asked:
        """The next stream, on whatever connection."""
        return await soon(self.requests.get())

    async def _serve_plain(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task
        self._tasks.add(task)
        try:
            request = await reader.readuntil(b"\r\n\r\n")
            self.plain.append(request)
            writer.write(switch(Head.parse(request)))
            while data := await reader.read(1 << 16):
                writer.write(data)
        except (ConnectionError, ssl.SSLError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass  # the other end is gone, or the test is over
        finally:
            self._tasks.discard(task)
            writer.close()
            with contextlib.suppress(ConnectionError, ssl.SSLError, asyncio.CancelledError):
                await writer.wait_closed()
