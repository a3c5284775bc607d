"""Run the checks that need all rows: duplicates, contradicting labels, leaks between parts, near-duplicates.

Rows are compared in slices of their content keys, so only two bytes per row (verdict and part) stay in memory.
"""

from __future__ import annotations

from collections import Counter

import numpy as np
import pyarrow as pa

from trainer.contract.contract import Contract
from trainer.data.parts import TRAIN
from trainer.data.prepare.facts import Facts
from trainer.data.prepare.near_duplicates import find_near_duplicates
from trainer.data.prepare.part_assignment import assign_parts
from trainer.data.prepare.subsample import oversampling_factors, subsample
from trainer.data.prepare.verdicts import CONTRADICTING, DUPLICATE, NEAR, REASONS, UNKNOWN, compare_rows
from trainer.steps.cleaner import dataset_steps

_SLICE_ROWS = 1 << 20


class RowJudge:
    """The part and the verdict of every row of `facts`. Verdict 0 is a row that is used; others index `REASONS`."""

    def __init__(self, facts: Facts) -> None:
        self.facts, self.data = facts, facts.data
        self.verdicts = np.zeros(facts.n_rows, np.uint8)
        self.parts = np.zeros(facts.n_rows, np.int8)
        self._dataset_steps = {step.name: step.params for step in dataset_steps(self.data)}

    def run(self) -> None:
        """Fill `verdicts` and `parts`."""
        allowed = self._allowed()
        self._compare_rows(self.facts.row_file_parts, allowed)
        deduplicate = self._dataset_steps.get("deduplicate")
        if deduplicate and deduplicate.near:
            near = find_near_duplicates(self.facts, self.verdicts == 0, deduplicate.near)
            self.verdicts[near] = NEAR
        self.parts = assign_parts(self.facts, self.data, self.verdicts)
        if allowed & {DUPLICATE, CONTRADICTING}:
            # If equal texts are allowed, a split by group or time or a stratified split may put them into two parts.
            self._compare_rows(self.parts, allowed | {DUPLICATE, CONTRADICTING, UNKNOWN})
        subsample(self.facts, self.data, self.verdicts, self.parts)

    def rerun(self, contract: Contract) -> None:
        """Drop all verdicts and run again with a newly fitted contract."""
        self.facts.contract = contract
        self.verdicts[:] = 0
        self.run()

    def counts(self) -> np.ndarray:
        """Return the number of used rows by group and part, int64, shape (groups, 3)."""
        return self.facts.counts(self.verdicts, self.parts)

    def repeats(self) -> np.ndarray | None:
        """Return how often training rows of each class are used, float64, shape (C,); None without oversampling."""
        return oversampling_factors(self.facts, self.data, self.verdicts, self.parts)

    def tally(self) -> Counter[str]:
        """Return the counts of the training rows' targets, as the target's `tally` returns them."""
        tally: Counter[str] = Counter()
        for rows, raw in self.facts.raw_targets():
            used = (self.verdicts[rows] == 0) & (self.parts[rows] == TRAIN)
            tally.update(self.facts.task.target.tally(raw.filter(pa.array(used))))
        return tally

    def _allowed(self) -> set[int]:
        """Return the verdicts that the spec or the task allows."""
        allowed = {REASONS.index(name) for name in {*self.data.allow_issues, *self.facts.task.allowed_issues}}
        return allowed - {DUPLICATE} if "deduplicate" in self._dataset_steps else allowed

    def _compare_rows(self, parts: np.ndarray, allowed: set[int]) -> None:
        """Mark duplicate rows, contradicting labels and leaks between parts; `parts` is the part of each row.

        Works through the keys in slices to bound memory; equal rows always share a slice.
        """
        n_slices = max(1, -(-self.facts.n_rows // _SLICE_ROWS))
        for number in range(n_slices):
            columns: list[tuple[np.ndarray, ...]] = []
            for block in self.facts.blocks():
                in_slice = (block.keys >> np.uint64(7)) % np.uint64(n_slices) == number
                selected = np.flatnonzero(in_slice & (self.verdicts[block.rows] == 0))
                columns.append((block.keys[selected], selected + block.start, block.codes[selected]))
            if columns:
                keys, rows, codes = (np.concatenate(column) for column in zip(*columns, strict=True))
                order = np.lexsort((rows, codes, parts[rows], keys))
                rows = rows[order]
                self.verdicts[rows] = compare_rows(keys[order], parts[rows], codes[order], allowed)
