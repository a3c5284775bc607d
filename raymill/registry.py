"""Registered models: list, show, promote, roll back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from raymill.session import STORAGE, find_version


def models(*, storage: str | Path = STORAGE) -> list[dict[str, Any]]:
    """Return every version of every model, each as a dict: `model`, `version`, `aliases`, `metrics`.

    The metrics are those on the held-out rows. A damaged version has an `error` and empty metrics.
    """
    from cluster.errors import ModelError
    from trainer.registry.registry import Registry

    registry = Registry(storage)
    listed = []
    for name in registry.names():
        aliases = registry.aliases(name)
        for version in registry.versions(name):
            entry: dict[str, Any] = {
                "model": version.name,
                "version": version.number,
                "aliases": [alias for alias, number in aliases.items() if number == version.number],
            }
            try:
                listed.append({**entry, "metrics": version.metrics["test"]})
            except ModelError as error:
                listed.append({**entry, "metrics": {}, "error": error.problem})
    return listed


def show(model: str, *, storage: str | Path = STORAGE) -> dict[str, Any]:
    """Return one version: metrics by part, lineage, files with their hashes, and when aliases were moved to it."""
    from cluster.files import read_json
    from trainer.registry.registry import MANIFEST_FILE, Registry

    version = find_version(model, storage)
    registry = Registry(storage)
    return {
        "model": version.name,
        "version": version.number,
        "aliases": [alias for alias, number in registry.aliases(version.name).items() if number == version.number],
        "folder": str(version.folder),
        "metrics": version.metrics,
        "lineage": version.lineage,
        "files": read_json(version.folder / MANIFEST_FILE)["files"],
        "moves": [move for move in registry.moves(version.name) if move["to"] == version.number],
    }


def promote(
    model: str, *, alias: str = "champion", storage: str | Path = STORAGE, reason: str = "promoted by hand"
) -> dict[str, Any]:
    """Point `alias` to the version `model`, whatever the gate decided. Returns `model`, `version` and `alias`."""
    from trainer.registry.registry import Registry

    registry = Registry(storage)
    version = registry.find(model)
    registry.promote(version, alias, {"reason": reason})
    return {"model": version.name, "version": version.number, "alias": alias}


def rollback(name: str, *, alias: str = "champion", storage: str | Path = STORAGE) -> dict[str, Any]:
    """Point `alias` back to the version before its last promotion. Returns `model`, `version` and `alias`."""
    from trainer.registry.registry import Registry

    version = Registry(storage).rollback(name, alias)
    return {"model": version.name, "version": version.number, "alias": alias}
