"""Names to addresses: the hosts file first, then DNS, asked over a real socket."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

import dns.asyncresolver
import dns.message
import dns.rrset
import pytest

from tidegate.control import resolver
from tidegate.control.resolver import LookupFailure, SystemLookup, read_hosts

Zone = Mapping[tuple[str, str], tuple[int, list[str]]]


class NameServer(asyncio.DatagramProtocol):
    """Answers from a small zone: (name, type) to (time to live, records); everything else does not exist."""

    def __init__(self, zone: Zone) -> None:
        self._zone = zone

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def datagram_received(self, data: bytes, address: tuple[str, int]) -> None:
        query = dns.message.from_wire(data)
        question = query.question[0]
        answer = dns.message.make_response(query)
        found = self._zone.get((str(question.name), question.rdtype.name))
        if found:
            answer.answer.append(dns.rrset.from_text(question.name, found[0], "IN", question.rdtype, *found[1]))
        elif not any(name == str(question.name) for name, _ in self._zone):
            answer.set_rcode(dns.rcode.NXDOMAIN)
        self._transport.sendto(answer.to_wire(), address)  # type: ignore[attr-defined]


@asynccontextmanager
async def name_server(zone: Zone, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[None]:
    loop = asyncio.get_running_loop()
    transport, _ = await loop.create_datagram_endpoint(lambda: NameServer(zone), ("127.0.0.1", 0))
    made = dns.asyncresolver.Resolver(configure=False)
    made.nameservers = ["127.0.0.1"]
    made.port = transport.get_extra_info("sockname")[1]
    made.lifetime = 3
    monkeypatch.setattr(resolver.dns.asyncresolver, "Resolver", lambda configure: made)
    yield
    transport.close()


@pytest.fixture
def no_hosts(tmp_path: Path) -> SystemLookup:
    return SystemLookup(tmp_path / "hosts")


async def test_the_hosts_file_is_asked_first(tmp_path: Path) -> None:
    hosts = tmp_path / "hosts"
    hosts.write_text("127.0.0.5 Chat.internal other # comment\n127.0.0.4 chat.internal\nnonsense x\n\n")
    answer = await SystemLookup(hosts).addresses("CHAT.internal.")
    assert (answer.addresses, answer.ttl) == (("127.0.0.4", "127.0.0.5"), resolver.HOSTS_TTL)
    assert "x" not in read_hosts(hosts)


async def test_localhost_needs_no_server(no_hosts: SystemLookup) -> None:
    assert "127.0.0.1" in (await no_hosts.addresses("localhost")).addresses
    assert "127.0.0.1" in (await no_hosts.addresses("app.localhost")).addresses


async def test_both_families_and_the_shorter_time(no_hosts: SystemLookup, monkeypatch: pytest.MonkeyPatch) -> None:
    zone = {("a.test.", "A"): (30, ["127.0.0.2", "127.0.0.1"]), ("a.test.", "AAAA"): (10, ["::1"])}
    monkeypatch.setattr(resolver, "_has_route", lambda _: True)
    async with name_server(zone, monkeypatch):
        answer = await no_hosts.addresses("a.test")
    assert answer.addresses == ("127.0.0.1", "127.0.0.2", "::1")
    assert 8 < answer.ttl <= 10


async def test_one_family_is_enough(no_hosts: SystemLookup, monkeypatch: pytest.MonkeyPatch) -> None:
    async with name_server({("a.test.", "A"): (30, ["127.0.0.2"])}, monkeypatch):
        assert (await no_hosts.addresses("a.test")).addresses == ("127.0.0.2",)


async def test_addresses_without_a_route_are_left_out(no_hosts: SystemLookup, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resolver, "_has_route", lambda address: ":" not in address)
    zone = {("a.test.", "A"): (30, ["127.0.0.2"]), ("a.test.", "AAAA"): (30, ["2001:db8::1"])}
    async with name_server(zone, monkeypatch):
        assert (await no_hosts.addresses("a.test")).addresses == ("127.0.0.2",)


async def test_unreachable_addresses_are_better_than_none(
    no_hosts: SystemLookup, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resolver, "_has_route", lambda _: False)
    async with name_server({("a.test.", "A"): (30, ["127.0.0.2"])}, monkeypatch):
        assert (await no_hosts.addresses("a.test")).addresses == ("127.0.0.2",)


async def test_an_unknown_name_fails_with_the_reason(no_hosts: SystemLookup, monkeypatch: pytest.MonkeyPatch) -> None:
    async with name_server({}, monkeypatch):
        with pytest.raises(LookupFailure, match="does not exist"):
            await no_hosts.addresses("nowhere.test")
