"""Find rows of one preparation that are near-duplicates of an earlier row, by MinHash (see `minhash.py`).

Needs about 60 bytes of memory per row, and the texts of all rows that are in a candidate pair.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from trainer.data.arrow import read_ipc
from trainer.data.folder import SHARDS
from trainer.data.prepare.facts import Facts
from trainer.data.prepare.minhash import candidate_pairs, group_near_duplicates
from trainer.steps.cleaner import Cleaner
from trainer.tasks.roles import input_roles


def find_near_duplicates(facts: Facts, usable: np.ndarray, threshold: float) -> np.ndarray:
    """Return the numbers (int64) of the `usable` rows that are near an earlier row, directly or through other rows.

    Rows of the training files come before those of the validation and test files. So if a training row and a held-out
    row are near-duplicates, the held-out row is returned.
    """
    row_of_rank = _rows_by_part(facts)
    rank = np.empty_like(row_of_rank)
    rank[row_of_rank] = np.arange(len(row_of_rank))
    candidates = row_of_rank[usable[row_of_rank]]
    n_bands = len(next(facts.blocks()).bands)

    pairs = set[tuple[int, int]]()  # of ranks
    for band in range(n_bands):
        hashes = np.concatenate([block.bands[band] for block in facts.blocks()])
        pairs.update(candidate_pairs(hashes[candidates], rank[candidates]))
    ranks = np.array(sorted({rank for pair in pairs for rank in pair}), np.int64)
    texts = _read_texts(facts, np.unique(row_of_rank[ranks]))
    later = group_near_duplicates(sorted(pairs), lambda rank: texts[int(row_of_rank[rank])], threshold)
    rows: np.ndarray = row_of_rank[np.fromiter(later, np.int64, len(later))]
    return rows


def _rows_by_part(facts: Facts) -> np.ndarray:
    """Return the numbers of all rows: training files first, then validation and test files, each in file order."""
    part_of_block = np.array([facts.file_parts[stats.source] for stats in facts.stats])
    blocks = np.argsort(part_of_block, kind="stable")
    return np.concatenate([np.arange(facts.starts[block], facts.starts[block + 1]) for block in blocks])


def _read_texts(facts: Facts, rows: np.ndarray) -> dict[int, str]:
    """Return the cleaned text of each of `rows` (ascending numbers); every block is read at most once."""
    cleaner = Cleaner(facts.contract)
    texts_by_row: dict[int, str] = {}
    borders = np.searchsorted(rows, facts.starts)
    for stats, start, first, end in zip(facts.stats, facts.starts, borders, borders[1:], strict=False):
        if first < end:
            block_rows = rows[first:end]
            roles = input_roles(facts.task, facts.contract)
            shard = read_ipc(facts.folder / SHARDS / f"{stats.name}.arrow").select(roles)
            columns = {role: shard[role].take(pa.array(block_rows - start)).to_pylist() for role in roles}
            if cleaner:
                columns.update({role: cleaner(columns[role])[0] for role in facts.task.text_roles})
            texts = facts.task.comparable_texts(facts.contract, columns)
            texts_by_row.update(zip(block_rows.tolist(), texts, strict=True))
    return texts_by_row
