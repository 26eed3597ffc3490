"""TLS towards upstreams: who is believed, what is shown, what a failure says, and change while it runs."""

import asyncio
import contextlib
import json
import socket
import ssl
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.kit.bridge import attempt
from tests.e2e.kit.certificates import Authority
from tests.e2e.kit.frames import Op, binary, close
from tests.e2e.kit.peers import echoes, open_peer, play, running
from tests.e2e.kit.secure import SecureServer, server_context
from tests.e2e.kit.sites import Config, reload, route, site, until
from tests.e2e.kit.wire import Wire, dial, request_bytes
from tidegate.testing import Gateway

OLD, NEW = ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`ca` signs `here` (127.0.0.1) and `named` (app.test); `clients` signs `us`; nobody trusts `strangers`."""
    directory = tmp_path_factory.mktemp("upstream-tls")
    authority = Authority(directory)
    authority.issue("here", "127.0.0.1")
    authority.issue("named", "app.test")
    Authority(directory, "clients").issue("us", "us@gateway.test")
    Authority(directory, "strangers").issue("them", "127.0.0.1")
    return directory


def config(endpoints: str | list[str], tls: Config | None, **more: Any) -> Config:
    upstream = {"endpoints": [endpoints] if isinstance(endpoints, str) else endpoints, **more}
    return site(route("app", "app"), upstreams={"app": upstream | ({"tls": tls} if tls is not None else {})})


@contextlib.asynccontextmanager
async def secured(
    files: Path, tls: Config, certificate: str = "here", server: Config | None = None, **more: Any
) -> AsyncIterator[tuple[Gateway, SecureServer]]:
    """A gateway before one server."""
    async with (
        SecureServer(server_context(files, certificate, **(server or {}))) as upstream,
        running(config(upstream.url, tls, **more), directory=files) as gateway,
    ):
        yield gateway, upstream


async def ask(gateway: Gateway, *fields: str) -> tuple[int, Any]:
    """Status, and the server's JSON or the gateway's words, on a connection of its own."""
    async with dial(gateway.port()) as wire:
        return await ask_on(wire, *fields)


async def ask_on(wire: Wire, *fields: str) -> tuple[int, Any]:
    await wire.send(request_bytes("GET /app", *fields))
    head, body = await wire.answer()
    return head.status, json.loads(body) if head.status == 200 else body.decode()


async def failures(gateway: Gateway, reason: str) -> float:
    metrics = await asyncio.to_thread(gateway.metrics)
    return metrics.value("tidegate_endpoint_tls_failures_total", upstream="app", reason=reason)


# ---- what goes through ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version,name", [(OLD, "TLSv1.2"), (NEW, "TLSv1.3")], ids=["1.2", "1.3"])
async def test_requests_and_websockets(files: Path, version: ssl.TLSVersion, name: str) -> None:
    server = {"minimum_version": version, "maximum_version": version}
    async with secured(files, {"ca": "ca.pem"}, server=server) as (gateway, upstream):
        status, seen = await ask(gateway)
        assert (status, seen["version"], seen["host"]) == (200, name, "gateway.test")
        assert upstream.names == [None]  # an address is never sent as a server name (RFC 6066 §3)
        async with open_peer(gateway.port(), "/app") as peer:
            for size in (1, 125, 16_000, 16_384, 16_385, 70_000, 1_000_000):
                await echoes(peer, bytes([size % 251]) * size)
            await peer.send(close(1000))
            assert (await peer.frame()).op == Op.CLOSE


async def test_connections_are_kept(files: Path) -> None:
    async with secured(files, {"ca": "ca.pem"}) as (gateway, upstream), dial(gateway.port()) as wire:
        seen = [(await ask_on(wire))[1]["connection"] for _ in range(5)]
        assert seen == [1] * 5
        assert upstream.connections == 1


async def test_alpn_is_offered(files: Path) -> None:
    context = server_context(files, "here")
    context.set_alpn_protocols(["h2", "http/1.1"])
    async with (
        SecureServer(context) as upstream,
        running(config(upstream.url, {"ca": "ca.pem"}, protocol="h1"), directory=files) as gateway,
    ):
        assert (await ask(gateway))[1]["alpn"] == "http/1.1"


async def test_a_server_name(files: Path) -> None:
    async with secured(files, {"ca": "ca.pem", "server_name": "App.test"}, "named") as (gateway, upstream):
        assert (await ask(gateway))[0] == 200
        assert upstream.names == ["app.test"]


async def test_the_name_of_the_endpoint(files: Path) -> None:
    Authority(files, "local").issue("localhost", "localhost")
    async with SecureServer(server_context(files, "localhost")) as upstream:
        url = f"https://localhost:{upstream.port}"
        async with running(config(url, {"ca": "local.pem"}), directory=files) as gateway:
            assert (await ask(gateway))[0] == 200
            assert upstream.names[0] == "localhost"


async def test_what_the_system_trusts(files: Path) -> None:
    async with SecureServer(server_context(files, "here")) as upstream:
        site = config(upstream.url, None)
        async with running(site, directory=files, environment={"SSL_CERT_FILE": str(files / "ca.pem")}) as gateway:
            assert (await ask(gateway))[0] == 200


@pytest.mark.parametrize("version", [OLD, NEW], ids=["1.2", "1.3"])
async def test_sessions_are_resumed(files: Path, version: ssl.TLSVersion) -> None:
    server = {"minimum_version": version, "maximum_version": version}
    async with secured(files, {"ca": "ca.pem"}, server=server, pool={"idle": 0}) as (gateway, upstream):
        seen = [(await ask(gateway))[1]["reused"] for _ in range(4)]
        assert seen == [False, True, True, True]
        assert upstream.connections == 4


# ---- who is believed ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "certificate,tls,reason",
    [
        ("named", {"ca": "ca.pem"}, "name"),
        ("here", {"ca": "ca.pem", "server_name": "app.test"}, "name"),
        ("named", {"ca": "ca.pem", "server_name": "other.test"}, "name"),
        ("them", {"ca": "ca.pem"}, "authority"),
        ("here", {"ca": "clients.pem"}, "authority"),
    ],
)
async def test_others_are_not_believed(files: Path, certificate: str, tls: Config, reason: str) -> None:
    async with secured(files, tls, certificate) as (gateway, upstream):
        status, text = await ask(gateway)
        assert (status, text.partition(":")[0]) == (502, "upstream_tls")
        assert ("another name" if reason == "name" else "not trusted") in text
        async with dial(gateway.port()) as wire:
            await wire.send(attempt("/app"))
            head, body = await wire.answer()
            assert (head.status, body.partition(b":")[0]) == (502, b"upstream_tls")
        record = await asyncio.to_thread(gateway.access_log().wait_for, event="refusal", reason="upstream_tls")
        assert record["status"] == 502
        assert await failures(gateway, reason) == 2
        assert upstream.connections == 0  # no request ever came


async def test_without_verification(files: Path) -> None:
    async with secured(files, {"verify": False}, "them") as (gateway, upstream):
        assert (await ask(gateway))[0] == 200
        record = await asyncio.to_thread(gateway.log().wait_for, event="config_warning")
        assert "not verified" in record["message"]
        checked = await asyncio.to_thread(_check, gateway.file)
        assert "upstreams.app.tls.verify: certificates of this upstream are not verified" in checked
        assert upstream.connections == 1


def _check(file: Path) -> str:
    program = "from tidegate.cli import main; main()"
    done = subprocess.run([sys.executable, "-c", program, "check", str(file)], capture_output=True, text=True)
    return done.stdout + done.stderr


@pytest.mark.parametrize("version", [OLD, NEW], ids=["1.2", "1.3"])
async def test_a_client_certificate(files: Path, version: ssl.TLSVersion) -> None:
    server = {"clients": "clients.pem", "minimum_version": version, "maximum_version": version}
    ours = {"ca": "ca.pem", "cert": "us.pem", "key": "us.key"}
    async with secured(files, ours, server=server) as (gateway, upstream):
        status, seen = await ask(gateway)
        assert (status, seen["client"]) == (200, [["email", "us@gateway.test"]])
        await reload(gateway, config(upstream.url, {"ca": "ca.pem"}))
        status, text = await ask(gateway)
        # In TLS 1.3 a server looks at our certificate when our side of the handshake is over (RFC 8446 §2).
        assert (status, text.partition(":")[0]) == (502, "upstream_tls" if version == OLD else "upstream_lost")
        await reload(gateway, config(upstream.url, ours))
        assert (await ask(gateway))[0] == 200


# ---- what does not answer -------------------------------------------------------------------------------------------


async def test_a_server_without_tls(files: Path) -> None:
    async with (
        play() as (plain, url),
        running(config(url.replace("http", "https"), {"ca": "ca.pem"}), directory=files) as gateway,
    ):
        asking = asyncio.create_task(ask(gateway))
        wire = await plain.connection()
        await wire.exactly(100)
        await wire.send(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        status, text = await asking
        assert (status, text.partition(":")[0]) == (502, "upstream_tls")
        assert "does not speak TLS" in text
        assert await failures(gateway, "protocol") == 1


async def test_a_handshake_without_end(files: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"https://127.0.0.1:{silent.getsockname()[1]}"
        async with running(config(url, {"ca": "ca.pem"}, connect_timeout="300ms"), directory=files) as gateway:
            status, text = await ask(gateway)
            assert (status, text.partition(":")[0]) == (504, "connect_timeout")


async def test_the_next_endpoint_is_tried(files: Path) -> None:
    async with (
        SecureServer(server_context(files, "here")) as good,
        SecureServer(server_context(files, "them")) as bad,
        running(config([bad.url, good.url], {"ca": "ca.pem"}, balance="round_robin"), directory=files) as gateway,
    ):
        for _ in range(4):
            async with dial(gateway.port()) as wire:
                await wire.send(request_bytes("POST /app", "Content-Length: 4", body=b"body"))
                # The body is no request of its own: it is what this server reads next and gives up at.
                assert (await wire.head()).status == 200
        async with open_peer(gateway.port(), "/app") as peer:
            await echoes(peer)
        assert await failures(gateway, "authority") >= 1
        assert bad.connections == 0


# ---- change while it runs -------------------------------------------------------------------------------------------


async def test_files_change(tmp_path: Path) -> None:
    first = Authority(tmp_path)
    first.issue("here", "127.0.0.1")
    async with secured(tmp_path, {"ca": "ca.pem"}) as (gateway, upstream):
        assert (await ask(gateway))[1]["connection"] == 1
        async with open_peer(gateway.port(), "/app") as live:
            log = len(gateway.log())
            Authority(tmp_path).issue("fresh", "127.0.0.1")  # another authority, in the same file
            await asyncio.to_thread(gateway.log().wait_for, event="reloaded", after=log)
            # What was verified under the old authority is not believed any more, kept connections included.
            assert (await ask(gateway))[0] == 502
            await echoes(live)
            upstream._context.load_cert_chain(tmp_path / "fresh.pem", tmp_path / "fresh.key")
            status, seen = await ask(gateway)
            assert (status, seen["reused"]) == (200, False)


async def test_another_reload_keeps_connections(files: Path) -> None:
    async with secured(files, {"ca": "ca.pem"}) as (gateway, upstream):
        assert (await ask(gateway))[1]["connection"] == 1
        await reload(gateway, config(upstream.url, {"ca": "ca.pem"}, connect_timeout="4s"))
        assert (await ask(gateway))[1]["connection"] == 1


async def test_a_bad_file_leaves_the_old_one(tmp_path: Path) -> None:
    Authority(tmp_path).issue("here", "127.0.0.1")
    async with secured(tmp_path, {"ca": "ca.pem"}) as (gateway, _):
        log = len(gateway.log())
        (tmp_path / "ca.pem").write_text("nothing")
        record = await asyncio.to_thread(gateway.log().wait_for, event="reload_failed", after=log)
        assert "upstreams.app.tls.ca: 'ca.pem' has no PEM block" in record["message"]
        assert (await ask(gateway))[0] == 200


# ---- how a relay over it ends ---------------------------------------------------------------------------------------


async def test_a_lost_upstream(files: Path) -> None:
    async with secured(files, {"ca": "ca.pem"}) as (gateway, upstream), open_peer(gateway.port(), "/app") as peer:
        await echoes(peer)
        await upstream.__aexit__()
        frame = await peer.frame()
        assert (frame.op, frame.code) == (Op.CLOSE, 1011)


async def test_a_slow_reader_loses_nothing(files: Path) -> None:
    async with secured(files, {"ca": "ca.pem"}) as (gateway, _), open_peer(gateway.port(), "/app") as peer:
        peer.wire.pause()
        message = bytes(range(256)) * 1024
        count = 40
        for _ in range(count):
            peer.wire.push(binary(message).encode(b"mask"))
        await until(lambda: gateway.metrics().value("tidegate_websocket_bytes_total", direction="to_client") > 0)
        peer.wire.resume()
        for _ in range(count):
            assert (await peer.frame()).payload == message
