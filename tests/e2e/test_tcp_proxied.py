"""PROXY headers towards the servers of TCP listeners."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from ipaddress import ip_address
from pathlib import Path

import pytest

from tests.e2e.kit.certificates import Authority
from tests.e2e.kit.peers import dial_unix, running
from tests.e2e.kit.sites import Config
from tests.e2e.kit.tcp import named, server
from tests.e2e.kit.wire import Wire, dial
from tests.e2e.test_tcp import PROXIED, carrier, config, exact, logged

SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"

Addresses = tuple[str, int, str, int]


def settings(url: str, version: str, directory: Path) -> Config:
    listeners = {
        "edge": carrier(),
        "behind": carrier(listener={"proxy_protocol": {"from": ["127.0.0.1"]}}),
        "socket": carrier(listener={"bind": f"unix:{directory}/edge.sock"}),
        "six": carrier(listener={"bind": "[::]:0"}),
    }
    return config({"app": {"endpoints": [url], "proxy_protocol": version}}, listeners)


async def header(far: Wire, version: str) -> Addresses | None:
    """The addresses in the header that a connection begins with; None where it names nobody."""
    if version == "v1":
        words = (await far.until(b"\r\n")).decode().split()
        if words == ["PROXY", "UNKNOWN"]:
            return None
        assert words[0] == "PROXY" and words[1] == ("TCP6" if ":" in words[2] else "TCP4")
        return words[2], int(words[4]), words[3], int(words[5])
    start = await far.exactly(16)
    assert start.startswith(SIGNATURE)
    body = await far.exactly(int.from_bytes(start[14:], "big"))
    if start[12] == 0x20:
        return None
    size = {0x11: 4, 0x21: 16}[start[13]]
    source, destination = (str(ip_address(body[at : at + size])) for at in (0, size))
    ports = body[2 * size :]
    return source, int.from_bytes(ports[:2], "big"), destination, int.from_bytes(ports[2:4], "big")


@contextlib.asynccontextmanager
async def local_port(port: int, host: str = "127.0.0.1") -> AsyncIterator[tuple[Wire, int]]:
    """A connection from a port that is known."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as near:
        near.setblocking(False)
        await asyncio.get_running_loop().sock_connect(near, (host, port))
        wire = Wire(*await asyncio.open_connection(sock=near))
        yield wire, near.getsockname()[1]
        await wire.close()


@pytest.mark.parametrize("version", ["v1", "v2"])
async def test_the_header_names_the_client(tmp_path: Path, version: str) -> None:
    async with server() as (upstream, url), running(settings(url, version, tmp_path)) as gateway:
        for listener, host in (("edge", "127.0.0.1"), ("six", "::1"), ("six", "127.0.0.1")):
            async with local_port(gateway.port(listener), host) as (client, port):
                far = await upstream.connection()
                assert await header(far, version) == (host, port, host, gateway.port(listener))
                await client.send(b"hello")
                await exact(far, b"hello")
        async with dial(gateway.port("behind")) as client:
            await client.send(PROXIED + b"hello")
            far = await upstream.connection()
            assert await header(far, version) == ("203.0.113.7", 40000, "198.51.100.1", 5432)
            await exact(far, b"hello")
        async with dial_unix(f"{tmp_path}/edge.sock") as client:
            far = await upstream.connection()
            assert await header(far, version) is None
            await client.send(b"hello")
            await exact(far, b"hello")


@pytest.mark.parametrize("version", ["v1", "v2"])
async def test_two_gateways_in_a_row(tmp_path: Path, version: str) -> None:
    async with named("far") as url:
        proxied = {"proxy_protocol": {"from": ["127.0.0.1"]}}
        async with running(config({"app": [url]}, {"edge": carrier(listener=proxied)})) as second:
            near = settings(f"tcp://127.0.0.1:{second.port()}", version, tmp_path)
            async with running(near) as first, dial(first.port(), local_addr=("127.0.3.4", 0)) as client:
                assert await client.rest() == b"far"
                assert (await logged(second, "open"))["client"] == "127.0.3.4"


async def test_the_header_comes_before_tls(tmp_path: Path) -> None:
    """The second gateway reads it before it ends TLS."""
    authority = Authority(tmp_path)
    site = authority.issue("site", "site.test")
    async with named("far") as url:
        secure = {"proxy_protocol": {"from": ["127.0.0.1"]}, "tls": {"certificates": [site]}}
        behind = config({"app": [url]}, {"edge": carrier(listener=secure)})
        async with running(behind, directory=tmp_path) as second:
            app = {
                "endpoints": [f"tls://127.0.0.1:{second.port()}"],
                "tls": {"ca": str(tmp_path / authority.file), "server_name": "site.test"},
                "proxy_protocol": "v2",
            }
            async with (
                running(config({"app": app})) as first,
                dial(first.port(), local_addr=("127.0.3.5", 0)) as client,
            ):
                assert await client.rest() == b"far"
                assert (await logged(second, "open"))["client"] == "127.0.3.5"
