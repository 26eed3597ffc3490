"""Many connections that are in no hurry: what slow-HTTP attacks are made of. Plain sockets, since there are thousands.

    half_open      a part of a head, and then nothing
    slow_headers   one more field with each tick (Slowloris)
    slow_body      a body byte with each tick (R-U-Dead-Yet)
    slow_read      a large answer, of which a few bytes are read with each tick
    ranges         requests with hundreds of overlapping ranges, one after another (Apache killer)

As a program, `python -m tests.attacks.crowd KIND PORT COUNT RATE`, it opens RATE of them a second and ticks each second
until its standard input ends, and then prints what became of the connections.
"""

import contextlib
import json
import select
import socket
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass

__all__ = ["KINDS", "Crowd", "Kind"]

BIG = "/app/big?size=1048576"
RANGES = ",".join(f"5-{end}" for end in range(200, 1500, 2))


@dataclass(frozen=True, slots=True)
class Kind:
    first: bytes
    more: bytes = b""
    """Sent with each tick."""
    reads: int = 0
    """Bytes to read with each tick; all there are when negative."""
    window: int | None = None
    """Of the receive buffer."""


STEP = 0.02
"""Seconds between two looks at what is to be done."""

HEAD = b"Host: gateway.test\r\n"
REQUEST = f"GET {BIG} HTTP/1.1\r\n".encode() + HEAD
RANGED = f"GET /app/small?size=2000 HTTP/1.1\r\nRange: bytes=0-,{RANGES}\r\n".encode() + HEAD + b"\r\n"

KINDS = {
    "half_open": Kind(b"GET /app/x HTTP/1.1\r\n" + HEAD),
    "slow_headers": Kind(b"GET /app/x HTTP/1.1\r\n" + HEAD, more=b"X-More: more\r\n", reads=-1),
    "slow_body": Kind(b"POST /app/x HTTP/1.1\r\nContent-Length: 100000\r\n" + HEAD + b"\r\n", more=b"x"),
    "slow_read": Kind(REQUEST + b"\r\n", reads=5, window=2048),
    "ranges": Kind(RANGED, more=RANGED, reads=-1),
}


class Crowd:
    """The connections of one attack."""

    def __init__(self, kind: Kind, port: int) -> None:
        self.kind, self.port = kind, port
        self.sockets: list[socket.socket] = []
        self.opened = self.refused = self.ended = 0
        """Connections that were made, that were not, and that the other end has ended."""
        self.answers: dict[str, int] = {}
        """Status lines that came as the first bytes of a connection's answer."""
        self._answered: set[int] = set()

    def open(self, count: int, seconds: float = 10) -> None:
        """So many, unless that takes too long: a full accept queue lets each wait."""
        end = time.monotonic() + seconds
        for _ in range(count):
            if time.monotonic() > end:
                return
            try:
                self.sockets.append(self._dial())
                self.opened += 1
            except OSError:
                self.refused += 1

    def _dial(self) -> socket.socket:
        fresh = socket.socket()
        try:
            fresh.settimeout(1)
            if self.kind.window:
                fresh.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, self.kind.window)
            fresh.connect(("127.0.0.1", self.port))
            fresh.sendall(self.kind.first)
            fresh.setblocking(False)
        except OSError:
            fresh.close()
            raise
        return fresh

    def tick(self) -> None:
        """One more step of each connection. Those that the other end has ended are closed."""
        for each in self.sockets:
            if self.kind.more:
                with contextlib.suppress(OSError):
                    each.send(self.kind.more)
            if self.kind.reads:
                self._read(each, self.kind.reads)
        self.reap()

    def reap(self) -> None:
        """Close the connections that the other end has ended."""
        poll = select.poll()
        by_file = {each.fileno(): each for each in self.sockets}
        for file in by_file:
            poll.register(file, select.POLLRDHUP | select.POLLHUP)
        for file, _ in poll.poll(0):
            gone = by_file.pop(file)
            self._read(gone, -1)
            self._answered.discard(file)
            gone.close()
            self.ended += 1
        self.sockets = list(by_file.values())

    def close(self) -> None:
        for each in self.sockets:
            each.close()
        self.sockets.clear()

    def _read(self, each: socket.socket, most: int) -> None:
        for chunk in _chunks(each, most):
            if each.fileno() not in self._answered and chunk.startswith(b"HTTP/1.1 "):
                self._answered.add(each.fileno())
                status = chunk[9:12].decode()
                self.answers[status] = self.answers.get(status, 0) + 1


def _chunks(each: socket.socket, most: int) -> Iterator[bytes]:
    with contextlib.suppress(OSError):
        while chunk := each.recv(65_536 if most < 0 else most):
            yield chunk
            if most > 0:
                return


def main() -> None:
    kind, port, count, rate = sys.argv[1:]
    crowd, began, ticks = Crowd(KINDS[kind], int(port)), time.monotonic(), 0
    while not select.select([sys.stdin], [], [], STEP)[0]:
        passed = time.monotonic() - began
        wanted = min(int(count), int(passed * float(rate)))
        crowd.open(wanted - crowd.opened - crowd.refused, STEP)
        if passed > ticks + 1:
            ticks += 1
            crowd.tick()
    crowd.reap()
    report = {"opened": crowd.opened, "ended": crowd.ended, "open": len(crowd.sockets), "answers": crowd.answers}
    print(json.dumps(report), flush=True)


if __name__ == "__main__":
    main()
