"""`tidegate demo`: something to see within seconds."""

import asyncio
from typing import Annotated

import typer

from tidegate.cli.run import LogFormOption, LogLevelOption, ReadyFileOption
from tidegate.telemetry import configure_logging

__all__ = ["demo"]


def demo(
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="On 127.0.0.1; 0 is any free one.")] = 8080,
    ready_file: ReadyFileOption = None,
    log_level: LogLevelOption = "info",
    log_format: LogFormOption = "auto",
) -> None:
    """Run a gateway with a small upstream of its own and a page to play with.

    An echo, a chat room, plain HTTP and server-sent events, all of them through the gateway. Ctrl-C drains and ends it.
    """
    configure_logging(log_level, None if log_format == "auto" else log_format)
    from tidegate.demo import run_demo  # here, because it loads the engine, which `--help` has no use for

    raise typer.Exit(asyncio.run(run_demo(port, typer.echo, ready_file)))
