"""What a method of `train.method` does around the steps of the training loop. The default does nothing.

Letters in shapes: B rows of validation.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from trainer.optim.precision import Precision
from trainer.training.batch_source import BatchSource, BatchStep
from trainer.training.context import TrainContext

if TYPE_CHECKING:
    import torch


class TrainingMethod:
    """Prepares the rows of a training and of each step, and judges validation rows. All ranks call all methods."""

    def __init__(self, context: TrainContext, batches: BatchSource, precision: Precision) -> None:
        self.context, self.batches, self.precision = context, batches, precision

    def begin(self, model: Any) -> None:
        """Prepare the rows. `model` has the weights that training starts from, also in a run that resumes later steps."""

    def prepare(self, model: Any, step: BatchStep, epoch: int, number: int) -> BatchStep:
        """Return what the loss of step `number` (from 0) of `epoch` is computed from. `model` is the one that learns."""
        return step

    def step_metrics(self) -> dict[str, float]:
        """Return metrics of the last step for the log."""
        return {}

    def metrics(self, model: torch.nn.Module, scores: np.ndarray) -> dict[str, float]:
        """Return metrics of the validation rows besides those of the target, from their scores (B, C)."""
        return {}
