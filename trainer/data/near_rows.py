"""The rows of one preparation that are near an earlier one. Needs some 60 bytes of memory for each row at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import lru_cache
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

    def candidates() -> Iterator[tuple[int, int]]:
        for band in range(n_bands):
            hashes = np.concatenate([block.bands[band] for block in whole.blocks()])
            yield from near.pairs(hashes[usable], rank[usable])

    text_of = _texts(whole)
    found = near.groups(candidates(), lambda place: text_of(int(row_of[place])), threshold)
    later: np.ndarray = row_of[np.fromiter(found, np.int64, len(found))]
    return later


def _in_order_of_parts(whole: Whole) -> np.ndarray:
    """Return all rows' numbers, those of training files first, else in the order of the files."""
    part_of_block = np.array([whole.file_parts[note.source] for note in whole.notes])
    blocks = np.argsort(part_of_block, kind="stable")
    return np.concatenate([np.arange(whole.starts[block], whole.starts[block + 1]) for block in blocks])


def _texts(whole: Whole) -> Callable[[int], str]:
    cleaner = Cleaner(whole.contract)

    @lru_cache(maxsize=16)
    def shard(name: str) -> pa.ChunkedArray:
        return read_ipc(whole.folder / SHARDS / f"{name}.arrow")[whole.task.subject]

    @lru_cache(maxsize=4096)
    def text(row: int) -> str:
        block = int(np.searchsorted(whole.starts, row, side="right")) - 1
        raw: str = shard(whole.notes[block].name)[row - int(whole.starts[block])].as_py()
        return cleaner([raw])[0][0] if cleaner else raw

    return text
