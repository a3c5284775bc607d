"""The training loss: the task's objective, the target's own loss with the spec's options, or a user's function.

The options are `train.loss` in trainer/spec/train.py.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from cluster.errors import SpecError
from trainer.contract import user_code
from trainer.spec.train import LossSpec
from trainer.targets.base import Target
from trainer.tasks.objective import Objective
from trainer.training.context import TrainContext

if TYPE_CHECKING:
    import torch

    #: Maps logits (B, C), targets and class weights (or None) to the loss summed over the rows.
    LossSum = Callable[[torch.Tensor, torch.Tensor, "torch.Tensor | None"], torch.Tensor]


_KEY = "train.loss.function"  # also in trainer.tasks.load_spec, which does not import torch


def make_objective(context: TrainContext) -> Objective:
    """Return what the training minimizes: the task's objective, or the loss of its target by row."""
    import torch

    task, spec, prepared = context.task, context.spec, context.prepared
    own = task.objective(spec, prepared.contract)
    if own is not None:
        return own
    weights = prepared.summary["class_weights"]
    device = context.worker.device
    return TargetLoss(
        make_loss(spec.train.loss, task.target), torch.tensor(weights, device=device) if weights else None
    )


class TargetLoss:
    """The loss of a model's `logits` by row. Implements `Objective`."""

    def __init__(self, loss: LossSum, class_weights: torch.Tensor | None) -> None:
        self._loss, self._class_weights = loss, class_weights

    def weight(self, inputs: np.ndarray) -> int:
        return 1

    def loss_sum(self, forward: Callable[..., Any], batch: Mapping[str, Any], targets: torch.Tensor) -> torch.Tensor:
        return self._loss(forward(**batch).logits, targets, self._class_weights)


def make_loss(spec: LossSpec, target: Target) -> LossSum:
    """Return the function that computes the summed loss of a batch.

    Raises `SpecError` if the user's function does not exist. The returned function raises `SpecError` if the user's
    function does not return one number.
    """
    if spec.function:
        return _load_user_loss(spec.function)
    if spec == LossSpec():
        return target.loss_sum  # a custom target's `loss_sum` may not take the options
    return lambda logits, targets, weights: target.loss_sum(logits, targets, weights, spec)


def _load_user_loss(path: str) -> LossSum:
    import torch

    function = user_code.load_user_object(user_code.find_source(path, _KEY))

    def loss_sum(logits: torch.Tensor, targets: torch.Tensor, weights: torch.Tensor | None) -> torch.Tensor:
        loss = function(logits, targets, weights)
        if not isinstance(loss, torch.Tensor) or loss.ndim:
            shape = tuple(loss.shape) if isinstance(loss, torch.Tensor) else type(loss).__name__
            raise SpecError(f"{_KEY}: {path} returned {shape}, not one number", "return the loss summed over all rows")
        return loss

    return loss_sum
