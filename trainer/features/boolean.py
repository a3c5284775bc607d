"""Yes and no: reading them, and what stands in for a missing one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import numpy as np

from cluster.errors import DataError
from trainer.features.cells import Bad, Cells, Read, missing_test, read_each, refuse_missing, shown
from trainer.spec.features import Boolean
from trainer.spec.section import Section


def read(rules: Boolean, cells: Cells) -> Read:
    """Return int64 0 or 1 for each cell."""
    found = read_each(cells, _parser(rules), np.int64, missing_test(rules.missing_words))
    return refuse_missing(found, rules.missing)


def _parser(rules: Boolean) -> Callable[[Any], int | Bad]:
    known = {word.lower(): 1 for word in rules.true_words} | {word.lower(): 0 for word in rules.false_words}

    def parse(value: Any) -> int | Bad:
        if isinstance(value, str) and value.strip().lower() in known:
            return known[value.strip().lower()]
        # 1, 1.0 and true: what Arrow, numpy and JSON make of a yes
        if isinstance(value, (bool, np.bool_, int, float, np.number)) and value in (0, 1):
            return int(value)
        return Bad(f"{shown(value)} is neither yes nor no")

    return parse


class FittedBoolean(Section):
    """A column of yes and no after fitting: 1 for yes."""

    kind: Literal["boolean"] = "boolean"
    name: str
    rules: Boolean
    fill: bool | None
    """Stands in for a missing value; None where such a row is refused."""

    @property
    def names(self) -> list[str]:
        """Names of the outputs."""
        return [self.name, f"{self.name} is missing"] if self.rules.indicator else [self.name]

    def encode(self, cells: Cells, out: np.ndarray) -> dict[int, str]:
        """Fill `out`, float32 of shape (n, outputs), and return the reasons of bad rows."""
        found = read(self.rules, cells)
        out[:, 0] = np.where(found.missing, bool(self.fill), found.values)
        if self.rules.indicator:
            out[:, 1] = found.missing
        return found.bad


def fit(name: str, rules: Boolean, no: int, yes: int) -> FittedBoolean:
    """Return the fitted column from how often no and yes occur; as often means no. Raises `DataError` for neither."""
    if rules.missing == "most_frequent":
        if no + yes == 0:
            raise DataError(
                f"column '{name}' has no value in any row, so none is most_frequent",
                "leave the column out, or set its missing to true or false",
            )
        return FittedBoolean(name=name, rules=rules, fill=yes > no)
    return FittedBoolean(name=name, rules=rules, fill=None if rules.missing == "refuse" else rules.missing)
