"""Sockets of our own, and an application on them."""

import socket
from pathlib import Path

import httpx
import pytest
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from tidegate.admin.server import AppServer, open_socket

HELLO = Starlette(routes=[Route("/", lambda _: PlainTextResponse("hello"))])


@pytest.mark.parametrize("address", ["127.0.0.1:0", "[::1]:0"])
async def test_it_serves_and_frees_its_port(address: str) -> None:
    async with AppServer(HELLO, open_socket(address)) as server, httpx.AsyncClient() as client:
        assert (await client.get(f"http://{server.address}/")).text == "hello"
    open_socket(server.address).close()


async def test_a_unix_socket_is_private_and_goes(tmp_path: Path) -> None:
    path = tmp_path / "x.sock"
    async with AppServer(HELLO, open_socket(f"unix:{path}")) as server:
        assert (server.address, path.stat().st_mode & 0o777) == (f"unix:{path}", 0o600)
        async with httpx.AsyncClient(transport=httpx.AsyncHTTPTransport(uds=str(path))) as client:
            assert (await client.get("http://localhost/")).text == "hello"
    assert not path.exists()


def test_a_dead_socket_is_replaced_and_a_living_one_is_not(tmp_path: Path) -> None:
    path = tmp_path / "x.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    with open_socket(f"unix:{path}"), pytest.raises(OSError, match="in use"):
        open_socket(f"unix:{path}")


def test_another_file_is_not_removed(tmp_path: Path) -> None:
    path = tmp_path / "precious"
    path.write_text("x")
    with pytest.raises(OSError, match="in use"):
        open_socket(f"unix:{path}")
    assert path.read_text() == "x"


def test_dual_stack() -> None:
    with open_socket("[::]:0") as opened:
        port = opened.getsockname()[1]
        socket.create_connection(("127.0.0.1", port), timeout=5).close()
