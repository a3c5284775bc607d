"""Show the contract of a model, or compare two contracts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from raymill.session import STORAGE, storage_folder


def contract_show(model: str, *, storage: str | Path = STORAGE) -> dict[str, Any]:
    """Return the contract of `model`: a registered model, or a folder with prepared rows or a model.

    The keys are the fields of `trainer.registry.contracts.NamedContract`.
    """
    from trainer.registry.contracts import find_contract

    contract = find_contract(model, storage_folder(storage))
    return {**contract._asdict(), "folder": str(contract.folder)}


def contract_diff(first: str, second: str, *, storage: str | Path = STORAGE) -> dict[str, Any]:
    """Return the differences between the contracts of `first` and `second`, field by field.

    `first` and `second` are models or folders, as for `contract_show`.
    """
    from trainer.contract.diff import compare_contracts
    from trainer.registry.contracts import find_contract

    before, after = (find_contract(model, storage_folder(storage)) for model in (first, second))
    changes = compare_contracts(before.contract, after.contract)
    return {
        "same": not changes,
        "first": {"model": before.model, "fingerprint": before.fingerprint},
        "second": {"model": after.model, "fingerprint": after.fingerprint},
        "changes": [change._asdict() for change in changes],
    }
