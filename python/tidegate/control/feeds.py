"""Where endpoints come from while the gateway runs: each feed tells what there is now, and when to ask it again.

A feed is named by a *key*, which says all that it depends on: upstreams with equal keys share one. There are names (to
addresses), services (SRV records, to endpoints that are names), files and URLs (to lists of endpoints). A feed never
keeps a bad answer; it raises `LookupFailure` and is asked again.
"""

import asyncio
import random
import ssl
import time
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import httpx

from tidegate.config.config import ListFile, ListTerms, ListUrl
from tidegate.config.listing import read_endpoints
from tidegate.config.options.upstream import EndpointOptions
from tidegate.control.resolver import Lookup, LookupFailure, NothingFound, Server, Where
from tidegate.control.sources import FileWatch, fingerprint
from tidegate.errors import ConfigError
from tidegate.snapshot import parts

__all__ = ["Endpoint", "Feed", "FileKey", "Key", "NameKey", "ServiceKey", "UrlKey", "open_feed"]

SHORTEST = 1.0
LONGEST = 60.0
"""Bounds in seconds for the time to live: zero would be a flood, a day would miss every change."""

JITTER = 0.1
"""Part of the wait that is random, so that the names of one answer are not asked for in step for ever."""

AFTER_FAILURE = 2.0
"""Seconds until a failed lookup is tried again."""

Endpoint = dict[str, Any]
"""As the snapshot has it."""


@dataclass(frozen=True, slots=True)
class NameKey:
    """The addresses of a name."""

    name: str
    where: Where = ()
    every: float | None = None
    kind = "dns"


@dataclass(frozen=True, slots=True)
class ServiceKey:
    """The servers of a service."""

    name: str
    scheme: str
    where: Where = ()
    every: float | None = None
    kind = "srv"


@dataclass(frozen=True, slots=True)
class FileKey:
    """A file with a list."""

    file: ListFile
    kind = "file"

    @property
    def name(self) -> str:
        return str(self.file.path)


@dataclass(frozen=True, slots=True)
class UrlKey:
    """A list that an HTTP server has."""

    url: ListUrl
    kind = "http"

    @property
    def name(self) -> str:
        return self.url.url


Key = NameKey | ServiceKey | FileKey | UrlKey


class Feed(Protocol):
    """What one key stands for."""

    async def ask(self) -> tuple[Any, ...]:
        """What there is now: addresses of a name, endpoints of the others; never nothing. Raises LookupFailure."""
        ...

    async def due(self) -> None:
        """Return when it should be asked again; at once when it never was."""
        ...


def open_feed(key: Key, lookup: Lookup) -> Feed:
    match key:
        case NameKey():
            return _Name(key, lookup)
        case ServiceKey():
            return _Service(key, lookup)
        case FileKey():
            return _File(key)
        case UrlKey():
            return _Url(key)


class _Timed:
    """A feed that is asked again after a time."""

    _until = 0.0

    async def due(self) -> None:
        await asyncio.sleep(max(0.0, self._until - time.monotonic()))

    def _again_in(self, seconds: float) -> None:
        self._until = time.monotonic() + seconds * random.uniform(1, 1 + JITTER)

    def _aged(self, ttl: float, every: float | None) -> None:
        longest = every or LONGEST
        self._again_in(min(max(ttl, SHORTEST), longest))

    def _failed(self, every: float | None) -> None:
        self._again_in(min(AFTER_FAILURE, every or AFTER_FAILURE))


class _Name(_Timed):
    def __init__(self, key: NameKey, lookup: Lookup) -> None:
        self._key, self._lookup = key, lookup

    async def ask(self) -> tuple[str, ...]:
        try:
            answer = await self._lookup.addresses(self._key.name, self._key.where)
        except LookupFailure:
            self._failed(self._key.every)
            raise
        self._aged(answer.ttl, self._key.every)
        return answer.addresses


class _Service(_Timed):
    def __init__(self, key: ServiceKey, lookup: Lookup) -> None:
        self._key, self._lookup = key, lookup

    async def ask(self) -> tuple[Endpoint, ...]:
        try:
            answer = await self._lookup.servers(self._key.name, self._key.where)
        except LookupFailure:
            self._failed(self._key.every)
            raise
        self._aged(answer.ttl, self._key.every)
        return tuple(_served(server, self._key.scheme) for server in answer.servers)


def _served(server: Server, scheme: str) -> Endpoint:
    """A weight of 0 is "hardly ever" (RFC 2782), for which 1 beside larger ones is the nearest that there is."""
    url = f"{scheme}://{server.name}:{server.port}"
    written = {"url": url, "weight": max(1, server.weight), "priority": server.priority}
    return parts.endpoint(EndpointOptions.model_validate(written))


class _File:
    """Watched, not asked by the clock."""

    def __init__(self, key: FileKey) -> None:
        self._key = key
        self._watch: FileWatch | None = None

    async def due(self) -> None:
        if self._watch is not None:
            async with aclosing(self._watch.changes()) as changes:
                await anext(changes)

    async def ask(self) -> tuple[Endpoint, ...]:
        path = self._key.file.path
        self._watch = self._watch or FileWatch()
        # Before it is read: a change in between is then seen as one.
        self._watch.expect(await asyncio.to_thread(fingerprint, [path]))
        content = await asyncio.to_thread(_read, path)
        return await asyncio.to_thread(_endpoints, path.name, content, self._key.file.terms)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise LookupFailure(f"it cannot be read: {error.strerror or error}") from error


def _endpoints(file: str, content: bytes, terms: ListTerms) -> tuple[Endpoint, ...]:
    try:
        endpoints = read_endpoints(file, content, terms)
    except ConfigError as error:
        raise LookupFailure(str(error)) from error
    if not endpoints:
        raise NothingFound("the list is empty")
    return tuple(parts.endpoint(endpoint) for endpoint in endpoints)


class _Url(_Timed):
    """Asked by the clock, for what has changed since the last good answer (RFC 9110 §13.1.2)."""

    def __init__(self, key: UrlKey) -> None:
        self._key, self._url = key, key.url
        self._tag: str | None = None
        self._good: tuple[Endpoint, ...] = ()
        self._context: ssl.SSLContext | None = None

    async def ask(self) -> tuple[Endpoint, ...]:
        try:
            async with asyncio.timeout(self._url.timeout / 1000):
                return await self._asked()
        except TimeoutError as error:
            raise LookupFailure(f"no answer within {self._url.timeout / 1000:g} s") from error
        except (httpx.HTTPError, httpx.InvalidURL, ssl.SSLError, OSError) as error:
            raise LookupFailure(str(error) or type(error).__name__) from error
        finally:
            self._again_in(self._url.every / 1000)

    async def _asked(self) -> tuple[Endpoint, ...]:
        # The environment's proxies are not for what stands in the configuration; `identity`, so that a small answer
        # cannot become a large one.
        fields = [*self._url.headers, ("Accept-Encoding", "identity")]
        if self._tag is not None:
            fields.append(("If-None-Match", self._tag))
        async with (
            httpx.AsyncClient(verify=await self._verified(), trust_env=False, timeout=None) as client,
            client.stream("GET", self._url.url, headers=fields) as response,
        ):
            if response.status_code == 304 and self._good:
                return self._good
            if response.status_code != 200:
                raise LookupFailure(f"the answer is {response.status_code} {response.reason_phrase}")
            content = await self._body(response)
        self._good = await asyncio.to_thread(_endpoints, self._key.name, content, self._url.terms)
        self._tag = response.headers.get("etag")
        return self._good

    async def _verified(self) -> ssl.SSLContext | bool:
        """What certificates are checked with; False in clear text, where there are none."""
        if self._context is None and self._url.trust is not None:
            # A file of authorities may have comments in any language between them.
            authorities = self._url.trust.content.decode("ascii", "ignore")
            self._context = await asyncio.to_thread(ssl.create_default_context, cadata=authorities)
        return self._context or False

    async def _body(self, response: httpx.Response) -> bytes:
        if response.headers.get("content-encoding", "identity") != "identity":
            raise LookupFailure("the answer is compressed, which was not asked for")
        content = bytearray()
        async for part in response.aiter_raw():
            content += part
            if len(content) > self._url.max_size:
                raise LookupFailure(f"the answer is larger than {self._url.max_size} bytes")
        return bytes(content)
