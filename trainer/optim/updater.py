"""What turns gradients into new weights, and keeps all that belongs to it. One object a worker; all ranks call it alike."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import torch


class Updater(Protocol):
    """An optimiser with its gradients, its rates, and the values it works on."""

    @property
    def values(self) -> dict[str, torch.Tensor]:
        """The parameters that learn, by name, in fp32: the truth, whatever the model multiplies in."""

    def set_rates(self, step: int) -> None:
        """Set the learning rates of `step` (from 0 over all epochs)."""

    def rate_of(self, parameter: torch.Tensor) -> float:
        """Return the present learning rate of one parameter."""

    def backward(self, loss_sum: torch.Tensor, rows: int, *, more: bool) -> None:
        """Add the gradients of one pass up: of a loss summed over this worker's rows of a step that has `rows` in all.

        `more` says whether the step has several passes.
        """

    def update(self) -> torch.Tensor | None:
        """Take the step with the gradients of all workers, clipped; they are zero afterwards.

        Returns their norm before clipping. None in fp16: a step whose gradient is no number is left out, and the loss is
        scaled less from then on.
        """

    def was_left_out(self) -> bool:
        """Whether the last `update` left the step out."""

    def publish(self) -> None:
        """Give the model what was written into `values`."""

    def state(self) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
        """Return the optimiser's tensors by `<parameter>.<key>`, whole, and what else it keeps as JSON."""

    def restore(self, tensors: dict[str, torch.Tensor], others: dict[str, Any]) -> None:
        """Take over what `state` returned, on as many workers or others."""
