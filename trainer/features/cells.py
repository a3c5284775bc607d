"""The cells of one column in any form: Arrow, numpy, or the list of a JSON request.

Every cell is first spelled as text (`trainer.values`), so that the kinds of columns read the same text whatever the cell
came from. Each kind has one function that reads texts, each distinct text once.
"""

from __future__ import annotations

import datetime as dt
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from cluster.errors import DataError, suggest
from trainer.values.columns import Spelled, distinct_texts, spell_column
from trainer.values.spelling import NotOneValue, spell_value

Cells: TypeAlias = Sequence[Any] | np.ndarray | pa.Array | pa.ChunkedArray
#: Rows by column: a table in training, or the columns of a request.
TableLike: TypeAlias = pa.Table | pa.RecordBatch | Mapping[str, Cells]

_MAX_SHOWN = 40


class BadCell(NamedTuple):
    """A cell that cannot be used, and why."""

    reason: str


class CellOutcome(NamedTuple):
    """What became of the cells of one column, besides their outputs."""

    bad: dict[int, str]
    """Row -> why its cell cannot be used."""
    unseen: np.ndarray
    """bool, shape (n,): the cell became "missing" or "other", as no cell of the training rows did."""


class ParsedColumn(NamedTuple):
    """The values of a column, shape (n,), and the cells that could not be parsed."""

    values: np.ndarray
    """float64, int64 microseconds, or int64 indices into `words`; 0 where missing or bad."""
    missing: np.ndarray
    """bool: the cell is missing, and the rules of the column allow that."""
    bad: dict[int, str]
    """Row -> reason."""
    words: list[str]
    """Distinct categories, for a column of categories."""

    def present_values(self) -> np.ndarray:
        """Return the values that are neither missing nor bad."""
        is_present = ~self.missing
        is_present[list(self.bad)] = False
        return self.values[is_present]


def get_column(rows: TableLike, name: str) -> Cells:
    """Return the cells of one column. Raises `DataError` if `rows` has no such column."""
    names = list(rows) if isinstance(rows, Mapping) else rows.schema.names
    if name not in names:
        raise DataError(
            f"there is no column '{name}' (columns: {', '.join(map(str, names)) or 'none'})", suggest(name, names)
        )
    return rows[name]


class CellReader(NamedTuple):
    """How the cells of one column are read."""

    kind: str
    """What a cell should be, for messages: "a number"."""
    parse: Callable[[str], Any]
    """Takes the text of a cell that is not missing, and returns its value or `BadCell`."""
    dtype: Any
    """Type of the values."""
    missing_words: Sequence[str]
    any_case: bool = True
    """Whether the missing words match in any case."""
    decimal_sign: str = "."
    """Sign that numbers get when they are spelled as texts, because the column's texts have it."""
    parse_column: Callable[[pa.Array], tuple[np.ndarray, np.ndarray]] | None = None
    """Takes the texts of a whole column; returns values of `dtype` and a mask of those that `parse` need not read."""


def read_cells(cells: Cells, reader: CellReader) -> ParsedColumn:
    """Return the parsed cells of a column; each distinct text is parsed once."""
    if isinstance(cells, np.ndarray):
        cells = pa.array(cells) if cells.dtype.kind in "biufMU" and cells.ndim == 1 else cells.tolist()
    if isinstance(cells, (pa.Array, pa.ChunkedArray)):
        return _read_column(spell_column(cells, reader.decimal_sign), reader)
    return _read_list(cells, reader)


def _read_list(cells: Sequence[Any], reader: CellReader) -> ParsedColumn:
    """Read the cells of a request, one by one: for a few cells, Arrow would take longer."""
    missing_words = _comparable_words(tuple(reader.missing_words), reader.any_case)
    values, missing = np.zeros(len(cells), reader.dtype), np.zeros(len(cells), bool)
    bad: dict[int, str] = {}
    parsed: dict[str, Any] = {}
    for row, cell in enumerate(cells):
        try:
            text = spell_value(cell, reader.decimal_sign)
        except NotOneValue as error:
            bad[row] = f"{error} is not {reader.kind}"
            continue
        if text is None or (text.strip().lower() if reader.any_case else text.strip()) in missing_words:
            missing[row] = True
            continue
        if text not in parsed:
            parsed[text] = reader.parse(text)
        value = parsed[text]
        if isinstance(value, BadCell):  # a client reads 7 in the message, not '7', if that is what it sent
            bad[row] = value.reason.replace(format_cell(text), format_cell(cell), 1)
        else:
            values[row] = value
    return ParsedColumn(values, missing, bad, [])


def _read_column(spelled: Spelled, reader: CellReader) -> ParsedColumn:
    missing = _missing_mask(spelled, reader)
    left = ~missing
    left[list(spelled.not_texts)] = False
    values = np.zeros(len(missing), reader.dtype)
    if reader.parse_column is not None:
        read, is_read = reader.parse_column(spelled.texts)
        values, left = np.where(is_read & left, read, values), left & ~is_read
    bad = {row: f"{other} is not {reader.kind}" for row, other in spelled.not_texts.items()}
    rows = np.flatnonzero(left)
    words, word_of_row = distinct_texts(spelled.texts.take(pa.array(rows)))
    parsed = [reader.parse(word or "") for word in words]
    for row, word in zip(rows.tolist(), word_of_row.tolist(), strict=True):
        value = parsed[word]
        if isinstance(value, BadCell):
            bad[row] = value.reason
        else:
            values[row] = value
    return ParsedColumn(values, missing, bad, [])


def _missing_mask(spelled: Spelled, reader: CellReader) -> np.ndarray:
    """Return whether each cell is missing, bool of shape (n,): null, or a text that is one of the missing words."""
    texts = pc.utf8_trim_whitespace(spelled.texts)
    texts = pc.utf8_lower(texts) if reader.any_case else texts
    words = sorted(_comparable_words(tuple(reader.missing_words), reader.any_case))
    is_missing = pc.or_(pc.is_null(texts), pc.is_in(texts, value_set=pa.array(words, pa.string())))
    missing: np.ndarray = is_missing.to_numpy(zero_copy_only=False).copy()
    missing[list(spelled.not_texts)] = False
    return missing


@functools.lru_cache(maxsize=256)
def _comparable_words(words: tuple[str, ...], any_case: bool) -> frozenset[str]:
    return frozenset(word.strip().lower() if any_case else word.strip() for word in words)


def reject_missing(parsed: ParsedColumn, rule: Any) -> ParsedColumn:
    """Return the column with missing cells marked as bad if `rule` is "reject", else unchanged."""
    if rule != "reject":
        return parsed
    bad = parsed.bad | {int(row): "is missing" for row in np.flatnonzero(parsed.missing)}
    return parsed._replace(missing=np.zeros(len(parsed.missing), bool), bad=bad)


def format_cell(value: Any) -> str:
    """Return a cell as messages show it: shortened, with booleans as in JSON."""
    if isinstance(value, (bool, np.bool_)):
        return "true" if value else "false"
    if isinstance(value, (dt.date, int, float, np.number)):
        text = str(value)
        return text if len(text) <= _MAX_SHOWN else text[:_MAX_SHOWN] + "..."
    if isinstance(value, str):
        text = value.encode("utf-8", errors="replace").decode()
        return repr(text if len(text) <= _MAX_SHOWN else text[:_MAX_SHOWN] + "...")
    if isinstance(value, Mapping):
        return "an object"
    if isinstance(value, (list, tuple, np.ndarray)):
        return "a list"
    return f"a value of type {type(value).__name__}"
