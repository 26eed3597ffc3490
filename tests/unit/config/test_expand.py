"""`${NAME}`, `${file:path}` and `$$`."""

from pathlib import Path

import pytest

from tidegate.config.expand import LARGEST_FILE, Expanded, ExpandError, expand


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TIDE_HOST", "chat.internal")
    monkeypatch.setenv("TIDE_EMPTY", "")
    monkeypatch.setenv("TIDE_NESTED", "${TIDE_HOST}")
    monkeypatch.delenv("TIDE_MISSING", raising=False)


@pytest.mark.parametrize(
    ("text", "expanded"),
    [
        ("plain", "plain"),
        ("http://${TIDE_HOST}:80", "http://chat.internal:80"),
        ("${TIDE_HOST}${TIDE_HOST}", "chat.internalchat.internal"),
        ("${TIDE_EMPTY}", ""),
        ("${TIDE_NESTED}", "${TIDE_HOST}"),
        ("$${TIDE_HOST}", "${TIDE_HOST}"),
        ("$$$${x}", "$${x}"),
        ("$$${TIDE_HOST}", "$chat.internal"),
        ("/$1", "/$1"),
        (r"\.js$", r"\.js$"),
        ("a$b", "a$b"),
        ("{client.ip}", "{client.ip}"),
    ],
)
def test_expansions(text: str, expanded: str, tmp_path: Path) -> None:
    assert expand(text, tmp_path, []) == expanded


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("${TIDE_MISSING}", "TIDE_MISSING is not set"),
        ("${1}", "not the name of an environment variable"),
        ("${}", "not the name of an environment variable"),
        ("${a b}", "not the name of an environment variable"),
        ("${TIDE_HOST", "no closing '}'"),
        ("${file:none}", "'none' cannot be read"),
        ("${file:}", "cannot be read"),
    ],
)
def test_what_cannot_be_expanded(text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(ExpandError, match=message):
        expand(text, tmp_path, [])


@pytest.mark.parametrize(
    ("content", "text"), [("secret\n", "secret"), ("secret\r\n", "secret"), ("a\n\n", "a\n"), (" b ", " b "), ("", "")]
)
def test_files_lose_one_line_break(content: str, text: str, tmp_path: Path) -> None:
    (tmp_path / "token").write_bytes(content.encode())
    files: list[Path] = []
    assert expand("${file:token}", tmp_path, files) == text
    assert files == [tmp_path / "token"]


def test_a_missing_file_is_watched_too(tmp_path: Path) -> None:
    files: list[Path] = []
    with pytest.raises(ExpandError):
        expand("${file:later}", tmp_path, files)
    assert files == [tmp_path / "later"]


def test_files_have_limits(tmp_path: Path) -> None:
    (tmp_path / "large").write_bytes(b"x" * (LARGEST_FILE + 1))
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    with pytest.raises(ExpandError, match="larger than 1 MiB"):
        expand("${file:large}", tmp_path, [])
    with pytest.raises(ExpandError, match="not UTF-8"):
        expand("${file:binary}", tmp_path, [])


def test_what_comes_from_outside_is_told_apart(tmp_path: Path) -> None:
    assert isinstance(expand("${TIDE_HOST}", tmp_path, []), Expanded)
    assert not isinstance(expand("$$x", tmp_path, []), Expanded)
