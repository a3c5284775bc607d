"""The export of a trained model: a folder with weights, config, tokenizer and contract.

transformers reads it without raymill.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from cluster.files import read_json, write_json
from trainer.contract import contract as contracts
from trainer.contract.contract import Contract
from trainer.data.folder import FEATURE_PROFILE, SUMMARY
from trainer.tasks.base import Task

#: The file with the epoch that a model was saved after, and its metrics.
EPOCH = "epoch.json"

_ABOUT_ROWS = {contracts.CONTRACT_FILE, SUMMARY, FEATURE_PROFILE}


def export_model(
    folder: Path, task: Task, model: Any, contract: Contract, prepared: Path, epoch: dict[str, Any]
) -> None:
    """Write `model`, the files that turn a raw row into model inputs, and the metrics of its `epoch` to `folder`.

    `model` is None if it is already in `folder`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if model is not None:
        task.save_model(model, contract, folder)
    for path in prepared.iterdir():
        # Copy the contract's files and the tokenizer's other files, but no shards and no files that describe the rows.
        is_tokenizer = path.is_file() and path.suffix in {".json", ".txt"} and path.name not in _ABOUT_ROWS
        if is_tokenizer or path.name in contract.files:
            shutil.copyfile(path, folder / path.name)
    contract.save(folder)
    write_json(folder / EPOCH, epoch)


def read_epoch(folder: Path) -> dict[str, Any]:
    """Return the epoch that the model in `folder` was saved after, with its metrics on the validation rows."""
    epoch: dict[str, Any] = read_json(folder / EPOCH)
    return epoch
