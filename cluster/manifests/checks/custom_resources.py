"""Check KubeRay's objects as Kubernetes' API server does: types, unknown fields, lists with keys, rules in CEL."""

from __future__ import annotations

import functools
import gzip
import json
from collections.abc import Iterator
from typing import Any

from cluster.errors import first_line
from cluster.manifests.checks.pack_schemas import PACKED

API_VERSION = "ray.io/v1"
# The API server checks these in numbers, and jsonschema does not.
_INTEGERS = {"int32": 2**31, "int64": 2**63}


@functools.cache
def _schemas() -> dict[str, Any]:
    schemas: dict[str, Any] = json.loads(gzip.decompress(PACKED.read_bytes()))
    for schema in schemas.values():
        _close(schema["properties"]["spec"])
        schema["required"] = sorted({*schema.get("required", []), "metadata", "spec"})
        schema["additionalProperties"] = False
    return schemas


def kinds() -> list[str]:
    """Return KubeRay's kinds."""
    return sorted(_schemas())


def check_custom_resource(document: dict[str, Any]) -> list[str]:
    """Return what the API server would refuse or silently drop in an object of KubeRay, one sentence each."""
    import jsonschema

    kind, api_version = document.get("kind"), document.get("apiVersion")
    if api_version != API_VERSION or kind not in _schemas():
        return [f"apiVersion={api_version}, kind={kind}: it is {API_VERSION} with one of {', '.join(kinds())}"]
    schema = _schemas()[kind]
    validator = jsonschema.Draft202012Validator(schema)
    problems = [
        f"{_path(error.absolute_path)}: {error.message[:200]}"
        for error in sorted(validator.iter_errors(document), key=lambda error: list(map(str, error.absolute_path)))
    ]
    return problems or list(_broken_rules(document, schema, []))


def _close(schema: dict[str, Any]) -> None:
    """Read a schema as the API server does: it drops fields that are not listed, which are refused here."""
    if "properties" in schema and not schema.get("x-kubernetes-preserve-unknown-fields"):
        schema["additionalProperties"] = False
    # The API server fills in defaults before it looks for what is required.
    defaults = {key for key, child in schema.get("properties", {}).items() if "default" in child}
    if defaults & set(schema.get("required", ())):
        schema["required"] = [key for key in schema["required"] if key not in defaults]
    if schema.get("format") in _INTEGERS:
        limit = _INTEGERS[schema["format"]]
        schema["minimum"] = max(schema.get("minimum", -limit), -limit)
        schema["maximum"] = limit - 1
    for child in schema.get("properties", {}).values():
        _close(child)
    for key in ("items", "additionalProperties"):
        if isinstance(schema.get(key), dict):
            _close(schema[key])


def _broken_rules(value: Any, schema: dict[str, Any], path: list[str | int]) -> Iterator[str]:
    """Yield the broken rules of a value and of everything in it: CEL, and keys of lists that occur twice."""
    for rule in schema.get("x-kubernetes-validations", []):
        if "oldSelf" not in rule["rule"] and not _holds(rule["rule"], value):
            yield f"{_path(path)}: {rule.get('message', rule['rule'])}"
    if isinstance(value, dict):
        properties, others = schema.get("properties", {}), schema.get("additionalProperties")
        for key, item in value.items():
            child = properties.get(key, others)
            if isinstance(child, dict):
                yield from _broken_rules(item, child, [*path, key])
    elif isinstance(value, list):
        keys = schema.get("x-kubernetes-list-map-keys")
        seen: list[Any] = []
        for index, item in enumerate(value):
            identity = [item.get(key) for key in keys] if keys else item
            if schema.get("x-kubernetes-list-type") in ("map", "set") and identity in seen:
                yield f"{_path([*path, index])}: {identity} occurs twice"
            seen.append(identity)
            yield from _broken_rules(item, schema.get("items", {}), [*path, index])


def _holds(rule: str, value: Any) -> bool:
    """Return whether a rule in CEL holds. Without the package `common-expression-language` no rule is evaluated."""
    try:
        import cel
    except ImportError:
        return True
    try:
        return bool(cel.evaluate(rule, {"self": value}))
    except (RuntimeError, ValueError, TypeError) as error:
        raise ValueError(f"the rule {rule!r} cannot be evaluated: {first_line(error)}") from error


def _path(parts: Any) -> str:
    text = ""
    for part in parts:
        text += f"[{part}]" if isinstance(part, int) else f".{part}"
    return text.lstrip(".") or "the object"
