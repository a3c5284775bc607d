"""Sources of training batches: prepared rows in the exact order of the batch plan, or a stream from Ray Data.

Letters in shapes: B rows of this worker's part of a step.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
import pyarrow as pa

from cluster.errors import DataError
from trainer.contract.contract import Contract
from trainer.data.folder import INPUTS
from trainer.data.prepared import PreparedRows
from trainer.optim import batch_plan
from trainer.tasks import catalog as task_catalog


class BatchStep(NamedTuple):
    """This worker's part of one optimizer step, or of one micro-batch of it."""

    inputs: list[np.ndarray]
    """The inputs of each row, 1-D."""
    targets: np.ndarray
    """The targets of the rows, as `Target.array` returns them."""
    rows: int
    """The number of rows of the step, over all workers."""
    has_rows: bool
    """False if a short step has no rows for this worker; the worker then joins the all-reduce with a loss of zero."""
    positions: np.ndarray
    """The position of each row in the whole step, int64. It does not depend on the number of workers."""
    divisor: int
    """What the summed loss of the step is divided by: its rows, or their learned tokens, over all workers."""
    split: Sequence[np.ndarray]
    """Indices of the rows of each pass through the model. Every worker has the same number of passes; some are empty."""

    def passes(self) -> list[BatchStep]:
        """Return the step in passes of one split each."""
        if len(self.split) == 1:
            return [self]
        parts = []
        for indices in self.split:
            used = indices if len(indices) else np.arange(1)
            parts.append(
                self._replace(
                    inputs=[self.inputs[row] for row in used],
                    targets=self.targets[used],
                    has_rows=self.has_rows and len(indices) > 0,
                    positions=self.positions[used],
                    split=[np.arange(len(used))],
                )
            )
        return parts


def split_evenly(own_rows: int, step_rows: int, workers: int, max_rows: int | None) -> list[np.ndarray]:
    """Return the indices of `own_rows` rows in passes of at most `max_rows`, as many passes on every worker.

    `step_rows` counts the rows of the step over all workers.
    """
    largest = -(-step_rows // workers)
    return np.array_split(np.arange(own_rows), 1 if max_rows is None else -(-largest // max_rows))


class BatchSource(Protocol):
    """A source of batches for the training loop."""

    n_rows: int
    """The number of rows of one epoch, over all workers."""
    steps_per_epoch: int

    is_exact: bool
    """Whether a step always has the same rows, so that a run can resume in the middle of an epoch."""

    def iter_steps(self, epoch: int, first: int = 0) -> Iterator[BatchStep]:
        """Yield the steps of `epoch` (from 1), beginning with step `first` (from 0).

        All workers get the same number of steps.
        """

    def rows_of(self, epoch: int, step: int) -> np.ndarray:
        """Return the indices of the training rows of one step, over all workers; empty if they are not known."""


class PreparedBatches:
    """Prepared rows in the order of `trainer.optim.batch_plan`, which does not depend on the number of workers."""

    is_exact = True

    def __init__(
        self, rows: PreparedRows, seed: int, batch_size: int, max_rows: int | None, rank: int, workers: int
    ) -> None:
        self._rows, self._seed, self._batch_size, self._max_rows = rows, seed, batch_size, max_rows
        self._rank, self._workers = rank, workers
        self.n_rows = len(rows)
        self.steps_per_epoch = batch_plan.steps_per_epoch(len(rows), batch_size)

    def iter_steps(self, epoch: int, first: int = 0) -> Iterator[BatchStep]:
        """Yield the steps of the plan."""
        for rows in self._plan(epoch)[first:]:
            positions = batch_plan.shard_rows(np.arange(len(rows)), self._rank, self._workers)
            has_rows = len(positions) > 0
            positions = positions if has_rows else np.arange(1)
            own = rows[positions]
            inputs = [self._rows.inputs(row) for row in own]
            split = split_evenly(len(own), len(rows), self._workers, self._max_rows)
            yield BatchStep(inputs, self._rows.targets[own], len(rows), has_rows, positions, len(rows), split)

    def rows_of(self, epoch: int, step: int) -> np.ndarray:
        """Return the rows of one step of the plan."""
        return self._plan(epoch)[step]

    def _plan(self, epoch: int) -> list[np.ndarray]:
        return batch_plan.plan_batches(self._rows.lengths, self._seed, epoch, self._batch_size)


class StreamedBatches:
    """Rows as Ray Data delivers them to this worker, sorted by length within pools. Their order is not reproducible.

    Ray gives every worker the same number of rows, so with W workers up to W-1 rows of an epoch are left out.
    """

    is_exact = False

    def __init__(
        self,
        shard: Any,
        contract: Contract,
        n_rows: int,
        seed: int,
        batch_size: int,
        max_rows: int | None,
        rank: int,
        workers: int,
    ) -> None:
        self._contract, self._rank = contract, rank
        self._shard, self._seed, self._batch_size = shard, seed, batch_size // workers
        self._n_own_rows = n_rows // workers
        self._max_rows, self._workers = max_rows, workers
        self.n_rows = self._n_own_rows * workers
        self.steps_per_epoch = math.ceil(self._n_own_rows / self._batch_size)

    def iter_steps(self, epoch: int, first: int = 0) -> Iterator[BatchStep]:
        """Yield steps until the stream of this epoch ends.

        Raises `DataError` if its number of rows differs from the number that preparation counted.
        """
        assert first == 0, "a stream cannot start in the middle"
        pool_rows = batch_plan.POOL_BATCHES * self._batch_size
        n_rows = 0
        rng = np.random.default_rng(np.random.SeedSequence([self._seed, epoch]))
        for pool in self._shard.iter_batches(batch_size=pool_rows, batch_format="pyarrow", prefetch_batches=1):
            n_rows += len(pool)
            yield from self._steps(pool, rng)
        if n_rows != self._n_own_rows:
            raise DataError(
                f"a worker got {n_rows} rows in epoch {epoch}, but preparation counted {self._n_own_rows}",
                "the files have changed during the run; run again and leave them unchanged",
            )

    def rows_of(self, epoch: int, step: int) -> np.ndarray:
        """Return no rows: Ray Data does not say which rows it delivered."""
        return np.empty(0, np.int64)

    def _steps(self, pool: pa.Table, rng: np.random.Generator) -> Iterator[BatchStep]:
        """Yield one pool's rows in batches of similar length. Their random order is the same on all workers."""
        column = pool[INPUTS].combine_chunks()
        column = column.chunk(0) if isinstance(column, pa.ChunkedArray) else column
        offsets, values = column.offsets.to_numpy(), column.values.to_numpy()
        targets = task_catalog.task_of_contract(self._contract).target.array(self._contract.fitted, pool["target"])
        order = np.argsort(-np.diff(offsets), kind="stable")
        batches = [order[first : first + self._batch_size] for first in range(0, len(order), self._batch_size)]
        for number in rng.permutation(len(batches)):
            rows = batches[number]
            inputs = [values[offsets[row] : offsets[row + 1]] for row in rows]
            positions = np.arange(len(rows)) * self._workers + self._rank
            n_rows = len(rows) * self._workers
            split = split_evenly(len(rows), n_rows, self._workers, self._max_rows)
            yield BatchStep(inputs, targets[rows], n_rows, True, positions, n_rows, split)
