"""The log-probability of each learned token of some rows, without gradients. Letters in shapes: T learned tokens of a row."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from trainer.models.causal.batch import pack_rows, row_numbers
from trainer.models.causal.sharing import share_within


def token_log_probs(model: Any, rows: Sequence[np.ndarray], max_tokens: int, device: str) -> list[np.ndarray]:
    """Return the log-probabilities of each row's learned tokens, float32, shape (T,) each, in the order of `rows`.

    `model` has `use_packed_forward`, and is in evaluation mode afterwards. A pass takes at most `max_tokens` tokens, or one
    longer row.
    """
    model.eval()
    result: list[np.ndarray] = [np.empty(0, np.float32)] * len(rows)
    lengths = np.array([len(row) for row in rows], np.int64)
    with torch.no_grad():
        for share in share_within(lengths, max_tokens) if len(rows) else []:
            batch = pack_rows([rows[row] for row in share])
            nll = model(**{name: value.to(device) for name, value in batch.items()}).nll.float().cpu().numpy()
            counts = np.bincount(row_numbers(batch), minlength=len(share))
            for row, values in zip(share, np.split(-nll, np.cumsum(counts)[:-1]), strict=True):
                result[row] = values
    return result
