"""Backpressure: a stalled reader costs the gateway at most the bound, however much its sender has to say.

What the kernel takes on the way (four socket buffers) is not the gateway's memory; what the gateway itself holds is
seen in the pages that its process alone has written. 64 MiB are offered; with TIDEGATE_LONG=1, 1 GiB.
"""

import contextlib
import os
import select
import socket
import ssl
import threading
import time
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme

from tests.e2e.kit.bridge import Pier, attempt, build_pier, switch
from tests.e2e.kit.frames import Op, binary, close, encode, header, text
from tests.e2e.kit.wire import Head

MIB = 1 << 20
OFFERED = (1024 if os.environ.get("TIDEGATE_LONG") == "1" else 64) * MIB
BOUND = 64 << 10
"""Bytes that a direction of one connection may hold."""
SLACK = 4 * MIB
"""What a process that lives may write to meanwhile: its allocator takes memory in steps of 2 MiB."""
LIMIT = 60.0

ROUTES = {"plain": {"websocket": {"ping": "never"}}, "opaque": {"websocket": {"frames": "opaque"}}}

BLOCK = b"".join(binary(bytes([number]) * (16 << 10)).encode(None) for number in range(64))
MASKED_BLOCK = b"".join(binary(bytes([number]) * (16 << 10)).encode(b"mask") for number in range(64))
COUNT = OFFERED // MIB
"""Blocks that are offered."""


@pytest.fixture(scope="module")
def pier(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pier]:
    """With a second listener that speaks TLS."""
    folder = tmp_path_factory.mktemp("backpressure")
    authority = trustme.CA()
    certificate = authority.issue_cert("gateway.test")
    authority.cert_pem.write_to_path(folder / "ca.pem")
    certificate.private_key_and_cert_chain_pem.write_to_path(folder / "site.pem")
    site = str(folder / "site.pem")
    listeners = {
        "edge": {"bind": "127.0.0.1:0"},
        "secure": {"bind": "127.0.0.1:0", "tls": {"certificates": [{"cert": site, "key": site}]}},
    }
    with build_pier(ROUTES, listeners=listeners) as built:
        built.listener.settimeout(LIMIT)
        for _ in range(2):  # so that what is only touched once is not counted later
            with pair(built, "plain") as (client, server):
                transfer(server, BLOCK * 8, client)
                transfer(client, MASKED_BLOCK * 8, server)
        yield built
        del folder


@contextlib.contextmanager
def pair(pier: Pier, route: str, *, secure: Path | None = None) -> Iterator[tuple[socket.socket, socket.socket]]:
    """Both ends of a WebSocket, blocking, with small buffers of their own."""
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BOUND)
    client.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, BOUND)
    client.settimeout(LIMIT)
    client.connect(("127.0.0.1", pier.gateway.port("secure" if secure else "edge")))
    if secure:
        context = ssl.create_default_context(cafile=secure)
        client = context.wrap_socket(client, server_hostname="gateway.test")
    with client:
        client.sendall(attempt(f"/{route}/stalled"))
        server, _ = pier.listener.accept()
        with server:
            server.settimeout(LIMIT)
            server.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BOUND)
            server.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, BOUND)
            server.sendall(switch(Head.parse(until_empty_line(server))))
            assert until_empty_line(client).startswith(b"HTTP/1.1 101 ")
            yield client, server


def until_empty_line(stream: socket.socket) -> bytes:
    read = b""
    while not read.endswith(b"\r\n\r\n"):
        read += stream.recv(1)
    return read


def take(stream: socket.socket, size: int) -> int:
    """Reads `size` bytes; returns their checksum."""
    checksum, left = 0, size
    while left:
        chunk = stream.recv(min(left, MIB))
        assert chunk, f"the stream ended {left} bytes too early"
        checksum = zlib.crc32(chunk, checksum)
        left -= len(chunk)
    return checksum


def transfer(sender: socket.socket, sent: bytes, receiver: socket.socket) -> None:
    """Through the gateway, and all of it."""
    thread = threading.Thread(target=sender.sendall, args=(sent,))
    thread.start()
    assert take(receiver, len(sent)) == zlib.crc32(sent)
    thread.join()


class Offer:
    """A sender with very much to say, and how far it has come."""

    def __init__(self, stream: socket.socket, block: bytes, count: int = COUNT) -> None:
        self.size = len(block) * count
        self.sent = 0
        self._stream, self._block = stream, block

    def until_stalled(self, pause: int = 500) -> None:
        """Sends until nothing more is taken for `pause` milliseconds, or all is sent."""
        self._stream.setblocking(False)
        poll = select.poll()
        poll.register(self._stream, select.POLLOUT)
        while self.sent < self.size and poll.poll(pause):
            with contextlib.suppress(BlockingIOError):
                self._send()
        self._stream.settimeout(LIMIT)

    def rest(self) -> None:
        while self.sent < self.size:
            self._send()

    def checksum(self) -> int:
        value = 0
        for _ in range(self.size // len(self._block)):
            value = zlib.crc32(self._block, value)
        return value

    def _send(self) -> None:
        start = self.sent % len(self._block)
        left = self.size - self.sent
        self.sent += self._stream.send(memoryview(self._block)[start : start + left])


def written_pages(pier: Pier) -> int:
    """Bytes of memory that the gateway's process has written to, and shares with nobody."""
    lines = Path(f"/proc/{pier.gateway.pid}/smaps_rollup").read_text().splitlines()
    sizes = dict(line.split(":") for line in lines[1:])
    return sum(int(sizes[name].split()[0]) << 10 for name in ("Private_Dirty", "Swap"))


def ends(pair: tuple[socket.socket, socket.socket], direction: str) -> tuple[Offer, socket.socket]:
    client, server = pair
    return (Offer(server, BLOCK), client) if direction == "to client" else (Offer(client, MASKED_BLOCK), server)


DIRECTIONS = pytest.mark.parametrize("direction", ["to client", "to upstream"])


@DIRECTIONS
@pytest.mark.parametrize("route", ["plain", "opaque"])
def test_a_stalled_reader_costs_at_most_the_bound_and_loses_nothing(pier: Pier, route: str, direction: str) -> None:
    with pair(pier, route) as both, pair(pier, "plain") as (client, server):
        offer, reader = ends(both, direction)
        before = written_pages(pier)
        offer.until_stalled()
        assert offer.sent < offer.size, "nothing held the sender back"
        assert written_pages(pier) - before < BOUND + SLACK
        # Nobody else notices.
        transfer(server, BLOCK, client)
        transfer(client, MASKED_BLOCK, server)
        thread = threading.Thread(target=offer.rest)
        thread.start()
        assert take(reader, offer.size) == offer.checksum()
        thread.join()
        assert written_pages(pier) - before < BOUND + SLACK


def test_a_stalled_reader_behind_tls(pier: Pier, tmp_path_factory: pytest.TempPathFactory) -> None:
    authority = tmp_path_factory.getbasetemp() / "backpressure0" / "ca.pem"
    with pair(pier, "plain", secure=authority) as both:
        offer, reader = ends(both, "to client")
        before = written_pages(pier)
        offer.until_stalled()
        assert offer.sent < offer.size
        assert written_pages(pier) - before < 2 * BOUND + SLACK  # as cleartext, and as records
        thread = threading.Thread(target=offer.rest)
        thread.start()
        assert take(reader, offer.size) == offer.checksum()
        thread.join()


def test_many_stalled_readers_cost_the_bound_each(pier: Pier) -> None:
    """Both ways at once, and on 50 connections: slack does not hide what each of them costs."""
    count = 50
    with contextlib.ExitStack() as stack:
        pairs = [stack.enter_context(pair(pier, "plain")) for _ in range(count)]
        before = written_pages(pier)
        offers = [ends(both, direction)[0] for both in pairs for direction in ("to client", "to upstream")]
        for pause in (0, 0, 5):  # those that were held up last time have room for a little more
            for offer in offers:
                offer.until_stalled(pause)
        assert all(offer.sent < offer.size for offer in offers)
        assert min(offer.sent for offer in offers) > BOUND
        assert written_pages(pier) - before < count * (2 * BOUND + 8192) + SLACK


@DIRECTIONS
def test_what_a_reader_is_late_for_comes_in_order_with_its_close(pier: Pier, direction: str) -> None:
    """The sender has closed and gone long before the reader takes the first byte."""
    goodbye = encode(text("last"), close(4000, "done"), is_client=direction == "to upstream")
    with pair(pier, "plain") as both:
        offer, reader = ends(both, direction)
        sender = both[1] if direction == "to client" else both[0]
        # More than the sockets on the way may take by themselves.
        offer = Offer(sender, BLOCK if direction == "to client" else MASKED_BLOCK, 64)
        offer.until_stalled(200)
        assert offer.sent < offer.size

        def finish() -> None:
            offer.rest()
            sender.sendall(goodbye)
            sender.shutdown(socket.SHUT_WR)

        thread = threading.Thread(target=finish)
        thread.start()
        assert take(reader, offer.size) == offer.checksum()
        assert take(reader, len(goodbye)) == zlib.crc32(goodbye)
        thread.join()


@DIRECTIONS
def test_a_stalled_reader_that_leaves_ends_its_sender(pier: Pier, direction: str) -> None:
    """The server without a word, the client with a Close; what either still says is nobody's any more."""
    with pair(pier, "plain") as both:
        offer, reader = ends(both, direction)
        sender = both[1] if direction == "to client" else both[0]
        offer.until_stalled(200)
        assert offer.sent < offer.size
        reader.close()
        said = b""
        with contextlib.suppress(ConnectionError):
            while chunk := sender.recv(BOUND):
                said += chunk
        if direction == "to client":
            assert said == b""
        else:
            assert (said[0], said[2:7]) == (0x80 | Op.CLOSE, (1011).to_bytes(2, "big") + b"gw:")


def test_what_comes_before_the_101_is_held_back_as_well(pier: Pier) -> None:
    """The server takes its time over the handshake, and the client does not wait for it."""
    with socket.create_connection(("127.0.0.1", pier.gateway.port("edge")), LIMIT) as client:
        client.sendall(attempt("/plain/early"))
        server, _ = pier.listener.accept()
        with server:
            server.settimeout(LIMIT)
            request = Head.parse(until_empty_line(server))
            before = written_pages(pier)
            offer = Offer(client, MASKED_BLOCK)
            offer.until_stalled()
            assert offer.sent < offer.size
            assert written_pages(pier) - before < 2 * BOUND + SLACK
            server.sendall(switch(request))
            thread = threading.Thread(target=offer.rest)
            thread.start()
            assert take(server, offer.size) == offer.checksum()
            thread.join()


def test_the_other_direction_of_a_stalled_reader_goes_on(pier: Pier) -> None:
    """A client that takes nothing may have much to say."""
    with pair(pier, "plain") as (client, server):
        offer = Offer(server, BLOCK)
        offer.until_stalled(200)
        assert offer.sent < offer.size
        transfer(client, MASKED_BLOCK * 4, server)


def test_one_endless_frame_is_held_back_like_many_small_ones(pier: Pier) -> None:
    with pair(pier, "plain") as (client, server):
        before = written_pages(pier)
        server.sendall(header(Op.BINARY, 1 << 50))
        offer = Offer(server, b"x" * MIB)
        offer.until_stalled()
        assert offer.sent < offer.size
        assert written_pages(pier) - before < BOUND + SLACK
        assert until_length(client, 10) == header(Op.BINARY, 1 << 50)


def until_length(stream: socket.socket, size: int) -> bytes:
    read = b""
    while len(read) < size:
        read += stream.recv(size - len(read))
    return read


def test_a_slow_reader_gets_everything_at_its_own_pace(pier: Pier) -> None:
    """It takes a little, and pauses, for ever and ever: never more than the bound is held for it."""
    with pair(pier, "plain") as (client, server):
        offer = Offer(server, BLOCK, 24)
        thread = threading.Thread(target=offer.rest)
        before = written_pages(pier)
        thread.start()
        checksum, left, most = 0, offer.size, 0
        while left:
            chunk = client.recv(min(left, 100_000))
            checksum, left = zlib.crc32(chunk, checksum), left - len(chunk)
            most = max(most, written_pages(pier) - before)
            time.sleep(0.001)
        thread.join()
        assert checksum == offer.checksum()
        assert most < BOUND + SLACK
