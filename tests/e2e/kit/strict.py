"""What HTTP/1.1 bytes mean to a reader that follows RFC 9112 to the letter and repairs nothing.

It shares no code with the gateway: it tells what a client's bytes ask for, what an upstream was really asked, and what
an answer says, and the three are compared. Where the RFC lets a recipient choose, this reader finds a fault, so that
nothing counts as agreed that another reader could take otherwise.
"""

from typing import NamedTuple

__all__ = ["Answer", "Fault", "Incomplete", "Reading", "Request", "read_answer", "read_requests"]

Fields = tuple[tuple[bytes, bytes], ...]

TOKEN = frozenset(b"!#$%&'*+-.^_`|~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz")
DIGITS = frozenset(b"0123456789")
HEX = frozenset(b"0123456789ABCDEFabcdef")
VALUE = frozenset(range(256)) - frozenset(range(32)) - {0x7F} | {0x09}
GRAPHIC = frozenset(range(0x21, 0x7F))


class Fault(Exception):
    """No message of HTTP/1.1 begins like this."""


class Incomplete(Exception):
    """More bytes must come."""


class Request(NamedTuple):
    method: bytes
    target: bytes
    minor: int
    fields: Fields
    body: bytes
    framing: str
    """`none`, `length` or `chunked`."""
    trailers: Fields = ()

    def all(self, name: bytes) -> list[bytes]:
        return [value for each, value in self.fields if each.lower() == name]


class Answer(NamedTuple):
    minor: int
    status: int
    fields: Fields
    body: bytes
    framing: str
    """`none`, `length`, `chunked`, or `close`: whatever comes until the connection ends."""


class Reading(NamedTuple):
    requests: list[Request]
    fault: str
    """Why nothing more can be read; empty at the end of the bytes."""
    left: bytes
    """What was not read: the beginning of a request that is not complete, or whatever is at fault."""


def read_requests(data: bytes) -> Reading:
    """All requests that follow each other in `data`."""
    requests: list[Request] = []
    while data:
        try:
            # RFC 9112 §2.2: one empty line may stand before a request.
            request, rest = read_request(data.removeprefix(b"\r\n"))
        except Incomplete:
            return Reading(requests, "", data)
        except Fault as fault:
            return Reading(requests, str(fault), data)
        requests.append(request)
        data = rest
        if not goes_on(request):
            return Reading(requests, "closed", data)
    return Reading(requests, "", b"")


def goes_on(request: Request) -> bool:
    """Whether the connection stays open behind it (RFC 9112 §9.3)."""
    options = {each.strip(b" \t").lower() for value in request.all(b"connection") for each in value.split(b",")}
    return b"close" not in options and (request.minor == 1 or b"keep-alive" in options)


def read_request(data: bytes) -> tuple[Request, bytes]:
    line, rest = split_line(data)
    parts = line.split(b" ")
    if len(parts) != 3 or not is_made_of(parts[0], TOKEN) or not is_made_of(parts[1], GRAPHIC):
        raise Fault("request line")
    if parts[2] not in (b"HTTP/1.0", b"HTTP/1.1"):
        raise Fault("version")
    minor = int(parts[2][-1:])
    fields, rest = read_fields(rest)
    framing, length = read_framing(fields, minor)
    body, trailers, rest = read_body(framing, length, rest)
    return Request(parts[0], parts[1], minor, fields, body, framing, trailers), rest


def read_answer(data: bytes, method: bytes, ended: bool) -> tuple[Answer, bytes]:
    """The first answer in `data`, which may be an interim one, and what follows it."""
    line, rest = split_line(data)
    version, _, tail = line.partition(b" ")
    status, _, reason = tail.partition(b" ")
    if version not in (b"HTTP/1.0", b"HTTP/1.1") or len(status) != 3 or not is_made_of(status, DIGITS):
        raise Fault("status line")
    if status[0] == 0x30 or not set(reason) <= VALUE:
        raise Fault("status line")
    minor, code = int(version[-1:]), int(status)
    fields, rest = read_fields(rest)
    framing, length = read_framing(fields, minor)
    if code < 200 or code in (204, 304) or method == b"HEAD":
        return Answer(minor, code, fields, b"", "none"), rest
    if framing == "none":
        if not ended:
            raise Incomplete
        return Answer(minor, code, fields, rest, "close"), b""
    body, _, rest = read_body(framing, length, rest)
    return Answer(minor, code, fields, body, framing), rest


def split_line(data: bytes) -> tuple[bytes, bytes]:
    """A line that ends with CRLF and has neither of the two inside."""
    line, feed, rest = data.partition(b"\n")
    if not feed:
        if b"\r" in line[:-1]:
            raise Fault("bare CR")
        raise Incomplete
    if not line.endswith(b"\r"):
        raise Fault("bare LF")
    if b"\r" in line[:-1]:
        raise Fault("bare CR")
    return line[:-1], rest


def read_fields(data: bytes) -> tuple[Fields, bytes]:
    fields = []
    while True:
        line, data = split_line(data)
        if not line:
            return tuple(fields), data
        name, colon, value = line.partition(b":")
        if not colon or not is_made_of(name, TOKEN):
            raise Fault(f"field name {name!r}")
        if not set(value) <= VALUE:
            raise Fault(f"field value {value!r}")
        fields.append((name, value.strip(b" \t")))


def read_framing(fields: Fields, minor: int) -> tuple[str, int]:
    lengths = [value for name, value in fields if name.lower() == b"content-length"]
    codings = [value for name, value in fields if name.lower() == b"transfer-encoding"]
    if len(lengths) + len(codings) > 1:
        raise Fault("framed more than once")
    if codings:
        if codings[0].lower() != b"chunked" or minor == 0:
            raise Fault(f"transfer coding {codings[0]!r}")
        return "chunked", 0
    if lengths:
        if not is_made_of(lengths[0], DIGITS) or int(lengths[0]) >= 1 << 64:
            raise Fault(f"length {lengths[0]!r}")
        return "length", int(lengths[0])
    return "none", 0


def read_body(framing: str, length: int, data: bytes) -> tuple[bytes, Fields, bytes]:
    if framing == "chunked":
        return read_chunks(data)
    if len(data) < length:
        raise Incomplete
    return data[:length], (), data[length:]


def read_chunks(data: bytes) -> tuple[bytes, Fields, bytes]:
    body = b""
    while True:
        line, data = split_line(data)
        size, semicolon, extension = line.partition(b";")
        if not is_made_of(size, HEX) or len(size) > 16 or not set(semicolon + extension) <= VALUE:
            raise Fault(f"chunk size {line!r}")
        length = int(size, 16)
        if length == 0:
            trailers, data = read_fields(data)
            return body, trailers, data
        if len(data) < length + 2:
            if data[length : length + 2] not in (b"", b"\r"):
                raise Fault("end of a chunk")
            raise Incomplete
        if data[length : length + 2] != b"\r\n":
            raise Fault("end of a chunk")
        body, data = body + data[:length], data[length + 2 :]


def is_made_of(text: bytes, characters: frozenset[int]) -> bool:
    return bool(text) and set(text) <= characters
