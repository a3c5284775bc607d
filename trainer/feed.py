"""Where the rows of a training come from, step by step: prepared rows in the plan's exact order, or a stream of Ray Data's.

Letters in shapes: B rows of this worker's part of a step.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, NamedTuple, Protocol

import numpy as np
import pyarrow as pa

from cluster.errors import DataError
from trainer import batch_plan, tasks
from trainer.contract import Contract
from trainer.data.blocks import INPUTS
from trainer.data.prepared import Rows


class Step(NamedTuple):
    """This worker's part of one optimiser step."""

    inputs: list[np.ndarray]
    """Of each row, 1-D."""
    targets: np.ndarray
    """As the target's `array` returns them, one a row."""
    rows: int
    """Rows of all workers together."""
    counts: bool
    """False where this worker has no rows in a short step: it joins the all-reduce with a loss of zero."""


class Feed(Protocol):
    """What the training loop needs to know of its rows."""

    n_rows: int
    """Rows of one epoch, over all workers together."""
    steps_per_epoch: int

    def epoch(self, epoch: int) -> Iterator[Step]:
        """Yield the steps of one epoch (from 1); equally many on all workers."""


class PreparedFeed:
    """Prepared rows in the order of `trainer.batch_plan`, which no number of workers changes."""

    def __init__(self, rows: Rows, seed: int, batch_size: int, rank: int, workers: int) -> None:
        self._rows, self._seed, self._batch_size, self._rank, self._workers = rows, seed, batch_size, rank, workers
        self.n_rows = len(rows)
        self.steps_per_epoch = batch_plan.steps_per_epoch(len(rows), batch_size)

    def epoch(self, epoch: int) -> Iterator[Step]:
        """Yield the plan's steps."""
        for rows in batch_plan.plan(self._rows.lengths, self._seed, epoch, self._batch_size):
            mine = batch_plan.share(rows, self._rank, self._workers)
            used = mine if len(mine) else rows[:1]
            inputs = [self._rows.inputs(row) for row in used]
            yield Step(inputs, self._rows.targets[used], len(rows), len(mine) > 0)


class StreamFeed:
    """Rows as Ray Data delivers them to this worker, sorted by length within pools. Their order is not exact.

    Ray gives every worker equally many rows, so with W workers up to W-1 rows of an epoch are left out.
    """

    def __init__(self, shard: Any, contract: Contract, n_rows: int, seed: int, batch_size: int, workers: int) -> None:
        self._contract = contract
        self._shard, self._seed, self._size = shard, seed, batch_size // workers
        self._mine = n_rows // workers
        self._workers = workers
        self.n_rows = self._mine * workers
        self.steps_per_epoch = math.ceil(self._mine / self._size)

    def epoch(self, epoch: int) -> Iterator[Step]:
        """Yield steps until the stream of this epoch ends. Raises `DataError` if it holds other rows than were counted."""
        pool_rows = batch_plan.POOL_BATCHES * self._size
        seen = 0
        rng = np.random.default_rng(np.random.SeedSequence([self._seed, epoch]))
        for pool in self._shard.iter_batches(batch_size=pool_rows, batch_format="pyarrow", prefetch_batches=1):
            seen += len(pool)
            yield from self._steps(pool, rng)
        if seen != self._mine:
            raise DataError(
                f"the stream gave a worker {seen} rows in epoch {epoch}, but {self._mine} were counted in preparation",
                "the files have changed meanwhile: run again",
            )

    def _steps(self, pool: pa.Table, rng: np.random.Generator) -> Iterator[Step]:
        """Yield one pool's rows in batches of like length. The same numbers are drawn on all workers."""
        column = pool[INPUTS].combine_chunks()
        column = column.chunk(0) if isinstance(column, pa.ChunkedArray) else column
        offsets, values = column.offsets.to_numpy(), column.values.to_numpy()
        targets = tasks.of(self._contract).target.array(self._contract.fitted, pool["target"])
        order = np.argsort(-np.diff(offsets), kind="stable")
        batches = [order[at : at + self._size] for at in range(0, len(order), self._size)]
        for at in rng.permutation(len(batches)):
            rows = batches[at]
            inputs = [values[offsets[row] : offsets[row + 1]] for row in rows]
            yield Step(inputs, targets[rows], len(rows) * self._workers, True)
