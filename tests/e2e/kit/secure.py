"""A server that speaks TLS: it says over HTTP how it was spoken to, and echoes WebSockets."""

import asyncio
import contextlib
import json
import ssl
from pathlib import Path
from typing import Any

from tests.e2e.kit.bridge import switch
from tests.e2e.kit.frames import Frame, Op
from tests.e2e.kit.peers import read_frame
from tests.e2e.kit.wire import Head

__all__ = ["SecureServer", "server_context"]


def server_context(directory: Path, certificate: str, clients: str | None = None, **settings: Any) -> ssl.SSLContext:
    """For a server with this certificate; with `clients`, an authority's file, it wants certificates of clients."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(directory / f"{certificate}.pem", directory / f"{certificate}.key")
    if clients:
        context.load_verify_locations(directory / clients)
        context.verify_mode = ssl.CERT_REQUIRED
    for name, value in settings.items():
        setattr(context, name, value)
    return context


class SecureServer:
    """On a free port, with `context`; its answers are JSON of what it knows of the connection."""

    def __init__(self, context: ssl.SSLContext) -> None:
        self.connections = 0
        self.names: list[str | None] = []
        """The server names that were asked for, of all handshakes."""
        self._context = context
        self._tasks: set[asyncio.Task[None]] = set()
        context.sni_callback = lambda _, name, __: self.names.append(name)

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self.port}"

    @property
    def port(self) -> int:
        return int(self._server.sockets[0].getsockname()[1])

    async def __aenter__(self) -> "SecureServer":
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=self._context)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task
        self._tasks.add(task)
        self.connections += 1
        try:
            await self._talk(reader, writer, self.connections)
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass  # the other end is gone, or the test is over
        finally:
            self._tasks.discard(task)
            writer.close()
            with contextlib.suppress(OSError, asyncio.CancelledError):
                await writer.wait_closed()

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, serial: int) -> None:
        tls: ssl.SSLObject = writer.get_extra_info("ssl_object")
        while True:
            head = Head.parse(await reader.readuntil(b"\r\n\r\n"))
            if head.get("upgrade"):
                writer.write(switch(head))
                return await self._echo(reader, writer)
            seen = {
                "connection": serial,
                "reused": tls.session_reused,
                "version": tls.version(),
                "alpn": tls.selected_alpn_protocol(),
                "client": (tls.getpeercert() or {}).get("subjectAltName"),
                "host": head.get("host"),
            }
            body = json.dumps(seen).encode()
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)

    @staticmethod
    async def _echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            frame = await read_frame(reader)
            writer.write(Frame(frame.op, frame.payload, frame.fin, frame.rsv).encode(None))
            await writer.drain()
            if frame.op == Op.CLOSE:
                return
