"""Batches of packed rows, and the statistics of each row.

A row is an int32 array of tokens as in `trainer.chat.tokens`. Letters in shapes: T tokens of all rows, N predicted
tokens, B rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from trainer.chat.tokens import learned_mask, token_ids
from trainer.models.causal.packed import PackedSegments, position_ids
from trainer.models.causal.token_loss import TokenLosses

#: Statistics of a row: negative log-likelihood summed over its judged tokens, their number, how many are predicted right.
N_STATISTICS = 3


def count_learned(tokens: np.ndarray) -> int:
    """Return how many tokens of a row are learned. The first token follows nothing, so it is never predicted."""
    return int(np.count_nonzero(tokens[1:] >= 0))


def pack_rows(rows: Sequence[np.ndarray], *, judge_all: bool = False) -> dict[str, Any]:
    """Return the arguments of a model with `use_packed_forward` for rows side by side.

    `input_ids`, `position_ids` (1, T), `segments`, `predicted` and `next_ids` (N,): the learned tokens of all rows in
    order. With `judge_all`, a row without any learned token has all its tokens but the first predicted.
    """
    lengths = [len(row) for row in rows]
    joined = np.concatenate(rows)
    is_predicted = learned_mask(joined)
    starts = np.cumsum([0, *lengths[:-1]])
    if judge_all:
        for row, start in zip(rows, starts, strict=True):
            if not count_learned(row):
                is_predicted[start : start + len(row)] = True
    is_predicted[starts] = False
    ids = token_ids(joined).astype(np.int64)
    positions = np.flatnonzero(is_predicted)
    return {
        "input_ids": torch.from_numpy(ids)[None],
        "position_ids": position_ids(lengths),
        "segments": PackedSegments(lengths),
        "predicted": torch.from_numpy(positions - 1),
        "next_ids": torch.from_numpy(ids[positions]),
    }


def row_numbers(batch: dict[str, Any]) -> np.ndarray:
    """Return the row of each predicted token of a batch, int64, shape (N,)."""
    ends = np.cumsum(batch["segments"].lengths)
    return np.searchsorted(ends, batch["predicted"].cpu().numpy(), side="right")


def row_statistics(batch: dict[str, Any], losses: TokenLosses) -> np.ndarray:
    """Return each row's statistics, float64, shape (B, 3), from the losses of its tokens."""
    rows, n_rows = row_numbers(batch), len(batch["segments"].lengths)
    nll, is_right = losses.nll.detach().double().cpu().numpy(), losses.is_right.double().cpu().numpy()
    columns = [np.bincount(rows, weights, n_rows) for weights in (nll, np.ones(len(rows)), is_right)]
    return np.stack(columns, axis=1)
