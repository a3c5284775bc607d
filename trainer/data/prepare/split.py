"""Decide which rows are held out: a pure function of a row's own content (or group, or time) and the seed.

Other rows and a row's position in its file have no influence, so adding rows moves no existing row to another part.
The options are `data.split` in trainer/spec/split.py.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from cluster.errors import SpecError
from trainer.contract.row_hash import hash_position
from trainer.data.parts import TEST, TRAIN, VALIDATION
from trainer.spec.split import SplitSpec
from trainer.values.moments import EXAMPLES, parse_moment

#: A time that no row reaches.
NEVER_REACHED = np.iinfo(np.int64).max
#: `stratify` puts a class into every part only if the class has at least this many rows.
MIN_STRATIFIED_ROWS = 5


def split_by_hash(keys: np.ndarray, *, validation: float, test: float, seed: int) -> np.ndarray:
    """Return the part (0 train, 1 validation, 2 test) of each key, int8, shape (rows,). Equal keys share a part.

    The keys with the lowest hashes are the test part, the keys with the next lowest hashes are the validation part.
    """
    positions = hash_position(keys, seed)
    return np.where(positions < test, TEST, np.where(positions < test + validation, VALIDATION, TRAIN)).astype(np.int8)


def split_by_time(times: np.ndarray, validation_from: int, test_from: int) -> np.ndarray:
    """Return the part of each time, int8: the newest rows are the test part, those before them the validation part."""
    return np.where(times >= test_from, TEST, np.where(times >= validation_from, VALIDATION, TRAIN)).astype(np.int8)


def split_training_rows(order: np.ndarray, split: SplitSpec, file_parts: Iterable[str]) -> np.ndarray:
    """Return the part of each row of the training files, int8.

    `order` holds the values that the split uses: content keys, group keys or times. A part with files of its own gets
    no rows. A split by time with shares needs all rows: `trainer.data.prepare.part_assignment` makes it.
    """
    validation, test = held_out_shares(split, file_parts)
    if split.by != "time":
        return split_by_hash(order, validation=validation, test=test, seed=split.seed)
    assert split.validation_from and split.test_from
    return split_by_time(
        order,
        _border(split.validation_from) if validation else NEVER_REACHED,
        _border(split.test_from) if test else NEVER_REACHED,
    )


def held_out_shares(split: SplitSpec, file_parts: Iterable[str]) -> tuple[float, float]:
    """Return the shares of validation and test rows to hold out; 0 for a part that has files of its own."""
    parts = set(file_parts)
    return 0.0 if "validation" in parts else split.validation, 0.0 if "test" in parts else split.test


def _border(text: str) -> int:
    moment = parse_moment(text)
    if moment is None:
        raise SpecError(f"data.split: {text!r} is not an ISO 8601 time", f"write a time such as {EXAMPLES}")
    return moment


def stratify_moves(counts_CP: np.ndarray, validation: float, test: float) -> list[tuple[int, int, int]]:
    """Return (class, from part, to part) for each row to move, given the row counts by class and part, shape (C, 3).

    Every class keeps a training row; a class of `MIN_STRATIFIED_ROWS` rows or more gets a row in each held-out part.
    """
    moves = []
    held_out = [(TEST, test), (VALIDATION, validation)]
    for label, counts in enumerate(np.array(counts_CP)):
        total = int(counts.sum())
        for part, share in held_out:
            if share > 0 and total >= MIN_STRATIFIED_ROWS and counts[part] == 0 and counts[TRAIN] > 1:
                moves.append((label, TRAIN, part))
                counts[part] += 1
                counts[TRAIN] -= 1
        if total and counts[TRAIN] == 0:
            largest = int(counts.argmax())
            moves.append((label, largest, TRAIN))
    return moves
