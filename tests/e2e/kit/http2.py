"""A client of HTTP/2, with its frames in the test's hands: many streams on one connection, each like a `Wire`.

    async with dial(port) as client:
        stream = await client.ask("GET", "/path")
        head, body = await stream.answer()

What arrives is acknowledged at once, so that the gateway may send on, unless the stream is paused.
"""

import asyncio
import contextlib
import ssl
import struct
from collections.abc import AsyncIterator, Iterator
from typing import Any

import h2.config
import h2.connection
import h2.events
import h2.exceptions
from h2.errors import ErrorCodes
from h2.settings import SettingCodes

from tests.e2e.kit.wire import Head, soon

__all__ = ["HOST", "ErrorCodes", "H2Client", "H2Stream", "context", "dial"]

HOST = "gateway.test"
GOAWAY = 7
CONNECTION_WINDOW = 16 << 20
"""So that a stream which is paused takes nothing from the others."""
CONFIG = h2.config.H2Configuration(
    client_side=True, header_encoding="latin-1", validate_outbound_headers=False, normalize_outbound_headers=False
)


class Reset(ConnectionResetError):
    """The gateway has reset the stream."""

    def __init__(self, code: int) -> None:
        super().__init__(f"RST_STREAM {ErrorCodes(code).name}")
        self.code = ErrorCodes(code)


def context(authority: str | None = None, alpn: tuple[str, ...] = ("h2", "http/1.1")) -> ssl.SSLContext:
    """For a client that believes `authority`, a file; without one, anybody."""
    made = ssl.create_default_context(cafile=authority)
    if authority is None:
        made.check_hostname, made.verify_mode = False, ssl.CERT_NONE
    made.set_alpn_protocols(list(alpn))
    return made


class H2Stream:
    """One stream. It has the methods of a `Wire` that mean something here."""

    def __init__(self, client: "H2Client", number: int) -> None:
        self.client, self.number = client, number
        self.interim: list[Head] = []
        self.trailers: dict[str, str] | None = None
        self._head: asyncio.Future[Head] = asyncio.get_running_loop().create_future()
        self._reader = asyncio.StreamReader(limit=1 << 24)
        self._unsent = b""
        self._sent = asyncio.Event()
        self._sent.set()
        self._finishing = False
        self._closed = False
        self._paused = False
        self._unacknowledged = 0
        self._whole = False
        self.code: ErrorCodes | None = None
        """Of the gateway's reset."""

    # What the test says.

    async def send(self, data: bytes) -> None:
        self.push(data)
        await soon(self._sent.wait())
        await self.client.drain()

    def push(self, data: bytes) -> None:
        """Like `send`, but does not wait until the windows have let it go."""
        self._unsent += data
        self._sent.clear()
        self.flush()

    def finish(self) -> None:
        """END_STREAM, behind what was sent."""
        self._finishing = True
        self.flush()

    def end_with(self, **trailers: str) -> None:
        """END_STREAM on trailers."""
        fields = [(name.replace("_", "-"), value) for name, value in trailers.items()]
        self.client.connection.send_headers(self.number, fields, end_stream=True)
        self._closed = True
        self.client.flush()

    def reset(self, code: int = ErrorCodes.CANCEL) -> None:
        with contextlib.suppress(h2.exceptions.ProtocolError):
            self.client.connection.reset_stream(self.number, code)
        self.client.flush()
        self.end(ConnectionResetError("reset by the test"))

    async def close(self) -> None:
        """Done with it, in whatever state it is."""
        self.reset()
        if self.client.is_single:
            await self.client.close()

    def pause(self) -> None:
        """Take nothing, until `resume`: the stream's window fills up."""
        self._paused = True

    def resume(self) -> None:
        self._paused = False
        self.acknowledge(0)

    # What the gateway says.

    async def head(self) -> Head:
        return await soon(asyncio.shield(self._head))

    async def exactly(self, count: int) -> bytes:
        return await soon(self._reader.readexactly(count))

    async def until(self, end: bytes) -> bytes:
        return await soon(self._reader.readuntil(end))

    async def body(self) -> bytes:
        return await soon(self._reader.read())

    async def answer(self) -> tuple[Head, bytes]:
        head = await self.head()
        return head, await self.body()

    async def rest(self) -> bytes:
        """Everything up to the end of the stream, which a reset is as well."""
        with contextlib.suppress(ConnectionError):
            return await self.body()
        return b""

    async def ended(self) -> None:
        """Waits for the end; fails when bytes come before it."""
        rest = await self.rest()
        assert rest == b"", rest

    async def was_reset(self) -> ErrorCodes:
        """Waits for RST_STREAM and returns its code; what comes before it is thrown away."""
        try:
            await self.body()
        except Reset as reset:
            return reset.code
        raise AssertionError("the stream ended well")

    async def gone(self) -> None:
        with contextlib.suppress(ConnectionError):
            while await self._reader.read(4096):
                pass

    # For the connection.

    def flush(self) -> None:
        connection = self.client.connection
        while self._unsent and not self._closed:
            room = min(connection.local_flow_control_window(self.number), connection.max_outbound_frame_size)
            if room <= 0:
                break
            piece, self._unsent = self._unsent[:room], self._unsent[room:]
            connection.send_data(self.number, piece)
        if not self._unsent:
            self._sent.set()
            if self._finishing and not self._closed:
                self._closed = True
                connection.end_stream(self.number)
        self.client.flush()

    def answered(self, head: Head) -> None:
        if 100 <= head.status < 200:
            self.interim.append(head)
        elif not self._head.done():
            self._head.set_result(head)

    def received(self, data: bytes, counted: int) -> None:
        self._reader.feed_data(data)
        self.acknowledge(counted)

    def acknowledge(self, counted: int) -> None:
        self._unacknowledged += counted
        if self._unacknowledged and not self._paused:
            with contextlib.suppress(h2.exceptions.StreamClosedError):
                self.client.connection.acknowledge_received_data(self._unacknowledged, self.number)
            self._unacknowledged = 0
            self.client.flush()

    def end(self, error: ConnectionError | None = None) -> None:
        """The gateway sends nothing more. A reset behind END_STREAM says that it takes nothing more either."""
        if error is None:
            self._whole = True
            self._reader.feed_eof()
            return
        self._closed = True
        self._sent.set()
        if isinstance(error, Reset):
            self.code = error.code
        if self._reader.exception() is None and not self._whole:
            self._reader.set_exception(error)
        if not self._head.done():
            self._head.set_exception(error)
            self._head.exception()  # nobody need ask


class H2Client:
    """One connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, **settings: int) -> None:
        self.connection = h2.connection.H2Connection(CONFIG)
        self.streams: dict[int, H2Stream] = {}
        self.goaways: list[tuple[int, int]] = []
        """The last stream and the code of each GOAWAY that came."""
        self.is_single = False
        """Whether the end of a stream is the end of the connection."""
        self._reader, self._writer = reader, writer
        self._unread = b""
        self._settled = asyncio.Event()
        self._goaway = asyncio.Event()
        self._pongs: asyncio.Queue[bytes] = asyncio.Queue()
        self.connection.initiate_connection()
        if settings:
            self.connection.update_settings({SettingCodes[name.upper()]: value for name, value in settings.items()})
        self.connection.increment_flow_control_window(CONNECTION_WINDOW)
        self.flush()
        self._reading = asyncio.create_task(self._read())

    @property
    def tls(self) -> ssl.SSLObject:
        tls: ssl.SSLObject = self._writer.get_extra_info("ssl_object")
        return tls

    @property
    def takes_websockets(self) -> bool:
        """Whether the gateway has said that it knows extended CONNECT."""
        return bool(self.connection.remote_settings.enable_connect_protocol)

    async def settled(self) -> None:
        """The gateway's settings are here."""
        await soon(self._settled.wait())

    def open(self, fields: list[tuple[str, str]], *, ended: bool = False) -> H2Stream:
        """A stream with this head, exactly."""
        number = self.connection.get_next_available_stream_id()
        stream = self.streams[number] = H2Stream(self, number)
        self.connection.send_headers(number, fields, end_stream=ended)
        stream._closed = ended
        self.flush()
        return stream

    async def ask(self, method: str, path: str, *fields: tuple[str, str], body: bytes | None = None) -> H2Stream:
        """A request; without a body it ends with its head."""
        await self.settled()
        scheme = "https" if self._writer.get_extra_info("ssl_object") else "http"
        pseudo = [(":method", method), (":scheme", scheme), (":authority", HOST), (":path", path)]
        stream = self.open([*pseudo, *fields], ended=body is None)
        if body is not None:
            stream.push(body)
            stream.finish()
        return stream

    async def connect(self, path: str, *fields: tuple[str, str], protocol: str = "websocket") -> H2Stream:
        """An extended CONNECT (RFC 8441)."""
        await self.settled()
        pseudo = [(":method", "CONNECT"), (":protocol", protocol), (":scheme", "https")]
        version = (
            [] if any(name == "sec-websocket-version" for name, _ in fields) else [("sec-websocket-version", "13")]
        )
        return self.open([*pseudo, (":authority", HOST), (":path", path), *version, *fields])

    async def ping(self) -> None:
        """Waits until the gateway has seen all that was sent before."""
        self.connection.ping(b"kit-ping")
        self.flush()
        pong = asyncio.create_task(self._pongs.get())
        await soon(asyncio.wait({pong, self._reading}, return_when=asyncio.FIRST_COMPLETED))
        if not pong.done():
            pong.cancel()
            raise ConnectionResetError("the connection has ended")

    async def goaway(self) -> tuple[int, int]:
        """The first GOAWAY's last stream and code."""
        await soon(self._goaway.wait())
        return self.goaways[0]

    async def ended(self) -> None:
        """Waits for the end of the connection."""
        await soon(asyncio.shield(self._reading))

    def flush(self) -> None:
        if data := self.connection.data_to_send():
            self._writer.write(data)

    def write(self, data: bytes) -> None:
        """Raw bytes, past all that the client knows."""
        self._writer.write(data)

    async def drain(self) -> None:
        with contextlib.suppress(ConnectionError):
            await soon(self._writer.drain())

    def finish(self) -> None:
        self._writer.write_eof()

    async def close(self) -> None:
        self._reading.cancel()
        self._writer.close()
        with contextlib.suppress(ConnectionError, ssl.SSLError, TimeoutError):
            await soon(self._writer.wait_closed())

    async def _read(self) -> None:
        try:
            while data := await self._reader.read(1 << 16):
                self._unread += data
                for frame in self._frames():
                    self._take_frame(frame)
                self.flush()
        except (ConnectionError, ssl.SSLError):
            pass
        finally:
            for stream in self.streams.values():
                stream.end(ConnectionResetError("the connection has ended"))

    def _frames(self) -> Iterator[bytes]:
        while len(self._unread) >= 9 and len(self._unread) >= (size := 9 + int.from_bytes(self._unread[:3], "big")):
            frame, self._unread = self._unread[:size], self._unread[size:]
            yield frame

    def _take_frame(self, frame: bytes) -> None:
        """A GOAWAY is not for the library, for which it is the end: streams that are open go on behind it."""
        if frame[3] == GOAWAY:
            last, code = struct.unpack("!II", frame[9:17])
            self.goaways.append((last, code))
            self._goaway.set()
            return
        for event in self.connection.receive_data(frame):
            self._take(event)

    def _take(self, event: Any) -> None:
        stream = self.streams.get(getattr(event, "stream_id", 0) or 0)
        match event:
            case h2.events.RemoteSettingsChanged():
                self._settled.set()
                self._flush_streams()
            case h2.events.WindowUpdated():
                self._flush_streams()
            case h2.events.PingAckReceived():
                self._pongs.put_nowait(event.ping_data)
            case h2.events.InformationalResponseReceived() | h2.events.ResponseReceived() if stream:
                fields = tuple((str(name), str(value)) for name, value in event.headers or ())
                status = dict(fields)[":status"]
                stream.answered(Head(f"HTTP/2 {status}", fields))
            case h2.events.DataReceived() if stream:
                stream.received(event.data or b"", event.flow_controlled_length or 0)
            case h2.events.TrailersReceived() if stream:
                stream.trailers = {str(name): str(value) for name, value in event.headers or ()}
            case h2.events.StreamEnded() if stream:
                stream.end()
            case h2.events.StreamReset() if stream:
                stream.end(Reset(int(event.error_code or 0)))

    def _flush_streams(self) -> None:
        for stream in list(self.streams.values()):
            if stream._unsent:
                stream.flush()


@contextlib.asynccontextmanager
async def dial(port: int, settings: dict[str, int] | None = None, **options: Any) -> AsyncIterator[H2Client]:
    """A connection: in clear text by prior knowledge, or with `ssl=context()`."""
    reader, writer = await soon(asyncio.open_connection("127.0.0.1", port, limit=1 << 20, **options))
    client = H2Client(reader, writer, **(settings or {}))
    try:
        yield client
    finally:
        await client.close()
