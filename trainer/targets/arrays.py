"""Small helpers on columns and arrays that the targets share."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

if TYPE_CHECKING:
    import torch


def reason_where(condition: pa.ChunkedArray, reason: str) -> pa.ChunkedArray:
    """Return `reason` where `condition` holds, else null."""
    return pc.if_else(condition, reason, pa.scalar(None, pa.string()))


def codes_of_hashes(keys: np.ndarray) -> np.ndarray:
    """Return non-negative int32 codes for uint64 hashes."""
    return (keys >> np.uint64(33)).astype(np.int32)


def missed_probability(losses: torch.Tensor) -> torch.Tensor:
    """Return 1 - p for cross entropies -log(p), where p is the probability that the model gives to the true label.

    Focal loss (`train.loss.kind: focal`) weights rows by it.
    """
    import torch

    # At least 1e-7: for an exponent below 1, the gradient of the power is infinite at 0.
    return (-torch.expm1(-losses)).clamp_min(1e-7)
