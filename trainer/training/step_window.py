"""The window of the last few steps.

Their losses are read from the device once per window, so that not every step waits for the device.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch

from trainer.optim.distributed.collectives import all_gather_object
from trainer.optim.distributed.worker_context import WorkerContext
from trainer.training.batch_source import BatchStep


class StepStats(NamedTuple):
    """Statistics of the steps of one window, over all workers."""

    losses: list[float]
    """The loss of each step, summed over its rows."""
    grad_norm: float
    """The norm of the last step's gradient."""
    first_bad: int | None
    """The index in the window of the first step with a loss or gradient that is not finite; None if there is none."""
    steps: int
    rows: int
    divisor: int
    """What the sum of `losses` is divided by."""
    tokens: int
    arithmetic: float
    """Floating-point operations; 0 if they are not counted."""
    is_out_of_time: bool
    """Whether rank 0 has reached the time limit."""
    is_save_due: bool
    """Whether it is time for a checkpoint, by rank 0's clock."""
    is_stop_requested: bool
    """Whether rank 0 was asked to stop at once."""


class StepWindow:
    """Collects the losses and counts of steps until `flush`."""

    def __init__(self, worker: WorkerContext) -> None:
        self._worker = worker
        self._clear()

    def _clear(self) -> None:
        self._losses: list[torch.Tensor] = []
        self._norms: list[torch.Tensor] = []
        self._rows = self._divisor = self._tokens = 0
        self._arithmetic = 0.0

    def add(
        self, loss: torch.Tensor, norm: torch.Tensor | None, step: BatchStep, tokens: int, arithmetic: float
    ) -> None:
        """Add one step.

        `loss` is this worker's summed loss; `norm` is the norm of the full gradient, None if a gradient scaler may skip
        the step; `tokens` counts this worker's tokens, and `arithmetic` its floating-point operations.
        """
        self._losses.append(loss)
        if norm is not None:
            self._norms.append(norm)
        self._rows += step.rows
        self._divisor += step.divisor
        self._tokens += tokens
        self._arithmetic += arithmetic

    def flush(self, *, is_out_of_time: bool, is_save_due: bool, is_stop_requested: bool) -> StepStats:
        """Return the statistics of the steps since the last flush. All ranks call this; rank 0's flags count."""
        losses = torch.stack(self._losses).double().tolist()
        norms = torch.stack(self._norms).double().tolist() if self._norms else []
        flags = (is_out_of_time, is_save_due, is_stop_requested)
        parts = all_gather_object((losses, self._tokens, self._arithmetic, *flags), self._worker)  # all ranks
        summed = [sum(step_losses) for step_losses in zip(*(part[0] for part in parts), strict=True)]
        finite = [math.isfinite(loss) for loss in summed]
        for index, norm in enumerate(norms):
            finite[index] = finite[index] and math.isfinite(norm)
        stats = StepStats(
            losses=summed,
            grad_norm=norms[-1] if norms else 0.0,
            first_bad=finite.index(False) if False in finite else None,
            steps=len(losses),
            rows=self._rows,
            divisor=self._divisor,
            tokens=sum(part[1] for part in parts),
            arithmetic=sum(part[2] for part in parts),
            is_out_of_time=parts[0][3],
            is_save_due=parts[0][4],
            is_stop_requested=parts[0][5],
        )
        self._clear()
        return stats
