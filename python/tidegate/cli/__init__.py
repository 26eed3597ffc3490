"""The command line: one file a command, imported when that command (or the help) is asked for.

Exit codes: 0, 1 (failed while running), 2 (bad configuration or usage).
"""

import importlib
import sys
from typing import Annotated, Any, Literal

import typer
from typer.core import TyperGroup

__all__ = ["COMMANDS", "app", "main"]

COMMANDS = ("run", "check", "routes", "schema", "demo", "version")
"""In the order of the help. `tidegate.cli.NAME` has a function NAME."""

# Frames and colours in the help are for people, not for a pipe.
_MARKUP: Literal["rich"] | None = "rich" if sys.stdout.isatty() else None
_SETTINGS = {"help_option_names": ["-h", "--help"]}


class _Commands(TyperGroup):
    """Imports a command's module when it is needed, so that `tidegate version` does not wait for the gateway."""

    def list_commands(self, ctx: Any) -> list[str]:
        """All names."""
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """The command itself."""
        if cmd_name not in COMMANDS:
            return None
        one = typer.Typer(add_completion=False, rich_markup_mode=_MARKUP, context_settings=_SETTINGS)
        one.command(cmd_name)(getattr(importlib.import_module(f"tidegate.cli.{cmd_name}"), cmd_name))
        return typer.main.get_command(one)


app = typer.Typer(
    cls=_Commands,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=_MARKUP,
    context_settings=_SETTINGS,
)


def _version(asked: bool) -> None:
    if asked:
        from tidegate.cli.version import version

        version()
        raise typer.Exit


@app.callback(
    help="A gateway for WebSockets and HTTP, built from the long-lived connection outwards.",
    epilog="Exit codes: 0, 1 (failed while running), 2 (bad configuration or usage).",
)
def _tidegate(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and exit.", callback=_version, is_eager=True)
    ] = False,
) -> None:
    pass


def main() -> None:
    """The entry point: what went wrong is told once, here, and becomes the exit code."""
    from tidegate.errors import TidegateError

    try:
        app()
    except TidegateError as error:
        from tidegate.cli.output import report

        raise SystemExit(report(error)) from None
