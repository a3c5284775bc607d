"""The rows of one preparation that are near an earlier one.

Needs some 60 bytes of memory for each row at a time, and the texts of those that have a candidate.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from trainer.data import near
from trainer.data.blocks import SHARDS, read_ipc
from trainer.steps import Cleaner

if TYPE_CHECKING:
    from trainer.data.whole import Whole


def later_ones(whole: Whole, threshold: float) -> np.ndarray:
    """Return the numbers (int64) of usable rows that are near an earlier one, directly or over others.

    Rows of the training files stand before those of the validation and test files, so that a held-out row goes and not
    the training row.
    """
    row_of = _in_order_of_parts(whole)
    rank = np.empty_like(row_of)
    rank[row_of] = np.arange(len(row_of))
    usable = row_of[whole.verdicts[row_of] == 0]
    n_bands = len(next(whole.blocks()).bands)

    pairs = set[tuple[int, int]]()
    for band in range(n_bands):
        hashes = np.concatenate([block.bands[band] for block in whole.blocks()])
        pairs.update(near.pairs(hashes[usable], rank[usable]))
    texts = _texts(whole, np.unique(row_of[np.array(sorted({row for pair in pairs for row in pair}), np.int64)]))
    found = near.groups(sorted(pairs), lambda place: texts[int(row_of[place])], threshold)
    later: np.ndarray = row_of[np.fromiter(found, np.int64, len(found))]
    return later


def _in_order_of_parts(whole: Whole) -> np.ndarray:
    """Return all rows' numbers, those of training files first, else in the order of the files."""
    part_of_block = np.array([whole.file_parts[note.source] for note in whole.notes])
    blocks = np.argsort(part_of_block, kind="stable")
    return np.concatenate([np.arange(whole.starts[block], whole.starts[block + 1]) for block in blocks])


def _texts(whole: Whole, rows: np.ndarray) -> dict[int, str]:
    """Return the cleaned texts of `rows` (ascending numbers), each block read once."""
    cleaner = Cleaner(whole.contract)
    found: dict[int, str] = {}
    borders = np.searchsorted(rows, whole.starts)
    for note, start, first, end in zip(whole.notes, whole.starts, borders, borders[1:], strict=False):
        if first < end:
            here = rows[first:end]
            shard = read_ipc(whole.folder / SHARDS / f"{note.name}.arrow").select(list(whole.task.texts))
            columns = [column.to_pylist() for column in shard.take(pa.array(here - start)).columns]
            cleaned = [cleaner(texts)[0] if cleaner else texts for texts in columns]
            found.update(zip(here.tolist(), map(" ".join, zip(*cleaned, strict=True)), strict=True))
    return found
