"""TCP connections while the configuration changes and while the gateway ends."""

import asyncio
import contextlib
import itertools
import signal
import time

from tests.e2e.kit.peers import running
from tests.e2e.kit.sites import Config, reload
from tests.e2e.kit.tcp import named, server, through
from tests.e2e.kit.wire import Wire, dial
from tests.e2e.test_tcp import carrier, config, exact, logged
from tidegate.testing import Gateway


async def echo(client: Wire, far: Wire) -> None:
    await client.send(b"tide")
    await exact(far, b"tide")
    await far.send(b"back")
    await exact(client, b"back")


def changed(settings: Config, **more: object) -> Config:
    return {**settings, "drain": {"window": "200ms", "timeout": "5s"}, **more}


async def test_a_reload_keeps_what_is_open_and_concerns_what_comes() -> None:
    async with server() as (upstream, url), named("other") as other:
        settings = changed(config({"app": [url]}))
        async with running(settings) as gateway, through(gateway.port(), upstream) as (client, far):
            await reload(gateway, changed(config({"app": [other]}, {"edge": carrier(idle="1s", max_lifetime="10s")})))
            async with dial(gateway.port()) as fresh:
                assert await fresh.rest() == b"other"
            await echo(client, far)
            await reload(gateway, changed(config({"app": [url]}, {"edge": carrier(idle="never")})))
            await echo(client, far)


async def test_what_leaves_the_configuration_takes_its_connections_along() -> None:
    async with server() as (one, url_one), server() as (two, url_two):
        both = {"edge": carrier("one"), "side": carrier("two"), "third": carrier("one")}
        settings = changed(config({"one": [url_one], "two": [url_two]}, both))
        async with contextlib.AsyncExitStack() as stack:
            gateway = await stack.enter_async_context(running(settings))
            kept, kept_far = await stack.enter_async_context(through(gateway.port("edge"), one))
            gone, gone_far = await stack.enter_async_context(through(gateway.port("side"), two))
            shut, shut_far = await stack.enter_async_context(through(gateway.port("third"), one))
            rest = {"edge": carrier("one"), "side": carrier("one")}
            await reload(gateway, changed(config({"one": [url_one]}, rest)))
            await asyncio.gather(gone.ended(), gone_far.ended(), shut.ended(), shut_far.ended())
            await echo(kept, kept_far)
            assert (await logged(gateway, "close", listener="side"))["cause"] == "reload"
            assert (await logged(gateway, "close", listener="third"))["cause"] == "reload"


async def test_a_listener_that_speaks_http_now() -> None:
    async with server() as (upstream, url):
        settings = changed(config({"app": [url]}, {"edge": carrier(listener={"bind": "127.0.0.1:0"})}))
        async with running(settings) as gateway, through(gateway.port(), upstream) as (client, far):
            http = {"edge": {"bind": "127.0.0.1:0"}}
            await reload(gateway, changed({"listeners": http, "routes": [{"respond": {"body": "hello"}}]}))
            await asyncio.gather(client.ended(), far.ended())
            async with dial(gateway.port()) as fresh:
                await fresh.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
                assert (await fresh.answer())[1] == b"hello"


async def begin(gateway: Gateway) -> None:
    gateway.signal(signal.SIGTERM)
    await asyncio.to_thread(gateway.log().wait_for, event="draining")


async def test_a_drain_waits_for_connections_to_end_by_themselves() -> None:
    async with server() as (upstream, url):
        settings = config({"app": [url]}, drain={"window": "1s", "timeout": "60s"})
        async with running(settings) as gateway, through(gateway.port(), upstream) as (client, far):
            await begin(gateway)
            await echo(client, far)
            began = time.monotonic()
            await client.close()
            await far.ended()
            await far.close()
            assert await asyncio.to_thread(gateway.wait) == 0
            assert time.monotonic() - began < 20
            assert (await logged(gateway, "close"))["cause"] == "client"


async def test_a_drain_ends_the_others_one_after_the_other() -> None:
    async with server() as (upstream, url):
        settings = config({"app": [url]}, drain={"window": "2s", "timeout": "6s"})
        async with contextlib.AsyncExitStack() as stack:
            gateway = await stack.enter_async_context(running(settings))
            pairs = [await stack.enter_async_context(through(gateway.port(), upstream)) for _ in range(100)]
            began = time.monotonic()
            await begin(gateway)
            ends: list[float] = []

            async def end(client: Wire) -> None:
                await client.ended()
                ends.append(time.monotonic() - began)

            await asyncio.gather(*(end(client) for client, _ in pairs))
            assert await asyncio.to_thread(gateway.wait) == 0
            records = gateway.access_log().matching(event="close")
            assert {record["cause"] for record in records} == {"drain"} and len(records) == 100
            # Not before the last window, and not together.
            ends.sort()
            assert ends[0] > 1.5 and ends[-1] < 6 and ends[-1] - ends[0] > 1
            assert max(later - sooner for sooner, later in itertools.pairwise(ends)) < 0.7


async def test_a_drain_cuts_what_takes_nothing() -> None:
    async with server() as (upstream, url):
        settings = config({"app": [url]}, drain={"window": "0s", "timeout": "1500ms"})
        async with running(settings) as gateway, through(gateway.port(), upstream) as (client, far):
            far.pause()
            with contextlib.suppress(TimeoutError):
                while True:
                    async with asyncio.timeout(0.5):
                        await client.send(bytes(1 << 16))
            began = time.monotonic()
            await begin(gateway)
            assert await asyncio.to_thread(gateway.wait) == 0
            assert time.monotonic() - began < 10
            assert (await logged(gateway, "close"))["cause"] == "drain"
