"""TLS towards the client: versions, certificates by server name, client certificates, and change while it runs."""

import asyncio
import contextlib
import socket
import ssl
import time
import warnings
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from websockets.asyncio.client import connect

from tests.e2e.kit.bridge import attempt
from tests.e2e.kit.certificates import Authority, client_context, serial_of
from tests.e2e.kit.peers import EchoServer, answer_close, echoes, open_peer, running
from tests.e2e.kit.sites import LOOPBACK, Config, reload, route, site, until
from tests.e2e.kit.wire import Wire, dial, request_bytes, soon
from tidegate.testing import Gateway


@dataclass
class Secured:
    """A gateway with TLS, and the files that it reads."""

    gateway: Gateway
    directory: Path
    authority: Authority
    clients: Authority
    strangers: Authority

    def context(self, certificate: str | None = None, **settings: Any) -> ssl.SSLContext:
        return client_context(self.directory, self.authority, certificate, **settings)

    @contextlib.asynccontextmanager
    async def dial(self, name: str | None, certificate: str | None = None, **settings: Any) -> AsyncIterator[Wire]:
        """A connection that asks for the server `name`; for none when that is None."""
        options = {"server_hostname": name} if name else {}
        context = self.context(certificate, **settings)
        async with dial(self.gateway.port("edge"), ssl=context, **options) as wire:
            yield wire

    async def get(self, name: str | None, host: str, certificate: str | None = None, **settings: Any) -> int:
        """The status for a request for `host` on a connection for `name`."""
        async with self.dial(name, certificate, **settings) as wire:
            return await status(wire, host)


async def status(wire: Wire, host: str) -> int:
    await wire.send(request_bytes("GET /fixed", host=host))
    return (await wire.answer())[0].status


HASTY = {"tls": "700ms"}


def ssl_object(wire: Wire) -> ssl.SSLObject:
    found = wire._writer.get_extra_info("ssl_object")
    assert isinstance(found, ssl.SSLObject)
    return found


def configuration(authority: Authority, clients: Authority, *routes: Config, **more: Any) -> Config:
    tls = {
        "certificates": [{"cert": f"{name}.pem", "key": f"{name}.key"} for name in ("default", "wild", "exact")],
        "by_name": {
            "admin.site.test": {"client_ca": clients.file, "client_auth": "require"},
            "maybe.site.test": {"client_ca": clients.file, "client_auth": "request"},
            "modern.site.test": {"min_version": "1.3"},
        },
    }
    listeners = {"edge": {"bind": LOOPBACK, "tls": tls}, "hasty": {"bind": LOOPBACK, "tls": tls, "timeouts": HASTY}}
    return site(
        route("own", respond="echo"), route("fixed", respond={"body": "here"}), *routes, listeners=listeners, **more
    )


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secured]:
    with _secured(tmp_path_factory.mktemp("tls")) as built:
        yield built


@contextlib.contextmanager
def _secured(directory: Path) -> Iterator[Secured]:
    authority = Authority(directory)
    clients, strangers = Authority(directory, "clients"), Authority(directory, "strangers")
    authority.issue("default", "default.test")
    authority.issue("wild", "site.test", "*.site.test")
    authority.issue("exact", "exact.site.test")
    clients.issue("member", "member@site.test")
    strangers.issue("stranger", "stranger@site.test")
    with Gateway(configuration(authority, clients), directory=directory) as gateway:
        yield Secured(gateway, directory, authority, clients, strangers)


def failures(gateway: Gateway, reason: str, listener: str = "edge") -> float:
    return gateway.metrics().value("tidegate_connections_failed_total", listener=listener, reason=reason)


# ---- versions -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "version,name", [(ssl.TLSVersion.TLSv1_2, "TLSv1.2"), (ssl.TLSVersion.TLSv1_3, "TLSv1.3")], ids=["1.2", "1.3"]
)
async def test_versions(secured: Secured, version: ssl.TLSVersion, name: str) -> None:
    async with secured.dial("site.test", minimum_version=version, maximum_version=version) as wire:
        assert ssl_object(wire).version() == name
        assert await status(wire, "site.test") == 200


async def test_older_versions_are_refused(secured: Secured) -> None:
    context = secured.context()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_1
    context.set_ciphers("ALL:@SECLEVEL=0")  # or OpenSSL itself would not say hello
    with pytest.raises(ssl.SSLError, match=r"(?i)alert"):
        await soon(asyncio.open_connection("127.0.0.1", secured.gateway.port("edge"), ssl=context))


async def test_a_name_may_ask_for_more(secured: Secured) -> None:
    old = ssl.TLSVersion.TLSv1_2
    assert await secured.get("modern.site.test", "modern.site.test") == 200
    with pytest.raises(ssl.SSLError):
        await secured.get("modern.site.test", "modern.site.test", maximum_version=old)
    assert await secured.get("site.test", "site.test", maximum_version=old) == 200


async def test_alpn(secured: Secured) -> None:
    context = secured.context()
    context.set_alpn_protocols(["http/1.1"])
    async with dial(secured.gateway.port("edge"), ssl=context, server_hostname="site.test") as wire:
        assert ssl_object(wire).selected_alpn_protocol() == "http/1.1"
        assert await status(wire, "site.test") == 200
    context.set_alpn_protocols(["http/1.1", "h2"])
    async with dial(secured.gateway.port("edge"), ssl=context, server_hostname="site.test") as wire:
        assert ssl_object(wire).selected_alpn_protocol() == "h2", "the better one, whatever the client's order"
    context.set_alpn_protocols(["spdy/3"])
    with pytest.raises(ssl.SSLError, match=r"(?i)no.application.protocol"):
        await soon(
            asyncio.open_connection("127.0.0.1", secured.gateway.port("edge"), ssl=context, server_hostname="site.test")
        )


# ---- certificates ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name,certificate",
    [
        ("exact.site.test", "exact"),
        ("EXACT.site.test", "exact"),
        ("any.site.test", "wild"),
        ("site.test", "wild"),
        ("a.b.site.test", "default"),
        ("default.test", "default"),
        ("unknown.test", "default"),
        (None, "default"),
    ],
)
async def test_the_certificate_for_a_name(secured: Secured, name: str | None, certificate: str) -> None:
    async with secured.dial(name) as wire:
        assert serial_of(ssl_object(wire)) == secured.authority.serial(certificate)


async def test_client_certificates_by_name(secured: Secured) -> None:
    admin, maybe = "admin.site.test", "maybe.site.test"
    assert await secured.get(admin, admin, "member") == 200
    assert await secured.get(maybe, maybe, "member") == 200
    assert await secured.get(maybe, maybe) == 200
    assert await secured.get("site.test", "site.test", "stranger") == 200  # nobody asks
    for name, certificate in [(admin, None), (admin, "stranger"), (maybe, "stranger")]:
        with pytest.raises((ssl.SSLError, ConnectionError, asyncio.IncompleteReadError)):
            await secured.get(name, name, certificate)


async def test_in_tls_1_2_too(secured: Secured) -> None:
    admin, old = "admin.site.test", ssl.TLSVersion.TLSv1_2
    assert await secured.get(admin, admin, "member", maximum_version=old) == 200
    with pytest.raises((ssl.SSLError, ConnectionError)):
        await secured.get(admin, admin, maximum_version=old)


@pytest.mark.parametrize(
    "name,host,answer",
    [
        ("site.test", "site.test", 200),
        ("site.test", "other.site.test", 200),  # the same certificate, the same rule
        ("site.test", "OTHER.site.test.:8443", 200),
        ("site.test", "exact.site.test", 200),
        ("site.test", "admin.site.test", 421),
        ("site.test", "ADMIN.site.test.:8443", 421),
        ("site.test", "modern.site.test", 421),
        ("site.test", "unknown.test", 421),
        (None, "default.test", 200),
        (None, "admin.site.test", 421),
    ],
)
async def test_another_host_than_the_connections(secured: Secured, name: str | None, host: str, answer: int) -> None:
    assert await secured.get(name, host) == answer


async def test_a_client_certificate_cannot_be_evaded_by_a_handshake(secured: Secured) -> None:
    async with secured.dial("site.test") as wire:
        await wire.send(attempt("/own").replace(b"gateway.test", b"admin.site.test"))
        head, body = await wire.answer()
        assert (head.status, body.split(b":")[0]) == (421, b"misdirected")
    assert await secured.get("admin.site.test", "site.test", "member") == 421


# ---- sessions -------------------------------------------------------------------------------------------------------


def visit(
    secured: Secured,
    name: str,
    certificate: str | None = None,
    session: ssl.SSLSession | None = None,
    context: ssl.SSLContext | None = None,
) -> tuple[bool, ssl.SSLSession | None]:
    """Ask something on a new connection that offers `session`: whether it was taken, and the one for the next time."""
    context = context or secured.context(certificate)
    with (
        socket.create_connection(("127.0.0.1", secured.gateway.port("edge")), timeout=10) as raw,
        context.wrap_socket(raw, server_hostname=name, session=session) as wire,
    ):
        wire.sendall(request_bytes("GET /fixed", "Connection: close", host=name))
        answer = b""
        while more := wire.recv(4096):
            answer += more
        assert answer.endswith(b"here"), answer
        return bool(wire.session_reused), wire.session


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3], ids=["1.2", "1.3"])
def test_sessions_are_resumed(secured: Secured, version: ssl.TLSVersion) -> None:
    for name, certificate in [("site.test", None), ("maybe.site.test", "member"), ("admin.site.test", "member")]:
        context = secured.context(certificate, minimum_version=version, maximum_version=version)
        taken, session = visit(secured, name, context=context)
        assert not taken
        for _ in range(6):  # whichever worker it is
            taken, session = visit(secured, name, session=session, context=context)
            assert taken, name
    metrics = secured.gateway.metrics()
    assert metrics.value("tidegate_tls_handshakes_total", listener="edge", kind="resumed") >= 18
    assert metrics.value("tidegate_tls_handshakes", listener="edge") == 0


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3], ids=["1.2", "1.3"])
def test_a_session_opens_no_other_door(secured: Secured, version: ssl.TLSVersion) -> None:
    """A session without a client certificate, or for another name, is no session elsewhere."""
    context = secured.context(minimum_version=version, maximum_version=version)
    for name in ("site.test", "maybe.site.test", "modern.site.test")[: 2 if version == ssl.TLSVersion.TLSv1_2 else 3]:
        _, session = visit(secured, name, context=context)
        with pytest.raises((ssl.SSLError, ConnectionError, AssertionError)):
            visit(secured, "admin.site.test", session=session, context=context)
        others = {"site.test", "maybe.site.test", "exact.site.test", "default.test"} - {name}
        assert not any(visit(secured, other, session=session, context=context)[0] for other in others)
    member = secured.context("member", minimum_version=version, maximum_version=version)
    _, session = visit(secured, "admin.site.test", context=member)
    assert not any(visit(secured, other, session=session, context=member)[0] for other in others)


# ---- many at once ---------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def crowded(directory: Path, **timeouts: str) -> Iterator[Secured]:
    """A gateway that takes two handshakes at once."""
    authority = Authority(directory)
    tls = {"certificates": [authority.issue("site", "site.test")]}
    listener = {"bind": LOOPBACK, "tls": tls, "limits": {"tls_handshakes": 2}, "timeouts": timeouts}
    config = site(route("own", respond="echo"), route("fixed", respond={"body": "here"}), listeners={"edge": listener})
    with Gateway(config, directory=directory) as gateway:
        yield Secured(gateway, directory, authority, authority, authority)


def handshakes(gateway: Gateway, stage: str) -> float:
    return gateway.metrics().value("tidegate_tls_handshakes", listener="edge", stage=stage)


async def test_who_waits_too_long_is_closed(tmp_path: Path) -> None:
    with crowded(tmp_path, tls="20s", tls_queue="400ms") as secured:
        port = secured.gateway.port("edge")
        async with (
            secured.dial("site.test") as live,
            dial(port),  # says nothing and takes no slot
            dial(port) as first,
            dial(port) as second,
            dial(port) as third,
        ):
            await first.send(_client_hello())
            await second.send(_client_hello())
            await until(lambda: handshakes(secured.gateway, "running") == 2)
            await third.send(_client_hello())
            assert await third.rest() == b""
            counted = {"listener": "edge", "reason": "tls_queue"}
            await until(lambda: secured.gateway.metrics().value("tidegate_connections_failed_total", **counted) == 1)
            assert await status(live, "site.test") == 200
            first.reset()
            assert await secured.get("site.test", "site.test") == 200
        await until(lambda: handshakes(secured.gateway, "running") == 0)


async def test_who_waits_gets_the_next_place(tmp_path: Path) -> None:
    with crowded(tmp_path, tls="8s", tls_queue="20s") as secured:
        port = secured.gateway.port("edge")
        async with dial(port) as first, dial(port) as second:
            await first.send(_client_hello())
            await second.send(_client_hello())
            await until(lambda: handshakes(secured.gateway, "running") == 2)
            waiting = asyncio.create_task(secured.get("site.test", "site.test"))
            await until(lambda: handshakes(secured.gateway, "waiting") == 1)
            first.reset()
            assert await waiting == 200


async def test_a_flood_does_not_hold_live_connections_up(tmp_path: Path) -> None:
    with crowded(tmp_path) as secured:

        async def one() -> int:
            return await secured.get("site.test", "site.test")

        async with secured.dial("site.test") as live:
            await live.send(attempt("/own").replace(b"gateway.test", b"site.test"))
            assert (await live.head()).status == 101
            flood = [asyncio.create_task(one()) for _ in range(100)]
            echoed = 0
            while not all(task.done() for task in flood):
                await live.send(bytes([0x89, 0x80, 0, 0, 0, 0]))  # a Ping
                assert await live.exactly(2) == bytes([0x8A, 0])
                echoed += 1
            assert await asyncio.gather(*flood) == [200] * 100
            assert echoed > 20


# ---- WebSockets -----------------------------------------------------------------------------------------------------


async def test_wss_echo(secured: Secured) -> None:
    url = secured.gateway.ws("edge", "/own")
    assert url.startswith("wss://127.0.0.1:")
    async with connect(
        url.replace("127.0.0.1", "site.test"), host="127.0.0.1", ssl=secured.context(), max_size=None
    ) as client:
        for message in ("hello", b"\x00" * 100_000, "x" * 1_000_000):
            await client.send(message)
            assert await client.recv() == message
    record = await asyncio.to_thread(secured.gateway.access_log().wait_for, event="close")
    assert record["code"] == 1000


async def test_many_at_once(secured: Secured) -> None:
    async def one(number: int) -> None:
        port, context = secured.gateway.port("edge"), secured.context()
        opening = asyncio.open_connection("127.0.0.1", port, ssl=context, server_hostname="site.test")
        wire = Wire(*await soon(opening))
        try:
            await wire.send(attempt("/own").replace(b"gateway.test", b"site.test"))
            assert (await wire.head()).status == 101
        finally:
            await wire.close()

    await asyncio.gather(*map(one, range(30)))


def test_the_end_is_told(secured: Secured) -> None:
    """A close_notify, or a client could not tell the end from a cut (RFC 8446 §6.1)."""
    with (
        socket.create_connection(("127.0.0.1", secured.gateway.port("edge")), timeout=10) as raw,
        secured.context().wrap_socket(raw, server_hostname="site.test", suppress_ragged_eofs=False) as wire,
    ):
        wire.sendall(request_bytes("GET /fixed", "Connection: close", host="site.test"))
        answer = b""
        while more := wire.recv(4096):
            answer += more
    assert answer.endswith(b"here")


# ---- what is no TLS -------------------------------------------------------------------------------------------------


async def test_plain_http_on_a_tls_port(secured: Secured) -> None:
    before = failures(secured.gateway, "tls")
    async with dial(secured.gateway.port("edge")) as wire:
        await wire.send(request_bytes("GET /fixed", host="site.test"))
        rest = await wire.rest()
        assert b"HTTP" not in rest and len(rest) < 100  # an alert at most
    assert failures(secured.gateway, "tls") == before + 1
    assert await secured.get("site.test", "site.test") == 200


async def test_a_handshake_has_a_time(secured: Secured) -> None:
    before, port = failures(secured.gateway, "timeout", "hasty"), secured.gateway.port("hasty")
    hello = _client_hello()
    began = time.monotonic()
    async with dial(port) as silent, dial(port) as slow:
        await slow.send(hello[:20])
        for wire in (silent, slow):
            assert await wire.rest() == b""
        assert 0.65 < time.monotonic() - began < 5
    assert failures(secured.gateway, "timeout", "hasty") == before + 2


def _client_hello() -> bytes:
    outgoing = ssl.MemoryBIO()
    client = ssl.create_default_context().wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname="site.test")
    with contextlib.suppress(ssl.SSLWantReadError):
        client.do_handshake()
    return outgoing.read()


async def test_a_hello_in_single_bytes(secured: Secured) -> None:
    async with dial(secured.gateway.port("edge")) as wire:
        for byte in _client_hello():
            await wire.send(bytes([byte]))
        assert (await wire.exactly(1)) == b"\x16"


# ---- change while it runs -------------------------------------------------------------------------------------------


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Secured]:
    """A gateway of the test's own, because it changes its files."""
    with _secured(tmp_path) as built:
        yield built


async def shown(secured: Secured, name: str) -> int:
    async with secured.dial(name) as wire:
        return serial_of(ssl_object(wire))


async def test_a_new_certificate_serves_within_a_second_and_live_ones_stay(own: Secured) -> None:
    took = []
    async with own.dial("site.test") as live:
        await live.send(attempt("/own").replace(b"gateway.test", b"site.test"))
        assert (await live.head()).status == 101
        for _ in range(3):
            before = await shown(own, "site.test")
            own.authority.issue("wild", "site.test", "*.site.test")
            wanted, changed = own.authority.serial("wild"), time.monotonic()
            assert wanted != before
            async with asyncio.timeout(10):
                while (serial := await shown(own, "site.test")) != wanted:
                    assert serial == before
            took.append(time.monotonic() - changed)
            await live.send(bytes([0x89, 0x80, 0, 0, 0, 0]))  # a Ping
            assert await live.exactly(2) == bytes([0x8A, 0])
    assert min(took) < 1, took


async def test_sessions_go_on_after_a_reload(own: Secured) -> None:
    contexts = {name: own.context("member") for name in ("site.test", "admin.site.test")}
    sessions = {name: visit(own, name, context=context)[1] for name, context in contexts.items()}
    log = len(own.gateway.log())
    own.authority.issue("wild", "site.test", "*.site.test")
    await asyncio.to_thread(own.gateway.log().wait_for, event="reloaded", after=log)
    for name, context in contexts.items():
        taken, sessions[name] = visit(own, name, session=sessions[name], context=context)
        assert taken, name
    log = len(own.gateway.log())
    fresh = Authority(own.directory, "clients")  # the file of a rule has other authorities now
    await asyncio.to_thread(own.gateway.log().wait_for, event="reloaded", after=log)
    with pytest.raises((ssl.SSLError, ConnectionError, AssertionError)):
        visit(own, "admin.site.test", session=sessions["admin.site.test"], context=contexts["admin.site.test"])
    fresh.issue("member", "member@site.test")
    taken, _ = visit(own, "admin.site.test", "member")
    assert not taken
    taken, _ = visit(own, "site.test", session=sessions["site.test"], context=contexts["site.test"])
    assert taken


async def test_a_bad_certificate_leaves_the_old_one(own: Secured) -> None:
    before = await shown(own, "site.test")
    log = len(own.gateway.log())
    (own.directory / "wild.pem").write_text("no certificate")
    record = await asyncio.to_thread(own.gateway.log().wait_for, event="reload_failed", after=log)
    assert "wild.pem" in record["message"]
    assert await shown(own, "site.test") == before
    log = len(own.gateway.log())
    own.strangers.issue("wild", "site.test", "*.site.test")
    (own.directory / "wild.key").write_bytes((own.directory / "exact.key").read_bytes())
    record = await asyncio.to_thread(own.gateway.log().wait_for, event="reload_failed", after=log)
    assert await shown(own, "site.test") == before
    log = len(own.gateway.log())
    own.authority.issue("wild", "site.test", "*.site.test")
    await asyncio.to_thread(own.gateway.log().wait_for, event="reloaded", after=log)
    assert await shown(own, "site.test") == own.authority.serial("wild")
    metrics = await asyncio.to_thread(own.gateway.metrics)
    assert metrics.value("tidegate_config_reloads_total", result="failure") >= 2


async def test_tls_comes_to_a_listener_and_goes(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    tls = {"certificates": [authority.issue("site", "site.test")]}

    def config(tls: dict[str, Any] | None) -> Config:
        listener = {"bind": LOOPBACK, **({"tls": tls} if tls else {})}
        return site(route("own", respond="echo"), listeners={"edge": listener})

    async with running(config(None), directory=tmp_path) as gateway, open_peer(gateway.port(), "/own") as plain:
        await reload(gateway, config(tls))
        context = client_context(tmp_path, authority)
        async with dial(gateway.port(), ssl=context, server_hostname="site.test") as wire:
            await wire.send(request_bytes("GET /own", host="site.test"))
            assert (await wire.answer())[0].status == 200
        await echoes(plain)
        await reload(gateway, config(None))
        async with open_peer(gateway.port(), "/own") as again:
            await echoes(again)
        await echoes(plain)


async def test_drained_over_tls(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    tls = {"certificates": [authority.issue("site", "site.test")]}
    async with EchoServer() as echo:

        def config(*routes: Config) -> Config:
            return site(*routes, listeners={"edge": {"bind": LOOPBACK, "tls": tls}}, upstreams={"app": echo.url})

        both = config(route("goes", "app"), route("stays", "app"))
        context = client_context(tmp_path, authority)
        options = {"ssl": context, "server_hostname": "127.0.0.1"}
        async with (
            running(both, directory=tmp_path) as gateway,
            open_peer(gateway.port(), "/goes", **options) as goes,
            open_peer(gateway.port(), "/stays", **options) as stays,
        ):
            await reload(gateway, config(route("stays", "app")))
            assert (await answer_close(goes)).code == 1012
            await echoes(stays)
