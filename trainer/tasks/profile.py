"""The profile of a model: a description of its rows at training time, for your own monitoring.

Registration writes `profile.json` beside contract.json. raymill itself reads only one field of it: the report of a
table's model shows `importance`. The content depends only on the content of the rows, not on their order, the machine,
or numpy's random numbers. The fields:

    version     1; raised when a field changes its meaning
    part        the part whose inputs are described: "train", or "validation" if training rows were streamed
    rows        part -> number of rows
    labels      part -> {label: share of the part's rows with it}, for every label of the contract, share 0 included
    target      numbers only: part -> {mean, quantiles}; quantiles are 21 values, for 0 %, 5 % ... 100 %
    columns     the profiles of `data.features` (quantiles of numbers, shares of categories); {} if there are none

The task adds fields about its inputs; for texts, see `trainer.tasks.text.profile`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from trainer.contract.contract import Contract
from trainer.tasks.catalog import task_of_contract
from trainer.tasks.rows import RowsView

PROFILE_FILE = "profile.json"
VERSION = 1
#: The quantiles of every distribution, in percent.
PERCENT = tuple(range(0, 101, 5))

_DECIMALS = 4


def build_profile(parts: Mapping[str, RowsView], contract: Contract) -> dict[str, Any]:
    """Return the fields of every task's profile, as plain JSON.

    `parts` has "train" and "validation", and may have "test".
    """
    target = task_of_contract(contract).target
    labels = target.labels(contract.fitted)
    return {
        "version": VERSION,
        "part": described_part(parts),
        "rows": {name: len(rows) for name, rows in parts.items()},
        "labels": {name: label_shares(rows.targets, labels) for name, rows in parts.items()} if labels else {},
        "target": {} if labels else {name: distribution(rows.targets) for name, rows in parts.items()},
    }


def described_part(parts: Mapping[str, RowsView]) -> str:
    """Return the part whose inputs are described: "train", or "validation" if training rows were streamed."""
    return "train" if len(parts["train"]) else "validation"


def distribution(values: np.ndarray) -> dict[str, Any]:
    """Return mean and quantiles (0, 5 ... 100 %, linear between values) of numbers; null and [] for no values."""
    if not len(values):
        return {"mean": None, "quantiles": []}
    return {"mean": round_values(values.mean()), "quantiles": round_values(np.percentile(values, PERCENT))}


def label_shares(targets: np.ndarray, labels: list[str]) -> dict[str, float]:
    """Return label -> share of the rows with it, in the contract's order, for ids (B,) or tags (B, C)."""
    counts = np.bincount(targets, minlength=len(labels)) if targets.ndim == 1 else targets.sum(axis=0, dtype=np.int64)
    return {label: round(float(counts[index] / max(1, len(targets))), 6) for index, label in enumerate(labels)}


def share_of_true(mask: np.ndarray) -> float:
    """Return the share of True, to 6 decimals; 0 for an empty mask."""
    return round(float(mask.mean()), 6) if len(mask) else 0.0


def round_values(values: Any) -> Any:
    """Return numbers rounded to 4 decimals, as plain lists."""
    # Adding 0.0 turns -0.0 into 0.0.
    return (np.round(np.asarray(values, dtype=np.float64), _DECIMALS) + 0.0).tolist()
