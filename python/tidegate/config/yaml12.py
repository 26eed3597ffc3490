"""YAML 1.2 through PyYAML's C composer.

PyYAML speaks YAML 1.1, which turns `on`, `no`, `1:30` and `010` into surprises. Its composer, though, asks Python for
the type of each scalar, so a loader with the types of the YAML 1.2 core schema (§10.3.2) and nothing else is all it
takes; and it is twenty times faster than a pure Python loader that keeps positions.

The C composer recurses without a limit, so that deep nesting would overflow the stack: the loader counts.
"""

import re
from collections.abc import Callable
from typing import Any

import yaml

__all__ = ["CORE", "DEEPEST", "SCALARS", "compose"]

CORE = "tag:yaml.org,2002:"
DEEPEST = 64


class _Loader(yaml.CSafeLoader):
    depth = 0

    def descend_resolver(self, current_node: Any, current_index: Any) -> None:
        """The composer goes one level deeper."""
        self.depth += 1
        if self.depth > DEEPEST:
            raise yaml.MarkedYAMLError(None, None, f"nested deeper than {DEEPEST} levels", current_node.start_mark)

    def ascend_resolver(self) -> None:
        """The composer comes back."""
        self.depth -= 1


def compose(source: str) -> yaml.Node | None:
    """The root of the only document in `source`; None when there is nothing in it. Raises yaml.YAMLError."""
    loader = _Loader(source)
    try:
        return loader.get_single_node()
    finally:
        loader.dispose()


def _integer(text: str) -> int:
    sign, digits = (text[0], text[1:]) if text[0] in "+-" else ("", text)
    base = {"0o": 8, "0x": 16}.get(digits[:2], 10)
    return int(sign + (digits[2:] if base != 10 else digits), base)


def _float(text: str) -> float:
    return float(text.lower().replace(".inf", "inf").replace(".nan", "nan"))


SCALARS: dict[str, Callable[[str], object]] = {
    CORE + "null": lambda _: None,
    CORE + "bool": lambda text: text.lower() == "true",
    CORE + "int": _integer,
    CORE + "float": _float,
    CORE + "str": str,
}
"""What a scalar of each type is; other types are not supported."""

# Twenty digits hold every number there is a use for; a longer one stays text and is refused as such.
_INT = r"[-+]?[0-9]{1,20}|0o[0-7]{1,20}|0x[0-9a-fA-F]{1,16}"
_POINT = r"[-+]?(?:\.[0-9]{1,20}|[0-9]{1,20}(?:\.[0-9]{0,20})?)(?:[eE][-+]?[0-9]{1,3})?"
_FLOAT = _POINT + r"|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)"

# The inherited ones are those of YAML 1.1.
_Loader.yaml_implicit_resolvers = {}
for _name, _pattern, _first in [
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("bool", r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    ("int", _INT, list("-+0123456789")),
    ("float", _FLOAT, list("-+.0123456789")),
]:
    _Loader.add_implicit_resolver(CORE + _name, re.compile(rf"^(?:{_pattern})$"), _first)
