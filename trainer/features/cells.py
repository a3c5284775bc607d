"""The cells of one column in any form: Arrow, numpy, or the list of a JSON request.

Each kind of column has one function that parses a cell. It runs once per distinct cell.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import pyarrow as pa

from cluster.errors import DataError, suggest

Cells: TypeAlias = Sequence[Any] | np.ndarray | pa.Array | pa.ChunkedArray
#: Rows by column: a table in training, or the columns of a request.
TableLike: TypeAlias = pa.Table | pa.RecordBatch | Mapping[str, Cells]

_MAX_SHOWN = 40


class BadCell(NamedTuple):
    """A cell that cannot be used, and why."""

    reason: str


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


def distinct_values(cells: Cells) -> tuple[list[Any], np.ndarray]:
    """Return Python values and, for each cell, the index (int64) of its value among them."""
    cells = as_arrow(cells)
    if isinstance(cells, pa.Array) and not (pa.types.is_nested(cells.type) or pa.types.is_binary(cells.type)):
        if pa.types.is_timestamp(cells.type):
            cells = cells.cast(pa.timestamp("us", cells.type.tz), safe=False)  # Python's datetime has no nanoseconds
        encoded = cells.dictionary_encode(null_encoding="encode")
        return encoded.dictionary.to_pylist(), encoded.indices.to_numpy(zero_copy_only=False).astype(np.int64)
    values = cells.to_pylist() if isinstance(cells, pa.Array) else list(cells)
    return values, np.arange(len(values))


def as_arrow(cells: Cells) -> pa.Array | list[Any]:
    """Return one Arrow array if the cells are typed (Arrow or numpy), else a list."""
    if isinstance(cells, pa.ChunkedArray):
        cells = cells.combine_chunks()
        if isinstance(cells, pa.ChunkedArray):  # pyarrow leaves several chunks if one array would be too large
            return cells.to_pylist()
    if isinstance(cells, pa.DictionaryArray):
        cells = cells.dictionary_decode()
    if isinstance(cells, pa.ExtensionArray):
        cells = cells.storage
    if isinstance(cells, np.ndarray):
        cells = pa.array(cells) if cells.dtype.kind in "biufMU" and cells.ndim == 1 else cells.tolist()
    if isinstance(cells, pa.Array):
        return cells.cast(pa.string()) if pa.types.is_string_view(cells.type) else cells
    return list(cells)


def parse_cells(
    cells: Cells, parse: Callable[[Any], Any], dtype: Any, is_missing: Callable[[Any], bool]
) -> ParsedColumn:
    """Return the column with each distinct cell parsed by `parse`, which returns a value or `BadCell`."""
    values, codes = distinct_values(cells)
    parsed = [None if is_missing(value) else parse(value) for value in values]
    reasons = {code: value.reason for code, value in enumerate(parsed) if isinstance(value, BadCell)}
    plain = np.array([0 if value is None or isinstance(value, BadCell) else value for value in parsed], dtype=dtype)
    missing = np.array([value is None for value in parsed], dtype=bool)
    bad = {}
    if reasons:
        is_bad = np.zeros(len(values), bool)
        is_bad[list(reasons)] = True
        bad = {int(row): reasons[int(codes[row])] for row in np.flatnonzero(is_bad[codes])}
    return ParsedColumn(plain[codes], missing[codes], bad, [])


def reject_missing(parsed: ParsedColumn, rule: Any) -> ParsedColumn:
    """Return the column with missing cells marked as bad if `rule` is "reject", else unchanged."""
    if rule != "reject":
        return parsed
    bad = parsed.bad | {int(row): "is missing" for row in np.flatnonzero(parsed.missing)}
    return parsed._replace(missing=np.zeros(len(parsed.missing), bool), bad=bad)


def make_missing_test(words: list[str], *, any_case: bool = True) -> Callable[[Any], bool]:
    """Return the function that tells whether a cell is missing: None, NaN, or text that is one of `words`."""
    known = {word.lower() if any_case else word for word in words}

    def is_missing(value: Any) -> bool:
        if isinstance(value, str):
            text = value.strip()
            return (text.lower() if any_case else text) in known
        return value is None or (isinstance(value, (float, np.floating)) and value != value)

    return is_missing


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
