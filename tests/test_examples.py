"""Every example is checked, and run by a real gateway in front of real servers.

What an example binds and whom it talks to is replaced by free ports; everything else runs as it is written.
"""

import collections
import contextlib
import re
import shutil
import signal
import socket
import ssl
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from tidegate.gateway import check_file
from tidegate.testing import EchoUpstream, Gateway

EXAMPLES = Path(__file__).parents[1] / "examples"
NAMES = sorted(path.name for path in EXAMPLES.iterdir() if path.is_dir())
ANY_PORT = "127.0.0.1:0"
HOST = "chat.example.com"

Answer = tuple[int, dict[str, str], str]


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def directory(tmp_path: Path, authority: trustme.CA) -> Path:
    """Where an example runs, with the certificate that some want beside them."""
    certificate = authority.issue_cert(HOST)
    (tmp_path / "site.pem").write_bytes(b"".join(blob.bytes() for blob in certificate.cert_chain_pems))
    (tmp_path / "site.key").write_bytes(certificate.private_key_pem.bytes())
    return tmp_path


@contextlib.contextmanager
def running(name: str, directory: Path, replaced: dict[str, str]) -> Iterator[Gateway]:
    """The example `name` with these texts replaced, each of which it must have."""
    text = (EXAMPLES / name / "tidegate.yaml").read_text()
    for old, new in replaced.items():
        assert old in text, f"the example {name} does not say {old}"
        text = text.replace(old, new)
    with Gateway(text, directory=directory) as gateway:
        yield gateway


class _Plain(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: object) -> None:
        """Redirects are what is tested."""


def get(url: str, **headers: str) -> Answer:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    try:
        answer = urllib.request.build_opener(_Plain).open(urllib.request.Request(url, headers=named), timeout=20)
    except urllib.error.HTTPError as error:
        answer = error
    with answer:
        return answer.status, {key.lower(): value for key, value in answer.headers.items()}, answer.read().decode()


def test_every_example_is_in_the_table() -> None:
    assert sorted(re.findall(r"\]\(([\w-]+)/tidegate\.yaml\)", (EXAMPLES / "README.md").read_text())) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_the_checker_has_nothing_to_say(name: str, directory: Path) -> None:
    copy = shutil.copy(EXAMPLES / name / "tidegate.yaml", directory)
    assert check_file(Path(copy)).warnings == ()


def test_hello(directory: Path) -> None:
    with EchoUpstream() as app:
        replaced = {"127.0.0.1:8080": ANY_PORT, "http://127.0.0.1:9000": app.url}
        with running("hello", directory, replaced) as gateway:
            with connect(gateway.ws(path="/any/where")) as client:
                client.send("hello")
                assert client.recv() == "hello"
            assert get(gateway.url(path="/page"))[0] == 200
            assert [each["path"] for each in app.requests] == ["/any/where", "/page"]


def test_chat_behind_tls(directory: Path, authority: trustme.CA) -> None:
    trusting = ssl.create_default_context()
    authority.configure_trust(trusting)
    with EchoUpstream() as one, EchoUpstream() as two:
        replaced = {
            '"[::]:8443"': ANY_PORT,
            '"[::]:8080"': ANY_PORT,
            "http://127.0.0.1:9001": one.url,
            "http://127.0.0.1:9002": two.url,
        }
        with running("chat-behind-tls", directory, replaced) as gateway:
            opened = socket.create_connection(("127.0.0.1", gateway.port("edge")))
            with connect(f"wss://{HOST}/ws", sock=opened, ssl=trusting, compression=None) as client:
                client.send("x" * 65_536)
                assert len(client.recv()) == 65_536
                client.send("x" * 65_537)
                with pytest.raises(ConnectionClosed) as closed:
                    client.recv()
            assert closed.value.rcvd is not None and closed.value.rcvd.code == 1009
            status, headers, _ = get(gateway.url("plain", "/ws/room"), host=f"{HOST}:8080")
            assert (status, headers["location"]) == (308, f"https://{HOST}:8443/ws/room")


def test_canary_split(directory: Path) -> None:
    with EchoUpstream() as stable, EchoUpstream() as canary:
        replaced = {
            "127.0.0.1:8080": ANY_PORT,
            "http://127.0.0.1:9001": stable.url,
            "http://127.0.0.1:9002": canary.url,
        }
        with running("canary-split", directory, replaced) as gateway:
            with connect(gateway.ws(path="/ws"), additional_headers={"X-Canary": "always"}):
                assert len(canary.requests) == 1
            served = collections.Counter(get(gateway.url(path="/ws"))[1]["x-served-by"] for _ in range(200))
            assert served == {"everybody": 200}
            # A fair draw of 1 in 10 leaves this range once in a million runs or less.
            assert 1 <= len(canary.requests) - 1 <= 50
            assert len(stable.requests) + len(canary.requests) == 201


def test_websockets_off_by_default(directory: Path) -> None:
    with EchoUpstream() as app:
        replaced = {"127.0.0.1:8080": ANY_PORT, "http://127.0.0.1:9000": app.url}
        with running("websockets-off-by-default", directory, replaced) as gateway:
            with connect(gateway.ws(path="/live/scores")) as client:
                client.send("open")
                assert client.recv() == "open"
            with pytest.raises(InvalidStatus) as refused, connect(gateway.ws(path="/elsewhere")):
                pass
            assert refused.value.response.status_code == 403
            assert gateway.access_log().wait_for(event="refusal")["reason"] == "websocket_disabled"
            assert get(gateway.url(path="/elsewhere"))[0] == 200


def serve_dialect(listening: socket.socket) -> None:
    """Takes one connection: answers its handshake without the key of RFC 6455, then sends every byte back inverted."""
    connection, _ = listening.accept()
    with connection:
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            head += connection.recv(1)
        connection.sendall(b"HTTP/1.1 101 Web Socket\r\nUpgrade: WebSocket\r\nConnection: Upgrade\r\n\r\n")
        while byte := connection.recv(1):
            connection.sendall(bytes([255 - byte[0]]))


def test_opaque_legacy(directory: Path) -> None:
    said = b"\x00no frames at all\xff"
    with socket.create_server(("127.0.0.1", 0)) as listening, EchoUpstream() as app:
        server = threading.Thread(target=serve_dialect, args=(listening,), daemon=True)
        server.start()
        replaced = {
            "127.0.0.1:8080": ANY_PORT,
            "http://127.0.0.1:9001": f"http://127.0.0.1:{listening.getsockname()[1]}",
            "http://127.0.0.1:9000": app.url,
        }
        with running("opaque-legacy", directory, replaced) as gateway:
            with socket.create_connection(("127.0.0.1", gateway.port()), timeout=20) as client:
                client.sendall(
                    b"GET /legacy/1 HTTP/1.1\r\nHost: x\r\nUpgrade: WebSocket\r\nConnection: Upgrade\r\n"
                    b"WebSocket-Protocol: dialect\r\n\r\n"
                )
                with client.makefile("rb") as stream:
                    assert stream.readline().startswith(b"HTTP/1.1 101")
                    while stream.readline() != b"\r\n":
                        pass
                    client.sendall(said)
                    assert stream.read(len(said)) == bytes(255 - byte for byte in said)
            closed = gateway.access_log().wait_for(event="close", route="terminals")
            assert closed["cause"] == "client"
            with connect(gateway.ws(path="/modern")) as modern:
                modern.send("frames")
                assert modern.recv() == "frames"
        server.join(20)


def test_redirect_and_respond(directory: Path) -> None:
    with running("redirect-and-respond", directory, {"127.0.0.1:8080": ANY_PORT}) as gateway:
        status, headers, _ = get(gateway.url(path="/docs/v1/a/b"))
        assert (status, headers["location"]) == (308, "https://docs.example.com/a/b")
        assert get(gateway.url(path="/healthz"))[::2] == (200, "ok\n")
        assert get(gateway.url(path="/robots.txt"))[1]["cache-control"] == "max-age=3600"
        with connect(gateway.ws(path="/echo")) as client:
            client.send("there and back")
            assert client.recv() == "there and back"
        assert get(gateway.url(path="/nowhere"), accept="application/json")[0] == 404


def test_kubernetes_drain(directory: Path) -> None:
    with EchoUpstream() as app:
        replaced = {
            '"[::]:8080"': ANY_PORT,
            "http://localhost:9000": app.url.replace("127.0.0.1", "localhost"),
            "{delay: 5s, window: 20s, timeout: 30s}": "{delay: 2s, window: 1s, timeout: 10s}",
        }
        with running("kubernetes-drain", directory, replaced) as gateway:
            assert get(gateway.url(path="/ready"))[0] == 200
            with connect(gateway.ws()) as client:
                gateway.signal(signal.SIGTERM)
                gateway.log().wait_for(event="draining")
                assert get(gateway.url(path="/ready"))[0] == 503
                client.send("still served")
                assert client.recv() == "still served"
                with pytest.raises(ConnectionClosed) as closed:
                    client.recv(timeout=20)
            assert closed.value.rcvd is not None and closed.value.rcvd.code == 1012
            assert closed.value.rcvd.reason.startswith("gw: drain; retry=")
            assert gateway.wait() == 0


class Chatter:
    """A server of TCP, over TLS with `context`, that sends back its name and what it was told."""

    def __init__(self, name: bytes, listening: socket.socket, context: ssl.SSLContext | None = None) -> None:
        self.name, self.listening, self.context = name, listening, context
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self.listening.accept()
                threading.Thread(target=self._talk, args=(connection,), daemon=True).start()

    def _talk(self, connection: socket.socket) -> None:
        secured = self.context.wrap_socket(connection, server_side=True) if self.context else connection
        with contextlib.suppress(OSError), secured:
            while said := secured.recv(1024):
                secured.sendall(self.name + b" heard " + said)


def told(wire: socket.socket, text: bytes) -> bytes:
    wire.sendall(text)
    return wire.recv(1024)


def test_postgres_by_name(directory: Path, authority: trustme.CA) -> None:
    trusting = ssl.create_default_context()
    authority.configure_trust(trusting)
    with contextlib.ExitStack() as stack:
        ports = {}
        for name, server_name in (("orders", "orders.example.com"), ("reports", "may.reports.example.com")):
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            authority.issue_cert(server_name).configure_cert(context)
            listening = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
            Chatter(name.encode(), listening, context)
            ports[name] = listening.getsockname()[1]
        with socket.create_server(("127.0.0.1", 0)) as held:
            vacant = held.getsockname()[1]
        replaced = {
            '"[::]:5433"': ANY_PORT,
            "127.0.0.1:5432": f"127.0.0.1:{ports['orders']}",
            "127.0.0.1:5434": f"127.0.0.1:{vacant}",
            "127.0.0.1:5435": f"127.0.0.1:{ports['reports']}",
        }
        gateway = stack.enter_context(running("postgres-by-name", directory, replaced))
        for asked, answer in (("orders.example.com", b"orders"), ("may.reports.example.com", b"reports")):
            raw = socket.create_connection(("127.0.0.1", gateway.port()), timeout=20)
            with trusting.wrap_socket(raw, server_hostname=asked) as wire:
                assert told(wire, b"select 1") == answer + b" heard select 1"
        raw = socket.create_connection(("127.0.0.1", gateway.port()), timeout=20)
        with raw, pytest.raises(ssl.SSLError, match="UNRECOGNIZED_NAME"):
            trusting.wrap_socket(raw, server_hostname="elsewhere.example.com")


def test_redis_behind_tls(directory: Path, authority: trustme.CA) -> None:
    trusting = ssl.create_default_context()
    authority.configure_trust(trusting)
    path = directory / "redis.sock"
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))
        listening.listen()
        Chatter(b"redis", listening)
        replaced = {'"[::]:6380"': ANY_PORT, "/run/redis/redis.sock": str(path)}
        with running("redis-behind-tls", directory, replaced) as gateway:
            raw = socket.create_connection(("127.0.0.1", gateway.port()), timeout=20)
            with trusting.wrap_socket(raw, server_hostname=HOST) as wire:
                assert told(wire, b"PING") == b"redis heard PING"
            ready = gateway.metrics().value("tidegate_upstream_connections", upstream="redis")
            assert ready >= 4
