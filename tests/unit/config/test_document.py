"""YAML 1.2 values, their places, and the limits."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tidegate.config.document import LARGEST_FILE, Document, KeyPath, show_path
from tidegate.errors import ConfigError

Read = Callable[[str | bytes], Document]


@pytest.fixture
def read(tmp_path: Path) -> Read:
    def make(text: str | bytes) -> Document:
        path = tmp_path / "file.yaml"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return Document("file.yaml", path)

    return make


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("true", True),
        ("False", False),
        ("on", "on"),
        ("off", "off"),
        ("yes", "yes"),
        ("NO", "NO"),
        ("y", "y"),
        ("1:30", "1:30"),
        ("2024-01-01", "2024-01-01"),
        ("010", 10),
        ("0o17", 15),
        ("0x1F", 31),
        ("-5", -5),
        ("1_000", "1_000"),
        ("1e3", 1000.0),
        (".5", 0.5),
        ("1.2", 1.2),
        ("'1.2'", "1.2"),
        ('"true"', "true"),
        ("!!str 5", "5"),
        ("9" * 25, "9" * 25),
        ("=", "="),
        ("|\n  a\n  b\n", "a\nb\n"),
    ],
)
def test_scalars_are_yaml_1_2(read: Read, text: str, value: object) -> None:
    document = read(f"key: {text}")
    assert document.values == {"key": value}
    assert type(document.values["key"]) is type(value)
    assert document.problems == []


def test_keys_are_texts(read: Read) -> None:
    assert read("{on: 1, 2: 2, true: 3}").values == {"on": 1, "2": 2, "true": 3}


SOURCE = """\
listeners:
  edge:
    bind: [127.0.0.1:80,
           127.0.0.1:81]
ünter: {a: "ü", b: 1}
copy: &anchor {x: 1}
same: *anchor
"""


@pytest.mark.parametrize(
    ("path", "place", "key_place"),
    [
        ((), (1, 1), (1, 1)),
        (("listeners",), (2, 3), (1, 1)),
        (("listeners", "edge", "bind"), (3, 11), (3, 5)),
        (("listeners", "edge", "bind", 1), (4, 12), (4, 12)),
        (("ünter", "b"), (5, 20), (5, 17)),
        (("same", "x"), (6, 19), (6, 16)),
        (("listeners", "edge", "tls", "rule"), (2, 3), (2, 3)),
        (("ünter", "b", 0), (5, 20), (5, 17)),
    ],
)
def test_places(read: Read, path: KeyPath, place: tuple[int, int], key_place: tuple[int, int]) -> None:
    document = read(SOURCE)
    at, key_at = document.place(path), document.place(path, at_key=True)
    assert (at.line, at.column) == place
    assert (key_at.line, key_at.column) == key_place


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ((), ""),
        (("routes", 0, "match", "path"), "routes[0].match.path"),
        (("tls", "by_name", "a.example.com"), 'tls.by_name["a.example.com"]'),
    ],
)
def test_paths_are_shown(path: KeyPath, text: str) -> None:
    assert show_path(path) == text


@pytest.mark.parametrize(
    ("text", "place", "message"),
    [
        ("a:\n\tb: 1", "2:1", "YAML is indented with spaces, not with tabs"),
        ("x: 1\na: [1\n", "3:1", "while parsing a flow sequence (begun in line 2) did not find"),
        ("a: 1\n---\nb: 2", "2:1", "a second document begins here"),
        ("a: *none", "1:4", "undefined alias"),
        ("a: b\nc: \x01d", "2:4", "is not valid YAML"),
        (b"a: 1\nb: \xff", "2:1", "is not UTF-8 text"),
        ("", "", "is empty"),
        ("# only a comment\n", "", "is empty"),
        ("- a", "1:1", "does not begin with a key"),
        ("just text", "1:1", "does not begin with a key"),
        ("a: " + "[" * 100, "1:66", "nested deeper than 64 levels"),
        ("a: &a\n  b: *a", "1:4", "is nested deeper than 64 levels"),
    ],
)
def test_what_cannot_be_read(read: Read, text: str | bytes, place: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read(text)
    [problem] = caught.value.problems
    assert message in problem.text
    assert str(problem.place) == (f"file.yaml:{place}" if place else "file.yaml")


def test_the_stack_is_safe_from_nesting(read: Read) -> None:
    with pytest.raises(ConfigError, match="nested deeper"):
        read("{a: " * 200_000)


def test_aliases_cannot_explode(read: Read) -> None:
    rows = [f"a{level}: &a{level} [{', '.join([f'*a{level - 1}'] * 10)}]" for level in range(1, 12)]
    with pytest.raises(ConfigError, match="aliases stand for more than"):
        read("\n".join(["a0: &a0 [x]", *rows]))


def test_large_files_are_refused(read: Read) -> None:
    with pytest.raises(ConfigError, match="larger than 16 MiB"):
        read(b"#" * (LARGEST_FILE + 1))


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"^none\.yaml: cannot be read: No such file"):
        Document("none.yaml", tmp_path / "none.yaml")


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("a: 1\nb: 2\na: 3", "file.yaml:3:1: a: is given twice, first in line 1; keep one of them"),
        ("a: {b: }", "file.yaml:1:5: a.b: has no value; give it one, or leave it out"),
        ("a: ~", "file.yaml:1:1: a: has no value; give it one, or leave it out"),
        ("a: [null]", "file.yaml:1:5: a[0]: has no value; give it one, or leave it out"),
        ("? [a]\n: b", "file.yaml:1:3: a key must be a word, not a mapping or a list"),
        ("a: !new 1", "file.yaml:1:4: a: the tag !new is not supported; leave it out"),
        ("a: !!set {x}", "file.yaml:1:4: a: the tag !!set is not supported; leave it out"),
        ("a: !!int x", "file.yaml:1:4: a: is not a value of !!int"),
        ("a: {<<: {b: 1}}", "file.yaml:1:5: a: merge keys (<<) are not part of YAML 1.2; repeat the keys"),
    ],
)
def test_values_that_cannot_be_used_are_collected(read: Read, text: str, problem: str) -> None:
    assert problem in [str(found) for found in read(text).problems]


def test_byte_order_marks_and_windows_line_ends(read: Read) -> None:
    document = read(b"\xef\xbb\xbfa: 1\r\nb: {c: 2}\r\n")
    assert document.values == {"a": 1, "b": {"c": 2}}
    assert str(document.place(("b", "c"))) == "file.yaml:2:8"
