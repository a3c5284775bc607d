"""The batch plan: the rows of each step of an epoch, a pure function of (lengths, seed, epoch, global batch size).

It does not depend on the number of workers, on Ray's scheduling or on interruptions, so a run with 1 worker takes the
same steps as one with 4. Rows of similar length share a step, so that little of a batch is padding.
"""

from __future__ import annotations

import math

import numpy as np

#: Rows are sorted by length within pools of this many batches. A larger pool needs less padding (with this size, under
#: 3% of a batch); a smaller pool mixes rows more, so that a step's rows differ from epoch to epoch.
POOL_BATCHES = 200


def plan_batches(lengths: np.ndarray, seed: int, epoch: int, batch_size: int) -> list[np.ndarray]:
    """Return the rows (int64 indices) of each step of one epoch, in order. One step, at any position, may be short.

    `lengths` is int32 of shape (rows,); `batch_size` counts the rows of all workers together.
    """
    rng = np.random.default_rng(np.random.SeedSequence([seed, epoch]))
    order = rng.permutation(len(lengths))
    pool = batch_size * POOL_BATCHES
    steps: list[np.ndarray] = []
    for start in range(0, len(order), pool):
        rows = order[start : start + pool]
        rows = rows[np.argsort(-lengths[rows], kind="stable")]
        steps += [rows[first : first + batch_size] for first in range(0, len(rows), batch_size)]
    return [steps[index] for index in rng.permutation(len(steps))]


def steps_per_epoch(n_rows: int, batch_size: int) -> int:
    """Return the number of steps that `plan_batches` returns for `n_rows` rows."""
    pool = batch_size * POOL_BATCHES
    full, rest = divmod(n_rows, pool)
    return full * POOL_BATCHES + math.ceil(rest / batch_size)


def shard_rows(rows: np.ndarray, rank: int, workers: int) -> np.ndarray:
    """Return the rows of one step for worker `rank`: every `workers`-th, so that all workers get similar lengths."""
    return rows[rank::workers]
