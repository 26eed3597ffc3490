"""TLS before TCP: ended by the gateway, or passed on by the name that the client asks for."""

import asyncio
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.kit.certificates import Authority, client_context
from tests.e2e.kit.peers import running
from tests.e2e.kit.secure import server_context
from tests.e2e.kit.sites import LOOPBACK, until
from tests.e2e.kit.tcp import bystander, is_reset, server
from tests.e2e.kit.wire import Play, dial
from tests.e2e.test_tcp import PROXIED, carrier, config, count, exact, logged
from tidegate.testing import TIMEOUT, Gateway

UNRECOGNIZED_NAME = bytes([21, 3, 3, 0, 2, 2, 112])


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("tcp-tls")


@pytest.fixture(scope="module")
def authority(directory: Path) -> Iterator[Authority]:
    yield Authority(directory)


# ---- ended by the gateway -------------------------------------------------------------------------------------------


@pytest.fixture
async def ended(directory: Path, authority: Authority) -> AsyncIterator[tuple[Play, Gateway]]:
    """A server of plain TCP behind a gateway that ends TLS."""
    tls = {"certificates": [authority.issue("site", "site.test")]}
    async with server() as (play, url):
        settings = config({"app": [url]}, {"edge": carrier(listener={"tls": tls})})
        async with running(settings, directory=directory) as gateway:
            yield play, gateway


def connect(gateway: Gateway, context: ssl.SSLContext) -> ssl.SSLSocket:
    """A client that sees each end for what it is, which asyncio's does not."""
    raw = socket.create_connection(("127.0.0.1", gateway.port()), TIMEOUT)
    return context.wrap_socket(raw, server_hostname="site.test", suppress_ragged_eofs=False)


async def test_the_gateway_ends_tls(ended: tuple[Play, Gateway], directory: Path, authority: Authority) -> None:
    play, gateway = ended
    context = client_context(directory, authority)
    context.set_alpn_protocols(["http/1.1", "postgresql"])
    with await asyncio.to_thread(connect, gateway, context) as client:
        far = await play.connection()
        assert client.selected_alpn_protocol() is None
        block = bytes(range(256)) * 4096
        await asyncio.gather(asyncio.to_thread(client.sendall, block), exact(far, block))
        await asyncio.gather(far.send(block), asyncio.to_thread(take, client, block))
        await far.close()
        assert await asyncio.to_thread(client.recv, 1) == b""  # close_notify, or it would be an error
        (await asyncio.to_thread(client.unwrap)).close()
    closed = await logged(gateway, "close")
    assert (closed["cause"], closed["bytes_in"], closed["bytes_out"]) == ("upstream", len(block), len(block))


def take(client: ssl.SSLSocket, expected: bytes) -> None:
    read = b""
    while len(read) < len(expected):
        read += client.recv(1 << 16)
    assert read == expected


async def test_an_end_that_is_not_told_is_a_loss(
    ended: tuple[Play, Gateway], directory: Path, authority: Authority
) -> None:
    play, gateway = ended
    with await asyncio.to_thread(connect, gateway, client_context(directory, authority)) as client:
        far = await play.connection()
        await asyncio.to_thread(client.sendall, b"the beginning")
        await exact(far, b"the beginning")
        client.close()  # without close_notify
        assert await is_reset(far)
        assert (await logged(gateway, "close"))["cause"] == "client_lost"


async def test_a_servers_reset_is_no_good_end(
    ended: tuple[Play, Gateway], directory: Path, authority: Authority
) -> None:
    play, gateway = ended
    with await asyncio.to_thread(connect, gateway, client_context(directory, authority)) as client:
        far = await play.connection()
        await far.send(b"x")
        assert await asyncio.to_thread(client.recv, 1) == b"x"
        far.reset()
        with pytest.raises((ssl.SSLEOFError, ConnectionResetError)):
            await asyncio.to_thread(client.recv, 1)
        assert (await logged(gateway, "close"))["cause"] == "upstream_lost"


# ---- passed on by name ----------------------------------------------------------------------------------------------


class Secure:
    """A TLS server that says its name."""

    def __init__(self, name: str, context: ssl.SSLContext) -> None:
        self.name, self._context = name, context

    async def __aenter__(self) -> str:
        self._server = await asyncio.start_server(self._say, "127.0.0.1", 0, ssl=self._context)
        return f"tcp://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def __aexit__(self, *_: object) -> None:
        self._server.close()

    async def _say(self, _: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(self.name.encode())
        writer.close()


@pytest.fixture(scope="module")
def contexts(directory: Path, authority: Authority) -> dict[str, ssl.SSLContext]:
    names = {"db": "db.example.com", "other": "*.example.com", "rest": "rest.test"}
    for name, host in names.items():
        authority.issue(name, host)
    return {name: server_context(directory, name) for name in names}


@pytest.fixture
async def named(directory: Path, contexts: dict[str, ssl.SSLContext]) -> AsyncIterator[Gateway]:
    """TLS servers behind a gateway that has no certificate."""
    sni: dict[str, Any] = {"DB.example.com": "db", "*.example.com": {"other": 1}}
    async with (
        Secure("db", contexts["db"]) as db,
        Secure("other", contexts["other"]) as other,
        Secure("rest", contexts["rest"]) as rest,
    ):
        listeners = {
            "edge": carrier(None, sni=sni, listener={"timeouts": {"tls": "500ms"}}),
            "whole": carrier(None, sni={**sni, "default": "rest"}),
            "behind": carrier(None, sni=sni, listener={"proxy_protocol": {"from": ["127.0.0.1"]}}),
        }
        upstreams = {"db": [db], "other": [other], "rest": [rest]}
        async with running(config(upstreams, listeners), directory=directory) as gateway:
            yield gateway


async def asked(gateway: Gateway, context: ssl.SSLContext, name: str | None, listener: str = "edge") -> str:
    """Who answers to this name."""
    options: dict[str, Any] = {"ssl": context, "server_hostname": name if name is not None else ""}
    async with dial(gateway.port(listener), **options) as wire:
        return (await wire.rest()).decode()


async def test_the_name_decides(named: Gateway, directory: Path, authority: Authority) -> None:
    context = client_context(directory, authority)
    context.check_hostname = True  # the certificate is the server's own
    assert await asked(named, context, "db.example.com") == "db"
    assert await asked(named, context, "a.example.com") == "other"
    assert await asked(named, context, "a.example.com", "whole") == "other"
    context.check_hostname = False
    for name in ("rest.test", "a.b.example.com", None):
        assert await asked(named, context, name, "whole") == "rest"
    opened = await logged(named, "open", host="db.example.com")
    assert (opened["upstream"], opened["protocol"]) == ("db", "tcp")


@pytest.mark.parametrize("name", ["unknown.test", "example.com", "a.b.example.com", None])
async def test_an_unknown_name_gets_an_alert(
    named: Gateway, directory: Path, authority: Authority, name: str | None
) -> None:
    with pytest.raises(ssl.SSLError, match=r"(?i)unrecognized[_ ]name"):
        await asked(named, client_context(directory, authority), name)
    refused = await logged(named, "refusal")
    assert refused["reason"] == "unknown_server_name" and refused.get("host") == name
    labels = {"listener": "edge", "reason": "unknown_server_name"}
    assert await count(named, "tidegate_tcp_refused_total", **labels) == 1


def hello(name: str | None) -> bytes:
    """What a client sends first."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname = False
    client.verify_mode = ssl.CERT_NONE
    session = client.wrap_bio(incoming, outgoing, server_hostname=name)
    with pytest.raises(ssl.SSLWantReadError):
        session.do_handshake()
    return outgoing.read()


async def test_a_hello_in_pieces(named: Gateway) -> None:
    whole = hello("db.example.com")
    split = b"".join(record(whole[5:][at : at + 7]) for at in range(0, len(whole) - 5, 7))
    for bytes_, step in ((whole, 100), (split, 1000)):
        async with dial(named.port()) as wire:
            for at in range(0, len(bytes_), step):
                await wire.send(bytes_[at : at + step])
                await asyncio.sleep(0)
            assert (await wire.exactly(1)) == b"\x16"  # the server's own handshake
    assert await count(named, "tidegate_tcp_opened_total", upstream="db") == 2


def record(fragment: bytes) -> bytes:
    return struct.pack(">BHH", 22, 0x0301, len(fragment)) + fragment


async def test_what_is_no_hello(named: Gateway) -> None:
    for sent in (b"GET / HTTP/1.1\r\n\r\n", record(b"\x01\x00\x40\x01"), b"\x00\x00\x00\x08\x04\xd2\x16\x2f"):
        async with dial(named.port()) as wire:
            await wire.send(sent)
            assert await is_reset(wire)
    async with dial(named.port()) as wire:
        wire.finish()
        assert await is_reset(wire)
    labels = {"listener": "edge", "reason": "no_client_hello"}
    await until(lambda: named.metrics().value("tidegate_tcp_refused_total", **labels) == 4)


async def test_a_hello_that_does_not_come(named: Gateway) -> None:
    async with dial(named.port()) as wire:
        await wire.send(hello("db.example.com")[:50])
        assert await is_reset(wire)
    assert (await logged(named, "refusal"))["reason"] == "slow_client_hello"


async def test_a_name_behind_a_proxy_header(named: Gateway) -> None:
    async with dial(named.port("behind")) as wire:
        await wire.send(PROXIED + hello("unknown.test"))
        assert await wire.rest() == UNRECOGNIZED_NAME
    refused = await logged(named, "refusal", listener="behind")
    assert (refused["client"], refused["host"]) == ("203.0.113.7", "unknown.test")
    async with dial(named.port("behind")) as wire:
        await wire.send(PROXIED + hello("db.example.com"))
        assert await wire.exactly(1) == b"\x16"


# ---- begun by the gateway -------------------------------------------------------------------------------------------


async def test_the_gateway_begins_tls(directory: Path, authority: Authority) -> None:
    """To servers whose certificate it believes, and no others; no protocol is offered."""
    authority.issue("site", "site.test")
    stranger = Authority(directory, "stranger")
    stranger.issue("other-site", "site.test")
    context = server_context(directory, "site")
    context.set_alpn_protocols(["http/1.1", "h2"])
    async with (
        Secure("good", context) as good,
        Secure("bad", server_context(directory, "other-site")) as bad,
        running(config(upstreams_of(authority, good, bad), LISTENERS), directory=directory) as gateway,
    ):
        assert {await bystander(gateway.port("both")) for _ in range(4)} == {"good"}
        async with dial(gateway.port("bad")) as wire:
            assert await is_reset(wire)
        assert (await logged(gateway, "refusal", listener="bad"))["reason"] == "upstream_tls"
        failed = await count(gateway, "tidegate_endpoint_tls_failures_total", upstream="bad", reason="authority")
        assert failed == 1


LISTENERS = {"both": carrier("both"), "bad": carrier("bad")}


def upstreams_of(authority: Authority, good: str, bad: str) -> dict[str, Any]:
    tls = {"ca": authority.file, "server_name": "site.test"}
    one, other = (url.replace("tcp://", "tls://") for url in (good, bad))
    both = {"endpoints": [other, one], "balance": "round_robin", "tls": tls}
    return {"both": both, "bad": {"endpoints": [other], "tls": tls}}


async def test_an_end_that_the_server_does_not_tell_is_a_loss(directory: Path, authority: Authority) -> None:
    authority.issue("site", "site.test")

    async def vanish(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"the beginning")
        await reader.read(1)
        raw: socket.socket = writer.get_extra_info("socket")
        raw.shutdown(socket.SHUT_WR)  # FIN without close_notify

    server = await asyncio.start_server(vanish, "127.0.0.1", 0, ssl=server_context(directory, "site"))
    url = f"tls://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    app = {"endpoints": [url], "tls": {"ca": authority.file, "server_name": "site.test"}}
    async with (
        running(config({"app": app}), directory=directory) as gateway,
        dial(gateway.port()) as client,
    ):
        assert await client.exactly(13) == b"the beginning"
        await client.send(b"x")
        assert await is_reset(client)
        assert (await logged(gateway, "close"))["cause"] == "upstream_lost"
    server.close()


async def test_a_plain_listener_passes_tls_on(directory: Path, authority: Authority) -> None:
    """To a server of its own that speaks TLS: bytes are bytes."""
    authority.issue("site", "site.test")
    async with Secure("site", server_context(directory, "site")) as url:
        settings = config({"app": [url]}, {"edge": {"bind": LOOPBACK, "tcp": {"to": "app"}}})
        async with running(settings, directory=directory) as gateway:
            context = client_context(directory, authority)
            context.check_hostname = True
            async with dial(gateway.port(), ssl=context, server_hostname="site.test") as wire:
                assert await wire.rest() == b"site"
