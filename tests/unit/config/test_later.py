"""What is not supported yet is refused by name."""

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from tidegate.config import load
from tidegate.config.later import LATER, Later
from tidegate.config.schema import keys_at
from tidegate.errors import ConfigError

BASE = {
    "listeners": {"edge": {"bind": "127.0.0.1:8080"}},
    "routes": [{"to": "app"}],
    "upstreams": {"app": {"endpoints": [{"url": "http://127.0.0.1:9000"}]}},
}


@pytest.mark.parametrize("row", LATER, ids=lambda row: row.path)
def test_rows_are_refused(row: Later, tmp_path: Path) -> None:
    path = tmp_path / "gateway.yaml"
    path.write_text(document(row))
    with pytest.raises(ConfigError) as caught:
        load(path)
    texts = [problem.text for problem in caught.value.problems]
    assert len(texts) == 1 and "is not supported yet" in texts[0], texts


def document(row: Later) -> str:
    """A good file but for this row."""
    tree = copy.deepcopy(BASE)
    at: Any = tree
    *parents, last = row.path.split(".")
    for step, following in zip(parents, [*parents[1:], last], strict=False):
        at = entered(at, step, [] if following == "*" else {})
    if isinstance(at, list):
        at[:] = [value(row)]
    else:
        at[last] = value(row)
    return json.dumps(tree)


def entered(at: Any, step: str, fresh: Any) -> Any:
    """What is at `step`; `fresh` when nothing is."""
    if isinstance(at, list):
        return at[0]
    return at.setdefault(next(iter(at)) if step == "*" else step, fresh)


def value(row: Later) -> object:
    if not row.values:
        return {}
    text = row.values[0]
    return {text[1:]: "client_ip"} if text.startswith("{") else text.replace("*", "127.0.0.1:9000")


def test_no_row_hides_what_is_supported() -> None:
    for row in LATER:
        *parents, last = row.path.split(".")
        path = tuple(0 if parents[:1] == ["routes"] and step == "*" else step for step in parents)
        assert row.values or last not in keys_at(path), row.path


def test_several_later_actions_are_told_as_what_they_are(tmp_path: Path) -> None:
    path = tmp_path / "gateway.yaml"
    path.write_text("listeners: {edge: {bind: 127.0.0.1:80}}\nroutes: [{hub: {}, terminal: {}}]")
    with pytest.raises(ConfigError) as caught:
        load(path)
    assert [problem.text for problem in caught.value.problems] == [
        "'hub' is not supported yet",
        "'terminal' is not supported yet",
    ]
