"""What makes two rows the same: the hash of their inputs, and their targets."""

from __future__ import annotations

import json

import numpy as np

from trainer.contract.contract import Contract
from trainer.contract.row_hash import hash_contents
from trainer.data.prepare.row_checks import CheckedRows
from trainer.tasks.base import Task
from trainer.tasks.roles import target_values
from trainer.tasks.row_options import RowIdentity

#: A column of a block in memory: the hash of the values of `data.features`.
VALUES_KEY = "values_key"


def identify_rows(checked: CheckedRows, task: Task, contract: Contract) -> RowIdentity:
    """Return the keys and the targets of the usable rows, by which all rows are compared."""
    own = task.row_identity(contract, checked.cleaned)
    return own or RowIdentity(_content_keys(checked, task), target_values(task, checked.good))


def _content_keys(checked: CheckedRows, task: Task) -> np.ndarray:
    """Return a uint64 hash of all inputs of each row. If the only input is a text or image, its content is hashed."""
    cleaned = checked.cleaned
    if task.learns_from_features and VALUES_KEY in checked.good.column_names:
        return checked.good[VALUES_KEY].to_numpy()
    columns = [cleaned[name].to_pylist() for name in cleaned.column_names]
    if len(columns) == 1 and cleaned.column_names[0] in {*task.text_roles, *task.binary_roles}:
        return hash_contents(columns[0])
    rows = zip(*columns, strict=True)
    return hash_contents([json.dumps(row, ensure_ascii=False, default=bytes.hex) for row in rows])
