"""The state of a training. With it and the saved tensors, a run resumes as if it had never stopped."""

from __future__ import annotations

from pydantic import BaseModel


class TrainState(BaseModel):
    """The position of the next step, and the totals up to it."""

    epoch: int = 1
    """The epoch of the next step, from 1."""
    step_in_epoch: int = 0
    """Steps done in this epoch."""
    step: int = 0
    """Steps done in all epochs."""
    rows: int = 0
    """Rows trained on, by all workers together."""
    loss_sum: float = 0.0
    """The summed loss of this epoch's rows so far, over all workers."""
    divisor: int = 0
    """What `loss_sum` is divided by: this epoch's rows so far, or their learned tokens."""
    seconds: float = 0.0
    """Seconds of training, including those before an interruption."""
    best: float | None = None
    """The best value of `evaluate.metric` so far."""
    best_epoch: int = 0
    """The epoch with the best value; its model is saved beside the checkpoints."""
    since_best: int = 0
    """Epochs since the best epoch."""

    def advance(self, rows: int, divisor: int) -> None:
        """Move past one step of `rows` rows whose loss is divided by `divisor`."""
        self.step_in_epoch += 1
        self.step += 1
        self.rows += rows
        self.divisor += divisor

    def begin_next_epoch(self) -> None:
        """Move to the first step of the next epoch."""
        self.epoch, self.step_in_epoch, self.loss_sum, self.divisor = self.epoch + 1, 0, 0.0, 0
