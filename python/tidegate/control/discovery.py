"""Keeps the endpoints of upstreams that are written as names at the addresses these names have now.

Each name is looked up by one task, again when its answer runs out. An upstream's list is expanded (one endpoint for
each address of a name, with the name's weight) and pushed to the engine only when it differs from what it has. An
empty or failed answer keeps the last good addresses: a DNS outage must not become an outage of everything behind it.

A name without any good answer so far stays in the list as a name, and the engine gives it nothing.
"""

import asyncio
import json
import logging
import random
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from tidegate.control.resolver import Lookup, LookupFailure, SystemLookup
from tidegate.telemetry import Registry, event

__all__ = ["Discovery", "Endpoint"]

log = logging.getLogger(__name__)

SHORTEST = 1.0
LONGEST = 60.0
"""Bounds in seconds for the time to live: zero would be a flood, a day would miss every change."""

JITTER = 0.1
"""Part of the wait that is random, so that the names of one answer are not asked for in step for ever."""

AFTER_FAILURE = 2.0
"""Seconds until a failed lookup is tried again."""

FIRST_ANSWERS = 5.0
"""Seconds that a start or a reload waits for names it does not know; it goes on without those that are late."""

Endpoint = dict[str, Any]
Push = Callable[[str, str], None]


class Discovery:
    """Looks names up and tells `push(upstream, endpoints as JSON)` what changed. Lives on one event loop."""

    def __init__(self, push: Push, registry: Registry, lookup: Lookup | None = None) -> None:
        self._push = push
        self._registry = registry
        self._lookup = lookup or SystemLookup()
        self._addresses: dict[str, tuple[str, ...]] = {}
        self._until: dict[str, float] = {}
        self._upstreams: dict[str, Sequence[Endpoint]] = {}
        self._pushed: dict[str, list[Endpoint]] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}

    async def resolve(self, snapshot: Mapping[str, Any], within: float = FIRST_ANSWERS) -> dict[str, Any]:
        """`snapshot` with its names expanded. Waits for names not known yet, but no longer than `within` seconds."""
        unknown = _names(_endpoints(snapshot)) - self._addresses.keys()
        if unknown:
            await self._ask_all(unknown, within)
        upstreams = [
            {**upstream, "endpoints": self._expanded(upstream["endpoints"])} for upstream in snapshot["upstreams"]
        ]
        return {**snapshot, "upstreams": upstreams}

    def follow(self, snapshot: Mapping[str, Any], prepared: Mapping[str, Any]) -> None:
        """From now on keep the upstreams of `snapshot` current; the engine serves `prepared`, which `resolve` made."""
        self._upstreams = _endpoints(snapshot)
        self._pushed = {name: list(endpoints) for name, endpoints in _endpoints(prepared).items()}
        names = _names(self._upstreams)
        for name in self._tasks.keys() - names:
            self._tasks.pop(name).cancel()
        for name in self._addresses.keys() - names:  # also those of a configuration that was never committed
            del self._addresses[name]
        for name in names - self._tasks.keys():
            self._tasks[name] = asyncio.create_task(self._keep(name))
        self._push_changes()

    async def stop(self) -> None:
        tasks = list(self._tasks.values())
        self._tasks.clear()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _ask_all(self, names: Iterable[str], within: float) -> None:
        asked = {asyncio.create_task(self._ask(name)): name for name in names}
        _, late = await asyncio.wait(asked, timeout=within)
        for task in late:
            task.cancel()
            message = f"no answer for {asked[task]} within {within:g} s; going on without"
            event(log, logging.WARNING, "dns_late", message, name=asked[task])

    async def _keep(self, name: str) -> None:
        while True:
            await asyncio.sleep(max(0.0, self._until.get(name, 0.0) - time.monotonic()))
            await self._ask(name)
            self._push_changes()

    async def _ask(self, name: str) -> None:
        """One lookup; its addresses are kept if there are any."""
        wait = AFTER_FAILURE
        try:
            answer = await self._lookup(name)
        except LookupFailure as failure:
            self._registry.count("tidegate_dns_lookups_total", result="failure")
            kept = "keeping the last addresses" if name in self._addresses else "it takes nothing until then"
            event(log, logging.WARNING, "dns_failure", f"no address for {name}: {failure}; {kept}", name=name)
        else:
            self._registry.count("tidegate_dns_lookups_total", result="success")
            self._addresses[name] = answer.addresses
            wait = min(max(answer.ttl, SHORTEST), LONGEST)
        self._until[name] = time.monotonic() + wait * random.uniform(1, 1 + JITTER)

    def _push_changes(self) -> None:
        for name, endpoints in self._upstreams.items():
            expanded = self._expanded(endpoints)
            if expanded != self._pushed[name]:
                self._pushed[name] = expanded
                self._push(name, json.dumps(expanded))
                event(log, logging.INFO, "endpoints", f"upstream {name} is now {_show(expanded)}", upstream=name)

    def _expanded(self, endpoints: Iterable[Endpoint]) -> list[Endpoint]:
        return [each for endpoint in endpoints for each in self._expand(endpoint)]

    def _expand(self, endpoint: Endpoint) -> list[Endpoint]:
        match endpoint["target"]:
            case {"name": [name, port]} if addresses := self._addresses.get(name):
                return [{**endpoint, "target": {"tcp": [address, port]}} for address in addresses]
        return [endpoint]


def _endpoints(snapshot: Mapping[str, Any]) -> dict[str, Sequence[Endpoint]]:
    return {upstream["name"]: upstream["endpoints"] for upstream in snapshot["upstreams"]}


def _names(upstreams: Mapping[str, Iterable[Endpoint]]) -> set[str]:
    return {
        endpoint["target"]["name"][0]
        for endpoints in upstreams.values()
        for endpoint in endpoints
        if "name" in endpoint["target"]
    }


def _show(endpoints: Iterable[Endpoint]) -> str:
    targets = [next(iter(endpoint["target"].values())) for endpoint in endpoints]
    return ", ".join(target if isinstance(target, str) else f"{target[0]} port {target[1]}" for target in targets)
