"""Modules import only from the layers below their own, never sideways, in both languages.

The tables are those of the design. A module that is not in one does not belong anywhere yet: decide, then add it.
"""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PYTHON = ROOT / "python" / "tidegate"
RUST = ROOT / "rust" / "engine" / "src"

PYTHON_LAYERS = (
    {"errors"},
    {"config", "telemetry"},
    {"snapshot", "hooks", "process"},
    {"control", "identity", "cluster", "hub", "terminal"},
    {"admin"},
    {"gateway"},
    {"demo"},
    {"cli"},
)
PYTHON_SIDE = {"testing"}
"""May use everything; nothing may use it."""

# Two modules stand lower than in the design's sketch, because the code proved them to need nothing: `snapshot` is plain
# data, and `http` a codec without IO, whose fields and tokens the WebSocket handshake and the routes compare, and whose
# frames the streams of HTTP/3 carry.
RUST_LAYERS = (
    {"metrics", "error", "snapshot"},
    {"http"},
    {"io", "log"},
    {"ws"},
    {"hooks", "route", "policy", "balance", "tls"},
    {"fanout"},
    {"relay"},
    {"upstream"},
    {"server"},
    {"door"},
)

Use = tuple[str, str, str]
"""Who, whom, and where it is written."""


def python_uses() -> Iterator[Use]:
    for file in sorted(PYTHON.rglob("*.py")):
        user = file.relative_to(PYTHON).parts[0].removesuffix(".py")
        for node in ast.walk(ast.parse(file.read_text(), str(file))):
            for used in imported(node):
                yield user, used, f"{file.relative_to(ROOT)}:{getattr(node, 'lineno', 0)}"


def imported(node: ast.AST) -> Iterator[str]:
    """The modules directly below `tidegate` that one statement imports."""
    names: list[str] = []
    if isinstance(node, ast.Import):
        names = [alias.name for alias in node.names]
    elif isinstance(node, ast.ImportFrom):
        assert node.level == 0, "imports are absolute"
        names = [f"{node.module}.{alias.name}" for alias in node.names]
    for name in names:
        parts = name.split(".")
        if parts[0] == "tidegate" and len(parts) > 1:
            yield parts[1]


def rust_uses() -> Iterator[Use]:
    for file in sorted(RUST.rglob("*.rs")):
        user = file.relative_to(RUST).parts[0].removesuffix(".rs")
        text = without_comments(file.read_text())
        for match in re.finditer(r"\bcrate::(?:(\w+)|\{)", text):
            where = f"{file.relative_to(ROOT)}:{text.count(chr(10), 0, match.start()) + 1}"
            for used in [match[1]] if match[1] else group_heads(text, match.end()):
                yield user, used, where


def without_comments(text: str) -> str:
    """Comments may point anywhere. The line breaks stay, and so the line numbers."""
    return re.sub(r"//[^\n]*", "", text)


def group_heads(text: str, start: int) -> Iterator[str]:
    """The first names in `{a::b, c::{d, e}}`, from behind its opening brace."""
    depth, word = 1, ""
    for character in text[start:]:
        if depth == 1 and character in ",}" and word.strip():
            yield word.strip().split("::")[0]
        word = "" if character == "," and depth == 1 else word + character
        depth += {"{": 1, "}": -1}.get(character, 0)
        if depth == 0:
            return


def layer(layers: tuple[set[str], ...], name: str) -> int:
    return next((index for index, names in enumerate(layers) if name in names), -1)


def violations(uses: Iterator[Use], layers: tuple[set[str], ...], free: set[str]) -> list[str]:
    return [
        f"{where}: {user} uses {used}, which is not below it"
        for user, used, where in uses
        if user != used and user not in free and layer(layers, used) >= layer(layers, user)
    ]


def known(layers: tuple[set[str], ...]) -> set[str]:
    return set().union(*layers)


def test_python_imports_point_down() -> None:
    uses = (use for use in python_uses() if use[1] not in ("__version__", "_engine"))
    assert violations(uses, PYTHON_LAYERS, PYTHON_SIDE) == []


def test_nothing_uses_the_test_kit() -> None:
    assert [use for use in python_uses() if use[1] in PYTHON_SIDE and use[0] not in PYTHON_SIDE] == []


def test_only_the_composition_root_knows_the_engine() -> None:
    assert {user for user, used, _ in python_uses() if used == "_engine"} <= {"gateway"}


def test_rust_uses_point_down() -> None:
    modules = known(RUST_LAYERS)
    uses = (use for use in rust_uses() if use[0] in modules and use[1] in modules)
    assert violations(uses, RUST_LAYERS, set()) == []


def top_level(directory: Path, ending: str) -> set[str]:
    return {
        path.name.removesuffix(ending)
        for path in directory.iterdir()
        if (path.suffix == ending or any(path.rglob(f"*{ending}"))) and not path.name.startswith("__")
    }


def test_every_python_module_has_a_layer() -> None:
    assert top_level(PYTHON, ".py") <= known(PYTHON_LAYERS) | PYTHON_SIDE


def test_every_rust_module_has_a_layer() -> None:
    assert top_level(RUST, ".rs") <= known(RUST_LAYERS) | {"lib"}


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("use crate::io::Stream;", ["io"]),
        ("use crate::{error::{Fault, Refusal}, snapshot, ws::close};", ["error", "snapshot", "ws"]),
        ("/// [`crate::server`]\nfn f() -> crate::io::Now {}", ["io"]),
    ],
)
def test_rust_uses_are_found(source: str, found: list[str]) -> None:
    text = without_comments(source)
    uses = [
        used
        for match in re.finditer(r"\bcrate::(?:(\w+)|\{)", text)
        for used in ([match[1]] if match[1] else group_heads(text, match.end()))
    ]
    assert uses == found


def test_a_use_upwards_or_sideways_is_a_violation() -> None:
    layers = ({"low"}, {"left", "right"})
    uses = [("left", "low", "a"), ("low", "left", "b"), ("left", "right", "c"), ("left", "nowhere", "d")]
    assert [text.split(":")[0] for text in violations(iter(uses), layers, set())] == ["b", "c"]
