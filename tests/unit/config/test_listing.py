"""Lists of endpoints that come from files and servers."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tidegate.config.config import ListTerms
from tidegate.config.listing import read_endpoints
from tidegate.errors import ConfigError

HTTP = ListTerms("http", tls=False, only_tls=False)
HTTPS = ListTerms("https", tls=True, only_tls=False)
H3 = ListTerms("https", tls=True, only_tls=True)
TCP = ListTerms("tcp", tls=False, only_tls=False)


def read(text: str, terms: ListTerms = HTTP) -> list[tuple[str, int]]:
    return [(str(each.url), each.weight) for each in read_endpoints("list.yaml", text.encode(), terms)]


def problem(text: str, terms: ListTerms = HTTP) -> str:
    with pytest.raises(ConfigError) as caught:
        read(text, terms)
    return str(caught.value)


@pytest.mark.parametrize(
    ("text", "terms", "endpoints"),
    [
        ("[]", HTTP, []),
        ("- http://a:1\n- {url: unix:/x, weight: 3}\n", HTTP, [("http://a:1", 1), ("unix:/x", 3)]),
        ('["10.0.0.1:80", "[::1]:80"]', HTTP, [("http://10.0.0.1:80", 1), ("http://[::1]:80", 1)]),
        ("[a.internal]", HTTPS, [("https://a.internal", 1)]),
        ("[http://a, https://b]", HTTPS, [("http://a", 1), ("https://b", 1)]),
        ("[10.0.0.1:5432, unix:/x]", TCP, [("tcp://10.0.0.1:5432", 1), ("unix:/x", 1)]),
    ],
)
def test_lists(text: str, terms: ListTerms, endpoints: list[tuple[str, int]]) -> None:
    assert read(text, terms) == endpoints


@pytest.mark.parametrize(
    ("text", "terms", "message"),
    [
        ("", HTTP, "list.yaml: is empty; expected a list such as"),
        ("endpoints: []", HTTP, "list.yaml:1:1: is not a list; expected a list such as"),
        ("- 5", HTTP, "list.yaml:1:3: [0]: expected an endpoint, found 5"),
        ("- a: b\n  url: http://a\n", HTTP, "list.yaml:1:3: [0].a: unknown key 'a'"),
        ("- http://a:1\n- http://a:1\n", HTTP, "list.yaml:2:3: [1]: the endpoint 'http://a:1' is given twice"),
        ("- {url: http://a:1, weight: 0}", HTTP, "list.yaml:1:29: [0].weight: expected at least 1, found 0"),
        ("- {weight: 1}", HTTP, "list.yaml:1:3: [0]: the key 'url' is missing"),
        ("- ws://a", HTTP, "list.yaml:1:3: [0]: 'ws://a' is not an endpoint"),
        ("- /run/x", HTTP, "did you mean 'unix:/run/x'?"),
        ("- http://${HOME}", HTTP, "'http://${HOME}' is not an endpoint"),
        ("- ${file:/etc/passwd}", HTTP, "'http://${file:/etc/passwd}'"),
        ("- tcp://a:1", HTTP, "[0]: 'tcp://a:1' is not for an upstream that speaks HTTP; expected http:// or https://"),
        ("- url: http://a:1", TCP, "list.yaml:1:8: [0].url: 'http://a:1' is not for an upstream that speaks TCP"),
        ("- https://a", HTTP, "[0]: 'https://a' needs TLS, and the upstream has none"),
        ("- http://a", H3, "[0]: 'http://a' has no TLS, and the upstream speaks HTTP/3"),
        ("[a", HTTP, "list.yaml:2:1: is not valid YAML"),
        ("- a\n---\n- b\n", HTTP, "a second document begins here"),
    ],
)
def test_faults(text: str, terms: ListTerms, message: str) -> None:
    assert message in problem(text, terms)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(["url", "weight", "x"]), inner),
    max_leaves=12,
)


@given(st.binary(max_size=200))
def test_any_bytes_are_a_list_or_a_fault(content: bytes) -> None:
    try:
        read_endpoints("list.yaml", content, HTTP)
    except ConfigError as error:
        assert error.problems


@given(VALUES)
def test_any_values_are_a_list_or_a_fault(value: Any) -> None:
    try:
        endpoints = read_endpoints("list.yaml", json.dumps(value).encode(), HTTP)
    except ConfigError as error:
        assert error.problems
    else:
        assert isinstance(value, list) and len(endpoints) == len(value)


def test_a_list_has_an_end() -> None:
    terms = ListTerms("http", tls=False, only_tls=False)
    assert len(read_endpoints("x", b"\n".join(b"- a:%d" % port for port in range(1, 10_001)), terms)) == 10_000
    with pytest.raises(ConfigError, match=r"x:10001:3: .* at most 10000 endpoints") as raised:
        read_endpoints("x", b"- {u: x}\n" * 10_001, terms)
    assert len(raised.value.problems) == 1


def test_not_every_fault_of_a_list_is_told() -> None:
    with pytest.raises(ConfigError) as raised:
        read_endpoints("x", b"- {u: x}\n" * 1_000, ListTerms("http", tls=False, only_tls=False))
    assert 20 <= len(raised.value.problems) <= 22
