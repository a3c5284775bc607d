"""Tables of the keys of a section: name, type, default and meaning, from its pydantic class and its JSON Schema."""

from __future__ import annotations

import json
import re
from typing import Any

from docs.generate.markdown import code, table
from trainer.spec.section import SpecSection

# A page that a description names.
_PAGE = re.compile(r"docs/([a-z-]+)/([a-z-]+)\.md")
_SIMPLE = {
    "string": "text",
    "boolean": "`true` or `false`",
    "number": "number",
    "integer": "integer",
    "object": "mapping",
}


def keys_table(cls: type[SpecSection], path: str, schema: dict[str, Any]) -> str:
    """Return a table of the keys of `cls`, each as `path.key`. `schema` is the JSON Schema that defines `cls`."""
    properties = schema.get("$defs", {}).get(cls.__name__, schema).get("properties", {})
    if not properties:
        return "It has no keys."
    rows = []
    for key, about in properties.items():
        default = cls.model_fields[key].get_default(call_default_factory=True)
        rows.append(
            [
                code(f"{path}.{key}" if path else key),
                _type(about),
                "**required**" if cls.model_fields[key].is_required() else _default(default),
                _meaning(about, schema),
            ]
        )
    return table(["key", "type", "default", "meaning"], rows)


def _meaning(about: dict[str, Any], schema: dict[str, Any]) -> str:
    """Return a key's description; that of its section if it has none of its own. Paths of pages become links."""
    text = about.get("description")
    if text is None and "$ref" in about:
        text = schema["$defs"][about["$ref"].rpartition("/")[2]].get("description")
    return _PAGE.sub(r"[more](../\1/\2.md)", text or "")


def _default(value: object) -> str:
    if isinstance(value, SpecSection):
        return "its keys' defaults"
    if value is None:
        return "not set"
    if isinstance(value, tuple):
        value = [item.model_dump(exclude_unset=True) if isinstance(item, SpecSection) else item for item in value]
    return code(json.dumps(value) if not isinstance(value, str) else value)


def _type(about: dict[str, Any]) -> str:
    """Return a type of the JSON Schema in words. `null` is left out, because the default column shows it."""
    if "$ref" in about:
        return "section"
    choices = [choice for choice in (*about.get("anyOf", ()), *about.get("oneOf", ())) if choice.get("type") != "null"]
    if choices:
        return " or ".join(dict.fromkeys(_type(choice) for choice in choices))
    if "const" in about:
        return code(about["const"])
    if "enum" in about:
        return ", ".join(code(value) for value in about["enum"])
    if about.get("type") == "array":
        return _array(about)
    if isinstance(about.get("additionalProperties"), dict):
        return f"mapping to {_type(about['additionalProperties'])}"
    text = _SIMPLE.get(about.get("type", ""), "any value")
    return text + _bounds(about)


def _array(about: dict[str, Any]) -> str:
    if "prefixItems" in about:
        return f"`[low, high]`, each {_type(about['prefixItems'][0])}"
    item = _type(about.get("items", {}))
    return f"list of {item}" if " or " not in item and "," not in item else f"list, each item: {item}"


def _bounds(about: dict[str, Any]) -> str:
    signs = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
    bounds = [f"{sign} {_number(about[key])}" for key, sign in signs.items() if key in about]
    pattern = f", matching `{about['pattern']}`" if "pattern" in about else ""
    return (f" {' and '.join(bounds)}" if bounds else "") + pattern


def _number(value: float) -> str:
    return f"{int(value)}" if value == int(value) else f"{value:g}"
