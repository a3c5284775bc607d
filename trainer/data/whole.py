"""What only all rows together can tell: duplicates, contradicting labels, leaks between parts, near-duplicates.

Rows are looked at in slices by their content key, so that memory does not grow with their number; what is kept of all rows
at a time is two bytes each.
"""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from trainer.contract import Contract
from trainer.data import near_rows, split
from trainer.data.blocks import FACTS, SAMPLE, BlockNote, coded, read_ipc
from trainer.data.split import PARTS, TRAIN, VALIDATION
from trainer.spec_data import Data
from trainer.steps import of_whole
from trainer.tasks.base import Task

#: Verdicts on a row, in order of precedence; 0 is a row that is used.
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

_SLICE_ROWS = 1 << 20


class Block(NamedTuple):
    """The facts of one block's usable rows."""

    note: BlockNote
    start: int
    """Number of its first row among all usable rows."""
    file_part: int
    keys: np.ndarray
    codes: np.ndarray
    """int32, equal for equal targets; for classes the id"""
    groups: np.ndarray
    """int32 place of each row's group: the class where there are classes, else 0; -1 for an unknown class"""
    targets: pa.Array
    """As the index stores them."""
    lengths: np.ndarray
    order: np.ndarray
    """What the split goes by."""
    bands: list[np.ndarray]


class Whole:
    """All usable rows of one preparation, by their sheets of facts."""

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
        self.n_groups = len(self.groups)
        self.verdicts = np.zeros(self.n_rows, np.uint8)
        self.parts = np.zeros(self.n_rows, np.int8)
        self._removes = {step.name: step.params for step in of_whole(data)}

    @property
    def groups(self) -> list[str]:
        """The names of the groups that rows are counted by: the classes, or one without a name."""
        return self.task.target.groups(self.contract.fitted)

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

    def tally(self) -> Counter[str]:
        """Return what the target's `tally` says of the rows that are trained on."""
        found: Counter[str] = Counter()
        for note, start, end in zip(self.notes, self.starts[:-1], self.starts[1:], strict=True):
            used = (self.verdicts[start:end] == 0) & (self.parts[start:end] == TRAIN)
            raw = read_ipc(self.folder / FACTS / f"{note.name}.arrow")["target"].cast(pa.string())
            found.update(self.task.target.tally(raw.filter(pa.array(used))))
        return found

    def judge(self) -> None:
        """Fill `verdicts` with what is wrong with rows, and `parts`."""
        file_parts = [self.file_parts[note.source] for note in self.notes]
        self._judge_equal(np.repeat(np.array(file_parts, np.int8), self.sizes), self._allowed())
        step = self._removes.get("deduplicate")
        if step and step.near:
            self.verdicts[near_rows.later_ones(self, step.near)] = NEAR
        self._place()
        if self._allowed() & {DUPLICATE, CONTRADICTING}:
            # A split by group or time, or a row that was lent, may have put equal texts that are allowed into two parts.
            self._judge_equal(self.parts, self._allowed() | {DUPLICATE, CONTRADICTING, UNKNOWN})
        self._thin_out()

    def _judge_equal(self, parts: np.ndarray, allowed: set[int]) -> None:
        """Judge the rows that have no verdict yet against those of equal text, `parts` being the part of each row.

        Slice by slice: rows whose keys fall into one slice are in memory together, and equal texts have equal keys.
        """
        n_slices = max(1, -(-self.n_rows // _SLICE_ROWS))
        for at in range(n_slices):
            gathered: list[tuple[np.ndarray, ...]] = []
            for block in self.blocks():
                in_slice = (block.keys >> np.uint64(7)) % np.uint64(n_slices) == at
                mine = np.flatnonzero(in_slice & self._usable(block))
                gathered.append((block.keys[mine], mine + block.start, block.codes[mine]))
            if gathered:
                keys, rows, codes = (np.concatenate(column) for column in zip(*gathered, strict=True))
                order = np.lexsort((rows, codes, parts[rows], keys))
                rows = rows[order]
                self.verdicts[rows] = compare(keys[order], parts[rows], codes[order], allowed)

    def _allowed(self) -> set[int]:
        allowed = {REASONS.index(name) for name in {*self.data.allow, *self.task.allows}}
        return allowed - {DUPLICATE} if "deduplicate" in self._removes else allowed

    def _place(self) -> None:
        """Fill `parts`: files have theirs, and rows of the training files are held out by the split."""
        how = self.data.split
        validation, test = split.shares(how, [PARTS[part] for part in self.file_parts])
        borders = self._time_borders(validation, test) if how.by == "time" and not how.test_from else None
        for block in self.blocks():
            rows = slice(block.start, block.start + len(block.keys))
            if block.file_part != TRAIN:
                self.parts[rows] = block.file_part
            elif borders:
                self.parts[rows] = split.by_time(block.order, *borders)
            else:
                self.parts[rows] = split.of_training_files(block.order, how, [PARTS[part] for part in self.file_parts])
        if how.by == "content" and how.stratify and self.data.mode == "prepared":
            self._lend(validation, test)

    def _time_borders(self, validation: float, test: float) -> tuple[int, int]:
        """Return the times from which rows are held out, so that the newest make up the shares."""
        usable = [block.order[self._usable(block)] for block in self.blocks() if block.file_part == TRAIN]
        times = np.sort(np.concatenate(usable))

        def border(held: float) -> int:
            return (
                int(times[min(len(times) - 1, round(len(times) * (1 - held)))]) if held and len(times) else split.NEVER
            )

        return border(validation + test) if validation else split.NEVER, border(test)

    def _usable(self, block: Block) -> np.ndarray:
        usable: np.ndarray = self.verdicts[block.start : block.start + len(block.keys)] == 0
        return usable

    def _lend(self, validation: float, test: float) -> None:
        moves = split.lend(self._counts(from_files=TRAIN), validation, test)
        lenders = sorted({label for label, _, _ in moves})
        members: dict[int, list[tuple[float, int]]] = {label: [] for label in lenders}
        for block in self.blocks() if moves else ():
            if block.file_part == TRAIN:
                rows = np.flatnonzero(np.isin(block.groups, lenders) & self._usable(block))
                for row, place in zip(rows, split.position(block.order[rows], self.data.split.seed), strict=True):
                    members[int(block.groups[row])].append((float(place), block.start + int(row)))
        for label, giver, taker in moves:
            # The row that the seed puts nearest to where it goes: held-out parts take the lowest places.
            own = sorted(members[label], reverse=taker == TRAIN)
            for nearest in [row for _, row in own if self.parts[row] == giver][:1]:
                self.parts[nearest] = taker

    def _counts(self, from_files: int | None = None) -> np.ndarray:
        """Return the usable rows by class and part, int64, shape (classes, 3)."""
        found = np.zeros((self.n_groups, len(PARTS)), np.int64)
        for block in self.blocks():
            if from_files is None or block.file_part == from_files:
                usable = self._usable(block)
                parts = self.parts[block.start : block.start + len(block.keys)]
                np.add.at(found, (block.groups[usable], parts[usable]), 1)
        return found

    def _thin_out(self) -> None:
        """Leave training rows out for `sample` and `balance: undersample`, in the order of the steps."""
        for number, step in enumerate(of_whole(self.data)):
            train_C = self._counts()[:, TRAIN]
            if step.sample:
                share = step.sample.fraction or min(1.0, (step.sample.rows or 0) / max(1, train_C.sum()))
                place = functools.partial(split.position, seed=step.sample.seed, purpose=f"{SAMPLE} {number}")
                self._keep(np.full(self.n_groups, share), place, SAMPLED)
            elif step.balance and step.balance.how == "undersample":
                smallest = train_C[train_C > 0].min() if train_C.any() else 0
                place = functools.partial(split.position, seed=self.data.split.seed, purpose="undersample")
                self._keep(smallest / np.maximum(train_C, 1), place, BALANCED)

    def _keep(self, share_C: np.ndarray, place: Callable[[np.ndarray], np.ndarray], verdict: int) -> None:
        for block in self.blocks():
            rows = slice(block.start, block.start + len(block.keys))
            train = self._usable(block) & (self.parts[rows] == TRAIN)
            out = train & (place(block.keys) >= share_C[np.maximum(block.groups, 0)])
            self.verdicts[rows][out] = verdict

    def reset(self, contract: Contract) -> None:
        """Forget all verdicts, for a contract that was fitted anew."""
        self.contract = contract
        self.n_groups = len(self.groups)
        self.verdicts[:] = 0

    def counts(self) -> np.ndarray:
        """Return the rows that are used, by class and part, int64, shape (classes, 3)."""
        return self._counts()

    def repeats(self) -> np.ndarray | None:
        """Return how often a training row of each class is used, float64, shape (classes,), where classes are evened out."""
        if not any(step.balance and step.balance.how == "oversample" for step in of_whole(self.data)):
            return None
        train_C = self._counts()[:, TRAIN]
        return train_C.max(initial=0) / np.maximum(train_C, 1)


def compare(keys: np.ndarray, parts: np.ndarray, codes: np.ndarray, allowed: set[int]) -> np.ndarray:
    """Return a verdict for each row (uint8). Rows are sorted by key, part, code of the target and place in the files."""
    verdicts = np.zeros(len(keys), np.uint8)
    if not len(keys):
        return verdicts
    new_key = np.concatenate([[True], keys[1:] != keys[:-1]])
    new_part = new_key | np.concatenate([[True], parts[1:] != parts[:-1]])
    new_target = new_part | np.concatenate([[True], codes[1:] != codes[:-1]])
    key_run, key_starts = np.cumsum(new_key) - 1, np.flatnonzero(new_key)
    in_train = np.logical_or.reduceat(parts == TRAIN, key_starts)[key_run]
    in_validation = np.logical_or.reduceat(parts == VALIDATION, key_starts)[key_run]
    run = np.cumsum(new_part) - 1
    starts = np.flatnonzero(new_part)
    differs = np.minimum.reduceat(codes, starts) != np.maximum.reduceat(codes, starts)
    found = {
        DUPLICATE: ~new_target,
        IN_VALIDATION: (parts > VALIDATION) & in_validation,
        IN_TRAIN: (parts > TRAIN) & in_train,
        CONTRADICTING: differs[run],
        UNKNOWN: codes < 0,
    }
    for verdict, rows in found.items():  # later ones take precedence
        if verdict not in allowed:
            verdicts[rows] = verdict
    return verdicts
