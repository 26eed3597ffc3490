"""The JSON Schema of the native file, made from the models, and what can be learnt from it.

The schema is for editors (draft 2020-12, with descriptions and defaults) and it is what the reference page and the
suggestions for misspelt keys walk along.
"""

from collections.abc import Iterator
from functools import cache
from typing import Any

from tidegate.config.document import KeyPath
from tidegate.config.options import GatewayOptions
from tidegate.config.options.values import Options

__all__ = ["Schema", "json_schema", "keys_at", "nodes_at"]

Schema = dict[str, Any]

DRAFT = "https://json-schema.org/draft/2020-12/schema"


@cache
def json_schema() -> Schema:
    """The schema of a whole file. Treat it as read-only: it is made once."""
    schema = GatewayOptions.model_json_schema(by_alias=True, mode="validation")
    models = {model.__name__: model for model in _models(Options)}
    for name, node in [("GatewayOptions", schema), *schema["$defs"].items()]:
        _finish(node, models[name])
    return {"$schema": DRAFT, "title": "Tidegate configuration", **_tidied(schema)}


def _models(root: type[Options]) -> Iterator[type[Options]]:
    for model in root.__subclasses__():
        yield model
        yield from _models(model)


def _finish(node: Schema, model: type[Options]) -> None:
    """Descriptions, and defaults as people write them; pydantic gives what they are in memory."""
    node["description"] = (model.__doc__ or "").strip()
    defaults = model.model_construct().model_dump(mode="json", by_alias=True)
    for name, field in model.model_fields.items():
        key = field.alias or name
        member, default = node["properties"][key], defaults.get(key)
        member.pop("default", None)
        member["description"] = field.description
        if default not in (None, []) and not isinstance(default, dict):  # a mapping's keys have their own
            member["default"] = default


def _tidied(node: Any) -> Any:
    """Without titles, which only repeat the key, and without null, which the file does not know."""
    if isinstance(node, list):
        return [_tidied(item) for item in node]
    if not isinstance(node, dict):
        return node
    branches = [branch for branch in node.get("anyOf", []) if branch != {"type": "null"}]
    if len(branches) == 1:
        node = {**{key: value for key, value in node.items() if key != "anyOf"}, **branches[0]}
    elif branches:
        node = {**node, "anyOf": branches}
    return {
        key: _members(value) if key == "properties" else _tidied(value) for key, value in node.items() if key != "title"
    }


def _members(properties: Schema) -> Schema:
    return {name: _tidied(member) for name, member in properties.items()}


def nodes_at(path: KeyPath) -> list[Schema]:
    """The parts of the schema that describe what stands at `path`."""
    nodes = list(_alternatives(json_schema()))
    for step in path:
        nodes = [found for node in nodes for child in _children(node, step) for found in _alternatives(child)]
    return nodes


def keys_at(path: KeyPath) -> list[str]:
    """The keys that the mapping at `path` may have, where they are fixed."""
    return [key for node in nodes_at(path) for key in node.get("properties", {})]


def _alternatives(node: Schema) -> Iterator[Schema]:
    if "$ref" in node:
        yield from _alternatives(json_schema()["$defs"][node["$ref"].rsplit("/", 1)[1]])
    for branch in node.get("anyOf", []):
        yield from _alternatives(branch)
    yield node


def _children(node: Schema, step: str | int) -> Iterator[Schema]:
    if isinstance(step, int):
        if isinstance(node.get("items"), dict):
            yield node["items"]
    elif step in node.get("properties", {}):
        yield node["properties"][step]
    elif isinstance(node.get("additionalProperties"), dict):
        yield node["additionalProperties"]
