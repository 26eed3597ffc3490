"""The composition root: builds every part in the order it is needed, and is the only importer of the engine.

`run` is the whole life of the process on one screen. `Gateway` is the running thing: a configuration is read and
checked whole, its names are resolved, the engine builds and binds all of it (*prepare*), and only then it serves
(*commit*). Whatever fails before the commit leaves everything as it was.
"""

import asyncio
import contextlib
import json
import logging
import os
import time
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tidegate import __version__
from tidegate.admin import AdminService
from tidegate.config import Config, load
from tidegate.config.config import Listener
from tidegate.control.discovery import Discovery, wishes, with_endpoints
from tidegate.control.health import HealthChecks
from tidegate.control.sources import FileWatch, Fingerprint, fingerprint
from tidegate.errors import ConfigError, EngineFailure, EngineMissing, Problem, TidegateError
from tidegate.process import ReadyFile, Stopping, raise_file_limit
from tidegate.snapshot import Snapshot, compile
from tidegate.telemetry import EventReader, Family, Registry, event, process_families

try:
    from tidegate import _engine
except ImportError as error:
    raise EngineMissing(f"the engine cannot be loaded: {error}; reinstall tidegate") from error

__all__ = ["Gateway", "Loaded", "check_file", "engine_version", "list_routes", "run", "serve"]

log = logging.getLogger(__name__)

Status = Mapping[str, Any]


def run(path: Path, ready_file: Path | None = None) -> int:
    """Run the gateway of the file `path` until a signal ends it; returns the exit code. Raises TidegateError."""
    return asyncio.run(serve(path, ready_file))


async def serve(path: Path, ready_file: Path | None = None, on_ready: Callable[[Status], None] = lambda _: None) -> int:
    """`run`, on a loop that runs already. `on_ready` is told `Gateway.status` once it serves."""
    raise_file_limit()
    with Stopping() as stopping:
        gateway = await stopping.unless_asked(Gateway.start(path, ReadyFile(ready_file), stopping.ask))
        if gateway is None:
            return 0
        try:
            on_ready(gateway.status())
            stopping.on_hangup(gateway.reload_soon)
            await stopping.asked()
            gateway.drain()
            await stopping.unless_at_once(gateway.drained())
            return stopping.exit_code
        finally:
            await gateway.stop()


# ---- reading and checking, without a running engine -----------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Loaded:
    """A configuration that has passed every check there is without binding anything."""

    config: Config
    snapshot: Snapshot
    warnings: tuple[Problem, ...]


def check_file(path: Path) -> Loaded:
    """Read and check `path` as a start would. Raises ConfigError with everything that is wrong."""
    config = load(path, _engine.check_regex)
    snapshot = compile(config)
    text = json.dumps(snapshot.data)
    found = _engine.check(text, snapshot.secrets)
    if found:
        raise ConfigError([snapshot.problem(pointer, message) for pointer, message in found])
    return Loaded(config, snapshot, (*config.warnings, *snapshot.ties(json.loads(_engine.routes(text)))))


def list_routes(path: Path) -> list[dict[str, Any]]:
    """The routes of `path` in the order in which they are tried: `route`, `listener`, `host` and `ties`, as indexes."""
    loaded = check_file(path)
    rows: list[dict[str, Any]] = json.loads(_engine.routes(json.dumps(loaded.snapshot.data)))
    return rows


def engine_version() -> str:
    return _engine.version()


# ---- running --------------------------------------------------------------------------------------------------------


class Gateway:
    """A gateway that serves the file `path`. Its methods belong to one event loop.

    Made by `start`; then `reload` and `drain` as you like, await `drained`, and `stop` in any case.
    """

    def __init__(self, path: Path, engine: _engine.Engine, ready_file: ReadyFile, on_drain: Callable[[], None]) -> None:
        self._path = path
        self._engine = engine
        self._ready_file = ready_file
        self._on_drain = on_drain
        self._events = EventReader(engine)
        self._registry = Registry()
        self._registry.gauge("tidegate_build_info", 1, version=__version__)
        for result in ("success", "failure"):  # from 0, so that the first one is an increase
            self._registry.count("tidegate_config_reloads_total", 0, result=result)
        self._discovery = Discovery(self._set_endpoints, self._registry)
        self._health = HealthChecks(engine, self._registry)
        self._watch = FileWatch()
        self._admin = AdminService(self)
        self._turn = asyncio.Lock()
        self._tasks: set[asyncio.Task[None]] = set()
        self._config: Config | None = None
        self._generation = 0
        self._since = ""
        self._last_error: str | None = None
        self._draining = False

    @classmethod
    async def start(
        cls, path: Path, ready_file: ReadyFile | None = None, on_drain: Callable[[], None] = lambda: None
    ) -> "Gateway":
        """A gateway that serves. `on_drain` is called when a drain begins. Raises ConfigError or EngineFailure."""
        before = fingerprint([path])
        loaded = await asyncio.to_thread(check_file, path)
        gateway = cls(path, _start_engine(loaded.config.workers), ready_file or ReadyFile(None), on_drain)
        try:
            await gateway._apply(loaded)
        except BaseException:
            await gateway.stop()
            raise
        gateway._expect(loaded, before)
        gateway._say_where("ready")
        gateway._background(gateway._follow_files())
        return gateway

    async def reload(self) -> int:
        """Serve the file as it is now; returns its generation. On a TidegateError the old one goes on serving."""
        async with self._turn:
            before = fingerprint(self._watch.files)
            try:
                loaded = await asyncio.to_thread(check_file, self._path)
                await self._apply(loaded)
            except Exception as error:
                self._watch.expect(before)
                self._reload_failed(error)
                raise
            self._expect(loaded, before)
        self._registry.count("tidegate_config_reloads_total", result="success")
        self._say_where("reloaded")
        return self._generation

    def reload_soon(self) -> None:
        """`reload`, for callers who cannot wait; how it went is in the log."""
        self._background(self._try_reload())

    def drain(self) -> None:
        """Begin to end, as the configuration's `drain` says: not ready first, then Close frames, then the rest."""
        if not self._draining:
            self._draining = True
            self._engine.drain()
            event(log, logging.INFO, "draining", "draining: not ready any more")
            self._on_drain()

    async def drained(self) -> None:
        """Return when nothing is left, at the latest when the drain's timeout has passed."""
        while not await asyncio.to_thread(self._engine.wait_drained, 0.25):
            pass

    async def stop(self) -> None:
        """Cut what is left and free everything."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._discovery.stop()
        await self._health.stop()
        await self._admin.stop()
        await asyncio.to_thread(self._engine.stop)
        await asyncio.to_thread(self._events.stop)
        self._ready_file.remove()
        event(log, logging.INFO, "stopped", "stopped")

    # What the admin address shows (`tidegate.admin.Control`).

    @property
    def ready(self) -> bool:
        return self._generation > 0 and not self._draining

    def metrics(self) -> list[Family]:
        engine: list[Family] = json.loads(self._engine.metrics())
        return engine + self._registry.families() + process_families()

    def connections(self) -> str:
        return self._engine.connections()

    def status(self) -> Status:
        return {
            "version": __version__,
            "file": str(self._path),
            "generation": self._generation,
            "since": self._since,
            "ready": self.ready,
            "draining": self._draining,
            "last_error": self._last_error,
            "listeners": self._listeners(),
            "admin": self._admin.address,
            "watched": [str(path) for path in self._watch.files],
        }

    # Parts of starting and reloading.

    async def _apply(self, loaded: Loaded) -> None:
        """Prepare everything, then commit everything; nothing between the first commit and the last can fail."""
        began = time.monotonic()
        wanted_endpoints = wishes(loaded.config, loaded.snapshot.data)
        found = await self._discovery.resolve(wanted_endpoints)
        admin = loaded.config.admin
        served = with_endpoints(loaded.snapshot.data, found)
        wanted = self._admin.prepare(str(admin.bind) if admin else None, admin.token if admin else None)
        try:
            prepared = await self._prepare(loaded.snapshot, served)
            await self._first_checks(served, {name: began + wish.warm for name, wish in wanted_endpoints.items()})
        except BaseException:
            wanted.give_up()
            raise
        self._generation = self._engine.commit(prepared)
        self._admin.commit(wanted)
        self._health.follow(served)
        self._discovery.follow(wanted_endpoints, found)
        if self._config and loaded.config.workers != self._config.workers:
            event(log, logging.WARNING, "needs_restart", "'workers' has changed: the new number is for the next start")
        self._config, self._last_error = loaded.config, None
        self._since = datetime.now(UTC).isoformat(timespec="milliseconds")
        self._registry.gauge("tidegate_config_last_reload_success_timestamp_seconds", round(time.time(), 3))
        for problem in loaded.warnings:
            event(log, logging.WARNING, "config_warning", str(problem), **problem.as_json())

    async def _prepare(self, snapshot: Snapshot, resolved: Mapping[str, Any]) -> "_engine.Prepared":
        try:
            prepared = await asyncio.to_thread(self._engine.prepare, json.dumps(resolved), snapshot.secrets)
        except _engine.EngineError as error:
            raise _engine_failure(snapshot, error) from error
        self._refuse_while_draining()
        return prepared

    async def _first_checks(self, served: Mapping[str, Any], until: Mapping[str, float]) -> None:
        """Wait until each endpoint of an upstream that is new was checked, or the time to warm up is over."""
        fresh = self._health.prepare(served)
        try:
            await asyncio.gather(*(self._first_check(name, until[name] - time.monotonic()) for name in fresh))
            self._refuse_while_draining()
        except BaseException:
            self._health.give_up(fresh)
            raise

    async def _first_check(self, upstream: str, within: float) -> None:
        try:
            async with asyncio.timeout(within):
                await self._health.first_verdicts([upstream])
        except TimeoutError:
            message = f"not all endpoints of the upstream {upstream} were checked in time; going on"
            event(log, logging.WARNING, "checks_late", message, upstream=upstream)

    def _refuse_while_draining(self) -> None:
        if self._draining:
            raise EngineFailure("the gateway drains: it takes no new configuration")

    def _set_endpoints(self, upstream: str, endpoints: str) -> None:
        try:
            self._engine.set_endpoints(upstream, endpoints)
        except _engine.EngineError as error:
            event(log, logging.ERROR, "endpoints_refused", f"upstream {upstream}: {error.args[0]}", upstream=upstream)
            return
        self._health.endpoints_are(upstream, json.loads(endpoints))

    def _expect(self, loaded: Loaded, before: Fingerprint) -> None:
        """Watch the files of `loaded`; what was seen `before` it was read counts, so no change is lost."""
        now = fingerprint([self._path, *loaded.config.files])
        self._watch.expect({path: before.get(path, digest) for path, digest in now.items()})

    async def _follow_files(self) -> None:
        async for changed in self._watch.changes():
            names = ", ".join(path.name for path in changed)
            event(log, logging.INFO, "files_changed", f"changed: {names}", files=list(map(str, changed)))
            await self._try_reload()

    async def _try_reload(self) -> None:
        with contextlib.suppress(TidegateError):  # `reload` has told it already
            await self.reload()

    def _reload_failed(self, error: Exception) -> None:
        self._last_error = str(error)
        self._registry.count("tidegate_config_reloads_total", result="failure")
        message = f"reload failed, the configuration that runs stays: {error}"
        event(log, logging.ERROR, "reload_failed", message, generation=self._generation)

    def _background(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._finished)

    def _finished(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()):
            log.error("a part of the control plane failed", exc_info=error)

    # Where it listens.

    def _listeners(self) -> list[dict[str, Any]]:
        listeners: list[dict[str, Any]] = json.loads(self._engine.listeners())
        config = {listener.name: listener for listener in self._config.listeners} if self._config else {}
        return [_described(listener, config.get(listener["name"])) for listener in listeners]

    def _say_where(self, name: str) -> None:
        listeners, admin = self._listeners(), self._admin.address
        where = {"generation": self._generation, "listeners": listeners, "admin": admin}
        # Before the log: who reads there that it is ready may read the file.
        self._ready_file.write({"version": __version__, "pid": os.getpid(), **where})
        for listener in listeners:
            event(log, logging.INFO, "listening", _listening(listener), listener=listener["name"])
        event(
            log, logging.INFO, name, f"{name}: generation {self._generation}, admin on {admin or 'no address'}", **where
        )


def _described(listener: Mapping[str, Any], config: Listener | None) -> dict[str, Any]:
    return {**listener, "tls": bool(config and config.tls), "tcp": bool(config and config.tcp)}


def _listening(listener: Mapping[str, Any]) -> str:
    clear, secure = ("tcp", "tls") if listener["tcp"] else ("http", "https")
    scheme = secure if listener["tls"] else clear
    urls = (each if each.startswith("unix:") else f"{scheme}://{each}" for each in listener["addresses"])
    return f"listening on {', '.join(urls)} ({listener['name']})"


def _start_engine(workers: int | None) -> "_engine.Engine":
    if _engine.version() != __version__:
        raise EngineMissing(f"the engine is of version {_engine.version()}, not {__version__}; reinstall tidegate")
    try:
        return _engine.Engine(workers)
    except _engine.EngineError as error:
        raise EngineFailure(f"the engine cannot start: {error.args[0]}") from error


def _engine_failure(snapshot: Snapshot, error: "_engine.EngineError") -> EngineFailure:
    message, pointer = error.args
    return EngineFailure(message, snapshot.problem(pointer, message) if pointer else None)
