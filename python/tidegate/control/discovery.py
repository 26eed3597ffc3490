"""Keeps the endpoints of upstreams at what names, files and servers say that they are now.

An upstream *wishes* for endpoints that are written, or for those of a source; both may be names. Each key (a name, a
service, a file, a URL) is asked by one task, again when its answer runs out or its file changes. An upstream's list is
expanded (one endpoint for each address of a name, with the name's weight) and pushed to the engine only when it differs
from what it has. An empty or failed answer keeps the last good one, and a list is not pushed before one of its names
has an address: an outage of discovery must not become an outage of everything behind it.

A name without any good answer so far stays in the list as a name, and the engine gives it nothing.
"""

import asyncio
import contextlib
import json
import logging
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from tidegate.config import Config
from tidegate.config.config import ListFile, ListUrl, Name, Service
from tidegate.control.feeds import Endpoint, Feed, FileKey, Key, NameKey, ServiceKey, UrlKey, open_feed
from tidegate.control.resolver import Lookup, LookupFailure, NothingFound, SystemLookup, Where
from tidegate.telemetry import Registry, event

__all__ = ["Discovery", "Wish", "wishes", "with_endpoints"]

log = logging.getLogger(__name__)

SOON = 0.5
"""Seconds until what has nothing yet is asked again, while a start or a reload waits for it."""

Push = Callable[[str, str], None]
Found = Mapping[str, list[Endpoint]]
"""Endpoints by upstream."""


@dataclass(frozen=True, slots=True)
class Wish:
    """Where an upstream's endpoints come from."""

    endpoints: tuple[Endpoint, ...] = ()
    """Those that are written."""
    source: Key | None = None
    """Where all others are listed."""
    where: Where = ()
    """Name servers; none are the system's."""
    every: float | None = None
    """Seconds after which names are asked for again at the latest."""
    warm: float = 5.0
    """Seconds that a start or a reload waits for a first endpoint."""

    def name(self, name: str) -> NameKey:
        return NameKey(name, self.where, self.every)


def wishes(config: Config, snapshot: Mapping[str, Any]) -> dict[str, Wish]:
    """What the upstreams of `config`, which `snapshot` was made of, wish for."""
    where = config.name_servers
    written = {upstream["name"]: tuple(upstream["endpoints"]) for upstream in snapshot["upstreams"]}
    found = {}
    for upstream in config.upstreams:
        name, warm = upstream.name, upstream.warm / 1000
        every = _seconds(upstream.discover.every) if isinstance(upstream.discover, Name | Service) else None
        source: Key | None = None
        match upstream.discover:
            case Service() as service:
                source = ServiceKey(service.name, service.scheme, where, every)
            case ListFile() as file:
                source = FileKey(file)
            case ListUrl() as url:
                source = UrlKey(url)
        found[name] = Wish(written[name], source, where, every, warm)
    return found


def _seconds(milliseconds: int | None) -> float | None:
    return None if milliseconds is None else milliseconds / 1000


def with_endpoints(snapshot: Mapping[str, Any], found: Found) -> dict[str, Any]:
    """`snapshot` with these endpoints."""
    upstreams = [{**upstream, "endpoints": found[upstream["name"]]} for upstream in snapshot["upstreams"]]
    return {**snapshot, "upstreams": upstreams}


class Discovery:
    """Asks, and tells `push(upstream, endpoints as JSON)` what changed. Lives on one event loop."""

    def __init__(self, push: Push, registry: Registry, lookup: Lookup | None = None) -> None:
        self._push = push
        self._registry = registry
        self._lookup = lookup or SystemLookup()
        self._wishes: dict[str, Wish] = {}
        """Those of the configuration that runs."""
        self._preparing: Mapping[str, Wish] = {}
        """Those of one that may come next."""
        self._pushed: dict[str, list[Endpoint]] = {}
        self._feeds: dict[Key, Feed] = {}
        self._found: dict[Key, tuple[Any, ...]] = {}
        """The last good answers."""
        self._complaints: dict[Key, str] = {}
        """What was last logged of those that fail now."""
        self._users: dict[Key, set[str]] = {}
        """The upstreams that wish for each key."""
        self._asking: dict[Key, asyncio.Task[None]] = {}
        self._tasks: dict[Key, asyncio.Task[None]] = {}

    async def resolve(self, wanted: Mapping[str, Wish]) -> Found:
        """The endpoints of these wishes. Waits for upstreams with something new until they have one, for `warm`."""
        self._preparing = wanted
        fresh = [name for name, wish in wanted.items() if self._keys(wish) - self._tasks.keys()]
        await asyncio.gather(*(self._warm(name, wanted[name]) for name in fresh))
        return {name: self._served(name, wish) for name, wish in wanted.items()}

    def follow(self, wanted: Mapping[str, Wish], found: Found) -> None:
        """From now on keep the upstreams of `wanted` current; the engine serves `found`, which `resolve` made."""
        for upstream in self._wishes.keys() - wanted.keys():
            self._registry.forget(upstream=upstream)
        self._wishes, self._preparing = dict(wanted), {}
        self._pushed = {name: list(endpoints) for name, endpoints in found.items()}
        self._settle(self._wishes)

    async def stop(self) -> None:
        tasks = [*self._tasks.values(), *self._asking.values()]
        self._tasks.clear()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    # A start or a reload.

    async def _warm(self, upstream: str, wish: Wish) -> None:
        """Asks for all that `wish` needs, until there is an endpoint with an address or its time is over."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(wish.warm):
                while True:
                    if await self._look(upstream, wish):
                        return
                    await asyncio.sleep(SOON)
        message = f"the upstream {upstream} has no endpoint after {wish.warm:g} s; going on without"
        event(log, logging.WARNING, "discovery_late", message, upstream=upstream)

    async def _look(self, upstream: str, wish: Wish) -> bool:
        """Asks once for each key that has no answer, the names in an answer too. Whether there is an endpoint now."""
        asked: set[Key] = set()
        while missing := self._keys(wish) - self._found.keys() - asked:
            asked |= missing
            self._note_users(upstream, missing)
            await asyncio.gather(*map(self._ask, missing))
        return any(map(_has_address, self._expanded(wish)))

    # As long as it runs.

    def _settle(self, upstreams: Iterable[str]) -> None:
        """Has a task for each key that is wished for, and for no other, and tells what is new of `upstreams`."""
        self._users = {}
        for name, wish in self._wishes.items():
            self._note_users(name, self._keys(wish))
        wanted = set(self._users)
        for key in self._tasks.keys() - wanted:
            self._tasks.pop(key).cancel()
        for key in wanted - self._tasks.keys():
            self._tasks[key] = asyncio.create_task(self._keep(key))
        for name, wish in self._preparing.items():
            self._note_users(name, self._keys(wish))
        for key in self._feeds.keys() - self._users.keys():
            for known in (self._feeds, self._found, self._complaints):
                known.pop(key, None)
        for name in upstreams:
            self._push_change(name)

    def _note_users(self, upstream: str, keys: Iterable[Key]) -> None:
        for key in keys:
            self._users.setdefault(key, set()).add(upstream)

    async def _keep(self, key: Key) -> None:
        feed = self._feed(key)
        while True:
            await feed.due()
            before = self._found.get(key)
            await self._ask(key)
            if self._found.get(key) != before:
                self._answered(key)

    def _answered(self, key: Key) -> None:
        users = self._users.get(key, set()) & self._wishes.keys()
        if isinstance(key, NameKey):
            for name in users:
                self._push_change(name)
        else:  # there may be other names in it now
            self._settle(users)

    def _push_change(self, name: str) -> None:
        expanded = self._expanded(self._wishes[name])
        if expanded == self._pushed[name] or not any(map(_has_address, expanded)):
            return
        self._pushed[name] = expanded
        self._push(name, json.dumps(expanded))
        event(log, logging.INFO, "endpoints", f"upstream {name} is now {_show(expanded)}", upstream=name)

    # Asking.

    def _feed(self, key: Key) -> Feed:
        if key not in self._feeds:
            self._feeds[key] = open_feed(key, self._lookup)
        return self._feeds[key]

    async def _ask(self, key: Key) -> None:
        """Asks once, for all who want to know at the same time."""
        if key not in self._asking:
            task = self._asking[key] = asyncio.create_task(self._ask_now(key))
            task.add_done_callback(lambda _: self._asking.pop(key, None))
        await asyncio.shield(self._asking[key])

    async def _ask_now(self, key: Key) -> None:
        try:
            found = await self._feed(key).ask()
        except LookupFailure as failure:
            self._count(key, "empty" if isinstance(failure, NothingFound) else "failure")
            self._complain(key, str(failure))
        else:
            self._found[key] = found
            self._complaints.pop(key, None)
            self._count(key, "success")

    def _complain(self, key: Key, failure: str) -> None:
        """Once for each reason: what is asked every second would fill the log."""
        if self._complaints.get(key) == failure:
            return
        self._complaints[key] = failure
        kept = "keeping the last good answer" if key in self._found else "there is nothing until then"
        what = "address for" if isinstance(key, NameKey) else "endpoints from"
        message = f"no {what} {key.name}: {failure}; {kept}"
        event(log, logging.WARNING, "discovery_failure", message, source=key.kind, name=key.name)

    def _count(self, key: Key, result: str) -> None:
        for upstream in self._users.get(key, ()):
            self._registry.count("tidegate_discovery_total", upstream=upstream, source=key.kind, result=result)
            if result == "success":
                self._registry.gauge(
                    "tidegate_discovery_last_success_timestamp_seconds",
                    round(time.time(), 3),
                    upstream=upstream,
                    source=key.kind,
                )

    # What a wish comes to.

    def _served(self, name: str, wish: Wish) -> list[Endpoint]:
        """As `_expanded`, unless that is worse than what the engine has."""
        expanded = self._expanded(wish)
        is_better = any(map(_has_address, expanded)) or wish != self._wishes.get(name)
        return expanded if is_better else self._pushed[name]

    def _keys(self, wish: Wish) -> set[Key]:
        keys: set[Key] = {wish.name(name) for endpoint in self._listed(wish) if (name := _name(endpoint))}
        return keys | {wish.source} if wish.source else keys

    def _listed(self, wish: Wish) -> Iterable[Endpoint]:
        return self._found.get(wish.source, ()) if wish.source else wish.endpoints

    def _expanded(self, wish: Wish) -> list[Endpoint]:
        return [each for endpoint in self._listed(wish) for each in self._expand(endpoint, wish)]

    def _expand(self, endpoint: Endpoint, wish: Wish) -> list[Endpoint]:
        match endpoint["target"]:
            case {"name": [name, port]} if addresses := self._found.get(wish.name(name)):
                return [{**endpoint, "target": {"tcp": [address, port]}} for address in addresses]
        return [endpoint]


def _name(endpoint: Endpoint) -> str | None:
    name = endpoint["target"].get("name")
    return name[0] if name else None


def _has_address(endpoint: Endpoint) -> bool:
    return "name" not in endpoint["target"]


def _show(endpoints: Iterable[Endpoint]) -> str:
    targets = [next(iter(endpoint["target"].values())) for endpoint in endpoints]
    return ", ".join(target if isinstance(target, str) else f"{target[0]} port {target[1]}" for target in targets)
