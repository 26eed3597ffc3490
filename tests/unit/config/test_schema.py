"""The JSON Schema and the reference page, both made from the models."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tidegate.config import json_schema, reference
from tidegate.config.schema import keys_at, nodes_at

PAGE = Path(__file__).parents[3] / "docs" / "reference" / "configuration.md"


def mappings(node: Any) -> Iterator[dict[str, Any]]:
    if isinstance(node, list):
        for item in node:
            yield from mappings(item)
    if isinstance(node, dict):
        yield node
        for item in node.values():
            yield from mappings(item)


def test_every_key_is_described() -> None:
    lacking = [
        name
        for node in mappings(json_schema())
        for name, member in node.get("properties", {}).items()
        if not str(member.get("description", "")).strip().endswith((".", "`."))
    ]
    assert lacking == []


def test_unknown_keys_are_refused_everywhere() -> None:
    models = [json_schema(), *json_schema()["$defs"].values()]
    assert all(model["additionalProperties"] is False for model in models)


def test_it_is_a_2020_12_schema_of_plain_values() -> None:
    assert json_schema()["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert json.loads(json.dumps(json_schema())) == json_schema()


def test_every_reference_leads_somewhere() -> None:
    references = {node["$ref"] for node in mappings(json_schema()) if "$ref" in node}
    assert references == {f"#/$defs/{name}" for name in json_schema()["$defs"]}


def test_defaults_are_spelt_as_in_the_file() -> None:
    spelt = {
        ("listeners", "x", "timeouts", "keep_alive"): "75s",
        ("listeners", "x", "limits", "headers"): "32KiB",
        ("listeners", "x", "limits", "connections"): "unlimited",
        ("listeners", "x", "http"): ["h1", "h2"],
        ("routes", 0, "websocket", "max_lifetime"): "never",
        ("routes", 0, "websocket", "max_message"): "unlimited",
        ("routes", 0, "websocket", "on_client_lost"): "never",
        ("routes", 0, "websocket", "close_codes", "upstream_lost"): 1011,
        ("routes", 0, "host"): "preserve",
        ("upstreams", "x", "balance"): "least_connections",
        ("admin", "bind"): "127.0.0.1:9900",
        ("workers",): "auto",
    }
    for path, default in spelt.items():
        assert default in [node.get("default") for node in nodes_at(path)], path


def test_null_is_no_value_of_the_file() -> None:
    assert [
        node
        for node in mappings(json_schema())
        if node.get("type") == "null" or ("const" in node and node["const"] is None)
    ] == []


def test_keys_are_found_through_lists_names_and_alternatives() -> None:
    assert keys_at(("upstreams", "any", "endpoints", 0)) == ["url", "weight", "priority", "zone"]
    assert keys_at(("routes", 7, "match", "headers", "x-a", "not")) == ["exact", "prefix", "regex", "present", "not"]
    assert keys_at(("admin",)) == ["bind", "token"]
    assert keys_at(("routes", 0, "name")) == []


def test_the_reference_page_is_current() -> None:
    assert PAGE.read_text() == reference(), "run: tidegate schema --reference > docs/reference/configuration.md"


def test_every_key_is_in_the_reference() -> None:
    rows = {line.split("`")[1] for line in reference().splitlines() if line.startswith("| `")}
    keys = {name for node in mappings(json_schema()) for name in node.get("properties", {})}
    assert keys <= rows
