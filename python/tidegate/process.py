"""What a server process owes the system it runs on: enough files, an answer to signals, a word when it is ready."""

import asyncio
import contextlib
import json
import logging
import os
import resource
import signal
from collections.abc import Callable, Coroutine, Mapping
from pathlib import Path
from typing import Any, TypeVar

from tidegate.telemetry import event

__all__ = ["ReadyFile", "Stopping", "raise_file_limit"]

log = logging.getLogger(__name__)
_T = TypeVar("_T")

FEW_FILES = 65_536
"""Under this a busy gateway runs out: every WebSocket that is passed on takes two."""


def raise_file_limit() -> int:
    """Raise the soft limit of open files to the hard one and return it. A server has no use for a lower one."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(OSError, ValueError):  # some containers forbid it; then the soft limit stands
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        soft = hard
    if 0 <= soft < FEW_FILES:
        message = (
            f"this process may open only {soft} files, enough for about {soft // 2} WebSockets; raise 'ulimit -Hn'"
        )
        event(log, logging.WARNING, "few_files", message, limit=soft)
    return soft


class Stopping:
    """The end, as signals ask for it: the first SIGTERM or SIGINT begins it, the second makes it immediate.

    Lives inside `with`, on the running loop. After the second the signals have their default effect again, so that a
    third one ends even a process that hangs.
    """

    def __init__(self) -> None:
        self.exit_code = 0
        self._asked = asyncio.Event()
        self._at_once = asyncio.Event()
        self._hung_up = False
        self._loop = asyncio.get_running_loop()

    def __enter__(self) -> "Stopping":
        for number in (signal.SIGINT, signal.SIGTERM):
            self._loop.add_signal_handler(number, self._on_signal, number)
        self._loop.add_signal_handler(signal.SIGHUP, self._on_early_hangup)  # by default it would end the process
        return self

    def __exit__(self, *_: object) -> None:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            self._loop.remove_signal_handler(number)

    def on_hangup(self, action: Callable[[], object]) -> None:
        """Call `action` at each SIGHUP, and now if one came before anybody wanted to know."""
        self._loop.add_signal_handler(signal.SIGHUP, action)
        if self._hung_up:
            self._hung_up = False
            action()

    def ask(self) -> None:
        """As the first signal does."""
        self._asked.set()

    async def asked(self) -> None:
        await self._asked.wait()

    async def unless_asked(self, work: Coroutine[Any, Any, _T]) -> _T | None:
        """The result of `work`, or None when the end was asked for and it was given up."""
        return await _first(work, self._asked)

    async def unless_at_once(self, work: Coroutine[Any, Any, _T]) -> _T | None:
        """The result of `work`, or None when the second signal came and it was given up."""
        return await _first(work, self._at_once)

    def _on_early_hangup(self) -> None:
        self._hung_up = True

    def _on_signal(self, number: signal.Signals) -> None:
        if not self._asked.is_set():
            self._asked.set()
            return
        event(log, logging.WARNING, "second_signal", f"{number.name} again: ending at once", signal=number.name)
        self.exit_code = 128 + number
        self._at_once.set()
        for each in (signal.SIGINT, signal.SIGTERM):
            self._loop.remove_signal_handler(each)


async def _first(work: Coroutine[Any, Any, _T], given_up: asyncio.Event) -> _T | None:
    """Await `work`; cancel it when `given_up` is set. Its exceptions are the caller's."""
    task = asyncio.create_task(work)
    waiting = asyncio.create_task(given_up.wait())
    try:
        await asyncio.wait([task, waiting], return_when=asyncio.FIRST_COMPLETED)
        return task.result() if task.done() else None
    finally:
        for each in (task, waiting):
            each.cancel()
        await asyncio.gather(task, waiting, return_exceptions=True)


class ReadyFile:
    """A file that says where the gateway listens, for scripts that started it on port 0.

    It appears whole when the gateway serves and is replaced after every reload; it is gone when the process has ended.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path

    def write(self, status: Mapping[str, object]) -> None:
        if self._path:
            fresh = self._path.with_name(f".{self._path.name}.{os.getpid()}")
            fresh.write_text(json.dumps(status) + "\n")
            fresh.replace(self._path)  # in one step: a reader sees the old text or the new one

    def remove(self) -> None:
        if self._path:
            self._path.unlink(missing_ok=True)
