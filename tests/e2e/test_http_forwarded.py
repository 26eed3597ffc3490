"""What an upstream is told about the client, and whom the gateway believes about it."""

import asyncio
import re
from collections.abc import Iterator

import pytest

from tests.e2e.kit.peers import dial_unix
from tests.e2e.kit.wire import Head, Lanes, Play, Wire, dial, request_bytes
from tidegate.testing import Gateway

LANES = 40


@pytest.fixture(scope="module")
def gateway(lanes: Lanes, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    directory = tmp_path_factory.mktemp("forwarded")
    config = {
        "listeners": {
            "edge": {"bind": ["127.0.0.1:0", "[::1]:0", f"unix:{directory}/edge.sock"]},
            "behind": {"bind": "127.0.0.1:0", "trusted_proxies": ["127.0.0.0/8", "10.0.0.0/8"]},
        },
        "routes": [
            *lanes.routes(),
            {"name": "fixed", "match": {"path": {"exact": "/fixed"}}, "respond": {"body": "hello"}},
            {"name": "away", "match": {"path": {"exact": "/away"}}, "redirect": {"to": "/fixed"}},
        ],
        "upstreams": lanes.upstreams(),
    }
    with Gateway(config, directory=directory) as gateway:
        yield gateway


async def asked(client: Wire, upstream: Play, *fields: str, host: str = "gateway.test") -> Head:
    """The head that the upstream gets for a request with these fields."""
    await client.send(request_bytes(f"GET {upstream.prefix}", *fields, host=host))
    server = await upstream.connection()
    head = await server.head()
    await server.send(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok")
    assert (await client.answer())[1] == b"ok"
    return head


NAMES = ("x-forwarded-for", "x-forwarded-proto", "x-forwarded-host", "x-forwarded-port", "forwarded")
CLAIMED = (*NAMES, "x-forwarded-server", "x-forwarded-prefix", "x-real-ip", "x_forwarded_for")


async def told(port: int, upstream: Play, *fields: str, host: str = "gateway.test") -> dict[str, str]:
    async with dial(port) as client:
        head = await asked(client, upstream, *fields, host=host)
    return {name: value for name in CLAIMED if (value := head.get(name))}


LIES = (
    "X-Forwarded-For: 1.1.1.1, 10.0.0.9",
    "X-Forwarded-Proto: https",
    "X-Forwarded-Host: elsewhere.test",
    "X-Forwarded-Port: 444",
    "X-Forwarded-Server: liar",
    "X-Forwarded-Prefix: /liar",
    "Forwarded: for=1.1.1.1",
    "X-Real-IP: 1.1.1.1",
    "X_Forwarded_For: 1.1.1.1",
)


@pytest.mark.parametrize(
    "fields",
    [(), LIES, ("Connection: X-Forwarded-For, Forwarded, X-Forwarded-Port", *LIES)],
    ids=["nothing", "lies", "lies-named-by-connection"],
)
async def test_nobody_may_choose_their_own_address(gateway: Gateway, upstream: Play, fields: tuple[str, ...]) -> None:
    assert await told(gateway.port("edge"), upstream, *fields) == {
        "x-forwarded-for": "127.0.0.1",
        "x-forwarded-proto": "http",
        "x-forwarded-host": "gateway.test",
        "x-forwarded-port": "80",
        "forwarded": "for=127.0.0.1;host=gateway.test;proto=http",
    }


async def test_the_port_is_the_one_that_the_client_names(gateway: Gateway, upstream: Play) -> None:
    said = await told(gateway.port("edge"), upstream, host="gateway.test:8080")
    assert (said["x-forwarded-host"], said["x-forwarded-port"]) == ("gateway.test:8080", "8080")
    assert said["forwarded"] == 'for=127.0.0.1;host="gateway.test:8080";proto=http'


async def test_an_ipv6_address_is_quoted_in_forwarded(gateway: Gateway, upstream: Play) -> None:
    address = next(each for each in gateway.addresses("edge") if each.startswith("[::1]"))
    async with dial(int(address.rpartition(":")[2]), host="::1") as client:
        head = await asked(client, upstream)
    assert head.get("x-forwarded-for") == "::1"
    assert head.get("forwarded") == 'for="[::1]";host=gateway.test;proto=http'


async def test_over_a_unix_socket_there_is_no_address_to_tell(gateway: Gateway, upstream: Play) -> None:
    async with dial_unix(str(gateway.directory / "edge.sock")) as client:
        head = await asked(client, upstream, *LIES)
    assert head.get("x-forwarded-for") is None
    assert head.get("forwarded") == "for=unknown;host=gateway.test;proto=http"


async def test_trusted_proxies_are_believed_and_appended_to(gateway: Gateway, upstream: Play) -> None:
    said = await told(gateway.port("behind"), upstream, *LIES, "X-Request-Id: mine-1")
    first = "for=1.1.1.1;host=elsewhere.test;proto=https"
    assert said == {
        "x-forwarded-for": "1.1.1.1, 10.0.0.9, 127.0.0.1",
        "x-forwarded-proto": "https",
        "x-forwarded-host": "elsewhere.test",
        "x-forwarded-port": "444",
        "x-forwarded-server": "liar",
        "x-forwarded-prefix": "/liar",
        "x-real-ip": "1.1.1.1",
        "forwarded": f"{first}, for=10.0.0.9, for=127.0.0.1;host=gateway.test;proto=http",
    }
    record = await asyncio.to_thread(gateway.access_log().wait_for, request_id="mine-1")
    assert record["client"] == "1.1.1.1"


async def test_forwarded_of_a_trusted_proxy_is_believed_and_appended_to(gateway: Gateway, upstream: Play) -> None:
    fields = ('Forwarded: for=6.6.6.6, for="[2001:db8::7]:99";proto=https;by=_a', "Forwarded: For=10.0.0.9")
    said = await told(gateway.port("behind"), upstream, *fields, "X-Request-Id: mine-2")
    assert said["forwarded"] == (
        'for=6.6.6.6, for="[2001:db8::7]:99";proto=https;by=_a, For=10.0.0.9, '
        "for=127.0.0.1;host=gateway.test;proto=http"
    )
    assert said["x-forwarded-for"] == "6.6.6.6, 2001:db8::7, 10.0.0.9, 127.0.0.1"
    record = await asyncio.to_thread(gateway.access_log().wait_for, request_id="mine-2")
    assert record["client"] == "2001:db8::7", "the last one that is no trusted proxy"


async def test_an_https_that_a_trusted_proxy_forwards_tells_its_port(gateway: Gateway, upstream: Play) -> None:
    said = await told(gateway.port("behind"), upstream, "Forwarded: for=1.1.1.1;proto=https;host=shop.test")
    assert (said["x-forwarded-proto"], said["x-forwarded-host"], said["x-forwarded-port"]) == (
        "https",
        "shop.test",
        "443",
    )


async def test_a_forwarded_that_says_something_else_is_not_passed_on(gateway: Gateway, upstream: Play) -> None:
    """A proxy that writes only X-Forwarded-For lets a client's Forwarded pass: the upstream must not believe it."""
    fields = ("X-Forwarded-For: 1.1.1.1", "Forwarded: for=6.6.6.6;proto=https", "X-Request-Id: mine-3")
    said = await told(gateway.port("behind"), upstream, *fields)
    first = "for=1.1.1.1;host=gateway.test;proto=http"
    assert said["forwarded"] == f"{first}, for=127.0.0.1;host=gateway.test;proto=http"
    assert said["x-forwarded-proto"] == "http"
    record = await asyncio.to_thread(gateway.access_log().wait_for, request_id="mine-3")
    assert record["client"] == "1.1.1.1"


async def test_an_unreadable_forwarded_is_replaced(gateway: Gateway, upstream: Play) -> None:
    said = await told(gateway.port("behind"), upstream, 'Forwarded: for="1.1.1.1, for=2.2.2.2', "X-Request-Id: mine-4")
    assert said["forwarded"] == "for=127.0.0.1;host=gateway.test;proto=http"
    assert said["x-forwarded-for"] == "127.0.0.1"
    record = await asyncio.to_thread(gateway.access_log().wait_for, request_id="mine-4")
    assert record["client"] == "127.0.0.1"


async def test_several_chains_become_one(gateway: Gateway, upstream: Play) -> None:
    fields = ("X-Forwarded-For: 1.1.1.1", "X-Forwarded-For: 2.2.2.2, 10.1.1.1")
    said = await told(gateway.port("behind"), upstream, *fields)
    assert said["x-forwarded-for"] == "1.1.1.1, 2.2.2.2, 10.1.1.1, 127.0.0.1"


# ---- the request's id -----------------------------------------------------------------------------------------------


async def test_a_request_s_id_goes_both_ways(gateway: Gateway, upstream: Play) -> None:
    seen = set()
    async with dial(gateway.port("edge")) as client:
        for _ in range(2):
            await client.send(request_bytes(f"GET {upstream.prefix}", "X-Request-Id: mine"))
            server = await upstream.connection()
            head = await server.head()
            await server.send(
                b"HTTP/1.1 200 OK\r\nx-request-id: other\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
            )
            answer, _ = await client.answer()
            assert re.fullmatch("[0-9a-f]{32}", head.get("x-request-id") or ""), "a client may not choose it"
            assert answer.get("x-request-id") == head.get("x-request-id")
            seen.add(head.get("x-request-id"))
    assert len(seen) == 2


async def test_a_trusted_proxy_s_id_is_kept(gateway: Gateway, upstream: Play) -> None:
    async with dial(gateway.port("behind")) as client:
        for sent, is_kept in (("mine-5", True), ("a" * 128, True), ("a" * 129, False), ("a b", False)):
            await client.send(request_bytes(f"GET {upstream.prefix}", f"X-Request-Id: {sent}"))
            server = await upstream.connection()
            head = await server.head()
            await server.send(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")
            answer, _ = await client.answer()
            assert (head.get("x-request-id") == sent) == is_kept
            assert answer.get("x-request-id") == head.get("x-request-id")


@pytest.mark.parametrize("path", ["/fixed", "/away", "/nothing-here"])
async def test_our_own_answers_name_the_request(gateway: Gateway, path: str) -> None:
    async with dial(gateway.port("behind")) as client:
        await client.send(request_bytes(f"GET {path}", "X-Request-Id: mine-6"))
        head, _ = await client.answer()
        assert head.get("x-request-id") == "mine-6"
