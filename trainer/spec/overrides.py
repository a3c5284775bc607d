"""Set keys of a spec by their dotted names: `--set` overrides, and the values of trials."""

from __future__ import annotations

from typing import Any

import yaml

from cluster.errors import SpecError
from trainer.spec.key_types import Path, key_type, split_key
from trainer.spec.renames import check_key
from trainer.spec.yaml_reader import Document, Written, plain_value, read_yaml


def apply_override(raw: dict[str, Any], override: str, written: dict[Path, Written] | None = None) -> None:
    """Set the key of an override such as `train.epochs=1`; the value is read like a value in the spec's file.

    `written`, how the values of `raw` are written, is brought up to date. Raises `SpecError`.
    """
    key, equals, text = override.partition("=")
    key = key.strip()
    if not equals or not key:
        raise SpecError(f"--set {override!r} has no value", "write it as --set train.epochs=1")
    check_key(key)
    path = tuple(split_key(key))
    document = _read_value(override, text.strip(), path)
    set_key(raw, key, document.value)
    if written is not None:
        for below in [other for other in written if other[: len(path)] == path]:
            del written[below]
        written.update(document.written)


def _read_value(override: str, text: str, path: Path) -> Document:
    """Return the value of an override. What YAML has signs for, such as `#`, may stand in a text without quotes."""
    expected = key_type(path)
    as_written = Document(text, {path: Written(text, 0)})
    if expected.is_text and text[:1] not in ("'", '"'):
        is_null = not text or ("null" in expected.scalars and plain_value(text) is None)
        return Document(None, as_written.written) if is_null else as_written
    try:
        document = read_yaml(text, path, first_line=0)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        if "text" in expected.scalars or "any" in expected.scalars:
            return as_written
        raise SpecError(
            f"--set {override!r} is not YAML: {getattr(error, 'problem', error)}", "check brackets and quotes"
        ) from None
    is_comment = document.value is None and not document.written and bool(text)
    return as_written if is_comment else document


def set_key(raw: dict[str, Any], key: str, value: Any) -> None:
    """Set a dotted key; sections on the way are copied, because the specs of trials share them."""
    path = split_key(key)
    parent = raw
    for depth, name in enumerate(path[:-1]):
        section = parent.get(name)
        if section is not None and not isinstance(section, dict):
            above = ".".join(path[: depth + 1])
            raise SpecError(f"'{key}' cannot be set: '{above}' is a value, not a section", f"set '{above}' itself")
        parent[name] = dict(section or {})
        parent = parent[name]
    parent[path[-1]] = value
