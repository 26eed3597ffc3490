"""The reference page of the configuration, in Markdown, made from the same models as the checks."""

from collections.abc import Iterator
from typing import Any

from tidegate.config.later import LATER
from tidegate.config.schema import Schema, json_schema

__all__ = ["reference"]

_HEAD = """\
# Configuration reference

<!-- Made by `tidegate schema --reference`. Change the models in python/tidegate/config/options, not this page. -->

A configuration is one YAML 1.2 file; `tidegate check FILE` says everything that is wrong with it. The JSON Schema for
editors is printed by `tidegate schema`.

| kind of value | how it is written |
|---|---|
| duration | `250ms`, `10s`, `5m`, `1h`, `1h30m`; `0s` is at once. Never a bare number |
| size | `512` (bytes), `64KiB`, `1MiB`, `1GiB` |
| text from outside | `${NAME}` is an environment variable, `${file:path}` a file's content (relative to the \
configuration, without its last line break); `$$` is a dollar sign. In `[…]` and `{…}` they need quotes |
| template | text in which `{client.ip}`, `{tls.server_name}`, `{route}`, `{request.id}`, `{host}`, `{method}`, \
`{path}`, `{query}`, `{header.NAME}` and `{path.1}` (a group of the path's regex) are filled in; `{{` is a brace |

`true` and `false` are the only truth values; `on`, `off`, `yes` and `no` are plain words. Unknown keys, keys given
twice and keys without a value are errors.
"""

_LATER_HEAD = """
## Not supported yet

These are refused by name:

"""


def reference() -> str:
    """The page."""
    sections = "".join(_section(name, node, keys) for name, node, keys in _sections())
    later = "".join(f"- `{row.path}`{_values(row.values)}\n" for row in LATER)
    return _HEAD + sections + _LATER_HEAD + later


def _values(values: tuple[str, ...]) -> str:
    texts = ", ".join("`" + value.lstrip("{") + "`" for value in values)
    return f": {texts}" if values else ""


def _sections() -> Iterator[tuple[str, Schema, str]]:
    """Each mapping once, in the order in which one meets them: its model, its schema, its key path."""
    schema = json_schema()
    waiting: list[tuple[str, Schema, str]] = [("", schema, "")]
    seen: set[str] = set()
    while waiting:
        name, node, path = waiting.pop(0)
        if name in seen:
            continue
        seen.add(name)
        yield name, node, path
        inner = [
            (found, schema["$defs"][found], f"{path}.{key}{suffix}".lstrip("."))
            for key, member in node["properties"].items()
            for found, suffix in _models(member)
        ]
        waiting[:0] = inner


def _models(node: Any, suffix: str = "") -> Iterator[tuple[str, str]]:
    """The models in a key's schema, and how one gets to them: `[]` through a list, `.NAME` through names."""
    if "$ref" in node:
        yield _model(node), suffix
    for branch in node.get("anyOf", []):
        yield from _models(branch, suffix)
    if isinstance(node.get("items"), dict):
        yield from _models(node["items"], suffix + "[]")
    if isinstance(node.get("additionalProperties"), dict):
        yield from _models(node["additionalProperties"], suffix + ".NAME")


def _model(node: Schema) -> str:
    return str(node["$ref"]).rsplit("/", 1)[1]


def _section(name: str, node: Schema, path: str) -> str:
    title = f"## `{path}`" if path else "## The top of the file"
    rows = "".join(_row(key, member, node.get("required", [])) for key, member in node["properties"].items())
    return f"\n{title}\n\n{node['description']}\n\n| key | value | default | meaning |\n|---|---|---|---|\n{rows}"


def _row(key: str, node: Schema, required: list[str]) -> str:
    default = "required" if key in required else _default(node)
    meaning = node.get("description", "").replace("|", "\\|")
    return f"| `{key}` | {_type(node)} | {default} | {meaning} |\n"


def _default(node: Schema) -> str:
    if "default" not in node:
        return ""
    value = node["default"]
    if isinstance(value, list):
        return f"`[{', '.join(map(str, value))}]`"
    return f"`{_word(value)}`" if value != "" else "empty"


def _word(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _type(node: Schema) -> str:
    if "$ref" in node:
        return "mapping"
    if "anyOf" in node:
        kinds = dict.fromkeys(_type(branch) for branch in node["anyOf"])
        return " or ".join(kind for kind in kinds if kind != "number from 0" or "size" not in kinds)
    if "const" in node or "enum" in node:
        return ", ".join(f"`{_word(value)}`" for value in node.get("enum", [node.get("const")]))
    if node.get("type") == "string" and "ms|d|h" in node.get("pattern", ""):
        return "duration"
    if node.get("type") == "string" and "KiB" in node.get("pattern", ""):
        return "size"
    return _plain_type(node)


def _plain_type(node: Schema) -> str:
    if node.get("type") == "array":
        return f"list of {_type(node['items'])}"
    if node.get("type") == "object":
        return f"mapping of names to {_type(node['additionalProperties'])}"
    if node.get("type") == "integer":
        return _bounds(node)
    return {"string": "text", "boolean": "`true`, `false`"}[node["type"]]


def _bounds(node: Schema) -> str:
    low, high = node.get("minimum"), node.get("maximum")
    if low is None or high is None:
        return "number" if low is None else f"number from {low}"
    return f"number from {low} to {high}" if abs(high) < 1 << 30 else "number"
