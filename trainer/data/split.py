"""Which rows are held out: a pure function of each row's content, its class, and the seed."""

from __future__ import annotations

import hashlib

import numpy as np

TRAIN, VALIDATION, TEST = 0, 1, 2
PARTS = ("train", "validation", "test")


def content_keys(*columns: list[str]) -> np.ndarray:
    """Return one uint64 for each row, from its content alone (BLAKE2b over the length-prefixed cells)."""
    keys = np.empty(len(columns[0]), dtype=np.uint64)
    for row, cells in enumerate(zip(*columns, strict=True)):
        hasher = hashlib.blake2b(digest_size=8)
        for cell in cells:
            data = cell.encode()
            hasher.update(len(data).to_bytes(4, "little"))
            hasher.update(data)
        keys[row] = int.from_bytes(hasher.digest(), "little")
    return keys


def hold_out(
    keys: np.ndarray, classes: np.ndarray, *, validation: float, test: float, seed: int, stratify: bool
) -> np.ndarray:
    """Return the part (0 train, 1 validation, 2 test) of each row, int8, shape (rows,).

    Within each class rows are ordered by a hash of content and seed; the first share is the test part, the next the
    validation part. The position of a row in its file does not matter, and equal rows always share a part.
    """
    order_keys = _mix(keys, seed)
    groups = classes if stratify else np.zeros(len(keys), dtype=np.int32)
    parts = np.full(len(keys), TRAIN, dtype=np.int8)
    for group in np.unique(groups):
        members = np.flatnonzero(groups == group)
        n_test = round(len(members) * test)
        n_held = n_test + round(len(members) * validation)
        _, run_B, counts = np.unique(order_keys[members], return_inverse=True, return_counts=True)
        start = np.cumsum(counts) - counts  # of each run of equal rows, in hash order
        part_of_run = np.where(start < n_test, TEST, np.where(start < n_held, VALIDATION, TRAIN))
        part_of_run[-1] = TRAIN  # every class keeps a row to learn from
        parts[members] = part_of_run[run_B]
    return parts


def _mix(keys: np.ndarray, seed: int) -> np.ndarray:
    """Return the keys stirred with the seed (the finaliser of SplitMix64, wrapping)."""
    with np.errstate(over="ignore"):
        mixed = keys ^ np.uint64((seed * 0x9E3779B97F4A7C15) & 0xFFFFFFFFFFFFFFFF)
        mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return mixed ^ (mixed >> np.uint64(31))
