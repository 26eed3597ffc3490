"""WebSocket frames as bytes on a socket, from either side (RFC 6455 §5). Nothing is refused and nothing is hidden."""

import os
import struct
from dataclasses import dataclass
from enum import IntEnum

from tests.e2e.kit.http2 import H2Stream
from tests.e2e.kit.http3 import H3Stream
from tests.e2e.kit.wire import Head, Wire

__all__ = [
    "RSV1",
    "RSV2",
    "RSV3",
    "Frame",
    "Op",
    "Peer",
    "binary",
    "close",
    "encode",
    "header",
    "masked",
    "more",
    "ping",
    "pong",
    "text",
]

RSV1, RSV2, RSV3 = 0x40, 0x20, 0x10


class Op(IntEnum):
    CONTINUATION = 0
    TEXT = 1
    BINARY = 2
    CLOSE = 8
    PING = 9
    PONG = 10


@dataclass(frozen=True, slots=True)
class Frame:
    op: int
    payload: bytes = b""
    fin: bool = True
    rsv: int = 0

    def encode(self, mask: bytes | None) -> bytes:
        head = header(self.op, len(self.payload), fin=self.fin, rsv=self.rsv, mask=mask)
        return head + (masked(self.payload, mask) if mask else self.payload)

    @property
    def code(self) -> int | None:
        """Of a Close."""
        assert self.op == Op.CLOSE, self
        return struct.unpack("!H", self.payload[:2])[0] if self.payload else None

    @property
    def reason(self) -> str:
        assert self.op == Op.CLOSE, self
        return self.payload[2:].decode()


def header(op: int, length: int, *, fin: bool = True, rsv: int = 0, mask: bytes | None = None) -> bytes:
    """A frame's header, in the shortest form."""
    bit = 0x80 if mask is not None else 0
    first = (0x80 if fin else 0) | rsv | op
    if length < 126:
        sizes = struct.pack("!BB", first, bit | length)
    elif length < 1 << 16:
        sizes = struct.pack("!BBH", first, bit | 126, length)
    else:
        sizes = struct.pack("!BBQ", first, bit | 127, length)
    return sizes + (mask or b"")


def masked(payload: bytes, key: bytes) -> bytes:
    length = len(payload)
    pattern = (key * (length // 4 + 1))[:length]
    return (int.from_bytes(payload, "big") ^ int.from_bytes(pattern, "big")).to_bytes(length, "big")


def text(payload: bytes | str = b"", *, fin: bool = True, rsv: int = 0) -> Frame:
    return Frame(Op.TEXT, payload.encode() if isinstance(payload, str) else payload, fin, rsv)


def binary(payload: bytes = b"", *, fin: bool = True, rsv: int = 0) -> Frame:
    return Frame(Op.BINARY, payload, fin, rsv)


def more(payload: bytes = b"", *, fin: bool = True, rsv: int = 0) -> Frame:
    """A continuation."""
    return Frame(Op.CONTINUATION, payload, fin, rsv)


def ping(payload: bytes = b"") -> Frame:
    return Frame(Op.PING, payload)


def pong(payload: bytes = b"") -> Frame:
    return Frame(Op.PONG, payload)


def close(code: int | None = None, reason: str | bytes = b"") -> Frame:
    reason = reason.encode() if isinstance(reason, str) else reason
    return Frame(Op.CLOSE, b"" if code is None else struct.pack("!H", code) + reason)


def encode(*frames: Frame, is_client: bool) -> bytes:
    """As that side must send them: a client with masks."""
    return b"".join(frame.encode(os.urandom(4) if is_client else None) for frame in frames)


class Peer:
    """An end of a WebSocket: `wire` for bytes, `head` is what the other end said in the handshake."""

    def __init__(self, wire: Wire | H2Stream | H3Stream, head: Head, *, is_client: bool) -> None:
        self.wire, self.head = wire, head
        self._is_client = is_client

    def encode(self, *frames: Frame) -> bytes:
        """As this side must send them."""
        return encode(*frames, is_client=self._is_client)

    async def send(self, *frames: Frame) -> None:
        """All of them in one write."""
        await self.wire.send(self.encode(*frames))

    async def frame(self) -> Frame:
        """The next frame, whatever it is. One that is masked the wrong way round fails here."""
        first, second = await self.wire.exactly(2)
        length = second & 0x7F
        if length == 126:
            (length,) = struct.unpack("!H", await self.wire.exactly(2))
        elif length == 127:
            (length,) = struct.unpack("!Q", await self.wire.exactly(8))
        is_masked = bool(second & 0x80)
        assert is_masked != self._is_client, f"a frame that is {'masked' if is_masked else 'not masked'}"
        key = await self.wire.exactly(4) if is_masked else None
        payload = await self.wire.exactly(length)
        return Frame(first & 0x0F, masked(payload, key) if key else payload, bool(first & 0x80), first & 0x70)

    async def expect(self, *frames: Frame) -> None:
        """These, and exactly as they are, come next."""
        for frame in frames:
            got = await self.frame()
            assert got == frame, f"op {got.op}, fin {got.fin}, rsv {got.rsv}, {len(got.payload)}: {got.payload[:125]!r}"

    async def closed(self) -> Frame:
        """A Close comes next, and after it nothing but the end."""
        frame = await self.frame()
        assert frame.op == Op.CLOSE, frame
        await self.wire.ended()
        return frame
