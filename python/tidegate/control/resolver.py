"""Names to addresses: the hosts file and `localhost` first, as the system does, then DNS with its time to live. And
names of services to their servers, by SRV records (RFC 2782), which only DNS has.

The system's own `getaddrinfo` is not used: it blocks a thread, and it hides how long an answer is good for.
"""

import asyncio
import socket
import time
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Protocol

import dns.asyncresolver
import dns.exception
import dns.name
import dns.resolver
from dns.nameserver import Do53Nameserver
from dns.rdatatype import RdataType

from tidegate.config.addresses import NameServer

__all__ = ["Answer", "Lookup", "LookupFailure", "NothingFound", "Server", "Servers", "SystemLookup"]

HOSTS_TTL = 5.0
"""Seconds after which the hosts file is read again; it has no time to live of its own."""


Where = tuple[NameServer, ...]
"""Name servers; none are those of the system."""


class LookupFailure(Exception):
    """There is no answer now; the text says why."""


class NothingFound(LookupFailure):
    """There is an answer, and nothing in it."""


@dataclass(frozen=True, slots=True)
class Answer:
    """The addresses of a name, IPv4 first, and for how many seconds they are good."""

    addresses: tuple[str, ...]
    ttl: float


@dataclass(frozen=True, slots=True)
class Server:
    """One server of a service."""

    name: str
    port: int
    priority: int
    weight: int


@dataclass(frozen=True, slots=True)
class Servers:
    """The servers of a service, the most wanted first, and for how many seconds they are good."""

    servers: tuple[Server, ...]
    ttl: float


class Lookup(Protocol):
    """Each raises LookupFailure rather than to give an answer with nothing in it."""

    async def addresses(self, name: str, where: Where) -> Answer: ...
    async def servers(self, name: str, where: Where) -> Servers: ...


class SystemLookup:
    """Looks up as this machine is set up: `/etc/hosts`, then the servers and search domains of `/etc/resolv.conf`.

    Where name servers are given, they are asked instead of the system's, and for the name as it is.
    """

    def __init__(self, hosts: Path = Path("/etc/hosts")) -> None:
        self._hosts = hosts

    async def addresses(self, name: str, where: Where = ()) -> Answer:
        name = name.rstrip(".").lower()
        addresses = read_hosts(self._hosts).get(name) or _loopback(name)
        return _ordered(addresses, HOSTS_TTL) if addresses else await _ask_servers(name, where)

    async def servers(self, name: str, where: Where = ()) -> Servers:
        answer = await _ask(_resolver(where), name, RdataType.SRV)
        if isinstance(answer, LookupFailure):
            raise answer
        servers = {_server(record) for record in answer.records if record.target != dns.name.root}
        if not servers:
            raise NothingFound(f"{name} is said to be offered by nobody")  # RFC 2782: a target of "."
        ranked = sorted(servers, key=lambda server: (server.priority, -server.weight, server.name, server.port))
        once = {(server.name, server.port): server for server in reversed(ranked)}
        return Servers(tuple(reversed(once.values())), answer.ttl)


def _server(record: Any) -> Server:
    return Server(record.target.to_text(omit_final_dot=True).lower(), record.port, record.priority, record.weight)


def read_hosts(path: Path) -> Mapping[str, list[str]]:
    """Name to addresses, as a hosts file says; nothing when it cannot be read."""
    hosts: dict[str, list[str]] = {}
    try:
        text = path.read_text(errors="replace")
    except OSError:
        return hosts
    for line in text.splitlines():
        address, *names = line.partition("#")[0].split() or [""]
        if _is_address(address):
            for name in names:
                hosts.setdefault(name.lower(), []).append(address)
    return hosts


def _loopback(name: str) -> list[str]:
    """RFC 6761 §6.3: `localhost` and what is below it never leave the machine."""
    return ["127.0.0.1", "::1"] if name.split(".")[-1] == "localhost" else []


async def _ask_servers(name: str, where: Where) -> Answer:
    resolver = _resolver(where)
    answers = await asyncio.gather(_ask(resolver, name, RdataType.A), _ask(resolver, name, RdataType.AAAA))
    good = [answer for answer in answers if isinstance(answer, _Records)]
    if not good:
        raise LookupFailure("; ".join(dict.fromkeys(map(str, answers))))
    addresses = [record.to_text() for answer in good for record in answer.records]
    return _ordered(addresses, min(answer.ttl for answer in good))


def _resolver(where: Where) -> dns.asyncresolver.Resolver:
    try:
        # Anew each time: resolv.conf changes when a machine moves between networks.
        resolver = dns.asyncresolver.Resolver(configure=not where)
    except dns.exception.DNSException as error:
        raise LookupFailure(f"no name servers: {error}") from error
    resolver.use_search_by_default = not where
    if where:
        resolver.nameservers = [Do53Nameserver(str(server.address), server.port) for server in where]
    return resolver


@dataclass(frozen=True, slots=True)
class _Records:
    records: tuple[Any, ...]
    ttl: float


async def _ask(resolver: dns.asyncresolver.Resolver, name: str, kind: RdataType) -> _Records | LookupFailure:
    try:
        answer = await resolver.resolve(name, kind)
    except (dns.exception.DNSException, OSError) as error:
        return LookupFailure(str(error))
    return _Records(tuple(answer), max(0.0, answer.expiration - time.time()))


def _ordered(addresses: list[str], ttl: float) -> Answer:
    """Each once, IPv4 first, without those that this machine has no route to, if others are left."""
    known = sorted({address.partition("%")[0] for address in addresses}, key=_order)
    routable = [address for address in known if _has_route(address)]
    return Answer(tuple(routable or known), ttl)


def _order(address: str) -> tuple[int, int]:
    parsed = ip_address(address)
    return parsed.version, int(parsed)


def _has_route(address: str) -> bool:
    """Connecting a datagram socket asks the routing table and sends nothing."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect((address, 9))
    except OSError:
        return False
    return True


def _is_address(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return True
