"""How far a training is: with it and the saved tensors a run goes on as if it had never stopped."""

from __future__ import annotations

from pydantic import BaseModel


class Position(BaseModel):
    """The place of the next step, and what was counted up to it."""

    epoch: int = 1
    """The epoch that the next step belongs to, from 1."""
    step_in_epoch: int = 0
    """Steps of it that are done."""
    step: int = 0
    """Steps of all epochs that are done."""
    rows: int = 0
    """Rows that were trained on, of all workers together."""
    loss_sum: float = 0.0
    """Of this epoch's rows so far, of all workers together."""
    seconds: float = 0.0
    """Of training, those before an interruption included."""
    best: float | None = None
    """The best value of `evaluate.metric` so far."""
    best_epoch: int = 0
    """The epoch that has it; its model lies beside the checkpoints."""
    since_best: int = 0
    """Epochs that were no better since then."""

    def after(self, rows: int) -> None:
        """Move on by one step of so many rows."""
        self.step_in_epoch += 1
        self.step += 1
        self.rows += rows

    def next_epoch(self) -> None:
        """Move on to the first step of the next epoch."""
        self.epoch, self.step_in_epoch, self.loss_sum = self.epoch + 1, 0, 0.0
