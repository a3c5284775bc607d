"""Columns of yes and no: parsing, fitting, encoding."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import numpy as np

from cluster.errors import DataError
from trainer.features.cells import (
    BadCell,
    CellOutcome,
    CellReader,
    Cells,
    ParsedColumn,
    format_cell,
    read_cells,
    reject_missing,
)
from trainer.spec.features import BooleanSpec
from trainer.spec.section import SpecSection
from trainer.values.words import canonical_word


def read_booleans(rules: BooleanSpec, cells: Cells) -> ParsedColumn:
    """Return int64 0 or 1 for each cell."""
    reader = CellReader("yes or no", _make_parser(rules), np.int64, rules.missing_words)
    return reject_missing(read_cells(cells, reader), rules.missing)


def _make_parser(rules: BooleanSpec) -> Callable[[str], int | BadCell]:
    # Arrow, numpy, JSON and databases write yes as true, 1 or 1.0, whatever words the column's texts have.
    known = {"true": 1, "1": 1, "false": 0, "0": 0}
    known |= {word.lower(): 1 for word in rules.true_words} | {word.lower(): 0 for word in rules.false_words}

    def parse(text: str) -> int | BadCell:
        word = canonical_word(text).lower()
        return known[word] if word in known else BadCell(f"{format_cell(text)} is neither yes nor no")

    return parse


class FittedBoolean(SpecSection):
    """A fitted column of yes and no: 1 for yes."""

    kind: Literal["boolean"] = "boolean"
    name: str
    rules: BooleanSpec
    fill: bool | None
    """Replaces a missing value; None if such a row is rejected."""
    saw_missing: bool = False
    """Whether a training row had no value."""

    @property
    def names(self) -> list[str]:
        """Names of the outputs."""
        return [self.name, f"{self.name} is missing"] if self.rules.indicator else [self.name]

    def encode(self, cells: Cells, out: np.ndarray) -> CellOutcome:
        """Fill `out`, float32 of shape (n, outputs)."""
        parsed = read_booleans(self.rules, cells)
        out[:, 0] = np.where(parsed.missing, bool(self.fill), parsed.values)
        if self.rules.indicator:
            out[:, 1] = parsed.missing
        return CellOutcome(parsed.bad, parsed.missing & (not self.saw_missing))


def fit_boolean(name: str, rules: BooleanSpec, no: int, yes: int, missing: int) -> FittedBoolean:
    """Return the fitted column from the counts of no, yes and missing; a tie fills with no. Raises `DataError` if both are 0."""
    if rules.missing == "most_frequent":
        if no + yes == 0:
            raise DataError(
                f"column '{name}' has no value in any row, so there is no most frequent one",
                "remove the column, or set its `missing` to true or false",
            )
        return FittedBoolean(name=name, rules=rules, fill=yes > no, saw_missing=missing > 0)
    fill = None if rules.missing == "reject" else rules.missing
    return FittedBoolean(name=name, rules=rules, fill=fill, saw_missing=missing > 0)
