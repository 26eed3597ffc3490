"""Echoes with tornado; what every server here does is told in ../echoes.py."""

import asyncio
import json
import platform
import re
from typing import Any

import tornado
from tornado.httpserver import HTTPServer
from tornado.netutil import bind_sockets
from tornado.web import Application
from tornado.websocket import WebSocketHandler


def say(**record: object) -> None:
    print(json.dumps(record), flush=True)


class Echo(WebSocketHandler):
    def select_subprotocol(self, subprotocols: list[str]) -> str | None:
        return "tide" if "tide" in subprotocols else None

    def get_compression_options(self) -> dict[str, Any]:
        return {}

    def on_message(self, message: str | bytes) -> None:
        if isinstance(message, str) and (order := re.fullmatch(r"close (\d+) (.*)", message)):
            self.close(int(order[1]), order[2])
        else:
            self.write_message(message, binary=isinstance(message, bytes))

    def on_close(self) -> None:
        say(event="closed", path=self.request.path, code=self.close_code, reason=self.close_reason)


async def main() -> None:
    sockets = bind_sockets(0, "127.0.0.1")
    HTTPServer(Application([("/.*", Echo)])).add_sockets(sockets)
    name = f"tornado {tornado.version} on Python {platform.python_version()}"
    say(event="listening", port=sockets[0].getsockname()[1], name=name)
    await asyncio.Event().wait()


asyncio.run(main())
