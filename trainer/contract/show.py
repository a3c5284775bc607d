"""Format a contract as lines of text, for `raymill contract`."""

from __future__ import annotations

from typing import Any

from trainer.contract.diff import shorten

_MAX_ITEMS = 12

# Fields with a format of their own; all others follow as `key: value`.
_FORMATTED = ("task", "preparation_version", "columns", "steps", "fitted", "files")


def format_contract(named: dict[str, Any]) -> list[str]:
    """Return the lines of a contract (`NamedContract` as a dict), with long lists and digests shortened."""
    content, lineage = named["contract"], named["lineage"]
    lines = [
        named["model"],
        f"folder: {named['folder']}",
        f"fingerprint: {named['fingerprint']}",
        f"task: {content.get('task')}",
        f"preparation version: {content.get('preparation_version')}",
        "columns:",
        *[f"  {role:<12} {_format_value(column)}" for role, column in content.get("columns", {}).items()],
        "steps:",
        *[
            f"  {number}. {step['name']:<12} {_format_value(step['params'])}".rstrip()
            for number, step in enumerate(content.get("steps", []), start=1)
        ],
        "fitted:",
        *[f"  {name:<12} {_format_value(value)}" for name, value in content.get("fitted", {}).items()],
        "files:",
        *[f"  {name:<16} sha256 {shorten(digest)}" for name, digest in content.get("files", {}).items()],
    ]
    lines += [f"{key}: {_format_value(value)}" for key, value in content.items() if key not in _FORMATTED]
    lines += [f"{key}: {lineage[key]}" for key in ("model", "trained", "libraries") if key in lineage]
    return lines


def _format_value(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {_format_value(inner)}" for key, inner in value.items())
    if isinstance(value, list) and not any(isinstance(item, (dict, list)) for item in value):
        more = ", …" if len(value) > _MAX_ITEMS else ""
        return f"{len(value):,}: {', '.join(shorten(item) for item in value[:_MAX_ITEMS])}{more}"
    return shorten(value)
