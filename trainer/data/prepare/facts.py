"""The facts of all usable rows: content key, target, length, and what the split and near-duplicates need.

`block_maker` writes one table per block; this module reads them block by block.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from trainer.contract.contract import Contract
from trainer.data.arrow import read_ipc
from trainer.data.folder import FACTS
from trainer.data.parts import PARTS
from trainer.data.prepare.block_maker import BlockStats, encode_targets
from trainer.spec.data import DataSpec
from trainer.tasks.base import Task


class Block(NamedTuple):
    """The facts of one block's usable rows."""

    start: int
    """Number of its first row among all usable rows."""
    file_part: int
    """Part of its source file."""
    keys: np.ndarray
    """uint64 content keys."""
    codes: np.ndarray
    """int32: equal for equal targets; the class id if the target has classes; -1 for an unknown target."""
    groups: np.ndarray
    """int32 index of each row's group: its class if the target has classes, else 0; -1 for an unknown target."""
    targets: pa.Array
    """Encoded targets, as the index stores them."""
    lengths: np.ndarray
    """int32 lengths of the model inputs."""
    order: np.ndarray
    """The values that the split uses: content keys, group keys or times."""
    bands: list[np.ndarray]
    """uint64 MinHash bands; empty unless a `deduplicate` step sets `near`."""

    @property
    def rows(self) -> slice:
        """The block's rows among all usable rows."""
        return slice(self.start, self.start + len(self.keys))


class Facts:
    """All usable rows of one preparation. Only one block's facts are in memory at a time."""

    def __init__(
        self,
        folder: Path,
        stats: list[BlockStats],
        file_parts: list[str],
        task: Task,
        contract: Contract,
        data: DataSpec,
    ) -> None:
        self.folder, self.stats, self.data = folder, stats, data
        self.file_parts = [PARTS.index(part) for part in file_parts]
        self.task, self.contract = task, contract
        self.sizes = [_shard_rows(block, data) for block in stats]
        """Rows in each block's shard."""
        self.starts = np.cumsum([0, *self.sizes])
        self.n_rows = int(self.starts[-1])

    @property
    def groups(self) -> list[str]:
        """The names of the groups that rows are counted by: the classes, or one group without a name."""
        target = self.task.target
        return target.labels(self.contract.fitted) if target.has_classes else [""]

    @property
    def row_file_parts(self) -> np.ndarray:
        """The part of the file that each row comes from, int8, shape (rows,)."""
        parts = [self.file_parts[block.source] for block in self.stats]
        return np.repeat(np.array(parts, np.int8), self.sizes)

    def blocks(self) -> Iterator[Block]:
        """Yield every block's facts, in the order of the files."""
        for stats, start in zip(self.stats, self.starts[:-1], strict=True):
            table = read_ipc(self.folder / FACTS / f"{stats.name}.arrow").combine_chunks()
            keys = table["key"].to_numpy()
            codes, targets = encode_targets(self.task, self.contract, table["target"])
            yield Block(
                int(start),
                self.file_parts[stats.source],
                keys,
                codes,
                codes if self.task.target.has_classes else np.minimum(codes, 0),
                targets,
                table["length"].to_numpy(),
                table["order"].to_numpy() if "order" in table.column_names else keys,
                [table[name].to_numpy() for name in table.column_names if name.startswith("band_")],
            )

    def raw_targets(self) -> Iterator[tuple[slice, pa.Array]]:
        """Yield each block's rows and their raw targets as text."""
        for stats, start, end in zip(self.stats, self.starts[:-1], self.starts[1:], strict=True):
            raw = read_ipc(self.folder / FACTS / f"{stats.name}.arrow")["target"].cast(pa.string())
            yield slice(int(start), int(end)), raw

    def counts(self, verdicts: np.ndarray, parts: np.ndarray, file_part: int | None = None) -> np.ndarray:
        """Return the number of rows without a verdict by group and part, int64, shape (groups, 3).

        With `file_part`, only rows from files of that part count.
        """
        counts_GP = np.zeros((len(self.groups), len(PARTS)), np.int64)
        for block in self.blocks():
            if file_part is None or block.file_part == file_part:
                usable = verdicts[block.rows] == 0
                np.add.at(counts_GP, (block.groups[usable], parts[block.rows][usable]), 1)
        return counts_GP


def _shard_rows(stats: BlockStats, data: DataSpec) -> int:
    """Return the number of rows in a block's shard: all usable rows, or the held-out ones if training is streamed."""
    return stats.good if data.mode == "prepared" else sum(stats.rows_by_part[part] for part in PARTS[1:])
