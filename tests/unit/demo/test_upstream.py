"""The servers behind the demo."""

import json
import re
from collections.abc import Iterator

import httpx
import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from tidegate.demo.upstream import demo_app
from tidegate.testing import Upstream


@pytest.fixture
def upstream() -> Iterator[Upstream]:
    with Upstream(demo_app()) as running:
        yield running


def open_socket(upstream: Upstream, path: str) -> ClientConnection:
    return connect(upstream.url.replace("http", "ws") + path)


def test_the_page_allows_only_what_it_brings(upstream: Upstream) -> None:
    answer = httpx.get(upstream.url)
    policy = answer.headers["content-security-policy"]
    nonce = re.search("script-src 'nonce-([^']+)'", policy)
    assert nonce and answer.text.count(f'nonce="{nonce[1]}"') == 2
    assert "default-src 'none'" in policy and "NONCE" not in answer.text
    assert not re.search(r"(src|href)=.https?://(?!www\.w3\.org)", answer.text)


def test_hello_shows_what_arrived(upstream: Upstream) -> None:
    headers = httpx.get(upstream.url + "/hello", headers={"x-a": "b", "cookie": "secret"}).json()["headers"]
    assert headers["x-a"] == "b" and "cookie" not in headers


def test_events_tick(upstream: Upstream) -> None:
    with httpx.stream("GET", upstream.url + "/events") as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        line = next(line for line in answer.iter_lines() if line.startswith("data:"))
    assert json.loads(line.removeprefix("data:"))["number"] == 1


def test_echo(upstream: Upstream) -> None:
    with open_socket(upstream, "/echo") as socket:
        for message in ("hello", b"\x00"):
            socket.send(message)
            assert socket.recv() == message


@pytest.mark.parametrize(
    ("text", "code"), [("close 4000 bye now", 4000), ("close 1000", 1000), ("close 1006", None), ("close x", None)]
)
def test_echo_closes_as_asked(upstream: Upstream, text: str, code: int | None) -> None:
    with open_socket(upstream, "/echo") as socket:
        socket.send(text)
        if code is None:
            assert socket.recv() == text
            return
        with pytest.raises(ConnectionClosed):
            socket.recv()
        assert (socket.close_code, socket.close_reason) == (code, text[11:])


def news(socket: ClientConnection) -> dict[str, object]:
    told: dict[str, object] = json.loads(socket.recv(timeout=10))
    return told


def test_the_room_hears_who_comes_what_is_said_and_who_goes(upstream: Upstream) -> None:
    with open_socket(upstream, "/chat?name=ann") as ann:
        assert (first := news(ann))["members"] == ["ann"] and first["kind"] == "joined"
        with open_socket(upstream, "/chat") as guest:
            assert (news(ann)["name"], news(guest)["name"]) == ("guest 1", "guest 1")
            guest.send("hello")
            guest.send(b"not text")
            assert [(told["name"], told["text"]) for told in (news(ann), news(guest))] == [("guest 1", "hello")] * 2
        assert (last := news(ann))["kind"] == "left" and last["members"] == ["ann"]
