"""The identity of a route without a name."""

from typing import Any

import pytest

from tidegate.config.options.route import MatchOptions
from tidegate.config.routes import identity


@pytest.mark.parametrize(
    ("listeners", "match", "name"),
    [
        (None, {}, "*"),
        (["edge"], {"host": "chat.example.com", "path": {"prefix": "/ws"}}, "edge chat.example.com/ws"),
        (None, {"path": {"exact": "/ws"}}, "*=/ws"),
        (None, {"path": {"starts_with": "/ws"}}, "*^/ws"),
        (None, {"path": {"regex": "/ws.*"}}, "*~/ws.*"),
        (
            ["b", "a"],
            {"host": ["b.example", "A.example."], "method": ["POST", "GET"]},
            "a,b a.example,b.example GET|POST",
        ),
        (None, {"headers": {"X-B": "1", "x-a": {"prefix": "2"}}}, "* x-a^=2 x-b=1"),
        (None, {"query": {"V": {"regex": "3"}, "w": {"present": False}}}, "* ?V~=3 ?w:absent"),
        (None, {"headers": {"x-a": {"not": {"present": True}}}}, "* x-a!:present"),
    ],
)
def test_identities(listeners: list[str] | None, match: dict[str, Any], name: str) -> None:
    assert identity(listeners, MatchOptions.model_validate(match)) == name


def test_the_order_in_the_file_is_no_part_of_it() -> None:
    one = MatchOptions.model_validate({"host": ["a.b", "c.d"], "headers": {"x": "1", "Y": "2"}})
    other = MatchOptions.model_validate({"host": ["c.d", "a.b"], "headers": {"y": "2", "X": "1"}})
    assert identity(["l", "m"], one) == identity(["m", "l"], other)
