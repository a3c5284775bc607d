"""The token plan: the rows of each step of an epoch, by tokens, and their shares of workers and passes.

The rows of a step are a pure function of (lengths, seed, epoch, tokens a step), and do not depend on the number of
workers. Rows lie side by side without padding, so rows of any lengths share a step: the order is random.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from trainer.models.causal.sharing import share_by_size, share_within


def steps_per_epoch(lengths: np.ndarray, tokens_per_step: int) -> int:
    """Return the number of steps of every epoch: about `tokens_per_step` tokens each, and at least the longest row."""
    total = int(lengths.sum(dtype=np.int64))
    return max(1, min(round(total / tokens_per_step), total // max(1, int(lengths.max(initial=0)))))


def plan_steps(lengths: np.ndarray, seed: int, epoch: int, tokens_per_step: int) -> list[np.ndarray]:
    """Return the rows (int64 indices) of each step of one epoch, in order.

    Every row is in one step. The steps are as equal as whole rows allow; no step is empty.
    """
    n_steps = steps_per_epoch(lengths, tokens_per_step)
    order = np.random.default_rng(np.random.SeedSequence([seed, epoch])).permutation(len(lengths))
    sizes = lengths[order].astype(np.int64)
    # A row belongs to the step in which its middle lies. A step has at least the longest row's tokens, so the middles of
    # two neighbors are at most one step apart, and every step has a row. Twice the middles are whole numbers.
    twice_middles = 2 * np.cumsum(sizes) - sizes
    steps = twice_middles * n_steps // (2 * max(1, int(sizes.sum())))
    return np.split(order, np.searchsorted(steps, np.arange(1, n_steps)))


def plan_mixed_steps(rows: np.ndarray, lengths: np.ndarray, seed: int, epoch: int, n_steps: int) -> list[np.ndarray]:
    """Return the rows of each of `n_steps` steps of an epoch that uses `rows`, of which some may be repeated.

    `lengths` are those of all rows. The steps are about equal in tokens; none is empty if there are as many rows.
    """
    order = rows[np.random.default_rng(np.random.SeedSequence([seed, epoch])).permutation(len(rows))]
    sizes = lengths[order].astype(np.int64)
    middles = np.cumsum(sizes) - sizes / 2
    borders = np.searchsorted(middles, np.arange(1, n_steps) * sizes.sum() / n_steps)
    numbers = np.arange(1, n_steps)
    borders = np.maximum.accumulate(np.maximum(borders, numbers) - numbers) + numbers  # at least one row a step
    return np.split(order, np.minimum(borders, len(order) - n_steps + numbers))


class WorkerPasses(NamedTuple):
    """The rows of one worker in one step."""

    positions: np.ndarray
    """The positions of the worker's rows in the step, int64, rising."""
    passes: list[np.ndarray]
    """Indices into `positions` of each pass, the same number of passes on every worker; a pass may be empty."""


def share_step(sizes: np.ndarray, rank: int, workers: int, tokens_per_pass: int | None) -> WorkerPasses:
    """Return worker `rank`'s rows of a step whose rows have these `sizes` in tokens.

    A pass has at most `tokens_per_pass` tokens, or one longer row.
    """
    shares = share_by_size(sizes, workers)
    passes = [share_within(sizes[share], tokens_per_pass) for share in shares]
    missing = max(map(len, passes)) - len(passes[rank])
    return WorkerPasses(shares[rank], passes[rank] + [np.arange(0)] * missing)
