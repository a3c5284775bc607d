"""A contract as people read it: found by a model's name or a folder, and put into lines."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from cluster.errors import ModelError
from cluster.files import read_json
from trainer import contract as contracts
from trainer import registry
from trainer.contract_diff import short

_SHOWN_LABELS = 12
# Shown in a form of their own; whatever else a contract holds follows as `key: value`.
_OWN_FORM = ("task", "preparation_version", "columns", "steps", "fitted", "files")


class Found(NamedTuple):
    """A contract and where it was found."""

    model: str
    """`name@7`, or the folder as it was given."""
    folder: Path
    fingerprint: str
    contract: dict[str, Any]
    """As in contract.json, without the fingerprint."""
    lineage: dict[str, Any]
    """Of a registered version; empty for any other folder."""


def find(model: str, storage: str | Path) -> Found:
    """Return the contract of a registered model, or of a folder that holds a contract.json.

    Raises `ModelError` for a model that is not there or a file that was changed. A contract of another code version,
    which could not be served, can still be read and compared.
    """
    folder = Path(model).expanduser()
    if (folder / contracts.FILE).is_file():
        return _read(model, folder.absolute(), {})
    if folder.is_dir() and "/" in model:
        raise ModelError(f"{folder} holds no {contracts.FILE}", "name a prepared folder, a model's folder or a model")
    version = registry.Registry(storage).find(model)
    registry.verify(version)
    return _read(version.ref, version.folder, version.lineage)


def _read(name: str, folder: Path, lineage: dict[str, Any]) -> Found:
    try:
        content = read_json(folder / contracts.FILE)
        fingerprint = content.pop("fingerprint")
        known = content["preparation_version"] == contracts.PREPARATION_VERSION
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        known = True  # `load` says what is wrong with it
    if known:
        loaded = contracts.load(folder)
        content, fingerprint = loaded.model_dump(mode="json"), loaded.fingerprint
    return Found(name, folder, fingerprint, content, lineage)


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
