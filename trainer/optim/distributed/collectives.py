"""What the workers of one training tell each other beside gradients. All ranks call these alike."""

from __future__ import annotations

from typing import TypeVar

from trainer.optim.distributed.worker_context import Place

T = TypeVar("T")


def agreed(value: T, place: Place) -> T:
    """Return rank 0's value."""
    if place.workers == 1:
        return value
    import torch

    box = [value]
    torch.distributed.broadcast_object_list(box, src=0)
    return box[0]


def gathered(value: T, place: Place) -> list[T]:
    """Return the values of all ranks, by rank."""
    if place.workers == 1:
        return [value]
    import torch

    found: list[T | None] = [None] * place.workers
    torch.distributed.all_gather_object(found, value)
    return found  # type: ignore[return-value]
