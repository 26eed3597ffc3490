"""Where a gateway finds endpoints: a name server, and an HTTP server with a list."""

import asyncio
import hashlib
from collections import Counter
from typing import Any, Self

import dns.flags
import dns.message
import dns.rcode
import dns.rrset
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from tidegate.testing import Upstream

__all__ = ["ListServer", "NameServer"]


class NameServer(asyncio.DatagramProtocol):
    """Answers over UDP from `zone`: (name, type) to texts of records. What is not there does not exist.

    Answers are good for `ttl` seconds. With `fails` it answers SERVFAIL to everything; it counts what was `asked`.
    """

    def __init__(self, zone: dict[tuple[str, str], list[str]]) -> None:
        self.zone = zone
        self.ttl = 1
        self.fails = False
        self.asked: Counter[str] = Counter()

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        self._transport, _ = await loop.create_datagram_endpoint(lambda: self, ("127.0.0.1", 0))
        return self

    async def __aexit__(self, *_: object) -> None:
        self._transport.close()

    @property
    def address(self) -> str:
        host, port = self._transport.get_extra_info("sockname")
        return f"{host}:{port}"

    def datagram_received(self, data: bytes, address: Any) -> None:
        query = dns.message.from_wire(data)
        question = query.question[0]
        name = question.name.to_text(omit_final_dot=True)
        self.asked[name] += 1
        answer = dns.message.make_response(query)
        records = self.zone.get((name, question.rdtype.name))
        if self.fails:
            answer.set_rcode(dns.rcode.SERVFAIL)
        elif records:
            answer.answer.append(dns.rrset.from_text(question.name, self.ttl, "IN", question.rdtype, *records))
        elif not any(known == name for known, _ in self.zone):
            answer.set_rcode(dns.rcode.NXDOMAIN)
        self._transport.sendto(answer.to_wire(), address)


class ListServer(Upstream):
    """Serves `body` at every path, with an ETag that is made of it; with another `status` than 200 that alone.

    It notes the statuses that it `gave`, and the header fields of each request.
    """

    def __init__(self, body: str) -> None:
        self.body = body
        self.status = 200
        self.gave: list[int] = []
        self.fields: list[dict[str, str]] = []
        super().__init__(Starlette(routes=[Route("/{path:path}", self._answer)]))

    async def _answer(self, request: Request) -> Response:
        self.fields.append(dict(request.headers))
        tag = f'"{hashlib.sha256(self.body.encode()).hexdigest()[:8]}"'
        is_known = request.headers.get("if-none-match") == tag
        status = self.status if self.status != 200 else 304 if is_known else 200
        self.gave.append(status)
        return Response(self.body if status == 200 else b"", status, {"etag": tag})
