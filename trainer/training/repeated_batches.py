"""Batches of which each is taken for several steps in a row."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from trainer.training.batch_source import BatchSource, BatchStep


class RepeatedBatches:
    """The steps of another source, each `times` times. Implements `BatchSource`."""

    def __init__(self, source: BatchSource, times: int) -> None:
        self._source, self._times = source, times
        self.is_exact = source.is_exact
        self.n_rows = source.n_rows * times
        self.steps_per_epoch = source.steps_per_epoch * times

    def iter_steps(self, epoch: int, first: int = 0) -> Iterator[BatchStep]:
        """Yield each step of the source `times` times."""
        start, done = divmod(first, self._times)
        for step in self._source.iter_steps(epoch, start):
            for _ in range(done, self._times):
                yield step
            done = 0

    def rows_of(self, epoch: int, step: int) -> np.ndarray:
        """Return the rows of the source's step."""
        return self._source.rows_of(epoch, step // self._times)
