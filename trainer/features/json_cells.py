"""Cells of fitted columns as JSON values of their own types, as a client would send them."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

from trainer.features.cells import ParsedColumn
from trainer.features.fitted import FittedColumn
from trainer.features.summary import read_column
from trainer.values.moments import shorten_moment
from trainer.values.spelling import spell_value

_JSON_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?")
# Larger whole numbers are not exact as float64, so they stay in their digits.
_EXACT = 2**53


def json_cells(column: FittedColumn, cells: Sequence[str | None]) -> list[Any]:
    """Return the texts of a column as JSON values that the column encodes alike; null for a missing value.

    A text that cannot be used stays as it is.
    """
    parsed = read_column(column.rules, cells)
    return [_json_cell(column, parsed, row, cell) for row, cell in enumerate(cells)]


def _json_cell(column: FittedColumn, parsed: ParsedColumn, row: int, cell: str | None) -> Any:
    if parsed.missing[row]:
        return None
    if row in parsed.bad:
        return cell
    if column.kind == "boolean":
        return bool(parsed.values[row])
    if column.kind == "numeric":
        number = float(parsed.values[row])
        return int(number) if number.is_integer() and abs(number) < _EXACT else number
    if column.kind == "date":
        if column.rules.format or column.rules.unit:
            return _json_word(cell or "") if column.rules.unit else cell
        return shorten_moment(int(parsed.values[row]))
    return _json_word(parsed.words[parsed.values[row]])


def _json_word(word: str) -> Any:
    """Return true, false or a number for a word that is spelled like one, else the word."""
    if word in ("true", "false"):
        return word == "true"
    if not _JSON_NUMBER.fullmatch(word):
        return word
    value = json.loads(word)
    return value if spell_value(value) == word else word
