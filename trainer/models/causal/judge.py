"""The statistics of rows under a model: no gradients, no logits that stay in memory. Letters in shapes: B rows."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from trainer.models.causal.batch import N_STATISTICS, pack_rows, row_statistics
from trainer.models.causal.sharing import share_within


def judge_rows(model: Any, rows: list[np.ndarray], max_rows: int, max_tokens: int, device: str) -> np.ndarray:
    """Return each row's statistics, float64, shape (B, 3), in the order of `rows`.

    `model` has `use_packed_forward`. A pass takes at most `max_rows` rows and `max_tokens` tokens, or one longer row. A
    row without learned tokens is judged on all its tokens. If the model is sharded, all ranks call this.
    """
    model.eval()
    statistics = np.zeros((len(rows), N_STATISTICS))
    passes = _plan_passes(rows, max_rows, max_tokens)
    # Not inference mode: see `trainer.tasks.forward`.
    with torch.no_grad():
        for number in range(_passes_of_all_ranks(model, len(passes))):
            own = passes[min(number, len(passes) - 1)] if passes else np.arange(0)
            chosen = [rows[row] for row in own] or [np.zeros(2, np.int32)]
            batch = pack_rows(chosen, judge_all=True)
            losses = model(**{name: value.to(device) for name, value in batch.items()})
            if number < len(passes):
                statistics[own] = row_statistics(batch, losses)
    return statistics


def _plan_passes(rows: list[np.ndarray], max_rows: int, max_tokens: int) -> list[np.ndarray]:
    """Return the rows of each pass; rows of similar length share one."""
    lengths = np.array([len(row) for row in rows], np.int64)
    order = np.argsort(-lengths, kind="stable")
    groups = [order[start : start + max_rows] for start in range(0, len(order), max_rows)]
    return [group[share] for group in groups for share in share_within(lengths[group], max_tokens)]


def _passes_of_all_ranks(model: torch.nn.Module, own: int) -> int:
    """Return the number of passes to take: the same on all ranks if they compute together, because weights are sharded."""
    from torch.distributed.fsdp import FSDPModule

    if not isinstance(model, FSDPModule):
        return own
    most = torch.tensor(own)
    if torch.distributed.get_backend() == "nccl":
        most = most.cuda()
    torch.distributed.all_reduce(most, torch.distributed.ReduceOp.MAX)
    return int(most)
