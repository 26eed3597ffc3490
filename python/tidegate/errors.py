"""Everything this package raises on purpose, and how a problem in a configuration is told.

    TidegateError               catch this one to catch all of them
    ├── ConfigError             the configuration is wrong; `problems` says where and what (exit code 2)
    ├── EngineFailure           the engine could not do what a good configuration asked: an address in use (exit code 1)
    └── EngineMissing           the native module is not there, or of another version (exit code 1)

A library's exception is translated where it is caught, so that no other type crosses a module's border.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

__all__ = ["ConfigError", "EngineFailure", "EngineMissing", "Place", "Problem", "Severity", "TidegateError", "in_order"]

Severity = Literal["error", "warning"]


@dataclass(frozen=True, slots=True)
class Place:
    """Where something is written. Lines and columns count from 1; 0 is "the file as a whole"."""

    file: str
    line: int = 0
    column: int = 0
    key: str = ""
    """The key's path: `routes[0].match.path`."""

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}" if self.line else self.file


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong (or doubtful, for a warning), in words for the person who wrote the file."""

    place: Place
    message: str
    hint: str = ""
    severity: Severity = "error"

    @property
    def key(self) -> str:
        return self.place.key

    @property
    def text(self) -> str:
        """What is wrong and what to do, without the place."""
        return f"{self.message}; {self.hint}" if self.hint else self.message

    def __str__(self) -> str:
        """One line: `file:line:column: key.path: what is wrong; expected …; did you mean 'x'?`"""
        parts = [str(self.place), "warning" if self.severity == "warning" else "", self.key, self.text]
        return ": ".join(part for part in parts if part)

    def as_json(self) -> dict[str, str | int]:
        """Plain values for scripts."""
        return {
            "file": self.place.file,
            "line": self.place.line,
            "column": self.place.column,
            "key": self.key,
            "message": self.message,
            "hint": self.hint,
            "severity": self.severity,
        }


def in_order(problems: Iterable[Problem]) -> list[Problem]:
    """Sorted as they stand in the file, each once."""
    return sorted(dict.fromkeys(problems), key=lambda problem: (problem.place.line, problem.place.column))


class TidegateError(Exception):
    """The root; never raised itself."""


class ConfigError(TidegateError):
    """The configuration cannot be used. `problems` is never empty and sorted by position."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems: tuple[Problem, ...] = tuple(in_order(problems))
        super().__init__("\n".join(map(str, self.problems)))


class EngineFailure(TidegateError):
    """The engine refused at run time. `problem` has the place in the file where that could be told."""

    def __init__(self, message: str, problem: Problem | None = None) -> None:
        self.problem = problem
        super().__init__(str(problem) if problem else message)


class EngineMissing(TidegateError):
    """`tidegate._engine` cannot be imported or does not fit this package: the installation is broken."""
