"""`tidegate version`."""

import platform
from typing import Annotated

import typer

from tidegate import __version__
from tidegate.cli.output import console, print_json
from tidegate.errors import EngineMissing


def version(
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON object.")] = False,
) -> None:
    """Print the versions of tidegate, its engine and Python."""
    engine = _engine_version()
    if as_json:
        print_json({"tidegate": __version__, "engine": engine, "python": platform.python_version()})
    else:
        console().print(f"tidegate {__version__} (engine {engine or 'missing'}, Python {platform.python_version()})")


def _engine_version() -> str | None:
    try:
        from tidegate import gateway
    except EngineMissing:
        return None
    return gateway.engine_version()
