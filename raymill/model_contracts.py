"""The contracts of models: show one, compare two."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from raymill.session import STORAGE, storage_folder


def contract_show(model: str, *, storage: str | Path = STORAGE) -> dict[str, Any]:
    """Return the contract of a registered model, or of a prepared or model folder: the fields of
    `trainer.registry.contracts.Found`."""
    from trainer.registry import contracts

    found = contracts.find(model, storage_folder(storage))
    return {**found._asdict(), "folder": str(found.folder)}


def contract_diff(first: str, second: str, *, storage: str | Path = STORAGE) -> dict[str, Any]:
    """Return the differences between two contracts, field by field; each is named as for `contract_show`."""
    from trainer.contract.diff import differences
    from trainer.registry import contracts

    before, after = (contracts.find(model, storage_folder(storage)) for model in (first, second))
    changes = differences(before.contract, after.contract)
    return {
        "same": not changes,
        "first": {"model": before.model, "fingerprint": before.fingerprint},
        "second": {"model": after.model, "fingerprint": after.fingerprint},
        "changes": [change._asdict() for change in changes],
    }
