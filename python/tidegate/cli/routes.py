"""`tidegate routes`."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from tidegate.cli.output import print_json, print_problems, print_table

COLUMNS = ("listener", "host", "path", "match", "websocket", "target", "name", "place")


def routes(
    file: Annotated[Path, typer.Argument(help="The configuration.", show_default=False)],
    as_json: Annotated[bool, typer.Option("--json", help="Print a JSON list.")] = False,
) -> None:
    """List the routes in the order in which they are tried; routes that tie are warned about."""
    from tidegate import gateway

    loaded = gateway.check_file(file)
    order = gateway.list_routes(file)
    rows = [_row(loaded.snapshot.data, entry) for entry in order]
    if as_json:
        print_json(rows)
        return
    print_table(COLUMNS, [[str(row[column]) for column in COLUMNS] for row in rows])
    print_problems(loaded.snapshot.ties(order))


def _row(snapshot: Mapping[str, Any], entry: Mapping[str, Any]) -> dict[str, Any]:
    route = snapshot["routes"][entry["route"]]
    on = next(one for one in route["listeners"] if one["listener"] == entry["listener"])
    return {
        "listener": snapshot["listeners"][entry["listener"]]["name"],
        "host": entry["host"],
        "path": _path(route["match"]["path"]),
        "match": _conditions(route["match"]),
        "websocket": _websocket(snapshot["websockets"][on["websocket"]], route["action"]),
        "target": _target(snapshot, route["action"]),
        "name": route["name"],
        "place": f"{route['place']['file']}:{route['place']['line']}",
        "ties": [snapshot["routes"][index]["name"] for index in entry["ties"]],
    }


def _path(path: str | Mapping[str, str]) -> str:
    if isinstance(path, str):
        return "any"
    kind, text = next(iter(path.items()))
    return f"{kind} {text}"


def _conditions(match: Mapping[str, Any]) -> str:
    tests = [f"{test['name']}: {_test(test['test'])}" for test in match["headers"]]
    tests += [f"?{test['name']}={_test(test['test'])}" for test in match["query"]]
    return " ".join(["|".join(match["methods"]) or "any", *tests])


def _test(test: Mapping[str, Any]) -> str:
    kind, value = next(iter(test.items()))
    if kind == "not":
        return f"not {_test(value)}"
    if kind == "present":
        return "present" if value else "absent"
    return value if kind == "exact" else f"{kind} {value}"


def _websocket(settings: Mapping[str, Any], action: Mapping[str, Any]) -> str:
    if "forward" not in action and action.get("respond") != "echo":
        return "-"
    if not settings["enabled"]:
        return "off"
    return "on" if settings["frames"] == "strict" else "opaque"


def _target(snapshot: Mapping[str, Any], action: Mapping[str, Any]) -> str:
    kind, what = next(iter(action.items()))
    if kind == "redirect":
        return f"{what['status']} {what['to']}"
    if kind == "respond":
        return what if isinstance(what, str) else f"respond {what['fixed']['status']}"
    shares = [(snapshot["upstreams"][share["upstream"]]["name"], share["weight"]) for share in what["to"]]
    return shares[0][0] if len(shares) == 1 else " ".join(f"{name}:{weight}" for name, weight in shares)
