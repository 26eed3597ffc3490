"""An ASGI application on a socket, in the running event loop: the admin address, and small upstreams of our own."""

import asyncio
import contextlib
import socket
import stat
from collections.abc import Generator
from pathlib import Path

import uvicorn
from starlette.types import ASGIApp

__all__ = ["AppServer", "open_socket"]


def open_socket(address: str) -> socket.socket:
    """A listening socket on `host:port`, `[ip]:port` (`[::]` takes IPv4 too) or `unix:/path`. Raises OSError."""
    if address.startswith("unix:"):
        return _open_unix(Path(address.removeprefix("unix:")))
    host, _, port = address.rpartition(":")
    host = host.strip("[]")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return socket.create_server((host, int(port)), family=family, dualstack_ipv6=host == "::")


def _open_unix(path: Path) -> socket.socket:
    # A socket file that a killed process left behind is in the way; another file is not ours to remove.
    if path.exists() and stat.S_ISSOCK(path.stat().st_mode) and not _answers(path):
        path.unlink()
    opened = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        opened.bind(str(path))
        path.chmod(0o600)
        opened.listen(128)
    except OSError:
        opened.close()
        raise
    return opened


def _answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        return probe.connect_ex(str(path)) == 0


class AppServer:
    """Serves `app` on `opened`, inside `async with` or from `start` to `close`.

    At the end it waits a second for the answers under way, cuts the rest, and closes the socket and removes its file.
    """

    def __init__(self, app: ASGIApp, opened: socket.socket) -> None:
        self._socket = opened
        self._name = opened.getsockname()
        # No log of uvicorn's: what fails in an application of ours is logged by us or is a defect.
        config = uvicorn.Config(
            app,
            lifespan="off",
            log_config=None,
            access_log=False,
            log_level="error",
            server_header=False,
            ws_ping_interval=None,
            timeout_graceful_shutdown=1,
        )
        self._server = _Server(config)
        self._task: asyncio.Task[None] | None = None

    @property
    def address(self) -> str:
        """As it is written in a configuration, with the port that was really bound."""
        if isinstance(self._name, str):
            return f"unix:{self._name}"
        host, port = self._name[:2]
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"

    async def __aenter__(self) -> "AppServer":
        self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    def start(self) -> None:
        """Callers are taken already, the socket listens; they are answered as soon as the loop comes to it."""
        self._socket.setblocking(False)
        self._task = asyncio.create_task(self._server.serve(sockets=[self._socket]))

    async def close(self) -> None:
        self._server.should_exit = True
        if self._task:
            await self._task
        self._socket.close()
        if isinstance(self._name, str):
            Path(self._name).unlink(missing_ok=True)


class _Server(uvicorn.Server):
    """uvicorn without its signal handlers: signals mean something else to a gateway."""

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        yield
