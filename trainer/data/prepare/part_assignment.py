"""Assign a part (train, validation or test) to every row."""

from __future__ import annotations

import numpy as np

from trainer.contract.row_hash import hash_position
from trainer.data.parts import PARTS, TRAIN
from trainer.data.prepare.facts import Block, Facts
from trainer.data.prepare.split import (
    NEVER_REACHED,
    held_out_shares,
    split_by_time,
    split_training_rows,
    stratify_moves,
)
from trainer.spec.data import DataSpec


def assign_parts(facts: Facts, data: DataSpec, verdicts: np.ndarray) -> np.ndarray:
    """Return each row's part, int8, shape (rows,).

    Rows of validation and test files have their file's part; the split (`data.split` in trainer/spec/split.py) assigns
    the rows of training files. Rows with a verdict get a part too, but do not count toward shares and classes.
    """
    file_parts = [PARTS[part] for part in facts.file_parts]
    validation, test = held_out_shares(data.split, file_parts)
    borders = None
    if data.split.by == "time" and not data.split.test_from:
        borders = _time_borders(facts, verdicts, validation, test)
    parts = np.zeros(facts.n_rows, np.int8)
    for block in facts.blocks():
        if block.file_part != TRAIN:
            parts[block.rows] = block.file_part
        elif borders:
            parts[block.rows] = split_by_time(block.order, *borders)
        else:
            parts[block.rows] = split_training_rows(block.order, data.split, file_parts)
    if data.split.by == "content" and data.split.stratify and data.mode == "prepared":
        moves = stratify_moves(facts.counts(verdicts, parts, file_part=TRAIN), validation, test)
        _move_rows(facts, verdicts, parts, moves, data.split.seed)
    return parts


def _usable(block: Block, verdicts: np.ndarray) -> np.ndarray:
    usable: np.ndarray = verdicts[block.rows] == 0
    return usable


def _time_borders(facts: Facts, verdicts: np.ndarray, validation: float, test: float) -> tuple[int, int]:
    """Return the times from which rows are validation and test rows, so that the newest rows make up the shares."""
    times = np.sort(
        np.concatenate([block.order[_usable(block, verdicts)] for block in facts.blocks() if block.file_part == TRAIN])
    )

    def border(share: float) -> int:
        if not share or not len(times):
            return NEVER_REACHED
        return int(times[min(len(times) - 1, round(len(times) * (1 - share)))])

    return border(validation + test) if validation else NEVER_REACHED, border(test)


def _move_rows(
    facts: Facts, verdicts: np.ndarray, parts: np.ndarray, moves: list[tuple[int, int, int]], seed: int
) -> None:
    """Apply `moves` (class, from part, to part) to `parts`: each takes the row whose hash is nearest the new part."""
    if not moves:
        return
    classes = sorted({label for label, _, _ in moves})
    members: dict[int, list[tuple[float, int]]] = {label: [] for label in classes}
    for block in facts.blocks():
        if block.file_part == TRAIN:
            rows = np.flatnonzero(np.isin(block.groups, classes) & _usable(block, verdicts))
            for row, position in zip(rows, hash_position(block.order[rows], seed), strict=True):
                members[int(block.groups[row])].append((float(position), block.start + int(row)))
    for label, source, destination in moves:
        # Held-out parts have the lowest positions, so a row for the training part is taken from the high end.
        by_position = [row for _, row in sorted(members[label], reverse=destination == TRAIN)]
        for nearest in [row for row in by_position if parts[row] == source][:1]:
            parts[nearest] = destination
