"""Learning rate schedules. Each is a pure function of the step, so a checkpoint stores no schedule state.

The names are `train.schedule` in trainer/spec/train.py.
"""

from __future__ import annotations

import math

from trainer.spec.train import TrainSpec


def lr_factor(train: TrainSpec, step: int, n_steps: int) -> float:
    """Return the share of the peak learning rate at `step` (from 0) of `n_steps`: a warm-up, then a decay."""
    warmup = max(1, round(n_steps * train.warmup_share))
    if step < warmup:
        return (step + 1) / (warmup + 1)
    left, falling = n_steps - step, max(1, n_steps - warmup)
    if train.schedule == "constant":
        return 1.0
    if train.schedule == "cosine":
        return 0.5 * (1.0 + math.cos(math.pi * min(1.0, (step - warmup) / falling)))
    if train.schedule == "wsd":
        falling = min(falling, max(1, round(n_steps * train.decay_fraction)))
    return max(0.0, min(1.0, left / falling))
