"""TCP listeners: bytes through, ends carried over, who is dialled, what is counted and written down."""

import asyncio
import contextlib
import random
import socket
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.kit.peers import dial_unix, running
from tests.e2e.kit.sites import LOOPBACK, Config, until
from tests.e2e.kit.tcp import bystander, full, is_reset, named, server, through, vacant
from tests.e2e.kit.wire import Play, Wire, dial
from tidegate.testing import Gateway, Record

PROXIED = b"PROXY TCP4 203.0.113.7 198.51.100.1 40000 5432\r\n"


def carrier(to: Any = "app", listener: Config | None = None, **tcp: Any) -> Config:
    return {"bind": LOOPBACK, "tcp": {**({"to": to} if to else {}), **tcp}, **(listener or {})}


def config(upstreams: dict[str, Any], listeners: dict[str, Config] | None = None, **more: Any) -> Config:
    described = {name: each if isinstance(each, dict) else {"endpoints": each} for name, each in upstreams.items()}
    return {"listeners": listeners or {"edge": carrier()}, "upstreams": described, "workers": 2, **more}


@pytest.fixture
async def play() -> AsyncIterator[tuple[Play, Gateway]]:
    """A server behind a gateway."""
    async with server() as (play, url), running(config({"app": [url]})) as gateway:
        yield play, gateway


async def logged(gateway: Gateway, event: str, **fields: object) -> Record:
    return await asyncio.to_thread(gateway.access_log().wait_for, event=event, **fields)


async def count(gateway: Gateway, name: str, **labels: str) -> float:
    return (await asyncio.to_thread(gateway.metrics)).value(name, **labels)


# ---- bytes ----------------------------------------------------------------------------------------------------------


async def test_bytes_both_ways_and_what_is_told_of_them(play: tuple[Play, Gateway]) -> None:
    upstream, gateway = play
    up, down = random.Random(1).randbytes(3 << 20), random.Random(2).randbytes(2 << 20)
    async with through(gateway.port(), upstream) as (client, far):
        opened = await logged(gateway, "open")
        assert await count(gateway, "tidegate_tcp_connections", listener="edge", upstream="app") == 1
        await asyncio.gather(client.send(up), far.send(down), exact(far, up), exact(client, down))
        assert await count(gateway, "tidegate_tcp_bytes_total", direction="to_upstream") == len(up)
        shown = (await asyncio.to_thread(gateway.connections))[0]
        assert (shown["protocol"], shown["id"], shown["bytes"]["to_client"]) == ("tcp", opened["connection"], len(down))
    closed = await logged(gateway, "close")
    assert (opened["protocol"], opened["listener"], opened["upstream"], opened["attempts"]) == ("tcp", "edge", "app", 1)
    assert opened["client"] == "127.0.0.1" and opened["endpoint"].startswith("tcp://127.0.0.1:")
    assert closed["connection"] == opened["connection"]
    assert (closed["cause"], closed["bytes_in"], closed["bytes_out"]) == ("client", len(up), len(down))
    assert await count(gateway, "tidegate_tcp_connections") == 0
    assert await count(gateway, "tidegate_tcp_opened_total", listener="edge", upstream="app") == 1
    assert await count(gateway, "tidegate_tcp_closed_total", listener="edge", upstream="app", cause="client") == 1
    assert await count(gateway, "tidegate_tcp_seconds_count", cause="client") == 1
    assert await asyncio.to_thread(gateway.connections) == []


async def exact(wire: Wire, expected: bytes) -> None:
    assert await wire.exactly(len(expected)) == expected


async def test_a_server_that_speaks_first(play: tuple[Play, Gateway]) -> None:
    upstream, gateway = play
    async with through(gateway.port(), upstream) as (client, far):
        await far.send(b"220 ready\r\n")
        await exact(client, b"220 ready\r\n")


async def test_unix_sockets_on_both_sides(tmp_path: Path) -> None:
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(tmp_path / "app.sock"))
    listeners = {"edge": carrier(listener={"bind": f"unix:{tmp_path}/edge.sock"})}
    settings = config({"app": [f"unix:{tmp_path}/app.sock"]}, listeners)
    async with Play(listener, "") as upstream, running(settings) as gateway, dial_unix(f"{tmp_path}/edge.sock") as near:
        far = await upstream.connection()
        await near.send(b"question")
        await exact(far, b"question")
        near.finish()
        await far.ended()
        await far.send(b"answer")
        await far.close()
        assert await near.rest() == b"answer"
        assert "client" not in await logged(gateway, "close")


async def test_echo() -> None:
    async with running(config({}, {"edge": carrier(None, echo=True)})) as gateway, dial(gateway.port()) as client:
        block = random.Random(3).randbytes(1 << 20)
        await asyncio.gather(client.send(block), exact(client, block))
        client.finish()
        await client.ended()
        closed = await logged(gateway, "close")
        assert (closed["cause"], closed["bytes_in"]) == ("client", len(block)) and "upstream" not in closed


# ---- ends -----------------------------------------------------------------------------------------------------------


async def test_the_clients_end_is_carried_over_and_the_rest_still_comes(play: tuple[Play, Gateway]) -> None:
    upstream, gateway = play
    block = random.Random(4).randbytes(1 << 20)
    async with through(gateway.port(), upstream) as (client, far):
        await client.send(b"all of it")
        client.finish()
        assert await far.rest() == b"all of it"
        await asyncio.gather(far.send(block), exact(client, block))
        assert await count(gateway, "tidegate_tcp_connections") == 1
        await far.close()
        await client.ended()
        assert (await logged(gateway, "close"))["cause"] == "client"


async def test_the_servers_end_is_carried_over_and_the_rest_still_goes(play: tuple[Play, Gateway]) -> None:
    upstream, gateway = play
    async with through(gateway.port(), upstream) as (client, far):
        await far.send(b"goodbye")
        far.finish()
        assert await client.rest() == b"goodbye"
        await client.send(b"but I have more")
        await exact(far, b"but I have more")
        await client.close()
        await far.ended()
        assert (await logged(gateway, "close"))["cause"] == "upstream"


@pytest.mark.parametrize("lost", ["client", "upstream"])
async def test_a_reset_is_no_good_end(play: tuple[Play, Gateway], lost: str) -> None:
    upstream, gateway = play
    async with through(gateway.port(), upstream) as (client, far):
        one, other = (client, far) if lost == "client" else (far, client)
        await one.send(b"the beginning")
        await exact(other, b"the beginning")
        one.reset()
        assert await is_reset(other)
        assert (await logged(gateway, "close"))["cause"] == f"{lost}_lost"


async def test_a_client_that_takes_nothing_more_does_not_hold_the_server(play: tuple[Play, Gateway]) -> None:
    upstream, gateway = play
    async with through(gateway.port(), upstream) as (client, far):
        client.finish()
        await far.ended()
        client.reset()
        with contextlib.suppress(ConnectionError):
            while True:
                await far.send(bytes(1 << 16))
        assert (await logged(gateway, "close"))["cause"] == "client"


# ---- who is dialled -------------------------------------------------------------------------------------------------


async def test_the_next_endpoint_when_one_refuses() -> None:
    async with named("good") as good:
        app = {"endpoints": [vacant(), vacant(), good], "balance": "round_robin"}
        async with running(config({"app": app})) as gateway:
            assert {await bystander(gateway.port()) for _ in range(6)} == {"good"}
            await until(lambda: len(gateway.access_log().matching(event="open")) == 6)
            attempts = [record["attempts"] for record in gateway.access_log().matching(event="open")]
            assert set(attempts) <= {1, 2, 3} and max(attempts) > 1
            retried = await count(gateway, "tidegate_retries_total", upstream="app", on="connect")
            assert retried == sum(attempts) - len(attempts)


async def test_the_next_endpoint_when_one_does_not_answer() -> None:
    with full() as stuck:
        async with named("good") as good:
            app = {"endpoints": [stuck, good], "balance": "round_robin", "connect_timeout": "200ms"}
            async with running(config({"app": app})) as gateway:
                assert [await bystander(gateway.port()) for _ in range(2)] == ["good", "good"]


async def test_nobody_takes_it() -> None:
    with full() as stuck:
        listeners = {
            "edge": carrier(), "once": carrier(attempts=1), "late": carrier("stuck", connect_timeout="300ms"),
        }  # fmt: skip
        upstreams = {"app": {"endpoints": [vacant(), vacant()]}, "stuck": [stuck]}
        async with running(config(upstreams, listeners)) as gateway:
            for listener, reason, tries in (
                ("edge", "connect_failed", 2),
                ("once", "connect_failed", 1),
                ("late", "connect_timeout", 1),
            ):
                # The reset may be there before the client has looked at its new connection.
                with contextlib.suppress(ConnectionResetError):
                    async with dial(gateway.port(listener)) as client:
                        assert await is_reset(client)
                record = await logged(gateway, "refusal", listener=listener)
                assert (record["reason"], record["attempts"], record["protocol"]) == (reason, tries, "tcp")
                assert "status" not in record
                assert await count(gateway, "tidegate_tcp_refused_total", listener=listener, reason=reason) == 1
            assert await count(gateway, "tidegate_tcp_opened_total") == 0


async def test_shares_of_a_split() -> None:
    async with named("a") as a, named("b") as b:
        settings = config({"a": [a], "b": [b]}, {"edge": carrier({"a": 3, "b": 1})})
        async with running(settings) as gateway:
            asked = Counter([await bystander(gateway.port()) for _ in range(40)])
            assert asked == {"a": 30, "b": 10}


@pytest.mark.parametrize("balance", ["round_robin", "random", "least_connections", "two_choices"])
async def test_endpoints_take_turns(balance: str) -> None:
    async with contextlib.AsyncExitStack() as stack:
        urls = [await stack.enter_async_context(named(name)) for name in "abc"]
        app = {"endpoints": urls, "balance": balance}
        gateway = await stack.enter_async_context(running(config({"app": app})))
        asked = Counter(await asyncio.gather(*(bystander(gateway.port()) for _ in range(60))))
        assert set(asked) == {"a", "b", "c"}
        assert balance != "round_robin" or set(asked.values()) == {20}


async def test_the_one_with_the_fewest_connections() -> None:
    async with contextlib.AsyncExitStack() as stack:
        one, url_one = await stack.enter_async_context(server())
        two, url_two = await stack.enter_async_context(server())
        gateway = await stack.enter_async_context(running(config({"app": [url_one, url_two]})))
        for number in range(8):
            await stack.enter_async_context(dial(gateway.port()))
            await until(lambda expected=number + 1: one.connections + two.connections == expected)  # type: ignore[misc]
        assert (one.connections, two.connections) == (4, 4)


async def test_a_clients_address_decides() -> None:
    async with contextlib.AsyncExitStack() as stack:
        urls = [await stack.enter_async_context(named(name)) for name in "abc"]
        app = {"endpoints": urls, "balance": {"hash": "client_ip"}}
        gateway = await stack.enter_async_context(running(config({"app": app})))
        chosen = []
        for number in range(1, 30):
            source = (f"127.0.1.{number}", 0)
            names = {await bystander(gateway.port(), local_addr=source) for _ in range(3)}
            assert len(names) == 1
            chosen.append(names.pop())
        assert set(chosen) == {"a", "b", "c"}


async def test_an_endpoint_that_fails_too_often_gets_nothing_for_a_while() -> None:
    async with named("good") as good:
        app = {"endpoints": [vacant(), good], "balance": "round_robin", "eject": {"failures": 2, "for": "60s"}}
        async with running(config({"app": app})) as gateway:
            assert {await bystander(gateway.port()) for _ in range(10)} == {"good"}
            await until(lambda: len(gateway.access_log().matching(event="open")) == 10)
            attempts = [record["attempts"] for record in gateway.access_log().matching(event="open")]
            assert attempts.count(2) == 2 and attempts[-4:] == [1, 1, 1, 1]
            assert await count(gateway, "tidegate_endpoint_ejections_total", upstream="app") == 1


# ---- how long -------------------------------------------------------------------------------------------------------


async def test_idle() -> None:
    async with server() as (upstream, url):
        settings = config({"app": [url]}, {"edge": carrier(idle="400ms")})
        async with running(settings) as gateway, through(gateway.port(), upstream) as (client, far):
            for sender, receiver in [(client, far), (far, client)] * 4:
                await asyncio.sleep(0.15)  # less than idle: the traffic is what is tested
                await sender.send(b"x")
                await exact(receiver, b"x")
            await asyncio.gather(client.ended(), far.ended())
            closed = await logged(gateway, "close")
            assert closed["cause"] == "idle" and closed["duration_ms"] >= 1500


async def test_a_half_closed_connection_is_idle_too() -> None:
    async with server() as (upstream, url):
        settings = config({"app": [url]}, {"edge": carrier(idle="300ms")})
        async with running(settings) as gateway, through(gateway.port(), upstream) as (client, far):
            client.finish()
            await far.ended()
            await client.ended()
            assert (await logged(gateway, "close"))["cause"] == "idle"


async def test_lifetime() -> None:
    async with server() as (upstream, url):
        settings = config({"app": [url]}, {"edge": carrier(max_lifetime="500ms")})
        async with running(settings) as gateway, through(gateway.port(), upstream) as (client, far):

            async def talk() -> None:
                with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
                    while True:
                        await client.send(b"x")
                        await exact(far, b"x")

            await talk()
            closed = await logged(gateway, "close")
            assert closed["cause"] == "lifetime" and 400 <= closed["duration_ms"] < 5_000


async def test_a_reader_that_stalls_stops_its_sender(play: tuple[Play, Gateway]) -> None:
    """Beside what the kernel's buffers take, the gateway holds 64 KiB."""
    upstream, gateway = play
    async with through(gateway.port(), upstream) as (client, far):
        far.pause()
        sent = 0
        with contextlib.suppress(TimeoutError):
            while True:
                async with asyncio.timeout(1.0):
                    await client.send(bytes(1 << 16))
                sent += 1 << 16
        received = await count(gateway, "tidegate_tcp_bytes_total", direction="to_upstream")
        await asyncio.sleep(0.2)  # nothing more is read, however long it takes
        assert await count(gateway, "tidegate_tcp_bytes_total", direction="to_upstream") == received
        # The other direction does not notice.
        await far.send(b"still here")
        await exact(client, b"still here")
        far.resume()
        await client.send(b"")
        await exact(far, bytes(sent))


# ---- who may --------------------------------------------------------------------------------------------------------


async def test_clients_are_let_in_by_address() -> None:
    async with named("welcome") as app:
        access = {"allow": ["127.0.0.0/8", "203.0.113.0/24"], "deny": ["127.0.0.0/24", "203.0.113.7"]}
        guarded = {"access": access}
        listeners = {
            "edge": carrier(listener=guarded),
            "behind": carrier(listener={**guarded, "proxy_protocol": {"from": ["127.0.0.1"]}}),
            "http": {"bind": LOOPBACK, **guarded},
        }
        settings = config({"app": [app]}, listeners, routes=[{"respond": {"body": "welcome"}}])
        async with running(settings) as gateway:
            port = gateway.port("edge")
            assert await bystander(port, local_addr=("127.0.1.1", 0)) == "welcome"
            assert await is_denied(port)
            assert await is_denied(gateway.port("behind"), PROXIED)
            async with dial(gateway.port("behind")) as allowed:
                await allowed.send(PROXIED.replace(b"113.7", b"113.8"))
                assert await allowed.rest() == b"welcome"
            assert await is_denied(gateway.port("http"))
            record = await logged(gateway, "refusal", listener="behind")
            assert (record["client"], record["reason"]) == ("203.0.113.7", "access_denied")
            assert (await logged(gateway, "open", listener="behind"))["client"] == "203.0.113.8"
            for listener in listeners:
                labels = {"listener": listener, "reason": "access_denied"}
                assert await count(gateway, "tidegate_connections_failed_total", **labels) == 1


async def is_denied(port: int, first: bytes = b"") -> bool:
    """Whether a connection is reset; that may come before the client knows that it has connected."""
    try:
        async with dial(port) as wire:
            await wire.send(first)
            return await is_reset(wire)
    except ConnectionResetError:
        return True


async def test_more_connections_wait() -> None:
    async with server() as (upstream, url):
        settings = config({"app": [url]}, {"edge": carrier(listener={"limits": {"connections": 1}})})
        async with (
            running(settings) as gateway,
            through(gateway.port(), upstream) as (first, far),
            dial(gateway.port()) as second,
        ):
            await second.send(b"hello")
            await until(lambda: gateway.metrics().value("tidegate_accept_paused_total") >= 1)
            assert upstream.unexpected == 0
            await first.close()
            await far.close()
            await exact(await upstream.connection(), b"hello")
