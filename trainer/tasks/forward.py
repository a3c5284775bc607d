"""Batched prediction with a torch model."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch


def torch_forward(
    model: torch.nn.Module,
    collate: Callable[[list[np.ndarray]], dict[str, torch.Tensor]],
    inputs: list[np.ndarray],
    batch_size: int,
    device: str,
    width: int,
) -> np.ndarray:
    """Return float32 logits, shape (rows, `width`), in the order of `inputs`; rows of similar length share a batch."""
    import torch

    model.eval()
    order = np.argsort([-len(ids) for ids in inputs], kind="stable")
    parts = []
    # Not inference mode: a sharded model gathers its parameters here, and tensors that are gathered in inference mode
    # could not be used by the next training step.
    with torch.no_grad():
        for start in range(0, len(order), batch_size):
            batch = collate([inputs[row] for row in order[start : start + batch_size]])
            logits_BC = model(**{name: value.to(device) for name, value in batch.items()}).logits
            parts.append(logits_BC.float().cpu().numpy())
    if not parts:
        return np.empty((0, width), dtype=np.float32)
    sorted_logits = np.concatenate(parts)
    logits = np.empty_like(sorted_logits)
    logits[order] = sorted_logits
    return logits
