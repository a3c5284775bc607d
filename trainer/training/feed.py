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
from trainer.contract.contract import Contract
from trainer.data.folder import INPUTS
from trainer.data.prepared import Rows
from trainer.optim import batch_plan
from trainer.tasks import catalog as task_catalog


class Step(NamedTuple):
    """This worker's part of one optimiser step, or of one pass through the model for it."""

    inputs: list[np.ndarray]
    """Of each row, 1-D."""
    targets: np.ndarray
    """As the target's `array` returns them, one a row."""
    rows: int
    """Rows of the step, of all workers together."""
    counts: bool
    """False where this worker has no rows in a short step: it joins the all-reduce with a loss of zero."""
    places: np.ndarray
    """Where in the whole step each row stands, int64: the same however many workers share it."""

    def parts(self, most: int | None, workers: int) -> list[Step]:
        """Return the step in equally many passes on every worker, of at most `most` rows each."""
        largest = -(-self.rows // workers)
        n_passes = 1 if most is None else -(-largest // most)
        if n_passes == 1:
            return [self]
        found = []
        for at in np.array_split(np.arange(len(self.inputs)), n_passes):
            some = at if len(at) else np.arange(1)
            inputs, counts = [self.inputs[row] for row in some], self.counts and len(at) > 0
            found.append(Step(inputs, self.targets[some], self.rows, counts, self.places[some]))
        return found


class Feed(Protocol):
    """What the training loop needs to know of its rows."""

    n_rows: int
    """Rows of one epoch, over all workers together."""
    steps_per_epoch: int

    exact: bool
    """Whether the same step has the same rows each time, so that a run can go on from the middle of an epoch."""

    def epoch(self, epoch: int, first: int = 0) -> Iterator[Step]:
        """Yield the steps of one epoch (from 1), equally many on all workers, from step `first` (from 0)."""

    def rows(self, epoch: int, number: int) -> np.ndarray:
        """Return the numbers of the training rows in one step of all workers together; empty where they are not known."""


class PreparedFeed:
    """Prepared rows in the order of `trainer.optim.batch_plan`, which no number of workers changes."""

    exact = True

    def __init__(self, rows: Rows, seed: int, batch_size: int, rank: int, workers: int) -> None:
        self._rows, self._seed, self._batch_size, self._rank, self._workers = rows, seed, batch_size, rank, workers
        self.n_rows = len(rows)
        self.steps_per_epoch = batch_plan.steps_per_epoch(len(rows), batch_size)

    def epoch(self, epoch: int, first: int = 0) -> Iterator[Step]:
        """Yield the plan's steps."""
        for rows in batch_plan.plan(self._rows.lengths, self._seed, epoch, self._batch_size)[first:]:
            places = batch_plan.share(np.arange(len(rows)), self._rank, self._workers)
            counts = len(places) > 0
            places = places if counts else np.arange(1)
            used = rows[places]
            inputs = [self._rows.inputs(row) for row in used]
            yield Step(inputs, self._rows.targets[used], len(rows), counts, places)

    def rows(self, epoch: int, number: int) -> np.ndarray:
        """Return the rows of one step, by the plan."""
        return batch_plan.plan(self._rows.lengths, self._seed, epoch, self._batch_size)[number]


class StreamFeed:
    """Rows as Ray Data delivers them to this worker, sorted by length within pools. Their order is not exact.

    Ray gives every worker equally many rows, so with W workers up to W-1 rows of an epoch are left out.
    """

    exact = False

    def __init__(
        self, shard: Any, contract: Contract, n_rows: int, seed: int, batch_size: int, rank: int, workers: int
    ) -> None:
        self._contract, self._rank = contract, rank
        self._shard, self._seed, self._size = shard, seed, batch_size // workers
        self._mine = n_rows // workers
        self._workers = workers
        self.n_rows = self._mine * workers
        self.steps_per_epoch = math.ceil(self._mine / self._size)

    def epoch(self, epoch: int, first: int = 0) -> Iterator[Step]:
        """Yield steps until the stream of this epoch ends. Raises `DataError` if it holds other rows than were counted."""
        assert first == 0, "a stream cannot begin in the middle"
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

    def rows(self, epoch: int, number: int) -> np.ndarray:
        """Return nothing: Ray Data does not say which rows it delivered."""
        return np.empty(0, np.int64)

    def _steps(self, pool: pa.Table, rng: np.random.Generator) -> Iterator[Step]:
        """Yield one pool's rows in batches of like length. The same numbers are drawn on all workers."""
        column = pool[INPUTS].combine_chunks()
        column = column.chunk(0) if isinstance(column, pa.ChunkedArray) else column
        offsets, values = column.offsets.to_numpy(), column.values.to_numpy()
        targets = task_catalog.of(self._contract).target.array(self._contract.fitted, pool["target"])
        order = np.argsort(-np.diff(offsets), kind="stable")
        batches = [order[at : at + self._size] for at in range(0, len(order), self._size)]
        for at in rng.permutation(len(batches)):
            rows = batches[at]
            inputs = [values[offsets[row] : offsets[row + 1]] for row in rows]
            places = np.arange(len(rows)) * self._workers + self._rank
            yield Step(inputs, targets[rows], len(rows) * self._workers, True, places)
