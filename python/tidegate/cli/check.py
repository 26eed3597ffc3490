"""`tidegate check`."""

from pathlib import Path
from typing import Annotated

import typer

from tidegate.cli.output import console, print_json, print_problems
from tidegate.errors import ConfigError, Problem


def check(
    file: Annotated[Path, typer.Argument(help="The configuration.", show_default=False)],
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON list of all errors and warnings.")] = False,
) -> None:
    """Check a configuration as a start would, without binding anything. Exits with 2 when it cannot be used."""
    try:
        summary, warnings = _checked(file)
    except ConfigError as error:
        if not as_json:
            raise
        print_json([problem.as_json() for problem in error.problems])
        raise typer.Exit(2) from error
    if as_json:
        print_json([problem.as_json() for problem in warnings])
    else:
        print_problems(warnings)
        console().print(f"[bold green]ok[/]: {summary}")


def _checked(file: Path) -> tuple[str, list[Problem]]:
    from tidegate import gateway

    loaded = gateway.check_file(file)
    warnings = [*loaded.config.warnings, *loaded.snapshot.ties(gateway.list_routes(file))]
    config = loaded.config
    counts = [
        _counted(len(config.listeners), "listener"),
        _counted(len(config.routes), "route"),
        _counted(len(config.upstreams), "upstream"),
    ]
    if warnings:
        counts.append(_counted(len(warnings), "warning"))
    return ", ".join(counts), warnings


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
