"""Read the format of files that a command names: `--format csv --format encoding=cp1252`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import TypeAdapter, ValidationError

from cluster.errors import SpecError, suggest
from trainer.spec.format import FormatField, FormatSpec


def read_format(value: str | Mapping[str, Any] | Iterable[str] | FormatSpec | None) -> FormatSpec:
    """Return a format from its kind, from a mapping of keys, or from texts `KEY=VALUE`. Raises `SpecError`."""
    if isinstance(value, FormatSpec):
        return value
    keys = (
        dict(value)
        if isinstance(value, Mapping)
        else _keys_of_texts([value] if isinstance(value, str) else value or [])
    )
    unknown = next((key for key in keys if key not in FormatSpec.model_fields), None)
    if unknown is not None:
        raise SpecError(f"a format has no key '{unknown}'", suggest(unknown, list(FormatSpec.model_fields)))
    try:
        return TypeAdapter(FormatField).validate_python(keys)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        rule = first["msg"].removeprefix("Value error, ")
        raise SpecError(f"format {key}: {rule}" if key else f"format: {rule}", "change the key") from None


def _keys_of_texts(texts: Iterable[str]) -> dict[str, Any]:
    """Return the keys in texts such as `csv`, `separator=;` and `header=text,label`."""
    keys: dict[str, Any] = {}
    for text in texts:
        key, equals, value = text.partition("=")
        key, value = (key.strip(), value) if equals else ("kind", text)
        keys[key] = [name.strip() for name in value.split(",")] if key == "header" else value
    return keys
