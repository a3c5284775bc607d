"""Rows as they were found, column by column, to a block. Here the rules for single values are kept, for all formats."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from cluster.errors import DataError, suggest

#: A block ends with the row that is its 16,384th, or that brings its text to about this size, whatever the file's own
#: parts are: where it ends is decided by the rows alone, so a block's place names its rows in every run. The size is
#: counted as each format does it at no cost: characters of a csv file's lines, bytes of lines, of columns or of files.
BLOCK_ROWS, BLOCK_SIZE = 16_384, 16 << 20


#: A larger value of bytes is not read to its end.
MAX_VALUE_BYTES = 64 << 20


TOO_LARGE = f"file over {MAX_VALUE_BYTES >> 20} MB"


#: A line or row that could not be taken apart is shown up to here.
SHOWN_CHARS = 1000


_SHOWN_NAMES, _NAME_CHARS = 50, 60


_HALF_PAIRS = re.compile("[\ud800-\udfff]")


_REPLACEMENT = "\ufffd"


# In front of the name of a column of `data.features`.
_FEATURE = "feature."


Reasons = dict[int, str]
"""Why rows cannot be used, by place in the block; the first reason found stays."""


def to_block(
    numbers: range | list[int], cells: dict[str, list[Any]], reasons: Reasons, loose: frozenset[str] = frozenset()
) -> pa.Table:
    """Return a block of rows: `row`, one text column for each role in `cells`, `reason`. `reasons` is added to."""
    columns = {role: _as_array(values, role, role in loose, reasons) for role, values in cells.items()}
    return finish_block(numbers, columns, reasons, loose)


def finish_block(
    numbers: range | list[int], columns: dict[str, Any], reasons: Reasons, loose: frozenset[str] = frozenset()
) -> pa.Table:
    """Return a block of columns (Arrow) of text or bytes, with reasons for what is missing, and for NUL in a text."""
    for role, column in columns.items():
        if pa.types.is_large_binary(column.type):
            note_reason(reasons, _places(pc.is_null(column)), f"missing {role}")
            continue
        if role in loose:
            column = pc.if_else(pc.equal(column, ""), pa.scalar(None, pa.string()), column)
        elif column.null_count:
            note_reason(reasons, _places(pc.is_null(column)), f"missing {role}")
        with_nul = pc.match_substring(column, "\0")
        if pc.any(with_nul).as_py():
            note_reason(reasons, _places(with_nul), "NUL character")
            column = pc.replace_substring(column, "\0", _REPLACEMENT)
        columns[role] = column
    why = pa.nulls(len(numbers), pa.string())
    if reasons:
        why = pa.array([reasons.get(place) for place in range(len(numbers))], pa.string())
    # Of a range Arrow would take the numbers one by one.
    plain: Any = np.arange(numbers.start, numbers.stop) if isinstance(numbers, range) else numbers
    return pa.table({"row": pa.array(plain, pa.int64()), **columns, "reason": why})


def note_reason(reasons: Reasons, places: Iterable[int], reason: str) -> None:
    """Set the reason of rows that have none yet."""
    for place in places:
        reasons.setdefault(place, reason)


def check_columns(columns: dict[str, str], found: list[str], path: str) -> None:
    """Raise `DataError` for a column of the user's that a file lacks, or has twice."""
    for role, column in columns.items():
        if column not in found:
            names = [_printable(name) for name in found[:_SHOWN_NAMES]]
            more = ", ..." if len(found) > len(names) else ""
            raise DataError(
                f"{path} has no column '{column}'{role_phrase(role)} (it has: {', '.join(names) or 'none'}{more})",
                suggest(column, names, then=f"{column_fix(role)}, or rename the column in the file"),
            )
        if found.count(column) > 1:
            raise DataError(
                f"{path} has {found.count(column)} columns called '{column}'", "rename all but the one that is meant"
            )


def column_fix(role: str) -> str:
    """Return what a spec has to say for another column to be taken."""
    if role in ("group", "time"):
        return "Set data.split.column: NAME"
    if role.startswith(_FEATURE):
        return "Write the column's own name in data.features"
    return f"Set data.columns: {{{role}: NAME}}"


def role_phrase(role: str) -> str:
    """Return what a message says after a column's name: what it is for, unless it goes by its own name."""
    return "" if role.startswith(_FEATURE) else f" for the {role}"


def accepts_list(role: str, loose: bool) -> bool:
    """Whether a list is a value of the role: a loose role of the task's own holds what is to be predicted, as tags."""
    return loose and role not in ("group", "time") and not role.startswith(_FEATURE)


def _printable(name: str) -> str:
    """A file that is no text at all has names that no terminal can show."""
    return "".join(letter if letter.isprintable() else _REPLACEMENT for letter in name[:_NAME_CHARS])


def _as_array(values: list[Any], role: str, loose: bool, reasons: Reasons) -> Any:
    try:
        return pa.array(values, pa.string())
    except (pa.ArrowTypeError, UnicodeEncodeError):
        pass  # not all are text: look at each
    texts = []
    for place, value in enumerate(values):
        text, reason = _as_text(value, role, loose)
        texts.append(text)
        if reason:
            reasons.setdefault(place, reason)
    return pa.array(texts, pa.string())


def _as_text(value: Any, role: str, loose: bool) -> tuple[str | None, str | None]:
    """Return the value as text, and what is wrong with it. A whole number or true/false may be a label, a list may be tags."""
    if isinstance(value, str):
        readable = _HALF_PAIRS.sub(_REPLACEMENT, value)  # JSON and bytes that are no UTF-8 can spell such halves
        return readable, None if readable == value else "invalid UTF-8"
    if value is None:
        return None, None
    if isinstance(value, bool) and (loose or role == "label"):
        return str(value).lower(), None
    if isinstance(value, int) and (loose or role == "label"):
        return str(value), None
    if isinstance(value, float) and loose:  # as Arrow writes it, so that all formats agree
        return None if math.isnan(value) else repr(value).removesuffix(".0"), None
    lists = accepts_list(role, loose)
    if isinstance(value, list) and lists:
        return json.dumps(value), None
    if not loose:
        return json.dumps(value), f"{role} is no text"
    what = "a list" if isinstance(value, list) else "an object"
    needed = "one value or a list" if lists else "one value"
    return json.dumps(value), f"{role.removeprefix(_FEATURE)} holds {what}; {needed} is needed"


def _places(mask: Any) -> list[int]:
    found: list[int] = pc.indices_nonzero(pc.fill_null(mask, False)).to_pylist()
    return found
