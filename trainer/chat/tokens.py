"""Token ids with the mask of what is learned, in one array: a token that is not learned is stored as `~id`.

So a prepared row stays one list of numbers, and ids and mask cannot be separated.
"""

from __future__ import annotations

import numpy as np


def join_mask(ids: np.ndarray, learned: np.ndarray) -> np.ndarray:
    """Return int32 tokens, shape (T,), from ids and a bool mask of the same shape."""
    ids = np.asarray(ids, np.int32)
    return np.where(learned, ids, ~ids)


def token_ids(tokens: np.ndarray) -> np.ndarray:
    """Return the int32 ids of `tokens`, shape (T,)."""
    return np.where(tokens < 0, ~tokens, tokens)


def learned_mask(tokens: np.ndarray) -> np.ndarray:
    """Return which of `tokens` are learned, bool, shape (T,)."""
    return tokens >= 0
