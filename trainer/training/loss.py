"""The training loss: the target's own loss with the spec's options, or a user's function.

The options are `train.loss` in trainer/spec/train.py.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from cluster.errors import SpecError
from trainer.contract import user_code
from trainer.spec.train import LossSpec
from trainer.targets.base import Target

if TYPE_CHECKING:
    import torch

    #: Maps logits (B, C), targets and class weights (or None) to the loss summed over the rows.
    LossSum = Callable[[torch.Tensor, torch.Tensor, "torch.Tensor | None"], torch.Tensor]


_KEY = "train.loss.function"  # also in trainer.tasks.load_spec, which does not import torch


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
