"""What a model's rows looked like when it was trained: the figures that live traffic is held against later.

`profile.json` lies beside contract.json in a registered version. Everything in it follows from the rows' content alone:
not from their order, the machine, or numpy's random numbers. Its fields:

    version     1; raised when a field changes its meaning
    part        the part whose inputs are described: "train", or "validation" where training rows were not kept
    rows        part -> number of rows
    labels      part -> {label: share of the part's rows with it}, every label of the contract, also those with share 0
    target      numbers only: part -> {mean, quantiles}; quantiles are 21 values, of 0 %, 5 % ... 100 %
    columns     the profiles of `data.features` (quantiles of numbers, shares of categories); {} where there are none

What the task says of its inputs stands beside these: of texts, see `trainer.tasks.text.profile`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from trainer.contract.contract import Contract
from trainer.tasks import catalog as task_catalog
from trainer.tasks.rows import Rows

FILE = "profile.json"
VERSION = 1
#: The steps of all quantiles, in percent.
PERCENT = tuple(range(0, 101, 5))

_DECIMALS = 4


def build(parts: Mapping[str, Rows], contract: Contract) -> dict[str, Any]:
    """Return what every task's profile has, as plain JSON. `parts` has "train" and "validation", and may have "test"."""
    target = task_catalog.of(contract).target
    labels = target.labels(contract.fitted)
    return {
        "version": VERSION,
        "part": described_part(parts),
        "rows": {name: len(each) for name, each in parts.items()},
        "labels": {name: label_shares(each.targets, labels) for name, each in parts.items()} if labels else {},
        "target": {} if labels else {name: distribution(each.targets) for name, each in parts.items()},
    }


def described_part(parts: Mapping[str, Rows]) -> str:
    """Return the part whose inputs are described: "validation" where training rows were streamed."""
    return "train" if len(parts["train"]) else "validation"


def distribution(values: np.ndarray) -> dict[str, Any]:
    """Return mean and quantiles (0, 5 ... 100 %, linear between values) of numbers; null and [] for none."""
    if not len(values):
        return {"mean": None, "quantiles": []}
    return {"mean": rounded(values.mean()), "quantiles": rounded(np.percentile(values, PERCENT))}


def label_shares(targets: np.ndarray, labels: list[str]) -> dict[str, float]:
    """Return label -> share of the rows with it, in the contract's order, for ids (B,) or tags (B, C)."""
    counts = np.bincount(targets, minlength=len(labels)) if targets.ndim == 1 else targets.sum(axis=0, dtype=np.int64)
    return {label: round(float(counts[at] / max(1, len(targets))), 6) for at, label in enumerate(labels)}


def share(chosen: np.ndarray) -> float:
    """Return the share of True, to 6 decimals."""
    return round(float(chosen.mean()), 6) if len(chosen) else 0.0


def rounded(values: Any) -> Any:
    """Return numbers to 4 decimals, as plain lists."""
    # Adding 0.0 makes -0.0 a plain 0.0.
    return (np.round(np.asarray(values, dtype=np.float64), _DECIMALS) + 0.0).tolist()
