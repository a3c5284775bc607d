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
    """Return 1 - p for cross entropies -log(p): the probability that the model does not give to the truth.

    Focal loss weights rows by it.
    """
    import torch

    # Not quite 0: the gradient of a power below 1 is infinite there.
    return (-torch.expm1(-losses)).clamp_min(1e-7)
