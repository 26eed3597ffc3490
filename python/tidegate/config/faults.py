"""What is wrong with a document, collected; and pydantic's errors told in our words, at their place, once each."""

import difflib
import re
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar, cast

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from tidegate.config.document import Document, KeyPath
from tidegate.config.options.values import FAULT, Options, show
from tidegate.config.schema import keys_at
from tidegate.errors import Problem

__all__ = ["Findings", "suggestion"]

Model = TypeVar("Model", bound=Options)

_BOUNDS = {
    "greater_than_equal": ("ge", "at least"),
    "less_than_equal": ("le", "at most"),
    "greater_than": ("gt", "more than"),
    "less_than": ("lt", "less than"),
}
_KINDS = {
    "model_type": "a mapping",
    "dict_type": "a mapping",
    "tuple_type": "a list",
    "list_type": "a list",
}
# A mapping has at most this many steps between a wrong part and one that can do without it.
_DEEPEST_REPAIR = 8


def near(word: str, known: Iterable[str]) -> str | None:
    """The one of `known` that `word` may have been meant to be."""
    words = list(known)
    turned = [other for other in words if sorted(other) == sorted(word)]  # `ot`: too short for likeness to tell
    return next(iter(turned or difflib.get_close_matches(word, words, 1)), None)


def suggestion(word: str, known: Iterable[str]) -> str:
    """`did you mean 'x'?`, where one of `known` is near."""
    found = near(word, known)
    return f"did you mean '{found}'?" if found else ""


class Findings:
    """Collects errors and warnings, and keeps the consequences of an error from being told as errors too."""

    def __init__(self, document: Document) -> None:
        self.document = document
        self.errors: list[Problem] = list(document.problems)
        self.warnings: list[Problem] = []
        self._explained: set[KeyPath] = set()
        self._around: set[KeyPath] = set()
        self._beside: set[KeyPath] = set()
        self.incomplete: set[KeyPath] = set()
        """The parts that were validated with something left out."""
        for path in document.unusable:
            self._explain(path)

    def error(self, path: KeyPath, message: str, hint: str = "", *, at_key: bool = False) -> None:
        self.errors.append(Problem(self.document.place(path, at_key=at_key), message, hint))

    def warning(self, path: KeyPath, message: str, hint: str = "", *, at_key: bool = False) -> None:
        self.warnings.append(Problem(self.document.place(path, at_key=at_key), message, hint, "warning"))

    def final(self, path: KeyPath, message: str, hint: str = "", *, at_key: bool = False) -> None:
        """An error that explains whatever else may be found at or around this path."""
        self.error(path, message, hint, at_key=at_key)
        self._explain(path)

    def _explain(self, path: KeyPath) -> None:
        self._explained.add(path)
        self._beside.add(path[:-1])
        self._around.update(path[:length] for length in range(len(path)))

    def explained(self, path: KeyPath) -> bool:
        """Whether an error at `path` is no news: something in it, or what it is part of, was already refused."""
        return path in self._around or any(path[:length] in self._explained for length in range(1, len(path) + 1))

    def validated(self, model: type[Model], value: object, path: KeyPath) -> Model | None:
        """`value` as a `model`. What is wrong is collected and left out, so that the rest can be checked further."""
        try:
            return model.model_validate(value)
        except ValidationError as error:
            details = error.errors(include_url=False)
        self.incomplete.add(path)
        for problem in _without_consequences(details):
            self._take(problem, path)
        return _salvaged(model, value, details)

    def _take(self, detail: ErrorDetails, path: KeyPath) -> None:
        inner = tuple(step for step in detail["loc"] if step != "[key]")
        at = (*path, *inner)
        if detail["type"] == "missing":
            if at[:-1] not in self._beside:  # what was refused there may be what stands in for it
                self.error(at[:-1], f"the key '{at[-1]}' is missing", at_key=True)
        elif not self.explained(at):
            message, hint = _words(detail, at)
            self.error(at, message, hint, at_key=detail["type"] == "extra_forbidden" or "[key]" in detail["loc"])


def _without_consequences(details: list[ErrorDetails]) -> list[ErrorDetails]:
    """A key that is missing because it is misspelt needs no error of its own."""
    missing = [detail["loc"] for detail in details if detail["type"] == "missing"]
    unknown = [detail["loc"] for detail in details if detail["type"] == "extra_forbidden"]
    meant = {
        (*at[:-1], near(str(at[-1]), [str(other[-1]) for other in missing if other[:-1] == at[:-1]])) for at in unknown
    }
    return [detail for detail in details if detail["type"] != "missing" or detail["loc"] not in meant]


def _words(detail: ErrorDetails, path: KeyPath) -> tuple[str, str]:
    kind, context, value = detail["type"], detail.get("ctx", {}), detail["input"]
    if kind == FAULT:
        return context["message"], context["hint"]
    if kind == "extra_forbidden":
        return f"unknown key '{path[-1]}'", _known_key(str(path[-1]), path[:-1])
    if kind == "literal_error":
        return _literal(context["expected"], value)
    if kind in _BOUNDS:
        bound, words = _BOUNDS[kind]
        return f"expected {words} {context[bound]}, found {show(value)}", ""
    return f"expected {_KINDS.get(kind, detail['msg'])}, found {show(value)}", ""


def _literal(expected: str, value: object) -> tuple[str, str]:
    choices = re.findall(r"'([^']*)'", expected)
    message = f"expected {expected.replace(chr(39), '')}, found {show(value)}"
    if not isinstance(value, str) and str(value) in choices:
        return message, f'write it in quotes: "{value}"'
    return message, suggestion(str(value).lower(), choices) if not isinstance(value, bool) else ""


def _known_key(word: str, parent: KeyPath) -> str:
    """Where `word` belongs, or what it may have been meant to be."""
    known = keys_at(parent)
    if inside := [key for key in known if word in keys_at((*parent, key))]:
        return f"it belongs under '{inside[0]}'"
    if hint := suggestion(word, known):
        return hint
    if parent and isinstance(parent[-1], str) and word in keys_at(parent[:-1]):
        return f"it belongs one level up, beside '{parent[-1]}'"
    *most, last = known or [""]
    return f"expected {', '.join(most)} or {last}" if most else f"expected {last}" if last else ""


def _salvaged(model: type[Model], value: object, details: list[ErrorDetails]) -> Model | None:
    """What can be made of `value` without its wrong parts."""
    for _ in range(_DEEPEST_REPAIR):
        if not isinstance(value, dict):
            return None
        for detail in details:
            value = _without(cast("Mapping[str, Any]", value), detail["loc"])
        try:
            return model.model_validate(value)
        except ValidationError as error:
            details = error.errors(include_url=False)
    return None


def _without(values: Mapping[str, Any], location: tuple[int | str, ...]) -> dict[str, Any]:
    """A copy of `values` without the innermost key on the way to `location`."""
    step, rest = str(location[0]) if location else "", location[1:]
    member = values.get(step)
    if isinstance(member, dict) and rest and rest[0] in member:
        return {**values, step: _without(member, rest)}
    return {key: kept for key, kept in values.items() if key != step}
