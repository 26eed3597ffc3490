"""What the design has and this version has not: refused by name, so that nobody relies on what is not there.

One table. `*` stands for any name or index. A row refuses a key, or (with values) only these values of it.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from tidegate.config.document import KeyPath
from tidegate.config.faults import Findings

__all__ = ["LATER", "refuse_later"]


@dataclass(frozen=True, slots=True)
class Later:
    """A part of the configuration that is not supported yet."""

    path: str
    values: tuple[str, ...] = ()
    """Only these texts, or texts that begin with `x*`; `{key` is a mapping with that key."""
    instead: str = ""


LATER: tuple[Later, ...] = (
    Later("cluster"),
    Later("hooks"),
    Later("identity"),
    *(
        Later(f"{part}.*.websocket.{key}", values, instead)
        for part in ("listeners", "routes")
        for key, values, instead in (
            ("max_inflated", (), ""),
            ("deflate", ("terminate",), "pass or off"),
        )
    ),
    Later("routes.*.hub"),
    Later("routes.*.terminal"),
    Later("routes.*.auth"),
    Later("routes.*.hooks"),
    Later("routes.*.mirror"),
    Later("routes.*.access"),
)


def refuse_later(findings: Findings) -> None:
    """An error for each part of the document that is in the table."""
    for later in LATER:
        for path, value in _matches(findings.document.values, later.path.split("."), ()):
            if not later.values:
                findings.final(path, f"'{path[-1]}' is not supported yet", later.instead, at_key=True)
            elif any(_is(value, pattern) for pattern in later.values):
                expected = f"expected {later.instead}"
                findings.final(path, f"{_shown(value)} is not supported yet", expected)


def _matches(value: Any, steps: list[str], path: KeyPath) -> Iterator[tuple[KeyPath, Any]]:
    if not steps:
        yield path, value
        return
    for step in _members(value, steps[0]):
        yield from _matches(value[step], steps[1:], (*path, step))


def _members(value: Any, step: str) -> list[Any]:
    if isinstance(value, dict):
        return list(value) if step == "*" else [step] if step in value else []
    return list(range(len(value))) if isinstance(value, list) and step == "*" else []


def _is(value: object, pattern: str) -> bool:
    if pattern.startswith("{"):
        return isinstance(value, dict) and pattern[1:] in value
    if pattern.endswith("*"):
        return isinstance(value, str) and value.startswith(pattern[:-1])
    return value == pattern


def _shown(value: object) -> str:
    return (
        f"'{value}'" if isinstance(value, str) else f"'{next(iter(value))}'" if isinstance(value, dict) else str(value)
    )
