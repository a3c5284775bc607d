"""The interface of an updater, which turns gradients into new weights and owns the optimizer's state."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import torch


class Updater(Protocol):
    """An optimizer with its gradients, its learning rates and its weights.

    Each worker has one; all workers make the same calls in the same order.
    """

    @property
    def values(self) -> dict[str, torch.Tensor]:
        """The trainable parameters by name: fp32 master weights, whatever the compute precision."""

    def set_learning_rates(self, step: int) -> None:
        """Set the learning rates of `step` (from 0 over all epochs)."""

    def learning_rate_of(self, parameter: torch.Tensor) -> float:
        """Return the current learning rate of one parameter."""

    def backward(self, loss_sum: torch.Tensor, divisor: int, *, more: bool) -> None:
        """Accumulate the gradients of one pass.

        `loss_sum` is summed over this worker's rows of the pass; the loss of a step is the sum over all workers
        divided by `divisor`; `more` says whether the step has several passes.
        """

    def update(self) -> torch.Tensor | None:
        """Take the step with the clipped gradients of all workers, then set them to zero.

        Return the norm of the gradients before clipping. Return None in fp16: there, a step with a non-finite gradient
        is skipped, and later losses are scaled by a smaller factor.
        """

    def was_skipped(self) -> bool:
        """Return whether the last `update` skipped the step."""

    def sync_model(self) -> None:
        """Copy `values` into the model. Call this after `values` were written to."""

    def state(self) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
        """Return the optimizer's full tensors by `<parameter>.<key>`, and the rest of its state as JSON values."""

    def restore(self, tensors: dict[str, torch.Tensor], others: dict[str, Any]) -> None:
        """Load what `state` returned, on any number of workers."""
