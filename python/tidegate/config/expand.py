"""`${NAME}` and `${file:path}` in values; `$$` is a dollar sign.

A `$` before anything but `{` and `$` stays as it is, so that `/$1` in a rewrite and `\\.js$` in a regex need no care;
a group's `${1}` is written `$${1}`.
"""

import os
import re
from pathlib import Path

__all__ = ["ExpandError", "Expanded", "expand"]

LARGEST_FILE = 1 << 20
_DOLLAR = re.compile(r"\$(?:\$|\{([^}]*)(\})?)")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


class Expanded(str):
    """Text that came from outside the file. Where a number or a boolean is expected, it may stand for one."""

    __slots__ = ()


class ExpandError(ValueError):
    """An expansion that cannot be made; `hint` says what to do."""

    def __init__(self, message: str, hint: str = "") -> None:
        self.hint = hint
        super().__init__(message)


def expand(text: str, directory: Path, files: list[Path]) -> str:
    """`text` with its expansions made. Files are relative to `directory`; those read are added to `files`."""
    if "$" not in text:
        return text
    expanded = _DOLLAR.sub(lambda match: _one(match, directory, files), text)
    return Expanded(expanded) if "${" in text else expanded


def _one(match: re.Match[str], directory: Path, files: list[Path]) -> str:
    if match[0] == "$$":
        return "$"
    if match[2] is None:
        raise ExpandError(f"'{match[0]}' has no closing '}}'", "write '$$' for a dollar sign")
    if match[1].startswith("file:"):
        return _from_file(match[1].removeprefix("file:"), directory, files)
    return _from_environment(match[1])


def _from_environment(name: str) -> str:
    if not _NAME.fullmatch(name):
        hint = f"expected ${{NAME}} or ${{file:path}}; write '$${{{name}}}' for the text itself"
        raise ExpandError(f"'${{{name}}}' is not the name of an environment variable", hint)
    value = os.environ.get(name)
    if value is None:
        raise ExpandError(f"the environment variable {name} is not set")
    return value


def _from_file(name: str, directory: Path, files: list[Path]) -> str:
    path = directory / name
    files.append(path)
    try:
        with path.open("rb") as file:
            content = file.read(LARGEST_FILE + 1)
        text = content.decode()
    except OSError as error:
        raise ExpandError(f"the file '{name}' cannot be read: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise ExpandError(f"the file '{name}' is not UTF-8 text") from error
    if len(content) > LARGEST_FILE:
        raise ExpandError(f"the file '{name}' is larger than {LARGEST_FILE >> 20} MiB")
    return text.removesuffix("\n").removesuffix("\r")
