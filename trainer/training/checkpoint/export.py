"""A trained model as a folder: weights, config, tokenizer, contract. transformers reads it without raymill."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from cluster.files import read_json, write_json
from trainer.contract import contract as contracts
from trainer.contract.contract import Contract
from trainer.data.folder import COLUMNS, SUMMARY
from trainer.tasks.base import Task

#: Which epoch the weights are of, and its figures.
EPOCH = "epoch.json"

_OF_THE_ROWS = {contracts.FILE, SUMMARY, COLUMNS}


def save(folder: Path, task: Task, model: Any, contract: Contract, prepared: Path, epoch: dict[str, Any]) -> None:
    """Write `model` (if there is one that is not in `folder` yet), everything that turns a raw row into its input, and the
    figures of its `epoch` to `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    if model is not None:
        task.save_model(model, contract, folder)
    for path in prepared.iterdir():
        # What the contract names, and the tokenizer's other files; shards and what describes the rows stay where they are.
        beside = path.is_file() and path.suffix in {".json", ".txt"} and path.name not in _OF_THE_ROWS
        if beside or path.name in contract.files:
            shutil.copyfile(path, folder / path.name)
    contract.save(folder)
    write_json(folder / EPOCH, epoch)


def epoch_of(folder: Path) -> dict[str, Any]:
    """Return the epoch a checkpoint was saved after, with its figures on the validation rows."""
    found: dict[str, Any] = read_json(folder / EPOCH)
    return found
