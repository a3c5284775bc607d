"""Leave out training rows for the steps `sample` and `balance: {method: undersample}` in trainer/spec/steps.py."""

from __future__ import annotations

import functools
from collections.abc import Callable

import numpy as np

from trainer.contract.row_hash import hash_position
from trainer.data.parts import TRAIN
from trainer.data.prepare.block_maker import SAMPLE
from trainer.data.prepare.facts import Facts
from trainer.data.prepare.verdicts import BALANCED, SAMPLED
from trainer.spec.data import DataSpec
from trainer.steps.cleaner import dataset_steps


def subsample(facts: Facts, data: DataSpec, verdicts: np.ndarray, parts: np.ndarray) -> None:
    """Set the verdict of each training row that a step leaves out, step by step in the order of the spec."""
    for number, step in enumerate(dataset_steps(data)):
        train_G = facts.counts(verdicts, parts)[:, TRAIN]
        if step.sample:
            share = step.sample.fraction or min(1.0, (step.sample.rows or 0) / max(1, train_G.sum()))
            position = functools.partial(hash_position, seed=step.sample.seed, purpose=f"{SAMPLE} {number}")
            _leave_out(facts, verdicts, parts, np.full(len(train_G), share), position, SAMPLED)
        elif step.balance and step.balance.method == "undersample":
            smallest = train_G[train_G > 0].min() if train_G.any() else 0
            position = functools.partial(hash_position, seed=data.split.seed, purpose="undersample")
            _leave_out(facts, verdicts, parts, smallest / np.maximum(train_G, 1), position, BALANCED)


def oversampling_factors(facts: Facts, data: DataSpec, verdicts: np.ndarray, parts: np.ndarray) -> np.ndarray | None:
    """Return how often training rows of each class are used, float64, shape (classes,); None without oversampling."""
    if not any(step.balance and step.balance.method == "oversample" for step in dataset_steps(data)):
        return None
    train_G = facts.counts(verdicts, parts)[:, TRAIN]
    return train_G.max(initial=0) / np.maximum(train_G, 1)


def _leave_out(
    facts: Facts,
    verdicts: np.ndarray,
    parts: np.ndarray,
    share_G: np.ndarray,
    position: Callable[[np.ndarray], np.ndarray],
    verdict: int,
) -> None:
    """Give `verdict` to training rows whose position (0 to 1, from the content) is at or above their group's share."""
    for block in facts.blocks():
        train = (verdicts[block.rows] == 0) & (parts[block.rows] == TRAIN)
        out = train & (position(block.keys) >= share_G[np.maximum(block.groups, 0)])
        verdicts[block.rows][out] = verdict
