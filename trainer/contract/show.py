"""TODO docstring."""

from __future__ import annotations

from typing import Any

from trainer.contract.diff import short

_SHOWN_LABELS = 12


# Shown in a form of their own; whatever else a contract holds follows as `key: value`.
_OWN_FORM = ("task", "preparation_version", "columns", "steps", "fitted", "files")


def lines(found: dict[str, Any]) -> list[str]:
    """Return a contract (`Found` as a dict) in lines; long lists and digests are shortened."""
    content, lineage = found["contract"], found["lineage"]
    shown = [
        found["model"],
        f"folder: {found['folder']}",
        f"fingerprint: {found['fingerprint']}",
        f"task: {content.get('task')}",
        f"code version of preparation: {content.get('preparation_version')}",
        "columns:",
        *[f"  {role:<12} {_plain(column)}" for role, column in content.get("columns", {}).items()],
        "steps:",
        *[
            f"  {number}. {step['name']:<12} {_plain(step['params'])}".rstrip()
            for number, step in enumerate(content.get("steps", []), start=1)
        ],
        "fitted:",
        *[f"  {name:<12} {_plain(value)}" for name, value in content.get("fitted", {}).items()],
        "files:",
        *[f"  {name:<16} sha256 {short(digest)}" for name, digest in content.get("files", {}).items()],
    ]
    shown += [f"{key}: {_plain(value)}" for key, value in content.items() if key not in _OWN_FORM]
    shown += [f"{key}: {lineage[key]}" for key in ("model", "trained", "libraries") if key in lineage]
    return shown


def _plain(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {_plain(inner)}" for key, inner in value.items())
    if isinstance(value, list) and not any(isinstance(item, (dict, list)) for item in value):
        more = ", …" if len(value) > _SHOWN_LABELS else ""
        return f"{len(value):,}: {', '.join(short(item) for item in value[:_SHOWN_LABELS])}{more}"
    return short(value)
