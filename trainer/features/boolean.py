"""Columns of yes and no: parsing, fitting, encoding."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import numpy as np

from cluster.errors import DataError
from trainer.features.cells import (
    BadCell,
    Cells,
    ParsedColumn,
    format_cell,
    make_missing_test,
    parse_cells,
    reject_missing,
)
from trainer.spec.features import BooleanSpec
from trainer.spec.section import SpecSection


def read_booleans(rules: BooleanSpec, cells: Cells) -> ParsedColumn:
    """Return int64 0 or 1 for each cell."""
    parsed = parse_cells(cells, _make_parser(rules), np.int64, make_missing_test(rules.missing_words))
    return reject_missing(parsed, rules.missing)


def _make_parser(rules: BooleanSpec) -> Callable[[Any], int | BadCell]:
    known = {word.lower(): 1 for word in rules.true_words} | {word.lower(): 0 for word in rules.false_words}

    def parse(value: Any) -> int | BadCell:
        if isinstance(value, str) and value.strip().lower() in known:
            return known[value.strip().lower()]
        # Arrow, numpy and JSON write yes as true, 1 or 1.0.
        if isinstance(value, (bool, np.bool_, int, float, np.number)) and value in (0, 1):
            return int(value)
        return BadCell(f"{format_cell(value)} is neither yes nor no")

    return parse


class FittedBoolean(SpecSection):
    """A fitted column of yes and no: 1 for yes."""

    kind: Literal["boolean"] = "boolean"
    name: str
    rules: BooleanSpec
    fill: bool | None
    """Replaces a missing value; None if such a row is rejected."""

    @property
    def names(self) -> list[str]:
        """Names of the outputs."""
        return [self.name, f"{self.name} is missing"] if self.rules.indicator else [self.name]

    def encode(self, cells: Cells, out: np.ndarray) -> dict[int, str]:
        """Fill `out`, float32 of shape (n, outputs), and return the reasons of bad rows."""
        parsed = read_booleans(self.rules, cells)
        out[:, 0] = np.where(parsed.missing, bool(self.fill), parsed.values)
        if self.rules.indicator:
            out[:, 1] = parsed.missing
        return parsed.bad


def fit_boolean(name: str, rules: BooleanSpec, no: int, yes: int) -> FittedBoolean:
    """Return the fitted column from the counts of no and yes; a tie fills with no. Raises `DataError` if both are 0."""
    if rules.missing == "most_frequent":
        if no + yes == 0:
            raise DataError(
                f"column '{name}' has no value in any row, so there is no most frequent one",
                "remove the column, or set its `missing` to true or false",
            )
        return FittedBoolean(name=name, rules=rules, fill=yes > no)
    return FittedBoolean(name=name, rules=rules, fill=None if rules.missing == "reject" else rules.missing)
