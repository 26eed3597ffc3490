"""`tidegate schema`."""

from typing import Annotated

import typer

from tidegate.cli.output import print_json


def schema(
    as_reference: Annotated[
        bool, typer.Option("--reference", hidden=True, help="Print the reference page (Markdown).")
    ] = False,
) -> None:
    """Print the JSON Schema of the configuration, for editors that complete and check YAML."""
    from tidegate.config import json_schema, reference

    if as_reference:
        print(reference(), end="")
    else:
        print_json(json_schema())
