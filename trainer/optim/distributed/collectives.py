"""Collectives for Python objects between the workers of one training. All ranks call them in the same order."""

from __future__ import annotations

from typing import TypeVar

from trainer.optim.distributed.worker_context import WorkerContext

T = TypeVar("T")


def broadcast_object(value: T, worker: WorkerContext) -> T:
    """Return rank 0's value."""
    if worker.workers == 1:
        return value
    import torch

    box = [value]
    torch.distributed.broadcast_object_list(box, src=0)
    return box[0]


def all_gather_object(value: T, worker: WorkerContext) -> list[T]:
    """Return the values of all ranks, in the order of the ranks."""
    if worker.workers == 1:
        return [value]
    import torch

    values: list[T | None] = [None] * worker.workers
    torch.distributed.all_gather_object(values, value)
    return values  # type: ignore[return-value]
