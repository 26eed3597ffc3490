"""What to listen on, where endpoints are, which networks are trusted."""

import pytest

from tidegate.config.addresses import bind, network, target
from tidegate.config.units import UnitError


@pytest.mark.parametrize(
    "text", ["0.0.0.0:80", "[::]:8443", "127.0.0.1:0", "[2001:db8::1]:65535", "unix:/run/tidegate.sock"]
)
def test_binds_keep_their_spelling(text: str) -> None:
    assert str(bind(text)) == text


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("8080", "did you mean '0.0.0.0:8080'?"),
        ("localhost:8080", "did you mean '127.0.0.1:8080'?"),
        (":8080", "did you mean '[::]:8080'?"),
        ("*:8080", "did you mean '[::]:8080'?"),
        ("127.0.0.1", "the port is missing"),
        ("http://127.0.0.1:80", "did you mean '127.0.0.1:80'?"),
        ("::1:80", "expected address:port"),
        ("[::g]:80", "expected address:port"),
        ("[fe80::1%eth0]:80", "without one"),
        ("010.0.0.1:80", "expected address:port"),
        ("127.0.0.1:65536", "from 0 to 65535"),
        ("example.com:80", "expected address:port"),
        ("unix:x.sock", "absolute path"),
        ("unix:/run/", "absolute path"),
        ("unix:/" + "x" * 107, "at most 107"),
    ],
)
def test_what_is_no_bind(text: str, hint: str) -> None:
    with pytest.raises(UnitError) as caught:
        bind(text)
    assert hint in caught.value.hint


def test_the_longest_unix_path() -> None:
    assert bind("unix:/" + "x" * 106).path == "/" + "x" * 106


@pytest.mark.parametrize(
    ("one", "other", "overlap"),
    [
        ("127.0.0.1:80", "127.0.0.1:80", True),
        ("127.0.0.1:80", "127.0.0.1:81", False),
        ("127.0.0.1:80", "127.0.0.2:80", False),
        ("0.0.0.0:80", "127.0.0.1:80", True),
        ("[::]:80", "127.0.0.1:80", True),
        ("[::]:80", "0.0.0.0:80", True),
        ("0.0.0.0:80", "[::1]:80", False),
        ("127.0.0.1:0", "127.0.0.1:0", False),
        ("unix:/a", "unix:/a", True),
        ("unix:/a", "unix:/b", False),
        ("unix:/a", "127.0.0.1:80", False),
    ],
)
def test_binds_that_exclude_each_other(one: str, other: str, overlap: bool) -> None:
    assert bind(one).overlaps(bind(other)) is overlap
    assert bind(other).overlaps(bind(one)) is overlap


def test_loopback() -> None:
    assert [bind(text).loopback for text in ("127.0.0.1:1", "[::1]:1", "unix:/a", "0.0.0.0:1", "[::]:1")] == [
        True,
        True,
        True,
        False,
        False,
    ]


@pytest.mark.parametrize(
    ("text", "where", "authority"),
    [
        ("http://10.0.0.5:9000", ("10.0.0.5", "", 9000, ""), "10.0.0.5:9000"),
        ("http://10.0.0.5", ("10.0.0.5", "", 80, ""), "10.0.0.5"),
        ("http://[::1]:9000/", ("::1", "", 9000, ""), "[::1]:9000"),
        ("http://Chat.Internal:80", ("None", "chat.internal", 80, ""), "chat.internal:80"),
        ("http://chat.internal", ("None", "chat.internal", 80, ""), "chat.internal"),
        ("tcp://10.0.0.9:5432", ("10.0.0.9", "", 5432, ""), "10.0.0.9:5432"),
        ("tls://pg.internal:5432", ("None", "pg.internal", 5432, ""), "pg.internal:5432"),
        ("unix:/run/chat.sock", ("None", "", 0, "/run/chat.sock"), "localhost"),
        ("unix:///run/chat.sock", ("None", "", 0, "/run/chat.sock"), "localhost"),
    ],
)
def test_endpoints(text: str, where: tuple[str, str, int, str], authority: str) -> None:
    found = target(text)
    assert (str(found.address), found.name, found.port, found.path) == where
    assert found.authority == authority
    assert str(found) == text


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("10.0.0.5:9000", "did you mean 'http://10.0.0.5:9000'?"),
        ("ws://10.0.0.5:9000", "did you mean 'http://10.0.0.5:9000'?"),
        ("HTTP://10.0.0.5:9000", "did you mean 'http://10.0.0.5:9000'?"),
        ("/run/chat.sock", "did you mean 'unix:/run/chat.sock'?"),
        ("tcp://10.0.0.9", "expected tcp://host:port"),
        ("ftp://a", "expected http://host:port"),
        ("http://a:9000/path", "a route's rewrite changes paths"),
        ("http://a:9000?x=y", "a route's rewrite changes paths"),
        ("http://user:secret@a:9000", "expected http://host:port"),
        ("http://:9000", "expected http://host:port"),
        ("http://a:0", "from 1 to 65535"),
        ("http://a:b", "expected http://host:port"),
        ("", "expected http://host:port"),
    ],
)
def test_what_is_no_endpoint(text: str, hint: str) -> None:
    with pytest.raises(UnitError) as caught:
        target(text)
    assert hint in caught.value.hint


def test_networks() -> None:
    assert str(network("10.0.0.0/8")) == "10.0.0.0/8"
    assert str(network("2001:db8::1")) == "2001:db8::1/128"


@pytest.mark.parametrize(
    ("text", "hint"), [("10.0.0.1/8", "did you mean '10.0.0.0/8'?"), ("intranet", "expected a network")]
)
def test_what_is_no_network(text: str, hint: str) -> None:
    with pytest.raises(UnitError) as caught:
        network(text)
    assert hint in caught.value.hint
