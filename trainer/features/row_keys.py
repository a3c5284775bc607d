"""A key for the values of a row: equal for rows whose values are equal, however their cells are written."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from trainer.contract.row_hash import hash_contents, mix_bits
from trainer.features.cells import ParsedColumn

_MISSING = np.uint64(0x9E3779B97F4A7C15)


def row_keys(columns: Iterable[ParsedColumn], n_rows: int) -> np.ndarray:
    """Return one uint64 for each row, computed from its parsed values in the order of the columns."""
    keys: np.ndarray = np.zeros(n_rows, np.uint64)
    with np.errstate(over="ignore"):
        for column in columns:
            values = mix_bits(_value_bits(column))
            values[column.missing] = _MISSING
            keys = mix_bits(keys + _MISSING) ^ values
        mixed: np.ndarray = mix_bits(keys)
    return mixed


def _value_bits(column: ParsedColumn) -> np.ndarray:
    """Return the values of a column as uint64."""
    if column.words:
        return hash_contents(column.words)[column.values]
    if column.values.dtype == np.float64:
        return (column.values + 0.0).view(np.uint64)  # 0 and -0 are equal
    return column.values.astype(np.int64).view(np.uint64)
