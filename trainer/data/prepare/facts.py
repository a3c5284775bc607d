"""The facts of all usable rows: one table a block, written by `block_maker`, read here block by block."""

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
from trainer.data.prepare.block_maker import BlockNote, coded
from trainer.spec.data import Data
from trainer.tasks.base import Task


class Block(NamedTuple):
    """The facts of one block's usable rows."""

    note: BlockNote
    start: int
    """Number of its first row among all usable rows."""
    file_part: int
    keys: np.ndarray
    codes: np.ndarray
    """int32, equal for equal targets; for classes the id."""
    groups: np.ndarray
    """int32 index of each row's group: the class where there are classes, else 0; -1 for an unknown class."""
    targets: pa.Array
    """As the index stores them."""
    lengths: np.ndarray
    order: np.ndarray
    """The value that the split goes by: content key, group key or time."""
    bands: list[np.ndarray]

    @property
    def rows(self) -> slice:
        """The block's rows among all usable rows."""
        return slice(self.start, self.start + len(self.keys))


class Facts:
    """All usable rows of one preparation. Only one block's facts are in memory at a time."""

    def __init__(
        self, folder: Path, notes: list[BlockNote], file_parts: list[str], task: Task, contract: Contract, data: Data
    ) -> None:
        self.folder, self.notes, self.data = folder, notes, data
        self.file_parts = [PARTS.index(part) for part in file_parts]
        self.task, self.contract = task, contract
        self.sizes = [note.good if data.mode == "prepared" else sum(note.held[p] for p in PARTS[1:]) for note in notes]
        """Rows in each block's shard."""
        self.starts = np.cumsum([0, *self.sizes])
        self.n_rows = int(self.starts[-1])

    @property
    def groups(self) -> list[str]:
        """The names of the groups that rows are counted by: the classes, or one group without a name."""
        return self.task.target.groups(self.contract.fitted)

    @property
    def row_file_parts(self) -> np.ndarray:
        """The part of the file that each row comes from, int8, shape (rows,)."""
        parts = [self.file_parts[note.source] for note in self.notes]
        return np.repeat(np.array(parts, np.int8), self.sizes)

    def blocks(self) -> Iterator[Block]:
        """Yield every block's facts, in the order of the files."""
        for note, start in zip(self.notes, self.starts[:-1], strict=True):
            sheet = read_ipc(self.folder / FACTS / f"{note.name}.arrow").combine_chunks()
            keys = sheet["key"].to_numpy()
            codes, targets = coded(self.task, self.contract, sheet["target"])
            yield Block(
                note,
                int(start),
                self.file_parts[note.source],
                keys,
                codes,
                codes if self.task.target.has_classes else np.minimum(codes, 0),
                targets,
                sheet["length"].to_numpy(),
                sheet["order"].to_numpy() if "order" in sheet.column_names else keys,
                [sheet[name].to_numpy() for name in sheet.column_names if name.startswith("band_")],
            )

    def raw_targets(self) -> Iterator[tuple[slice, pa.Array]]:
        """Yield each block's rows and their raw targets as text."""
        for note, start, end in zip(self.notes, self.starts[:-1], self.starts[1:], strict=True):
            raw = read_ipc(self.folder / FACTS / f"{note.name}.arrow")["target"].cast(pa.string())
            yield slice(int(start), int(end)), raw

    def counts(self, verdicts: np.ndarray, parts: np.ndarray, file_part: int | None = None) -> np.ndarray:
        """Return the rows without a verdict by group and part, int64, shape (groups, 3); of files of one part if given."""
        counts_GP = np.zeros((len(self.groups), len(PARTS)), np.int64)
        for block in self.blocks():
            if file_part is None or block.file_part == file_part:
                usable = verdicts[block.rows] == 0
                np.add.at(counts_GP, (block.groups[usable], parts[block.rows][usable]), 1)
        return counts_GP
