"""Fitted columns: the part of the contract that turns a table, or one row of a request, into a model's numbers.

One function, `encode`, does it for both; it needs numpy and pyarrow only. What it returns for a row does not depend on
the rows beside it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, NamedTuple

import numpy as np
from pydantic import Field

from cluster.errors import DataError, nearest
from trainer.features import boolean, categorical, cells, dates, numeric, summary
from trainer.features.boolean import FittedBoolean
from trainer.features.categorical import FittedCategorical
from trainer.features.cells import Rows
from trainer.features.dates import FittedDate
from trainer.features.numeric import FittedNumeric
from trainer.features.summary import Summary
from trainer.spec.features import AnyColumn, Boolean, Categorical, Numeric
from trainer.spec.section import Section

FittedColumn = Annotated[FittedNumeric | FittedCategorical | FittedBoolean | FittedDate, Field(discriminator="kind")]


class Fitted(Section):
    """All columns in the order of their outputs; `model_dump(mode="json")` is what goes into the contract.

    A list, not a dict: the contract's fingerprint sorts keys, and another order is another model input.
    """

    columns: list[FittedColumn]

    @property
    def rules(self) -> dict[str, AnyColumn]:
        """The rules it was fitted by."""
        return {column.name: column.rules for column in self.columns}


class Encoded(NamedTuple):
    """Model inputs of n rows."""

    values: np.ndarray
    """float32, shape (n, len(names)); what stands in a bad row means nothing."""
    ids: np.ndarray
    """int32, shape (n, len(sizes)): places in embedding tables."""
    reasons: list[str | None]
    """Why a row cannot be used, as "age: 'abc' is no number; country: unseen value 'XX'"."""


def from_summary(columns: Mapping[str, AnyColumn], found: Mapping[str, Summary]) -> Fitted:
    """Return the fitted columns.

    Raises `DataError` for a column with cells that cannot be used (`check` finds their rows), or without what its
    rules need.
    """
    return Fitted(columns=[_fit(name, rules, found[name]) for name, rules in columns.items()])


def _fit(name: str, rules: AnyColumn, found: Summary) -> FittedNumeric | FittedCategorical | FittedBoolean | FittedDate:
    if found.rows == 0:
        raise DataError(f"there are no rows to fit column '{name}' from", "give a file with rows in it")
    if found.bad:
        raise DataError(
            f"column '{name}' cannot be used in {found.bad} of {found.rows} rows, as: {found.example}",
            "mend those rows, leave them out, or change the column's rules",
        )
    if isinstance(rules, Numeric):
        assert isinstance(found.body, numeric.Moments)
        return numeric.fit(name, rules, found.body)
    if isinstance(rules, Categorical):
        assert isinstance(found.body, categorical.Counts)
        return categorical.fit(name, rules, found.body)
    if isinstance(rules, Boolean):
        assert isinstance(found.body, categorical.Counts)
        return boolean.fit(name, rules, found.body.words["false"], found.body.words["true"])
    assert isinstance(found.body, summary.Sketch)
    return dates.fit(name, rules, found.body)


def encode(fitted: Fitted, rows: Rows) -> Encoded:
    """Return model inputs and, for each row, why it cannot be used or None.

    Columns that were not fitted are passed over. Raises `DataError` for a fitted column that `rows` lacks.
    """
    given = {column.name: cells.column(rows, column.name) for column in fitted.columns}
    n_rows = _length(given)
    values = np.zeros((n_rows, len(names(fitted))), np.float32)
    ids = np.zeros((n_rows, len(sizes(fitted))), np.int32)
    bad: dict[str, dict[int, str]] = {}
    at = id_at = 0
    for column in fitted.columns:
        if isinstance(column, FittedCategorical) and column.rules.as_ids:
            places, bad[column.name] = column.places(given[column.name])
            ids[:, id_at] = np.maximum(places, 0)
            id_at += 1
        else:
            width = len(column.names)
            bad[column.name] = column.encode(given[column.name], values[:, at : at + width])
            at += width
    return Encoded(values, ids, _reasons(bad, n_rows))


def transform(fitted: Fitted, rows: Rows) -> np.ndarray:
    """Return float32 outputs, shape (n, len(names)); raises `DataError` naming the first row that cannot be used."""
    encoded = encode(fitted, rows)
    for number, reason in enumerate(encoded.reasons, start=1):
        if reason:
            raise DataError(f"row {number}: {reason}", "mend the row, or leave it out")
    return encoded.values


def check(by: Fitted | Mapping[str, AnyColumn], rows: Rows) -> list[str | None]:
    """Return for each row why it cannot be used, or None.

    By the rules alone, before anything is fitted, or by fitted columns, which also know unseen categories.
    """
    if isinstance(by, Fitted):
        return encode(by, rows).reasons
    given = {name: cells.column(rows, name) for name in by}
    return _reasons({name: summary.read(rules, given[name]).bad for name, rules in by.items()}, _length(given))


def names(fitted: Fitted) -> list[str]:
    """Return the names of the float outputs, in order: 'age', 'age is missing', 'country=DE', 'day.month_sin'."""
    return [name for column in fitted.columns for name in column.names]


def sizes(fitted: Fitted) -> dict[str, int]:
    """Return for each column of ids how many there are: the rows of its embedding table."""
    return {
        column.name: max(1, len(column.labels))
        for column in fitted.columns
        if isinstance(column, FittedCategorical) and column.rules.as_ids
    }


def gather(fitted: Fitted | Sequence[str], objects: Sequence[Any]) -> tuple[dict[str, list[Any]], list[str | None]]:
    """Return the columns of JSON objects, one for each row, and for each row what is wrong with its keys, or None.

    `fitted` may be the columns' names alone. A key with null is a missing value, which the column's rule decides on; a key
    that is not there is a mistake.
    """
    known = [column.name for column in fitted.columns] if isinstance(fitted, Fitted) else list(fitted)
    reasons = [_keys_reason(row, known) for row in objects]
    usable = [row if isinstance(row, Mapping) else {} for row in objects]
    return {name: [row.get(name) for row in usable] for name in known}, reasons


def _keys_reason(row: Any, known: list[str]) -> str | None:
    if not isinstance(row, Mapping):
        return f"{cells.shown(row)} is no object with the columns {', '.join(known)}"
    unknown = [f"unknown column {cells.shown(key)}: {nearest(str(key), known)}" for key in row if key not in known]
    absent = [f"no column '{name}' (null if it is missing)" for name in known if name not in row]
    return "; ".join([*unknown, *absent]) or None


def _length(given: Mapping[str, cells.Cells]) -> int:
    lengths = {name: len(column) for name, column in given.items()}
    if len(set(lengths.values())) > 1:
        raise DataError(f"the columns are of different length: {lengths}", "give each column a value for each row")
    return next(iter(lengths.values()), 0)


def _reasons(bad: Mapping[str, Mapping[int, str]], n_rows: int) -> list[str | None]:
    found: list[str | None] = [None] * n_rows
    for name, reasons in bad.items():
        for row, reason in reasons.items():
            before = found[row]
            found[row] = f"{name}: {reason}" if before is None else f"{before}; {name}: {reason}"
    return found
