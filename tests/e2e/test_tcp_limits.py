"""How many connections one client's address may have to a TCP listener."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import pytest

from tests.e2e.kit.certificates import Authority, client_context
from tests.e2e.kit.peers import running
from tests.e2e.kit.sites import Config, reload
from tests.e2e.kit.tcp import server, through
from tests.e2e.kit.wire import Wire, dial
from tests.e2e.test_tcp import PROXIED, carrier, config, count, exact, is_denied, logged
from tidegate.testing import Gateway


def limited(most: int, **listener: Any) -> Config:
    return carrier(listener={"limits": {"connections_per_ip": most}, **listener})


@contextlib.asynccontextmanager
async def admitted(gateway: Gateway) -> AsyncIterator[Wire]:
    """A connection to an echo, now or when one that has ended is gone from the books."""
    while True:
        try:
            wire = await contextlib.AsyncExitStack().enter_async_context(dial(gateway.port()))
            await wire.send(b"tide")
            await exact(wire, b"tide")
        except (ConnectionError, asyncio.IncompleteReadError):
            continue
        yield wire
        await wire.close()
        return


async def test_one_too_many_is_reset() -> None:
    async with server() as (upstream, url):
        listeners = {"edge": limited(2), "other": limited(2)}
        async with running(config({"app": [url]}, listeners)) as gateway:
            port = gateway.port("edge")
            async with through(port, upstream) as (client, far), through(port, upstream):
                assert await is_denied(port)
                record = await logged(gateway, "refusal")
                assert (record["reason"], record["client"]) == ("too_many_connections", "127.0.0.1")
                assert (record["listener"], record["protocol"]) == ("edge", "tcp")
                labels = {"listener": "edge", "reason": "too_many_connections"}
                assert await count(gateway, "tidegate_connections_failed_total", **labels) == 1
                # Neither those of other addresses nor those of other listeners count.
                async with through(port, upstream, local_addr=("127.0.0.2", 0)) as (other, other_far):
                    await other.send(b"tide")
                    await exact(other_far, b"tide")
                async with through(gateway.port("other"), upstream):
                    pass
                await client.send(b"still here")
                await exact(far, b"still here")


async def test_places_come_back() -> None:
    echo = carrier(to=None, listener={"limits": {"connections_per_ip": 1}}, echo=True)
    async with running(config({}, {"edge": echo})) as gateway:
        for _ in range(3):
            async with admitted(gateway):
                assert await is_denied(gateway.port())


async def test_places_come_back_from_where_nothing_opened() -> None:
    """Also of connections that find no server."""
    async with server() as (_, url):
        pass
    async with running(config({"app": [url]}, {"edge": limited(1)})) as gateway:
        for number in range(1, 4):
            assert await is_denied(gateway.port())
            await logged(gateway, "refusal", reason="connect_failed", attempts=1)
            assert await count(gateway, "tidegate_tcp_refused_total", reason="connect_failed") == number


async def test_addresses_are_those_of_clients_and_proxies_have_none() -> None:
    async with server() as (upstream, url):
        behind = {"behind": limited(1, proxy_protocol={"from": ["127.0.0.1"]})}
        async with running(config({"app": [url]}, behind)) as gateway:
            port, own = gateway.port("behind"), b"PROXY UNKNOWN\r\n"
            async with dial(port) as first:
                await first.send(PROXIED)
                await upstream.connection()
                assert await is_denied(port, PROXIED)
                assert (await logged(gateway, "refusal"))["client"] == "203.0.113.7"
                async with dial(port) as other:
                    await other.send(PROXIED.replace(b"113.7", b"113.8") + b"tide")
                    await exact(await upstream.connection(), b"tide")
                async with dial(port) as one, dial(port) as two:
                    for wire in (one, two):
                        await wire.send(own + b"tide")
                        await exact(await upstream.connection(), b"tide")


async def test_before_tls(tmp_path: Any) -> None:
    authority = Authority(tmp_path)
    certificate = authority.issue("here", "127.0.0.1")
    async with server() as (upstream, url):
        listeners = {"edge": limited(1, tls={"certificates": [certificate]})}
        async with running(config({"app": [url]}, listeners), directory=tmp_path) as gateway:
            context = client_context(tmp_path, authority)
            async with dial(gateway.port(), ssl=context) as client:
                far = await upstream.connection()
                # A client that has said nothing of TLS.
                assert await is_denied(gateway.port())
                assert await count(gateway, "tidegate_tls_handshakes_total") == 1
                await far.close()
                assert await client.rest() == b""


@pytest.mark.parametrize("most", [1, 2])
async def test_a_reload_counts_those_that_are_open(most: int) -> None:
    """A limit that comes in new, or that becomes smaller: who is there stays."""
    async with server() as (upstream, url):
        before = carrier() if most == 1 else limited(5)
        async with running(config({"app": [url]}, {"edge": before})) as gateway:
            port = gateway.port()
            async with through(port, upstream) as (first, first_far), through(port, upstream) as (second, second_far):
                await reload(gateway, config({"app": [url]}, {"edge": limited(most)}))
                assert await is_denied(port)
                for client, far in ((first, first_far), (second, second_far)):
                    await client.send(b"still here")
                    await exact(far, b"still here")
                await reload(gateway, config({"app": [url]}, {"edge": carrier()}))
                async with through(port, upstream) as (third, third_far):
                    await third.send(b"tide")
                    await exact(third_far, b"tide")
