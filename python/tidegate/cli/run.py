"""`tidegate run FILE`: the gateway, until a signal ends it."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from tidegate.telemetry import configure_logging

__all__ = ["LogFormOption", "LogLevelOption", "ReadyFileOption", "run"]

LogLevelOption = Annotated[
    Literal["debug", "info", "warning", "error"],
    typer.Option("--log-level", help="The least important events to log."),
]
LogFormOption = Annotated[
    Literal["auto", "text", "json"],
    typer.Option("--log-format", help="How a line looks; auto is text on a terminal and JSON elsewhere."),
]
ReadyFileOption = Annotated[
    Path | None,
    typer.Option(
        "--ready-file",
        metavar="PATH",
        dir_okay=False,
        help="Written when the gateway serves and after every reload: JSON with the addresses really bound.",
    ),
]


def run(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The configuration, in YAML.")],
    ready_file: ReadyFileOption = None,
    log_level: LogLevelOption = "info",
    log_format: LogFormOption = "auto",
) -> None:
    """Run the gateway of FILE.

    It reloads when the file, or a file named in it, changes, and on SIGHUP. SIGTERM and Ctrl-C drain: clients get their
    Close, then it ends with 0; a second one ends it at once. The log goes to standard error.
    """
    configure_logging(log_level, None if log_format == "auto" else log_format)
    from tidegate import gateway  # here, because it loads the engine, which `--help` has no use for

    raise typer.Exit(gateway.run(file, ready_file))
