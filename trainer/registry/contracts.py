"""Find contracts by a model's name or a folder, to read and compare them."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from cluster.errors import ModelError
from cluster.files import read_json
from cluster.paths import expand_home
from trainer.contract.contract import CONTRACT_FILE, PREPARATION_VERSION, load_contract
from trainer.registry.registry import Registry, verify_files


class NamedContract(NamedTuple):
    """A contract with its origin."""

    model: str
    """`name@7`, or the folder as the user wrote it."""
    folder: Path
    fingerprint: str
    contract: dict[str, Any]
    """As in contract.json, without the fingerprint."""
    lineage: dict[str, Any]
    """The lineage of a registered version; empty for any other folder."""


def find_contract(model: str, storage: str | Path) -> NamedContract:
    """Return the contract of a registered model, or of a folder with a contract.json.

    Raises `ModelError` if the model does not exist or a file was changed. A contract with another
    `preparation_version` cannot be served, but it can be read and compared.
    """
    folder = expand_home(model)
    if (folder / CONTRACT_FILE).is_file():
        return _read_contract(model, folder.absolute(), {})
    if folder.is_dir() and "/" in model:
        raise ModelError(
            f"{folder} has no {CONTRACT_FILE}", "name a prepared folder, a model's folder, or a registered model"
        )
    version = Registry(storage).find(model)
    verify_files(version)
    return _read_contract(version.ref, version.folder, version.lineage)


def _read_contract(name: str, folder: Path, lineage: dict[str, Any]) -> NamedContract:
    try:
        content = read_json(folder / CONTRACT_FILE)
        fingerprint = content.pop("fingerprint")
        is_current = content["preparation_version"] == PREPARATION_VERSION
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        is_current = True  # `load_contract` reports what is wrong with it
    if is_current:
        loaded = load_contract(folder)
        content, fingerprint = loaded.model_dump(mode="json"), loaded.fingerprint
    return NamedContract(name, folder, fingerprint, content, lineage)
