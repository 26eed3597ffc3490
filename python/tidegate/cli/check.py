"""`tidegate check`."""

from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape

from tidegate.cli.output import console, print_json, print_problems
from tidegate.config import Config
from tidegate.config.config import Forward, Respond, Route
from tidegate.errors import ConfigError, Problem

NAMED = 5
"""Routes that a note names at most."""


def check(
    file: Annotated[Path, typer.Argument(help="The configuration.", show_default=False)],
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON list of all errors and warnings.")] = False,
) -> None:
    """Check a configuration as a start would, without binding anything. Exits with 2 when it cannot be used."""
    try:
        summary, warnings, notes = _checked(file)
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
        for note in notes:
            console().print(f"[bold blue]note[/]: {escape(note)}", soft_wrap=True)


def _checked(file: Path) -> tuple[str, list[Problem], list[str]]:
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
    return ", ".join(counts), warnings, _notes(config)


def _notes(config: Config) -> list[str]:
    """What is as it was asked for, and might still not be what was meant."""
    open_ones = [route.name for route in config.routes if _takes_any_origin(route)]
    if not open_ones:
        return []
    named = ", ".join(open_ones[:NAMED]) + (", …" if len(open_ones) > NAMED else "")
    routes = _counted(len(open_ones), "route")
    return [f"pages of any site may open WebSockets on {routes} ({named}); websocket.origins says whose may"]


def _takes_any_origin(route: Route) -> bool:
    bridges = isinstance(route.action, Forward) or (isinstance(route.action, Respond) and route.action.answer == "echo")
    return bridges and any(on.websocket.enabled and on.websocket.origins is None for on in route.listeners)


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
