"""How commands speak: coloured for a person at a terminal, plain in a pipe, JSON for a script.

Colours follow NO_COLOR and FORCE_COLOR. Nothing is wrapped in a pipe, where one line is one thing.
"""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from tidegate.errors import ConfigError, EngineFailure, Problem, TidegateError

__all__ = ["console", "print_json", "print_problems", "print_table", "report"]

FAILED, MISUSED = 1, 2
_WIDEST = 10_000
_STYLES = {"error": "bold red", "warning": "bold yellow"}


def console(*, stderr: bool = False) -> Console:
    """Where to print. Made anew each time, so that it fits the stream of the moment."""
    found = Console(stderr=stderr, highlight=False)
    return found if found.is_terminal else Console(stderr=stderr, highlight=False, width=_WIDEST)


def report(error: TidegateError) -> int:
    """Tell what went wrong on standard error; returns the exit code."""
    if isinstance(error, ConfigError):
        print_problems(error.problems)
        return MISUSED
    if isinstance(error, EngineFailure) and error.problem is not None:
        print_problems([error.problem])
    else:
        console(stderr=True).print(f"[bold red]error[/]: {escape(str(error))}", soft_wrap=True)
    return FAILED


def print_json(value: object) -> None:
    """`value` on standard output, for scripts."""
    print(json.dumps(value, indent=2, ensure_ascii=False))


def print_problems(problems: Iterable[Problem]) -> None:
    """On standard error: with the source line for a person, one line each in a pipe."""
    out = console(stderr=True)
    for problem in problems:
        out.print(_pictured(problem) if out.is_terminal else Text(str(problem)), soft_wrap=True)


def _pictured(problem: Problem) -> Text:
    """The problem as compilers show it: message, place, source line, and a caret under it."""
    text = Text()
    text.append(problem.severity, _STYLES[problem.severity])
    text.append(f": {problem.key}: " if problem.key else ": ", "bold")
    text.append(f"{problem.message}\n", "bold")
    text.append("  --> ", "blue").append(f"{problem.place}\n")
    source = _source_line(problem)
    if source:
        number = str(problem.place.line)
        text.append(f" {number} | ", "blue").append(f"{source}\n")
        text.append(" " * (len(number) + 1) + " | ", "blue")
        text.append(_indent(source, problem.place.column) + "^", _STYLES[problem.severity])
        text.append(f" {problem.hint}\n" if problem.hint else "\n", "cyan")
    elif problem.hint:
        text.append(f"  {problem.hint}\n", "cyan")
    return text


def _source_line(problem: Problem) -> str:
    if not problem.place.line:
        return ""
    try:
        lines = Path(problem.place.file).read_text("utf-8-sig").split("\n")
    except (OSError, ValueError):
        return ""
    return lines[problem.place.line - 1].rstrip("\r") if problem.place.line <= len(lines) else ""


def _indent(source: str, column: int) -> str:
    """Blanks up to `column`, with the tabs of `source` so that the caret stands where it should."""
    return "".join("\t" if character == "\t" else " " for character in source[: column - 1])


def print_table(columns: Sequence[str], rows: Iterable[Sequence[str]], out: Console | None = None) -> None:
    """A table for a person, aligned columns in a pipe."""
    out = out or console()
    options: dict[str, Any] = {} if out.is_terminal else {"box": None, "pad_edge": False, "padding": (0, 2, 0, 0)}
    table = Table(header_style="bold", **options)
    for column in columns:
        table.add_column(column, overflow="fold", no_wrap=not out.is_terminal)
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    out.print(table)
