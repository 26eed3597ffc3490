"""Names to addresses: the hosts file and `localhost` first, as the system does, then DNS with its time to live.

The system's own `getaddrinfo` is not used: it blocks a thread, and it hides how long an answer is good for.
"""

import asyncio
import socket
import time
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Protocol

import dns.asyncresolver
import dns.exception
import dns.resolver
from dns.rdatatype import RdataType

__all__ = ["Answer", "Lookup", "LookupFailure", "SystemLookup"]

HOSTS_TTL = 5.0
"""Seconds after which the hosts file is read again; it has no time to live of its own."""


class LookupFailure(Exception):
    """A name has no address now; the text says why."""


@dataclass(frozen=True, slots=True)
class Answer:
    """The addresses of a name, IPv4 first, and for how many seconds they are good."""

    addresses: tuple[str, ...]
    ttl: float


class Lookup(Protocol):
    async def __call__(self, name: str) -> Answer:
        """Raises LookupFailure; never an answer without addresses."""
        ...


class SystemLookup:
    """Looks up as this machine is set up: `/etc/hosts`, then the servers and search domains of `/etc/resolv.conf`."""

    def __init__(self, hosts: Path = Path("/etc/hosts")) -> None:
        self._hosts = hosts

    async def __call__(self, name: str) -> Answer:
        name = name.rstrip(".").lower()
        addresses = read_hosts(self._hosts).get(name) or _loopback(name)
        return _ordered(addresses, HOSTS_TTL) if addresses else await _ask_servers(name)


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


async def _ask_servers(name: str) -> Answer:
    try:
        # Anew each time: resolv.conf changes when a machine moves between networks.
        resolver = dns.asyncresolver.Resolver()
    except dns.exception.DNSException as error:
        raise LookupFailure(f"no name servers: {error}") from error
    answers = await asyncio.gather(_ask(resolver, name, RdataType.A), _ask(resolver, name, RdataType.AAAA))
    good = [answer for answer in answers if isinstance(answer, Answer)]
    if not good:
        raise LookupFailure("; ".join(dict.fromkeys(map(str, answers))))
    addresses = [address for answer in good for address in answer.addresses]
    return _ordered(addresses, min(answer.ttl for answer in good))


async def _ask(resolver: dns.asyncresolver.Resolver, name: str, kind: RdataType) -> Answer | LookupFailure:
    try:
        answer = await resolver.resolve(name, kind, search=True)
    except (dns.exception.DNSException, OSError) as error:
        return LookupFailure(str(error))
    ttl = max(0.0, answer.expiration - time.time())
    return Answer(tuple(record.to_text() for record in answer), ttl)


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
