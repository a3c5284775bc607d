"""A contract as people read it: found by a model's name or a folder, and put into lines."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from cluster.errors import ModelError
from cluster.files import read_json
from trainer.contract import contract as contracts
from trainer.registry import registry


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
