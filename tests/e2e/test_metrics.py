"""What a scrape of the admin address says, while things happen and after."""

import asyncio
import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from websockets.asyncio.client import connect

from tests.e2e.kit.bridge import attempt
from tests.e2e.kit.named import asked
from tests.e2e.kit.prometheus import Family, parse
from tests.e2e.kit.wire import dial, request_bytes
from tidegate.testing import EchoUpstream, Gateway

# By name: the type, and the labels of the samples.
COVERED: dict[str, tuple[str, set[str]]] = {
    "tidegate_websocket_connections": ("gauge", {"listener", "route", "upstream", "protocol"}),
    "tidegate_websocket_handshakes_total": ("counter", {"listener", "route", "protocol", "status", "reason"}),
    "tidegate_websocket_messages_total": ("counter", {"route", "direction", "opcode"}),
    "tidegate_websocket_bytes_total": ("counter", {"route", "direction"}),
    "tidegate_websocket_closed_total": ("counter", {"route", "code", "cause"}),
    "tidegate_websocket_seconds": ("histogram", {"route", "cause"}),
    "tidegate_websocket_ping_seconds": ("histogram", {"route", "side"}),
    "tidegate_http_requests_total": ("counter", {"route", "status"}),
    "tidegate_http_request_seconds": ("histogram", {"route"}),
    "tidegate_config_reloads_total": ("counter", {"result"}),
    "tidegate_config_generation": ("gauge", set()),
    "tidegate_endpoint_connections": ("gauge", {"upstream", "endpoint"}),
    "tidegate_endpoint_connect_failures_total": ("counter", {"upstream", "endpoint"}),
    "tidegate_connections": ("gauge", {"address"}),
    "tidegate_connections_accepted_total": ("counter", {"listener"}),
}


@pytest.fixture(scope="module")
def upstream() -> Iterator[EchoUpstream]:
    with EchoUpstream() as upstream:
        yield upstream


def configuration(upstream: EchoUpstream) -> dict[str, Any]:
    chatty = {"ping": {"every": "100ms", "timeout": "5s", "to": ["downstream", "upstream"]}}
    return {
        "listeners": {"edge": {"bind": "127.0.0.1:0"}},
        "routes": [
            {"name": 'odd "name\\', "match": {"path": {"prefix": "/odd"}}, "respond": {"body": "odd"}},
            *(
                {"name": name, "match": {"path": {"prefix": f"/{name}"}}, "to": "app"}
                for name in ("moving", "codes", "plain", "names", "mixed")
            ),
            {"name": "pinged", "match": {"path": {"prefix": "/pinged"}}, "to": "app", "websocket": chatty},
            {"name": "quiet", "match": {"path": {"prefix": "/quiet"}}, "to": "app", "websocket": {"enabled": False}},
            {"name": "dead", "match": {"path": {"prefix": "/dead"}}, "to": "dead"},
            {"name": "fixed", "match": {"path": {"prefix": "/fixed"}}, "respond": {"body": "fixed"}},
            {"name": "echo", "match": {"path": {"prefix": "/echo"}}, "respond": "echo"},
        ],
        "upstreams": {"app": {"endpoints": [upstream.url]}, "dead": {"endpoints": ["http://127.0.0.1:1"]}},
    }


@pytest.fixture(scope="module")
def gateway(upstream: EchoUpstream) -> Iterator[Gateway]:
    with Gateway(configuration(upstream)) as gateway:
        yield gateway


async def scrape(gateway: Gateway) -> dict[str, Family]:
    status, text = await asyncio.to_thread(gateway.admin, "/metrics")
    assert status == 200
    return parse(text)


async def settle(gateway: Gateway, test: Callable[[dict[str, Family]], bool]) -> dict[str, Family]:
    """Scrape until `test` holds: a counter moves without an event to wait for."""
    async with asyncio.timeout(10):
        while not test(found := await scrape(gateway)):
            await asyncio.sleep(0.01)
    return found


def live(found: dict[str, Family], route: str) -> float:
    return found["tidegate_websocket_connections"].value(route=route)


async def test_every_name_has_its_type_and_labels(gateway: Gateway) -> None:
    async with connect(gateway.ws(path="/names")) as client:
        await client.send("a")
        await client.recv()
    async with connect(gateway.ws(path="/pinged")):
        await settle(gateway, lambda found: found["tidegate_websocket_ping_seconds"].value("_count") > 0)
    async with dial(gateway.port()) as client:
        await asked(client, "/names")
        await asked(client, "/dead")
    await asyncio.to_thread(gateway.reload)
    found = await settle(gateway, lambda found: "tidegate_websocket_closed_total" in found)
    for name, (kind, labels) in COVERED.items():
        assert found[name].kind == kind, name
        assert found[name].label_names() == {frozenset(labels)}, name
        assert found[name].help, name
    assert all(family.help for name, family in found.items() if name.startswith("tidegate_"))


async def test_a_scrape_may_ask_for_openmetrics(gateway: Gateway) -> None:
    async with dial(gateway.port()) as client:
        assert await asked(client, "/odd") == "odd"
    accept = {"Accept": "application/openmetrics-text; version=1.0.0, text/plain;q=0.5"}
    _, text = await asyncio.to_thread(gateway.admin, "/metrics", "GET", accept)
    found = parse(text, openmetrics=True)
    assert found["tidegate_http_requests_total"].value("_total", route='odd "name\\') >= 1
    assert (await scrape(gateway))["tidegate_http_requests_total"].value(route='odd "name\\') >= 1


async def test_they_move_while_a_websocket_is_open(gateway: Gateway, upstream: EchoUpstream) -> None:
    async with connect(gateway.ws(path="/moving"), compression=None) as client:
        labels = {"listener": "edge", "route": "moving", "upstream": "app", "protocol": "h1"}
        # The client has its 101 a moment before the gateway counts it.
        found = await settle(gateway, lambda found: live(found, "moving") == 1)
        assert found["tidegate_websocket_connections"].value(**labels) == 1
        assert found["tidegate_endpoint_connections"].value(upstream="app") == 1
        endpoint = upstream.url.removeprefix("http://")
        assert found["tidegate_endpoint_connections"].value(endpoint=endpoint) == 1
        for number in range(1, 4):
            await client.send("12345")
            await client.recv()
            await client.send(b"123")
            await client.recv()
            await (await client.ping(b"12"))
            found = await scrape(gateway)
            messages, volume = found["tidegate_websocket_messages_total"], found["tidegate_websocket_bytes_total"]
            for direction in ("to_upstream", "to_client"):
                way = {"route": "moving", "direction": direction}
                assert messages.value(opcode="text", **way) == number
                assert messages.value(opcode="binary", **way) == number
                assert volume.value(**way) == number * 8
            assert messages.value(route="moving", direction="to_upstream", opcode="ping") == number
            assert messages.value(route="moving", direction="to_client", opcode="pong") == number
        await client.send(["1", "2", "3"])
        await client.recv()
        found = await scrape(gateway)
        text = {"route": "moving", "direction": "to_upstream", "opcode": "text"}
        assert found["tidegate_websocket_messages_total"].value(**text) == 4, "fragments are one message"
        closed = found.get("tidegate_websocket_closed_total")  # none before the first WebSocket of all has ended
        assert closed is None or closed.value(route="moving") == 0
        assert live(found, "moving") == 1
    found = await settle(gateway, lambda found: live(found, "moving") == 0)
    assert found["tidegate_websocket_closed_total"].value(route="moving", code="1000", cause="client") == 1
    assert found["tidegate_websocket_seconds"].value("_count", route="moving", cause="client") == 1
    assert found["tidegate_websocket_messages_total"].value(route="moving", opcode="close") == 2
    assert found["tidegate_endpoint_connections"].value(upstream="app") == 0


def counted(found: dict[str, Family], name: str, suffix: str = "", **labels: str) -> float:
    """Nothing, where the first of all has still to come."""
    return found[name].value(suffix, **labels) if name in found else 0


async def test_websockets_are_not_among_the_requests(gateway: Gateway) -> None:
    before = await scrape(gateway)
    async with connect(gateway.ws(path="/mixed")):
        pass
    async with dial(gateway.port()) as client:
        await client.send(attempt("/quiet"))
        assert (await client.answer())[0].status == 403
    async with dial(gateway.port()) as client:
        await client.send(attempt("/fixed"))
        assert (await client.answer())[1] == b"fixed"
    async with dial(gateway.port()) as client:
        for _ in range(3):
            assert (await asked(client, "/mixed/x")).startswith("{")

    def is_counted(found: dict[str, Family]) -> bool:
        closed = counted(found, "tidegate_websocket_closed_total", route="mixed", cause="client")
        requests = counted(found, "tidegate_http_requests_total", route="mixed", status="200")
        return (closed, requests) == (1, 3)

    found = await settle(gateway, is_counted)
    assert counted(found, "tidegate_http_request_seconds", "_count", route="mixed") == 3
    for route in ("quiet", "fixed"):
        for name, suffix in [("tidegate_http_requests_total", ""), ("tidegate_http_request_seconds", "_count")]:
            assert counted(found, name, suffix, route=route) == counted(before, name, suffix, route=route), route
    handshakes = found["tidegate_websocket_handshakes_total"]
    assert handshakes.value(route="mixed") == handshakes.value(route="mixed", status="101", reason="") == 1


@pytest.mark.parametrize(
    ("path", "drop", "status", "reason"),
    [
        ("/quiet", "", 403, "websocket_disabled"),
        ("/plain", "sec-websocket-version", 426, "websocket_version"),
        ("/plain", "sec-websocket-key", 400, "websocket_key"),
        ("/dead", "", 502, "connect_failed"),
        ("/nothing", "", 404, "no_route"),
        ("/fixed", "", 200, "answered"),
    ],
)
async def test_attempts_count_by_status_and_reason(
    gateway: Gateway, path: str, drop: str, status: int, reason: str
) -> None:
    route = path[1:] if path != "/nothing" else ""
    labels = {"listener": "edge", "route": route, "protocol": "h1", "status": str(status), "reason": reason}

    async def count() -> float:
        found = await scrape(gateway)
        family = found.get("tidegate_websocket_handshakes_total")
        return family.value(**labels) if family else 0

    before = await count()
    async with dial(gateway.port()) as client:
        await client.send(attempt(path, drop=drop))
        assert (await client.answer())[0].status == status
    assert await count() == before + 1


@pytest.mark.parametrize(
    ("code", "label"), [(1000, "1000"), (1001, "1001"), (1013, "1013"), (3000, "3xxx"), (3999, "3xxx"), (4321, "4xxx")]
)
async def test_closes_count_by_code(gateway: Gateway, code: int, label: str) -> None:
    labels = {"route": "codes", "code": label, "cause": "client"}
    found = await scrape(gateway)
    before = (
        found["tidegate_websocket_closed_total"].value(**labels) if "tidegate_websocket_closed_total" in found else 0
    )
    async with connect(gateway.ws(path="/codes")) as client:
        await client.close(code)
    await settle(gateway, lambda found: closed(found, **labels) == before + 1)


def closed(found: dict[str, Family], **labels: str) -> float:
    family = found.get("tidegate_websocket_closed_total")
    return family.value(**labels) if family else 0


async def test_a_client_that_vanishes_has_no_code(gateway: Gateway) -> None:
    async with dial(gateway.port()) as client:
        await client.send(attempt("/codes"))
        assert (await client.head()).status == 101
        client.reset()
    await settle(gateway, lambda found: closed(found, route="codes", code="none", cause="client_lost") == 1)


async def test_requests_count_by_status(gateway: Gateway) -> None:
    async with dial(gateway.port()) as client:
        await asked(client, "/dead")
        await asked(client, "/nothing/at/all")
        await client.send(b"nonsense\r\n\r\n")
        assert (await client.answer())[0].status == 400
    found = await scrape(gateway)
    requests = found["tidegate_http_requests_total"]
    assert requests.value(route="dead", status="502") >= 1
    assert requests.value(route="", status="404") >= 1
    assert requests.value(route="", status="400") >= 1
    failures = found["tidegate_endpoint_connect_failures_total"]
    assert failures.value(upstream="dead", endpoint="127.0.0.1:1") >= 1


async def test_pings_are_timed(gateway: Gateway) -> None:
    before = (await scrape(gateway)).get("tidegate_websocket_ping_seconds", Family("none"))
    async with connect(gateway.ws(path="/pinged")):
        for side in ("client", "upstream"):
            wanted = before.value("_count", route="pinged", side=side) + 2
            await settle(
                gateway,
                lambda found, side=side, wanted=wanted: (  # type: ignore[misc] # of the loop's values
                    found["tidegate_websocket_ping_seconds"].value("_count", route="pinged", side=side) >= wanted
                ),
            )
    found = await settle(gateway, lambda found: live(found, "pinged") == 0)
    relayed = found["tidegate_websocket_messages_total"]
    assert relayed.value(route="pinged", opcode="ping") == 0, "our own pings are nobody's messages"


async def test_gauges_return_to_zero(gateway: Gateway) -> None:
    async with contextlib.AsyncExitStack() as stack:
        for _ in range(20):
            await stack.enter_async_context(connect(gateway.ws(path="/echo")))
        found = await scrape(gateway)
        assert live(found, "echo") == 20
        address = gateway.addresses()[0]
        assert found["tidegate_connections"].value(address=address) >= 20
    await settle(
        gateway,
        lambda found: (
            live(found, "echo") == 0
            and found["tidegate_connections"].value() == 0
            and found["tidegate_worker_connections"].value() == 0
            and found["tidegate_endpoint_connections"].value() == 0
        ),
    )


async def test_reloads_count_by_result(upstream: EchoUpstream) -> None:
    with Gateway(configuration(upstream)) as gateway:
        async with dial(gateway.port()) as client:
            assert await asked(client, "/fixed") == "fixed"
        reloads = (await scrape(gateway))["tidegate_config_reloads_total"]
        results = (reloads.value(result="success"), reloads.value(result="failure"))
        assert (results, reloads.label_names()) == ((0, 0), {frozenset({"result"})}), "a first one must be seen to come"
        await asyncio.to_thread(gateway.reload)
        await asyncio.to_thread(gateway.reload, "listeners: {edge: {bind: nonsense}}", False)
        found = await scrape(gateway)
        reloads = found["tidegate_config_reloads_total"]
        assert (reloads.value(result="success"), reloads.value(result="failure")) == (1, 1)
        assert found["tidegate_config_generation"].value() == 2
        assert found["tidegate_http_requests_total"].value(route="fixed") == 1, "counters outlive a configuration"


# ---- the admin address ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def guarded(upstream: EchoUpstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    directory = tmp_path_factory.mktemp("guarded")
    (directory / "admin.token").write_text("s3cret\n")
    admin = {"bind": "127.0.0.1:0", "token": "${file:admin.token}"}
    with Gateway({**configuration(upstream), "admin": admin}, directory=directory) as gateway:
        yield gateway


PROTECTED = ["GET /metrics", "GET /connections", "GET /config/status", "POST /reload", "POST /drain"]


@pytest.mark.parametrize("endpoint", PROTECTED)
@pytest.mark.parametrize("given", [None, "Bearer wrong", "Bearer s3cre", "Basic s3cret", "Bearer ", "s3cret"])
def test_a_token_guards_the_admin_address(guarded: Gateway, endpoint: str, given: str | None) -> None:
    method, path = endpoint.split()
    status, body = guarded.admin(path, method, {"Authorization": given} if given is not None else {})
    assert status == 401
    assert '"error":"unauthorized"' in body.replace(" ", "")


def test_the_token_opens_it(guarded: Gateway) -> None:
    for path in ("/metrics", "/connections", "/config/status"):
        assert guarded.admin(path, headers={"Authorization": "Bearer s3cret"})[0] == 200


@pytest.mark.parametrize("path", ["/ready", "/live"])
def test_ready_and_live_need_no_token(guarded: Gateway, path: str) -> None:
    assert guarded.admin(path)[0] == 200


def test_without_a_token_a_foreign_name_is_refused(gateway: Gateway) -> None:
    assert gateway.admin("/metrics", headers={"Host": "rebound.evil.test"})[0] == 403
    assert gateway.admin("/drain", "POST", {"Origin": "https://evil.test"})[0] == 403
    assert gateway.admin("/drain", "POST", {"Sec-Fetch-Site": "cross-site"})[0] == 403
    assert gateway.admin("/ready", headers={"Host": "rebound.evil.test"})[0] == 200


async def test_the_live_websockets_are_listed(gateway: Gateway, upstream: EchoUpstream) -> None:
    async with connect(gateway.ws(path="/names/listed?token=s3cret"), compression=None) as client:
        await client.send("12345")
        await client.recv()
        records = await asyncio.to_thread(gateway.connections)
        (record,) = [each for each in records if each["path"] == "/names/listed"]
        assert (record["route"], record["listener"], record["upstream"]) == ("names", "edge", "app")
        assert record["endpoint"] == upstream.url
        assert (record["client"], record["host"]) == ("127.0.0.1", f"127.0.0.1:{gateway.port()}")
        assert record["messages"] == {"to_upstream": 1, "to_client": 1}
        assert record["bytes"] == {"to_upstream": 5, "to_client": 5}
        assert "s3cret" not in str(records)


async def test_the_admin_address_answers_while_the_gateway_is_full() -> None:
    config = {
        "listeners": {"edge": {"bind": "127.0.0.1:0", "limits": {"connections": 2}}},
        "routes": [{"match": {"path": {"exact": "/fixed"}}, "respond": {"body": "fixed"}}],
    }
    with Gateway(config) as gateway:
        async with dial(gateway.port()) as one, dial(gateway.port()) as two:
            assert [await asked(each, "/fixed") for each in (one, two)] == ["fixed", "fixed"]
            # The kernel takes the third one; the gateway lets it wait.
            async with dial(gateway.port()) as three:
                await three.send(request_bytes("GET /fixed"))
                found = await settle(gateway, lambda found: "tidegate_accept_paused_total" in found)
                assert found["tidegate_accept_paused_total"].value(reason="connections") >= 1
                assert (await asyncio.to_thread(gateway.admin, "/ready"))[0] == 200
                await one.close()
                assert (await three.answer())[1] == b"fixed"
