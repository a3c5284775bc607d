"""Training batches by tokens: prepared rows in the order of `trainer.optim.token_plan`."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from trainer.data.prepared import PreparedRows
from trainer.optim import token_plan
from trainer.training.batch_source import BatchStep
from trainer.training.cut_rows import CutRows
from trainer.training.mixture import Mixture


class TokenBatches:
    """Steps of about the same number of tokens. They do not depend on the number of workers. Implements `BatchSource`."""

    is_exact = True

    def __init__(
        self,
        rows: PreparedRows | CutRows,
        weight: Callable[[np.ndarray], int],
        seed: int,
        tokens_per_step: int,
        tokens_per_pass: int | None,
        rank: int,
        workers: int,
        mixture: Mixture | None = None,
    ) -> None:
        """`weight` returns a row's share of the divisor, from its model input; `mixture` the rows of each epoch."""
        self._rows, self._weight, self._seed = rows, weight, seed
        self._per_step, self._per_pass = tokens_per_step, tokens_per_pass
        self._rank, self._workers = rank, workers
        self._mixture = mixture
        self.n_rows = len(rows) if mixture is None else len(mixture.rows(1))
        self.steps_per_epoch = token_plan.steps_per_epoch(rows.lengths, tokens_per_step)
        if mixture is not None:
            self.steps_per_epoch = max(1, min(round(mixture.tokens / tokens_per_step), self.n_rows // 2))

    def iter_steps(self, epoch: int, first: int = 0) -> Iterator[BatchStep]:
        """Yield the steps of the plan."""
        for rows in self._plan(epoch)[first:]:
            own = token_plan.share_step(self._rows.lengths[rows], self._rank, self._workers, self._per_pass)
            # Every worker reads all rows of the step, because it needs their weights.
            inputs = [self._rows.inputs(row) for row in rows]
            divisor = max(1, sum(map(self._weight, inputs)))
            has_rows = len(own.positions) > 0
            positions = own.positions if has_rows else np.arange(1)
            yield BatchStep(
                [inputs[position] for position in positions],
                self._rows.targets[rows[positions]],
                len(rows),
                has_rows,
                positions,
                divisor,
                own.passes,
            )

    def rows_of(self, epoch: int, step: int) -> np.ndarray:
        """Return the rows of one step of the plan."""
        rows = self._plan(epoch)[step]
        return np.unique(self._rows.row_numbers[rows]) if isinstance(self._rows, CutRows) else rows

    def _plan(self, epoch: int) -> list[np.ndarray]:
        lengths = self._rows.lengths
        if self._mixture is not None:
            rows = self._mixture.rows(epoch)
            return token_plan.plan_mixed_steps(rows, lengths, self._seed, epoch, self.steps_per_epoch)
        return token_plan.plan_steps(lengths, self._seed, epoch, self._per_step)
