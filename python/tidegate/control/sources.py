"""Says when the files of a configuration have changed, however they were changed.

A file changes in more ways than by writing to it. Editors and certificate tools write a new file and rename it over the
old one. Kubernetes mounts `config.yaml` as a link to `..data/config.yaml`, where `..data` is itself a link, and swaps
that. So the *directories* are watched, of every link on the way to the file as well as of the file; what the events
say is not believed but taken as a reason to look; and only changed content counts, so that a `touch`, a rewrite with
the same bytes or an unrelated file in the same directory reload nothing.
"""

import asyncio
import hashlib
import logging
from collections.abc import AsyncGenerator, Iterable, Mapping
from pathlib import Path

import watchfiles

from tidegate.telemetry import event

__all__ = ["FileWatch", "fingerprint", "watched_directories"]

log = logging.getLogger(__name__)

QUIET = 100
"""Milliseconds without another event before we look: one save is often several events."""

LONGEST_WAIT = 1000
"""Milliseconds after which we look although events keep coming: a busy directory must not hold a change back."""

DEEPEST_LINK = 40
"""The kernel's own limit for links on the way to one file."""

Fingerprint = Mapping[Path, bytes]


def fingerprint(files: Iterable[Path]) -> Fingerprint:
    """A hash of what each file holds now; empty for one that cannot be read."""
    return {path: _digest(path) for path in files}


def _digest(path: Path) -> bytes:
    try:
        return hashlib.sha256(path.read_bytes()).digest()
    except OSError:
        return b""


def watched_directories(path: Path) -> set[Path]:
    """Where an entry can be replaced so that `path` leads to other content; a missing one counts as its parent."""
    return {_existing(directory) for directory in _on_the_way(path.absolute(), DEEPEST_LINK)}


def _on_the_way(path: Path, links_left: int) -> set[Path]:
    found = {path.parent}
    for part in [path, *path.parents]:
        if links_left and part.is_symlink():
            target = part.parent / part.readlink() / path.relative_to(part)
            found |= {part.parent} | _on_the_way(target, links_left - 1)
    return found


def _existing(directory: Path) -> Path:
    return next(place for place in [directory, *directory.parents] if place.is_dir())


class FileWatch:
    """Watches the files given last to `expect`.

    `expect` takes the content that is in use; `changes` then yields whenever the content on disk differs from it (or
    from what it yielded last), so that a change between reading a file and watching it is not lost.
    """

    def __init__(self) -> None:
        self._known: Fingerprint = {}
        self._look = asyncio.Event()

    @property
    def files(self) -> tuple[Path, ...]:
        return tuple(self._known)

    def expect(self, known: Fingerprint) -> None:
        """From now on watch these files, whose content in use is `known`."""
        self._known = known
        self._look.set()

    async def changes(self) -> AsyncGenerator[list[Path], None]:
        """The files whose content has changed, each time some have. Ends only when it is cancelled or closed."""
        async with _Watcher(self._look) as watcher:
            while True:
                # The watch begins, then we look: in the other order a change in between would be lost.
                self._look.clear()
                await watcher.watch(set().union(*map(watched_directories, self._known)))
                if changed := await self._changed():
                    yield changed
                else:
                    await self._look.wait()

    async def _changed(self) -> list[Path]:
        known = self._known
        now = await asyncio.to_thread(fingerprint, known)
        changed = [path for path, digest in known.items() if now[path] != digest]
        if known is self._known:
            self._known = now
        return changed


class _Watcher:
    """Sets `look` when something happens in the directories; they are opened anew when they are other ones now."""

    def __init__(self, look: asyncio.Event) -> None:
        self._look = look
        self._watched: set[tuple[Path, int]] = set()
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> "_Watcher":
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stop()

    async def watch(self, directories: set[Path]) -> None:
        # By inode as well, because a directory of the same name may have taken the place of the one that is open.
        identities = {(directory, _inode(directory)) for directory in directories}
        if identities == self._watched:
            return
        await self._stop()
        self._watched = identities
        self._task = asyncio.create_task(self._run(directories))
        await asyncio.sleep(0)  # the task opens the directories before it waits for the first time

    async def _stop(self) -> None:
        if self._task:
            self._task.cancel()
            await asyncio.wait([self._task])
            self._task = None

    async def _run(self, directories: set[Path]) -> None:
        polling = False
        while True:
            try:
                await self._report(directories, polling)
            except OSError as error:
                # A directory has just gone, or the kernel's watches are used up: they are counted per user.
                event(log, logging.WARNING, "watch_polls", f"cannot watch files, looking every second: {error}")
            polling = True
            await asyncio.sleep(1)
            self._look.set()

    async def _report(self, directories: set[Path], polling: bool) -> None:
        watch = watchfiles.awatch(
            *directories,
            watch_filter=None,
            debounce=LONGEST_WAIT,
            step=QUIET,
            recursive=False,
            force_polling=polling,
            poll_delay_ms=1000,
            ignore_permission_denied=True,
        )
        async for _ in watch:
            self._look.set()


def _inode(directory: Path) -> int:
    try:
        return directory.stat().st_ino
    except OSError:
        return 0
