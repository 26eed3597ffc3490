"""The servers behind the demo: an echo, a chat room, plain HTTP, server-sent events, and the page that shows them.

An ordinary ASGI application on a private unix socket. It knows nothing of the gateway in front of it.
"""

import asyncio
import itertools
import json
import secrets
import time
from collections.abc import AsyncIterator
from importlib.resources import files

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response, StreamingResponse
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

__all__ = ["demo_app"]

POLICY = (
    "default-src 'none'; script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}'; connect-src 'self'; img-src data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
LONGEST_TEXT = 500
LONGEST_NAME = 24
SEND_TIMEOUT = 5.0


def demo_app() -> Starlette:
    room = Room()
    return Starlette(
        routes=[
            Route("/", page),
            Route("/hello", hello),
            Route("/events", ticks),
            WebSocketRoute("/echo", echo),
            WebSocketRoute("/chat", room.join),
        ]
    )


async def page(_: Request) -> Response:
    nonce = secrets.token_urlsafe(16)
    text = files("tidegate.demo").joinpath("page.html").read_text(encoding="utf-8")
    headers = {"content-security-policy": POLICY.format(nonce=nonce), "cache-control": "no-store"}
    return HTMLResponse(text.replace("NONCE", nonce), headers=headers)


async def hello(request: Request) -> Response:
    shown = {name: value for name, value in request.headers.items() if name != "cookie"}
    return JSONResponse({"hello": "from behind the gateway", "path": request.url.path, "headers": shown})


async def ticks(_: Request) -> Response:
    return StreamingResponse(_ticks(), media_type="text/event-stream", headers={"cache-control": "no-store"})


async def _ticks() -> AsyncIterator[str]:
    for number in itertools.count(1):
        yield f"id: {number}\ndata: {json.dumps({'number': number, 'time': time.time()})}\n\n"
        await asyncio.sleep(1)


async def echo(socket: WebSocket) -> None:
    """Sends each message back as it came. `close 4000 why` closes with that code instead."""
    await socket.accept()
    while (message := await socket.receive())["type"] == "websocket.receive":
        text = message.get("text")
        if text is not None and (asked := _asked_close(text)):
            await socket.close(*asked)
            return
        await socket.send({"type": "websocket.send", **{key: message.get(key) for key in ("text", "bytes")}})


def _asked_close(text: str) -> tuple[int, str] | None:
    verb, _, rest = text.partition(" ")
    code, _, reason = rest.partition(" ")
    if verb == "close" and code.isascii() and code.isdigit() and (code == "1000" or 3000 <= int(code[:5]) <= 4999):
        return int(code), reason.encode()[:123].decode(errors="ignore")
    return None


class Room:
    """A chat room: everybody hears who comes, what is said, and who goes."""

    def __init__(self) -> None:
        self._members: dict[WebSocket, str] = {}
        self._guests = itertools.count(1)

    async def join(self, socket: WebSocket) -> None:
        await socket.accept()
        name = socket.query_params.get("name", "").strip()[:LONGEST_NAME] or f"guest {next(self._guests)}"
        self._members[socket] = name
        try:
            await self._tell(kind="joined", name=name)
            while (message := await socket.receive())["type"] == "websocket.receive":
                if text := message.get("text"):
                    await self._tell(kind="said", name=name, text=text[:LONGEST_TEXT])
        finally:
            self._members.pop(socket, None)
            await self._tell(kind="left", name=name)

    async def _tell(self, **news: str) -> None:
        text = json.dumps({**news, "members": sorted(self._members.values()), "time": time.time()})
        await asyncio.gather(*(self._send(socket, text) for socket in list(self._members)))

    async def _send(self, socket: WebSocket, text: str) -> None:
        try:
            # Somebody who does not read must not hold the others up.
            await asyncio.wait_for(socket.send_text(text), SEND_TIMEOUT)
        except (WebSocketDisconnect, RuntimeError, TimeoutError):
            self._members.pop(socket, None)
