"""Fitted columns: the part of the contract that turns a table, or one row of a request, into a model's numbers.

One function, `encode_table`, does both, with numpy and pyarrow only. Its result for a row does not depend on the other
rows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, NamedTuple

import numpy as np
from pydantic import Field

from cluster.errors import DataError, suggest
from trainer.features.boolean import FittedBoolean, fit_boolean
from trainer.features.categorical import CategoryCounts, FittedCategorical, fit_categorical
from trainer.features.cells import CellOutcome, Cells, ParsedColumn, TableLike, format_cell, get_column
from trainer.features.dates import FittedDate, fit_date
from trainer.features.numeric import FittedNumeric, Moments, fit_numeric
from trainer.features.sketch import Sketch
from trainer.features.summary import ColumnSummary, read_column
from trainer.spec.features import BooleanSpec, CategoricalSpec, FeatureSpec, NumericSpec
from trainer.spec.section import SpecSection
from trainer.values.words import canonical_text

FittedColumn = Annotated[FittedNumeric | FittedCategorical | FittedBoolean | FittedDate, Field(discriminator="kind")]


class FittedFeatures(SpecSection):
    """All fitted columns in the order of their outputs; the contract stores `model_dump(mode="json")`.

    A list, not a dict: the order of columns changes the model input, but the contract's fingerprint ignores key order.
    """

    columns: list[FittedColumn]

    @property
    def rules(self) -> dict[str, FeatureSpec]:
        """The rules the columns were fitted by."""
        return {column.name: column.rules for column in self.columns}


class EncodedTable(NamedTuple):
    """Model inputs of n rows."""

    values: np.ndarray
    """float32, shape (n, len(output_names)); undefined in a bad row."""
    ids: np.ndarray
    """int32, shape (n, len(embedding_sizes)): indices into embedding tables."""
    reasons: list[str | None]
    """Why a row cannot be used, for example "age: 'abc' is not a number; country: unseen value 'XX'"."""
    unseen: dict[str, int]
    """Column -> usable rows whose value became "missing" or "other", as none of the training rows did."""


class ParsedTable(NamedTuple):
    """Parsed columns of n rows."""

    columns: dict[str, ParsedColumn]
    reasons: list[str | None]
    """Why a row cannot be used."""


def fit_columns(columns: Mapping[str, FeatureSpec], summaries: Mapping[str, ColumnSummary]) -> FittedFeatures:
    """Return the fitted columns.

    Raises `DataError` for a column with cells that cannot be used (`check_table` finds their rows), or without the
    values that its rules need, for example to compute a mean.
    """
    return FittedFeatures(columns=[_fit_column(name, rules, summaries[name]) for name, rules in columns.items()])


def _fit_column(name: str, rules: FeatureSpec, summary: ColumnSummary) -> FittedColumn:
    if summary.rows == 0:
        raise DataError(f"there are no rows to fit column '{name}' from", "give a file with rows in it")
    if summary.bad:
        raise DataError(
            f"column '{name}' cannot be used in {summary.bad} of {summary.rows} rows, for example: {summary.example}",
            "repair or remove those rows, or change the column's rules",
        )
    if isinstance(rules, NumericSpec):
        assert isinstance(summary.body, Moments)
        return fit_numeric(name, rules, summary.body, summary.missing)
    if isinstance(rules, CategoricalSpec):
        assert isinstance(summary.body, CategoryCounts)
        return fit_categorical(name, rules, summary.body, summary.missing)
    if isinstance(rules, BooleanSpec):
        assert isinstance(summary.body, CategoryCounts)
        no, yes = summary.body.words["false"], summary.body.words["true"]
        return fit_boolean(name, rules, no, yes, summary.missing)
    assert isinstance(summary.body, Sketch)
    return fit_date(name, rules, summary.body, summary.missing)


def encode_table(fitted: FittedFeatures, rows: TableLike) -> EncodedTable:
    """Return model inputs and, for each row, why it cannot be used, or None.

    Columns that were not fitted are ignored. Raises `DataError` for a fitted column that `rows` lacks.
    """
    cells = {column.name: get_column(rows, column.name) for column in fitted.columns}
    n_rows = _count_rows(cells)
    values = np.zeros((n_rows, len(output_names(fitted))), np.float32)
    ids = np.zeros((n_rows, len(embedding_sizes(fitted))), np.int32)
    outcomes: dict[str, CellOutcome] = {}
    value_column = id_column = 0
    for column in fitted.columns:
        if isinstance(column, FittedCategorical) and column.rules.as_ids:
            codes, outcomes[column.name] = column.encode_codes(cells[column.name])
            ids[:, id_column] = np.maximum(codes, 0)
            id_column += 1
        else:
            end = value_column + len(column.names)
            outcomes[column.name] = column.encode(cells[column.name], values[:, value_column:end])
            value_column = end
    reasons = _join_reasons({name: outcome.bad for name, outcome in outcomes.items()}, n_rows)
    return EncodedTable(values, ids, reasons, _count_unseen(outcomes, reasons))


def _count_unseen(outcomes: Mapping[str, CellOutcome], reasons: Sequence[str | None]) -> dict[str, int]:
    """Return for each column with unseen values the number of usable rows that have one."""
    columns = {name: outcome.unseen for name, outcome in outcomes.items() if outcome.unseen.any()}
    if not columns:
        return {}
    is_usable = np.array([reason is None for reason in reasons], bool)
    counts = {name: int(np.count_nonzero(unseen & is_usable)) for name, unseen in columns.items()}
    return {name: count for name, count in counts.items() if count}


def transform_table(fitted: FittedFeatures, rows: TableLike) -> np.ndarray:
    """Return float32 outputs, shape (n, len(output_names)). Raises `DataError` naming the first bad row."""
    encoded = encode_table(fitted, rows)
    for number, reason in enumerate(encoded.reasons, start=1):
        if reason:
            raise DataError(f"row {number}: {reason}", "repair or remove the row")
    return encoded.values


def check_table(rules: FittedFeatures | Mapping[str, FeatureSpec], rows: TableLike) -> list[str | None]:
    """Return for each row why it cannot be used, or None.

    Uses the spec's rules alone, before anything is fitted, or fitted columns, which also detect unseen categories.
    """
    if isinstance(rules, FittedFeatures):
        return encode_table(rules, rows).reasons
    return parse_table(rules, rows).reasons


def parse_table(rules: Mapping[str, FeatureSpec], rows: TableLike) -> ParsedTable:
    """Return the parsed columns of `rows` by the spec's rules alone, and for each row why it cannot be used, or None."""
    cells = {name: get_column(rows, name) for name in rules}
    n_rows = _count_rows(cells)
    columns = {name: read_column(rule, cells[name]) for name, rule in rules.items()}
    return ParsedTable(columns, _join_reasons({name: column.bad for name, column in columns.items()}, n_rows))


def output_names(fitted: FittedFeatures) -> list[str]:
    """Return the names of the float outputs, in order: 'age', 'age is missing', 'country=DE', 'day.month_sin'."""
    return [name for column in fitted.columns for name in column.names]


def embedding_sizes(fitted: FittedFeatures) -> dict[str, int]:
    """Return for each column of ids the number of ids: the rows of its embedding table."""
    return {
        column.name: max(1, len(column.labels))
        for column in fitted.columns
        if isinstance(column, FittedCategorical) and column.rules.as_ids
    }


def columns_from_objects(
    fitted: FittedFeatures | Sequence[str], objects: Sequence[Any]
) -> tuple[dict[str, list[Any]], list[str | None]]:
    """Return the columns of JSON objects (one per row) and for each row what is wrong with its keys, or None.

    `fitted` may also be the names of the columns. A null is a missing value, to which the column's rule for missing
    values applies; an absent key is an error.
    """
    known = [column.name for column in fitted.columns] if isinstance(fitted, FittedFeatures) else list(fitted)
    objects = [_with_known_keys(row, known) for row in objects]
    reasons = [_check_keys(row, known) for row in objects]
    usable = [row if isinstance(row, Mapping) else {} for row in objects]
    return {name: [row.get(name) for row in usable] for name in known}, reasons


def _with_known_keys(row: Any, known: list[str]) -> Any:
    """Return an object with the names of columns in the Unicode form that they have in the training data."""
    if not isinstance(row, Mapping) or row.keys() <= set(known):
        return row
    names = {canonical_text(name): name for name in known}
    renamed = {
        names.get(canonical_text(key), key) if isinstance(key, str) else key: value for key, value in row.items()
    }
    return renamed if len(renamed) == len(row) else row


def _check_keys(row: Any, known: list[str]) -> str | None:
    if not isinstance(row, Mapping):
        return f"{format_cell(row)} is not an object with the columns {', '.join(known)}"
    unknown = [f"unknown column {format_cell(key)}: {suggest(str(key), known)}" for key in row if key not in known]
    absent = [f"no column '{name}' (null if it is missing)" for name in known if name not in row]
    return "; ".join([*unknown, *absent]) or None


def _count_rows(cells: Mapping[str, Cells]) -> int:
    lengths = {name: len(column) for name, column in cells.items()}
    if len(set(lengths.values())) > 1:
        raise DataError(f"the columns have different lengths: {lengths}", "give each column a value for each row")
    return next(iter(lengths.values()), 0)


def _join_reasons(bad: Mapping[str, Mapping[int, str]], n_rows: int) -> list[str | None]:
    joined: list[str | None] = [None] * n_rows
    for name, reasons in bad.items():
        for row, reason in reasons.items():
            before = joined[row]
            joined[row] = f"{name}: {reason}" if before is None else f"{before}; {name}: {reason}"
    return joined
