"""Calibration of a classifier: whether 80 % of the answers with a score of 0.8 are right. Letters: B rows, C classes."""

from __future__ import annotations

from typing import Any

import numpy as np


def calibration(scores_BC: np.ndarray, targets_B: np.ndarray, n_bins: int) -> dict[str, Any]:
    """Return the expected calibration error of the highest score (Guo et al. 2017), and its bins that hold rows.

    Bins have equal widths, and a score on an edge belongs to the bin below. The error is a mean over the rows: a bin
    counts as often as it has rows.
    """
    confidence_B = scores_BC.max(axis=1)
    right_B = scores_BC.argmax(axis=1) == targets_B
    bin_B = np.searchsorted(np.linspace(0.0, 1.0, n_bins + 1)[1:-1], confidence_B)
    counts = np.bincount(bin_B, minlength=n_bins)
    filled = np.flatnonzero(counts)
    confidence = np.bincount(bin_B, weights=confidence_B, minlength=n_bins)[filled] / counts[filled]
    accuracy = np.bincount(bin_B, weights=right_B, minlength=n_bins)[filled] / counts[filled]
    return {
        "error": float((np.abs(confidence - accuracy) * counts[filled]).sum() / len(targets_B)),
        "bins": [
            {"confidence": float(c), "accuracy": float(a), "rows": int(n)}
            for c, a, n in zip(confidence, accuracy, counts[filled], strict=True)
        ],
    }
