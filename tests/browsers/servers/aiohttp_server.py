"""Echoes with aiohttp; what every server here does is told in ../echoes.py."""

import asyncio
import json
import platform
import re

from aiohttp import WSMessage, WSMsgType, __version__, web


def say(**record: object) -> None:
    print(json.dumps(record), flush=True)


async def echo(request: web.Request) -> web.WebSocketResponse:
    socket = web.WebSocketResponse(protocols=["tide"], compress=True, max_msg_size=16 << 20, autoclose=False)
    await socket.prepare(request)
    while (message := await socket.receive()).type in (WSMsgType.TEXT, WSMsgType.BINARY):
        if not await ordered(socket, message):
            await (socket.send_str if message.type == WSMsgType.TEXT else socket.send_bytes)(message.data)
        if socket.closed:
            break
    if message.type == WSMsgType.CLOSE:
        say(event="closed", path=request.path, code=message.data, reason=message.extra)
        await socket.close(code=message.data, message=(message.extra or "").encode())
    return socket


async def ordered(socket: web.WebSocketResponse, message: WSMessage) -> bool:
    """Whether it was an order to close, which is then done."""
    order = re.fullmatch(r"close (\d+) (.*)", message.data) if message.type == WSMsgType.TEXT else None
    if order:
        await socket.close(code=int(order[1]), message=order[2].encode())
    return bool(order)


async def main() -> None:
    app = web.Application()
    app.router.add_get("/{path:.*}", echo)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    port = runner.addresses[0][1]
    say(event="listening", port=port, name=f"aiohttp {__version__} on Python {platform.python_version()}")
    await asyncio.Event().wait()


asyncio.run(main())
