"""The admin address as the running configuration has it: opened, moved, closed, given another token."""

import asyncio
import socket
from dataclasses import dataclass

from tidegate.admin.app import Control, admin_app
from tidegate.admin.guard import Guard
from tidegate.admin.server import AppServer, open_socket
from tidegate.errors import EngineFailure

__all__ = ["AdminService", "Wanted"]


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a configuration asks for. `opened` is the socket if it is another one than before."""

    bind: str | None
    token: str | None
    opened: socket.socket | None

    def give_up(self) -> None:
        """The configuration is not to be served."""
        if self.opened:
            self.opened.close()


class AdminService:
    """Prepared and committed as the engine is, so that a bad address leaves everything as it was."""

    def __init__(self, control: Control) -> None:
        self._control = control
        self._bind: str | None = None
        self._guard: Guard | None = None
        self._server: AppServer | None = None
        self._closing: set[asyncio.Task[None]] = set()

    @property
    def address(self) -> str | None:
        """Where it listens, with the port that was really bound."""
        return self._server.address if self._server else None

    def prepare(self, bind: str | None, token: str | None) -> Wanted:
        """Raises EngineFailure when it cannot listen on `bind`; None is not to listen at all."""
        if bind is None or bind == self._bind:
            return Wanted(bind, token, None)
        try:
            return Wanted(bind, token, open_socket(bind))
        except OSError as error:
            raise EngineFailure(f"admin: cannot listen on {bind}: {error.strerror or error}") from error

    def commit(self, wanted: Wanted) -> None:
        if wanted.bind != self._bind:
            self._close_soon()
            self._open(wanted)
        elif self._guard:
            self._guard.token = wanted.token

    async def stop(self) -> None:
        self._close_soon()
        await asyncio.gather(*self._closing)

    def _open(self, wanted: Wanted) -> None:
        self._bind = wanted.bind
        if wanted.opened:
            self._guard = admin_app(self._control, wanted.token)
            self._server = AppServer(self._guard, wanted.opened)
            self._server.start()

    def _close_soon(self) -> None:
        # Not awaited: the request that asked for this change is itself one that the old server waits for.
        if self._server:
            task = asyncio.create_task(self._server.close())
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)
            self._server = self._guard = None
