"""What a training minimizes, if it is not the target's loss of a row's outputs.

A step's loss is a sum over its rows, divided by the summed `weight` of all its rows on all workers. Both depend on the
rows alone, so neither the number of workers nor the number of passes changes a step.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

if TYPE_CHECKING:
    import torch


class Objective(Protocol):
    """The loss of a batch as a sum, and what each row adds to the number by which a step's loss is divided."""

    def weight(self, inputs: np.ndarray) -> int:
        """Return a row's share of the divisor, from its model input: 1 for a row, or its number of learned tokens."""

    def loss_sum(self, forward: Callable[..., Any], batch: Mapping[str, Any], targets: torch.Tensor) -> torch.Tensor:
        """Return the summed loss of a batch, one number with a gradient.

        `forward` is the model, wrapped for distributed training: call it once, as `forward(**batch)`. `batch` is what
        `Task.collate` returned, on the model's device; `targets` is what `Target.tensor` returned.
        """
