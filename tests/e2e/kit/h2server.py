"""A server of HTTP/2 whose part the test plays, stream by stream: what it says of itself, takes, answers and resets.

async with H2Server() as server, running(site(...)) as gateway:
    asked = await server.asked()
    asked.answer(200)
    asked.send(b"content", end=True)
"""

import asyncio
import contextlib
import ssl
from collections.abc import Sequence
from enum import IntEnum
from typing import Any, Self

import h2.config
import h2.connection
import h2.events
import h2.exceptions
import h2.settings
from h2.errors import ErrorCodes

from tests.e2e.kit.frames import Peer
from tests.e2e.kit.wire import Head, soon

__all__ = ["Asked", "ErrorCodes", "H2Server"]

CONFIG = h2.config.H2Configuration(client_side=False, header_encoding="latin-1")
CONNECT = h2.settings.SettingCodes.ENABLE_CONNECT_PROTOCOL
STREAMS = h2.settings.SettingCodes.MAX_CONCURRENT_STREAMS

Field = tuple[str, str]


class Asked:
    """A stream that the gateway has opened. It has the methods of a `Wire` that frames need."""

    def __init__(self, connection: "Connection", number: int, fields: Sequence[Field]) -> None:
        self.connection, self.number = connection, number
        self.fields = tuple(fields)
        self.head = Head(f"{self[':method']} {self.get(':path')} HTTP/2", self.fields)
        self.trailers: dict[str, str] | None = None
        self._reader = asyncio.StreamReader(limit=1 << 24)
        self._unsent = bytearray()
        self._ends: tuple[Field, ...] | None = None
        self._ended = False
        self._sent = asyncio.Event()
        self.paused = False
        self.reset_by_gateway: asyncio.Future[ErrorCodes] = asyncio.get_running_loop().create_future()

    def __getitem__(self, name: str) -> str:
        return dict(self.fields)[name]

    def get(self, name: str) -> str | None:
        return dict(self.fields).get(name)

    def answer(self, status: int, *fields: Field, end: bool = False) -> None:
        """The head of an answer, interim ones too."""
        self.connection.h2.send_headers(self.number, [(":status", str(status)), *fields], end_stream=end)
        self._ended |= end
        self.connection.flush()

    def push(self, data: bytes, *, end: bool = False, trailers: Sequence[Field] = ()) -> None:
        """Content, as the windows let it go."""
        self._unsent += data
        self._sent.clear()
        if end or trailers:
            self._ends = tuple(trailers)
        self.flush()

    async def send(self, data: bytes) -> None:
        """Content; waits until the windows have let it go."""
        self.push(data)
        await soon(self._sent.wait())

    def reset(self, code: IntEnum = ErrorCodes.CANCEL) -> None:
        self.connection.h2.reset_stream(self.number, int(code))
        self._ended = True
        self.connection.flush()

    def flush(self) -> None:
        connection = self.connection.h2
        while self._unsent and not self._ended:
            room = min(connection.local_flow_control_window(self.number), connection.max_outbound_frame_size)
            if room <= 0:
                break
            connection.send_data(self.number, bytes(self._unsent[:room]))
            del self._unsent[:room]
        if not self._unsent:
            self._sent.set()
            if self._ends is not None and not self._ended:
                self._ended = True
                if self._ends:
                    connection.send_headers(self.number, self._ends, end_stream=True)
                else:
                    connection.end_stream(self.number)
        self.connection.flush()

    async def body(self) -> bytes:
        """What is left of the request's body."""
        return await soon(self._reader.read())

    async def exactly(self, count: int) -> bytes:
        return await soon(self._reader.readexactly(count))

    async def ended(self) -> None:
        """END_STREAM comes next."""
        assert await self.body() == b""

    async def was_reset(self) -> ErrorCodes:
        return await soon(asyncio.shield(self.reset_by_gateway))

    def accept(self, *fields: Field) -> Peer:
        """Take a WebSocket (RFC 8441): a server's end of it."""
        self.answer(200, *fields)
        return Peer(self, self.head, is_client=False)  # type: ignore[arg-type]

    # For the connection.

    def received(self, event: h2.events.DataReceived) -> None:
        self._reader.feed_data(event.data or b"")
        if not self.paused and event.flow_controlled_length:
            self.connection.h2.acknowledge_received_data(event.flow_controlled_length, self.number)

    def over(self, code: int | None = None) -> None:
        """The gateway sends nothing more."""
        if code is not None and not self.reset_by_gateway.done():
            self.reset_by_gateway.set_result(ErrorCodes(code))
            self._ended = True
            self._sent.set()
            # What came before it is still to be read.
            if self._reader._buffer:  # type: ignore[attr-defined]
                self._reader.feed_eof()
            else:
                self._reader.set_exception(ConnectionResetError(ErrorCodes(code).name))
        elif not self._reader.at_eof():
            self._reader.feed_eof()


class Connection:
    """One connection of the gateway's."""

    def __init__(self, server: "H2Server", writer: asyncio.StreamWriter) -> None:
        self.server, self.writer = server, writer
        self.streams: dict[int, Asked] = {}
        self.goaway: int | None = None
        """The code of the gateway's."""
        self.h2 = h2.connection.H2Connection(CONFIG)
        self.h2.local_settings = h2.settings.Settings(client=False, initial_values=server.settings)
        self.h2.initiate_connection()
        self.h2.increment_flow_control_window(1 << 24)
        self.flush()

    @property
    def live(self) -> int:
        return int(self.h2.open_inbound_streams)

    def flush(self) -> None:
        if data := self.h2.data_to_send():
            self.writer.write(data)

    def close(self, code: ErrorCodes = ErrorCodes.NO_ERROR, last: int | None = None) -> None:
        """GOAWAY; streams above `last` were not begun."""
        frame = bytes.fromhex("000008070000000000") + (last or 0).to_bytes(4, "big") + int(code).to_bytes(4, "big")
        self.writer.write(frame)

    def go_away(self, stream: int) -> None:
        """GOAWAY: from this stream on nothing is served."""
        self.close(last=stream - 1)

    def close_now(self) -> None:
        """Without a word."""
        self.writer.transport.abort()

    def take(self, data: bytes) -> None:
        for event in self.h2.receive_data(data):
            self._take(event)
        self.flush()

    def _take(self, event: Any) -> None:
        number = getattr(event, "stream_id", None) or 0
        stream = self.streams.get(number)
        match event:
            case h2.events.RequestReceived():
                fields = [(str(name), str(value)) for name, value in event.headers or ()]
                self.streams[number] = asked = Asked(self, number, fields)
                self.server.requests.put_nowait(asked)
            case h2.events.DataReceived() if stream:
                stream.received(event)
            case h2.events.TrailersReceived() if stream:
                stream.trailers = {str(name): str(value) for name, value in event.headers or ()}
            case h2.events.StreamEnded() if stream:
                stream.over()
            case h2.events.StreamReset() if stream:
                stream.over(int(event.error_code or 0))
            case h2.events.WindowUpdated() | h2.events.RemoteSettingsChanged():
                for each in [stream] if stream else list(self.streams.values()):
                    each.flush()
            case h2.events.ConnectionTerminated():
                self.goaway = int(event.error_code or 0)


class H2Server:
    """On a free port; over TLS with `context`. `websockets`: whether it says that it takes them (RFC 8441 §3)."""

    def __init__(
        self,
        context: ssl.SSLContext | None = None,
        *,
        websockets: bool = True,
        streams: int | None = None,
        port: int = 0,
        proxied: bool = False,
    ) -> None:
        self.settings = {h2.settings.SettingCodes(CONNECT): int(websockets)}
        if streams is not None:
            self.settings[STREAMS] = streams
        self.connections: list[Connection] = []
        """All that there ever were."""
        self.plain: list[bytes] = []
        """What came instead of HTTP/2, by connection."""
        self.requests: asyncio.Queue[Asked] = asyncio.Queue()
        self.context = context
        self.named: list[bytes] = []
        """The PROXY headers that connections began with, where it is `proxied`."""
        self._proxied = proxied
        self._port = port
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def port(self) -> int:
        return int(self._server.sockets[0].getsockname()[1])

    @property
    def url(self) -> str:
        return f"{'https' if self.context else 'http'}://127.0.0.1:{self.port}"

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self._port, ssl=self.context)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def asked(self) -> Asked:
        """The next stream, on whatever connection."""
        return await soon(self.requests.get())

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task
        self._tasks.add(task)
        try:
            await self._talk(reader, writer)
        except (ConnectionError, ssl.SSLError, asyncio.CancelledError):
            pass  # the other end is gone, or the test is over
        finally:
            self._tasks.discard(task)
            writer.close()

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._proxied:
            self.named.append(await reader.readuntil(b"\r\n"))
        tls: ssl.SSLObject | None = writer.get_extra_info("ssl_object")
        if tls and tls.selected_alpn_protocol() != "h2":
            return await self.talk_plain(reader, writer)
        connection = Connection(self, writer)
        self.connections.append(connection)
        try:
            while data := await reader.read(1 << 16):
                with contextlib.suppress(h2.exceptions.StreamClosedError):
                    connection.take(data)
        finally:
            for stream in connection.streams.values():
                if not stream.reset_by_gateway.done():
                    stream.over()

    async def talk_plain(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """HTTP/1.1 has been chosen: switch to an echo of bytes."""
        from tests.e2e.kit.bridge import switch

        request = await reader.readuntil(b"\r\n\r\n")
        self.plain.append(request)
        writer.write(switch(Head.parse(request)))
        while data := await reader.read(1 << 16):
            writer.write(data)
