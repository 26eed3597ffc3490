"""Hosts, headers, methods and the names of parts."""

from collections.abc import Callable

import pytest

from tidegate.config import names
from tidegate.config.units import UnitError


@pytest.mark.parametrize(
    ("written", "normal"),
    [
        ("chat.example.com", "chat.example.com"),
        ("Chat.Example.COM.", "chat.example.com"),
        ("*.Example.com", "*.example.com"),
        ("WWW.*", "www.*"),
        ("*", "*"),
        ("bücher.example", "xn--bcher-kva.example"),
        ("127.0.0.1", "127.0.0.1"),
        ("[0:0::1]", "[::1]"),
        ("localhost", "localhost"),
        ("_dmarc.example.com", "_dmarc.example.com"),
    ],
)
def test_host_patterns(written: str, normal: str) -> None:
    assert names.host_pattern(written) == normal


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a..b",
        "chat.example.com:8443",
        "https://chat.example.com",
        "chat.example.com/ws",
        "*.*",
        "a.*.b",
        "*",
        "-a.example",
        "a" * 64,
        "a." * 127 + "a",
        "10.0.0.1.5",
        "256.0.0.1",
        "[::1",
        "[fe80::1%eth0]",
        "straße.example",
        "a b",
    ],
)
def test_what_is_no_host(text: str) -> None:
    with pytest.raises(UnitError):
        names.host_name(text)


def test_a_url_for_a_host_is_explained() -> None:
    with pytest.raises(UnitError) as caught:
        names.host_pattern("https://chat.example.com:8443/x")
    assert "did you mean 'chat.example.com'?" in caught.value.hint


@pytest.mark.parametrize("text", ["127.0.0.1", "[::1]", "www.*", "*", ""])
def test_what_is_no_server_name(text: str) -> None:
    with pytest.raises(UnitError):
        names.server_name(text)


def test_server_names() -> None:
    assert names.server_name("*.Example.com") == "*.example.com"
    assert names.server_name("Admin.example.com.") == "admin.example.com"


@pytest.mark.parametrize(
    ("parse", "good", "bad"),
    [
        (names.header_name, "X-Team", "x team"),
        (names.header_name, "x-a", ""),
        (names.header_name, "x-a", "x:"),
        (names.header_value, "a\tb ü", "a\nb"),
        (names.header_value, "", "a\x00b"),
        (names.method, "GET", "get"),
        (names.method, "PURGE", "GET POST"),
        (names.subprotocol, "chat.v2", "chat v2"),
        (names.subprotocol, "graphql-ws", "a,b"),
        (names.route_name, "chat of all", ""),
        (names.route_name, "über", "a\nb"),
        (names.route_name, "x" * 200, "x" * 201),
    ],
)
def test_names(parse: Callable[[str], str], good: str, bad: str) -> None:
    assert parse(good) == good
    with pytest.raises(UnitError):
        parse(bad)


def test_names_of_parts() -> None:
    assert names.part_name("edge-1.a_b", "a listener") == "edge-1.a_b"
    for bad in ("", "-edge", "two words", "x" * 64, "ü"):
        with pytest.raises(UnitError):
            names.part_name(bad, "a listener")
