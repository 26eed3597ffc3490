"""A YAML file as plain values, with the place of each of them.

Theory. The composer's nodes are walked once, into plain values and beside them a tree of *spots*, so that the place of
any key path can be told later and no value has to carry its place around; the nodes, which are large, are dropped.

A file may come from anyone who may write configuration, so every way to make a small file expensive has a limit:
bytes, nesting, and values reached through aliases ("billion laughs"). Reading breaks off at the first syntax error,
since nothing after it can be trusted; what is wrong with single values (duplicate keys, no value, unknown variables)
is collected.
"""

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import yaml

from tidegate.config.expand import ExpandError, expand
from tidegate.config.yaml12 import CORE, DEEPEST, SCALARS, compose
from tidegate.errors import ConfigError, Place, Problem

__all__ = ["Document", "KeyPath", "show_path"]

KeyPath = tuple[str | int, ...]

LARGEST_FILE = 16 << 20
MOST_ALIASED = 100_000
EXPECTED_KEYS = "expected a mapping with the keys listeners, routes and upstreams"

_PLAIN_KEY = re.compile(r"[A-Za-z0-9_-]+")
# What YAML 1.2 §5.1 does not count as printable.
_UNPRINTABLE = re.compile(r"[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def show_path(path: KeyPath) -> str:
    """`routes[0].match.headers["x.y"]`."""
    text = ""
    for step in path:
        if isinstance(step, int):
            text += f"[{step}]"
        elif _PLAIN_KEY.fullmatch(step):
            text += f".{step}" if text else step
        else:
            text += f'["{step}"]'
    return text


@dataclass(slots=True)
class _Spot:
    """Where a value is (line and column from 0), where its key is, and what is in it."""

    at: tuple[int, int]
    key_at: tuple[int, int]
    members: "dict[str | int, _Spot]" = field(default_factory=dict)


class Document:
    """The values of one file and the places of them."""

    def __init__(self, file: str, path: Path) -> None:
        """`file` is its name for people, `path` where it lies. Raises ConfigError when it is no single YAML mapping."""
        walk = _Walk(file, path.parent)
        root = walk.compose(walk.read(path))
        if not isinstance(root, yaml.MappingNode):
            raise walk.misfit(root, "does not begin with a key", EXPECTED_KEYS)
        self._take(walk, root, _Spot((0, 0), (0, 0)))

    @classmethod
    def of_list(cls, file: str, content: bytes, at: KeyPath, expected: str) -> Self:
        """A list that stands for the part `at` of a configuration. `$` has no meaning in it: it may come from others.

        Raises ConfigError when it is no single YAML list; JSON is YAML too.
        """
        walk = _Walk(file, None)
        root = walk.compose(walk.decoded(content))
        if not isinstance(root, yaml.SequenceNode):
            raise walk.misfit(root, "is not a list", expected)
        document = cls.__new__(cls)
        document._take(walk, root, _Spot((0, 0), (0, 0)), at)
        return document

    def _take(self, walk: "_Walk", root: yaml.Node, spot: _Spot, at: KeyPath = ()) -> None:
        self.file = walk.file
        self._root, self._at = spot, at
        self.values: Any = walk.value(root, (), spot)
        self.problems = walk.problems
        """What is wrong with single values."""
        self.unusable = walk.unusable
        """The paths of those values: what else could be said of them would only be a consequence."""
        self.files = walk.files
        """Files that values were taken from by `${file:…}`."""

    def place(self, path: KeyPath, *, at_key: bool = False) -> Place:
        """Where `path` is written; `at_key` points at the key, not at its value.

        Of what is not written, the place is that of the mapping it would stand in. A single value where a list or a
        mapping is allowed (`bind: 0.0.0.0:80`) stands for its parts.
        """
        spot, path = self._root, path[len(self._at) :]
        for depth, step in enumerate(path):
            if step not in spot.members:
                at_key, path = (True, path) if spot.members else (at_key, path[:depth])
                break
            spot = spot.members[step]
        line, column = spot.key_at if at_key else spot.at
        return Place(self.file, line + 1, column + 1, show_path(path))


class _Walk:
    """One pass over the nodes of a file."""

    def __init__(self, file: str, directory: Path | None) -> None:
        """`directory` is where files are that values name; without one, nothing is expanded."""
        self.file = file
        self.problems: list[Problem] = []
        self.unusable: set[KeyPath] = set()
        self.files: list[Path] = []
        self._directory = directory
        self._source = ""
        self._seen: set[int] = set()
        self._aliased = 0

    # From bytes to nodes.

    def read(self, path: Path) -> str:
        try:
            with path.open("rb") as stream:
                content = stream.read(LARGEST_FILE + 1)
        except OSError as error:
            raise self._fail((-1, 0), f"cannot be read: {error.strerror or error}") from error
        return self.decoded(content)

    def decoded(self, content: bytes) -> str:
        if len(content) > LARGEST_FILE:
            raise self._fail((-1, 0), f"is larger than {LARGEST_FILE >> 20} MiB")
        try:
            return content.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise self._fail((content.count(b"\n", 0, error.start), 0), "is not UTF-8 text") from error

    def compose(self, source: str) -> yaml.Node | None:
        """The root of `source`; None when there is nothing in it."""
        self._source = source
        try:
            return compose(source)
        except yaml.MarkedYAMLError as error:
            raise self._syntax(error) from error
        except yaml.reader.ReaderError as error:
            raise self._unprintable(error) from error

    def misfit(self, root: yaml.Node | None, found: str, expected: str) -> ConfigError:
        """For a root of the wrong kind."""
        return self._fail(_at(root) if root else (-1, 0), found if root else "is empty", expected)

    def _syntax(self, error: yaml.MarkedYAMLError) -> ConfigError:
        mark = error.problem_mark or error.context_mark
        at = (mark.line, mark.column) if mark else (-1, 0)
        if error.problem == "but found another document":
            return self._fail(at, "a second document begins here", "expected one document in a file")
        words = " ".join(filter(None, [_context(error), error.problem]))
        tab = "".join(self._source.split("\n")[at[0] : at[0] + 1])[at[1] : at[1] + 1] == "\t"
        return self._fail(
            at, f"is not valid YAML: {words}", "YAML is indented with spaces, not with tabs" if tab else ""
        )

    def _unprintable(self, error: yaml.reader.ReaderError) -> ConfigError:
        found = _UNPRINTABLE.search(self._source)
        position = found.start() if found else 0
        line = self._source.count("\n", 0, position)
        column = position - (self._source.rfind("\n", 0, position) + 1)
        return self._fail((line, column), f"is not valid YAML: {error.reason}")

    def _fail(self, at: tuple[int, int], message: str, hint: str = "", path: KeyPath = ()) -> ConfigError:
        line, column = at[0] + 1, at[1] + 1
        return ConfigError([Problem(Place(self.file, line, column, show_path(path)), message, hint)])

    # From nodes to values.

    def value(self, node: yaml.Node, path: KeyPath, spot: _Spot) -> object:
        self._limit(node, path)
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, path, spot)
        if isinstance(node, yaml.SequenceNode):
            return self._sequence(node, path, spot)
        return self._scalar(node, path)

    def _limit(self, node: yaml.Node, path: KeyPath) -> None:
        if len(path) > DEEPEST:  # the composer limits what is written, but an alias may stand for what contains it
            raise self._fail(_at(node), f"is nested deeper than {DEEPEST} levels", path=path[:4])
        if id(node) in self._seen:
            self._aliased += 1
            if self._aliased > MOST_ALIASED:
                message = f"aliases stand for more than {MOST_ALIASED} values"
                raise self._fail(_at(node), message, "write the values out", path[:4])
        self._seen.add(id(node))

    def _mapping(self, node: yaml.MappingNode, path: KeyPath, spot: _Spot) -> dict[str, object]:
        if node.tag != CORE + "map":
            self._unknown_tag(node, path)
        values: dict[str, object] = {}
        for key_node, value_node in node.value:
            key = self._key(key_node, path, spot)
            if key is not None:
                member = spot.members[key] = _Spot(_at(value_node), _at(key_node))
                value = self.value(value_node, (*path, key), member)
                if value is None:
                    self._no_value(key_node, (*path, key))
                else:
                    values[key] = value
        return values

    def _key(self, node: yaml.Node, path: KeyPath, spot: _Spot) -> str | None:
        if not isinstance(node, yaml.ScalarNode):
            self._problem(node, path, "a key must be a word, not a mapping or a list")
            return None
        name = str(node.value)
        if name == "<<":
            self._problem(node, path, "merge keys (<<) are not part of YAML 1.2", "repeat the keys")
            return None
        if (first := spot.members.get(name)) is not None:
            self._problem(
                node, (*path, name), f"is given twice, first in line {first.key_at[0] + 1}", "keep one of them"
            )
            return None
        return name

    def _sequence(self, node: yaml.SequenceNode, path: KeyPath, spot: _Spot) -> list[object]:
        if node.tag != CORE + "seq":
            self._unknown_tag(node, path)
        values = []
        for index, item in enumerate(node.value):
            member = spot.members[index] = _Spot(_at(item), _at(item))
            values.append(self.value(item, (*path, index), member))
            if values[-1] is None:
                self._no_value(item, (*path, index))
        return values

    def _scalar(self, node: yaml.Node, path: KeyPath) -> object:
        make = SCALARS.get(node.tag)
        if make is None:
            self._unknown_tag(node, path)
            return node.value
        try:
            if node.tag != CORE + "str" or self._directory is None:
                return make(node.value)
            return expand(node.value, self._directory, self.files)
        except ExpandError as error:
            self._problem(node, path, str(error), error.hint)
            self.unusable.add(path)
        except ValueError:  # an explicit tag on something else: !!int abc
            self._problem(node, path, f"is not a value of {_show_tag(node)}")
            self.unusable.add(path)
        return node.value

    def _no_value(self, node: yaml.Node, path: KeyPath) -> None:
        self._problem(node, path, "has no value", "give it one, or leave it out")
        self.unusable.add(path)

    def _unknown_tag(self, node: yaml.Node, path: KeyPath) -> None:
        self._problem(node, path, f"the tag {_show_tag(node)} is not supported", "leave it out")
        self.unusable.add(path)

    def _problem(self, node: yaml.Node, path: KeyPath, message: str, hint: str = "") -> None:
        line, column = _at(node)
        self.problems.append(Problem(Place(self.file, line + 1, column + 1, show_path(path)), message, hint))


def _context(error: yaml.MarkedYAMLError) -> str:
    began, noticed = error.context_mark, error.problem_mark
    if not error.context or began is None or noticed is None or began.line == noticed.line:
        return error.context or ""
    return f"{error.context} (begun in line {began.line + 1})"


def _at(node: yaml.Node) -> tuple[int, int]:
    return node.start_mark.line, node.start_mark.column


def _show_tag(node: yaml.Node) -> str:
    return str(node.tag).replace(CORE, "!!")
