"""The rows of one preparation that are near an earlier one.

Needs some 60 bytes of memory for each row at a time, and the texts of those that have a candidate.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from trainer.data.arrow import read_ipc
from trainer.data.folder import SHARDS
from trainer.data.prepare import minhash
from trainer.data.prepare.facts import Facts
from trainer.steps.cleaner import Cleaner


def find_near_duplicates(facts: Facts, usable: np.ndarray, threshold: float) -> np.ndarray:
    """Return the numbers (int64) of the `usable` rows that are near-duplicates of an earlier row, directly or in a chain.

    Rows of the training files come before those of the validation and test files, so of a training row and a held-out
    row it is the held-out one that is returned.
    """
    row_of = _in_order_of_parts(facts)
    rank = np.empty_like(row_of)
    rank[row_of] = np.arange(len(row_of))
    candidates = row_of[usable[row_of]]
    n_bands = len(next(facts.blocks()).bands)

    pairs = set[tuple[int, int]]()
    for band in range(n_bands):
        hashes = np.concatenate([block.bands[band] for block in facts.blocks()])
        pairs.update(minhash.pairs(hashes[candidates], rank[candidates]))
    texts = _texts(facts, np.unique(row_of[np.array(sorted({row for pair in pairs for row in pair}), np.int64)]))
    found = minhash.groups(sorted(pairs), lambda place: texts[int(row_of[place])], threshold)
    later: np.ndarray = row_of[np.fromiter(found, np.int64, len(found))]
    return later


def _in_order_of_parts(facts: Facts) -> np.ndarray:
    """Return all rows' numbers, those of training files first, else in the order of the files."""
    part_of_block = np.array([facts.file_parts[note.source] for note in facts.notes])
    blocks = np.argsort(part_of_block, kind="stable")
    return np.concatenate([np.arange(facts.starts[block], facts.starts[block + 1]) for block in blocks])


def _texts(facts: Facts, rows: np.ndarray) -> dict[int, str]:
    """Return the cleaned texts of `rows` (ascending numbers), each block read once."""
    cleaner = Cleaner(facts.contract)
    found: dict[int, str] = {}
    borders = np.searchsorted(rows, facts.starts)
    for note, start, first, end in zip(facts.notes, facts.starts, borders, borders[1:], strict=False):
        if first < end:
            here = rows[first:end]
            shard = read_ipc(facts.folder / SHARDS / f"{note.name}.arrow").select(list(facts.task.texts))
            columns = [column.to_pylist() for column in shard.take(pa.array(here - start)).columns]
            cleaned = [cleaner(texts)[0] if cleaner else texts for texts in columns]
            found.update(zip(here.tolist(), map(" ".join, zip(*cleaned, strict=True)), strict=True))
    return found
