"""Echoes with the websockets library; what every server here does is told in ../echoes.py."""

import asyncio
import json
import platform
import re

from websockets import ConnectionClosed, Subprotocol
from websockets.asyncio.server import ServerConnection, serve
from websockets.version import version


def say(**record: object) -> None:
    print(json.dumps(record), flush=True)


async def echo(socket: ServerConnection) -> None:
    assert socket.request
    try:
        async for message in socket:
            if isinstance(message, str) and (order := re.fullmatch(r"close (\d+) (.*)", message)):
                await socket.close(int(order[1]), order[2])
            else:
                await socket.send(message)
    except ConnectionClosed:
        pass
    if socket.protocol.close_rcvd:
        came = socket.protocol.close_rcvd
        say(event="closed", path=socket.request.path, code=came.code, reason=came.reason)


async def main() -> None:
    async with serve(echo, "127.0.0.1", 0, subprotocols=[Subprotocol("tide")], max_size=16 << 20) as server:
        port = next(iter(server.sockets)).getsockname()[1]
        name = f"websockets {version} on Python {platform.python_version()}"
        say(event="listening", port=port, name=name)
        await server.serve_forever()


asyncio.run(main())
