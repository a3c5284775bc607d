"""Verdicts on rows: why comparing all rows with one another rules a row out."""

from __future__ import annotations

import numpy as np

from trainer.data.parts import TRAIN, VALIDATION

#: The reason of each verdict, in order of precedence. Verdict 0 means that the row is used.
REASONS = (
    "",
    "unknown label",
    "contradicting labels",
    "also in train",
    "also in validation",
    "duplicate",
    "near-duplicate",
    "left out by sample",
    "left out by balance",
)
UNKNOWN, CONTRADICTING, IN_TRAIN, IN_VALIDATION, DUPLICATE, NEAR, SAMPLED, BALANCED = range(1, len(REASONS))


def compare_rows(keys: np.ndarray, parts: np.ndarray, codes: np.ndarray, allowed: set[int]) -> np.ndarray:
    """Return a verdict (uint8) for each row. Rows must be sorted by key, part, target code and row number.

    No row gets a verdict that is in `allowed`.
    """
    verdicts = np.zeros(len(keys), np.uint8)
    if not len(keys):
        return verdicts
    new_key = np.concatenate([[True], keys[1:] != keys[:-1]])
    new_part = new_key | np.concatenate([[True], parts[1:] != parts[:-1]])
    new_target = new_part | np.concatenate([[True], codes[1:] != codes[:-1]])
    key_run, key_starts = np.cumsum(new_key) - 1, np.flatnonzero(new_key)
    in_train = np.logical_or.reduceat(parts == TRAIN, key_starts)[key_run]
    in_validation = np.logical_or.reduceat(parts == VALIDATION, key_starts)[key_run]
    part_run, part_starts = np.cumsum(new_part) - 1, np.flatnonzero(new_part)
    targets_differ = np.minimum.reduceat(codes, part_starts) != np.maximum.reduceat(codes, part_starts)
    rows_by_verdict = {
        DUPLICATE: ~new_target,
        IN_VALIDATION: (parts > VALIDATION) & in_validation,
        IN_TRAIN: (parts > TRAIN) & in_train,
        CONTRADICTING: targets_differ[part_run],
        UNKNOWN: codes < 0,
    }
    for verdict, rows in rows_by_verdict.items():  # later entries take precedence
        if verdict not in allowed:
            verdicts[rows] = verdict
    return verdicts
