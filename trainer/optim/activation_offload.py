"""Activation offload: what a backward pass needs waits in main memory, so that a GPU holds longer sequences."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch

# Smaller tensors cost more to copy than they free.
_SMALLEST = 1 << 18


@contextlib.contextmanager
def offload_activations(model: torch.nn.Module) -> Iterator[None]:
    """While the block runs, copy the large tensors that autograd saves to main memory, except for the model's weights.

    The backward pass copies them back, one by one. On a CPU, the copies are made as well, so that tests cover them.
    """
    weights = {value.untyped_storage().data_ptr() for value in model.parameters()}

    def pack(value: torch.Tensor) -> torch.Tensor | tuple[torch.device, torch.Tensor]:
        if value.numel() < _SMALLEST or value.untyped_storage().data_ptr() in weights:
            return value
        copy = torch.empty(value.shape, dtype=value.dtype, device="cpu", pin_memory=value.is_cuda)
        copy.copy_(value, non_blocking=value.is_cuda)
        return value.device, copy

    def unpack(saved: torch.Tensor | tuple[torch.device, torch.Tensor]) -> torch.Tensor:
        if isinstance(saved, torch.Tensor):
            return saved
        device, copy = saved
        return copy.to(device, non_blocking=True)

    with torch.autograd.graph.saved_tensors_hooks(pack, unpack):
        yield
