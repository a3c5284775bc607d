"""What a training makes small: the target's own loss, as the spec has it, or a function of the user's."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from cluster.errors import SpecError
from trainer.contract import user_code
from trainer.spec.train import Loss
from trainer.targets.base import Target

if TYPE_CHECKING:
    import torch

    #: Logits (B, C), targets and class weights (or None) to the loss summed over the rows.
    LossSum = Callable[[torch.Tensor, torch.Tensor, "torch.Tensor | None"], torch.Tensor]


_KEY = "train.loss.function"  # also in trainer.tasks.resolve, which must not import torch's side


def loss_of(how: Loss, target: Target) -> LossSum:
    """Return the summed loss of a batch. Raises `SpecError` for a function that is not there, or not the user's."""
    if how.function:
        return _own(how.function)
    if how == Loss():
        return target.loss_sum  # a target of the user's own need not know of anything else
    return lambda logits, targets, weights: target.loss_sum(logits, targets, weights, how)


def _own(path: str) -> LossSum:
    import torch

    function = user_code.load(user_code.find(path, _KEY))

    def loss_sum(logits: torch.Tensor, targets: torch.Tensor, weights: torch.Tensor | None) -> torch.Tensor:
        found = function(logits, targets, weights)
        if not isinstance(found, torch.Tensor) or found.ndim:
            shape = tuple(found.shape) if isinstance(found, torch.Tensor) else type(found).__name__
            raise SpecError(f"{_KEY}: {path} returned {shape}, not one number", "return the loss summed over all rows")
        return found

    return loss_sum
