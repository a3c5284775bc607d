"""The optimiser of a training in torch, and how its workers share a step."""

from __future__ import annotations

from typing import TYPE_CHECKING

from trainer.spec import Train

if TYPE_CHECKING:
    import torch


def optimizer(
    model: torch.nn.Module, train: Train, n_steps: int
) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler]:
    """Return AdamW, with weight decay on matrices only, and its schedule: a linear rise, then a linear fall to 0."""
    import torch

    with_decay = [p for p in model.parameters() if p.requires_grad and p.ndim > 1]
    without = [p for p in model.parameters() if p.requires_grad and p.ndim <= 1]
    groups = [{"params": with_decay, "weight_decay": train.weight_decay}, {"params": without, "weight_decay": 0.0}]
    made = torch.optim.AdamW(groups, lr=train.learning_rate, fused=True)
    warmup = max(1, round(n_steps * train.warmup_fraction))

    def factor(step: int) -> float:
        if step < warmup:
            return (step + 1) / (warmup + 1)
        return max(0.0, (n_steps - step) / max(1, n_steps - warmup))

    return made, torch.optim.lr_scheduler.LambdaLR(made, factor)


def distributed(model: torch.nn.Module, device: str, workers: int) -> torch.nn.Module:
    """Return the model that averages gradients over the workers of this process group; all ranks call this."""
    if workers == 1:
        return model
    from torch.nn.parallel import DistributedDataParallel

    return DistributedDataParallel(model, device_ids=[device] if device.startswith("cuda") else None)
