"""Configurations, said shortly."""

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

from tidegate.testing import Gateway, GatewayError

__all__ = ["LOOPBACK", "Config", "refused", "reload", "route", "site", "until"]

Config = dict[str, Any]

LOOPBACK = "127.0.0.1:0"


def route(name: str, to: str | None = None, **more: Any) -> Config:
    """`/name` and all below it goes to the upstream `to`, or to what `more` says."""
    return {"name": name, "match": {"path": {"prefix": f"/{name}"}}, **({"to": to} if to else {}), **more}


def site(
    *routes: Config,
    listeners: Mapping[str, Any] | None = None,
    upstreams: Mapping[str, str | list[str] | Config] | None = None,
    **more: Any,
) -> Config:
    """A whole configuration, with a listener `edge` on a free port unless there are others. An upstream is its
    endpoint, a list of them, or all of its settings."""
    described = {
        name: each if isinstance(each, dict) else {"endpoints": each if isinstance(each, list) else [each]}
        for name, each in (upstreams or {}).items()
    }
    return {
        "listeners": dict(listeners or {"edge": {"bind": LOOPBACK}}),
        "routes": list(routes),
        **({"upstreams": described} if described else {}),
        "drain": {"window": "1s", "timeout": "5s"},
        **more,
    }


async def until(test: Callable[[], bool], limit: float = 10.0) -> None:
    """Look again and again until `test` says yes; for what no event tells. It may ask the gateway: it has a thread."""
    async with asyncio.timeout(limit):
        while not await asyncio.to_thread(test):
            await asyncio.sleep(0.01)


async def reload(gateway: Gateway, config: Mapping[str, Any] | str) -> None:
    """Serve `config`, by writing the file."""
    await asyncio.to_thread(gateway.reload, config)


async def refused(gateway: Gateway, config: Mapping[str, Any] | str) -> str:
    """Write `config`, which must be refused; returns what the log says."""
    record = await asyncio.to_thread(gateway.reload, config, check=False)
    if record["event"] != "reload_failed":
        raise GatewayError(f"the configuration was taken: {record}")
    return str(record["message"])
