"""Make blocks of rows from raw values. The readers of all formats share these rules for single values."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from cluster.errors import DataError, suggest
from trainer.tasks.roles import FEATURE, GROUP, TIME
from trainer.values.spelling import NotOneValue, spell_list, spell_value

#: A block ends with its 16,384th row, or with the row that brings its text to about this size. Only the rows decide
#: where a block ends, not the file's row groups, so a block number means the same rows in every run. The size is what
#: each format can count at no cost: characters of lines (csv, tsv), bytes of lines (jsonl), of columns (parquet,
#: arrow) or of files (folders).
BLOCK_ROWS, BLOCK_SIZE = 16_384, 16 << 20
#: Maximum size of a binary value; a larger one is not read to its end.
MAX_VALUE_BYTES = 64 << 20
TOO_LARGE = f"file over {MAX_VALUE_BYTES >> 20} MB"
#: Longest excerpt of a line or row that cannot be parsed.
SHOWN_CHARS = 1000

_SHOWN_NAMES, _NAME_CHARS = 50, 60
_SURROGATES = re.compile("[\ud800-\udfff]")
_REPLACEMENT = "\ufffd"

Reasons = dict[int, str]
"""Why rows cannot be used, by their index in the block. A row keeps its first reason."""


def to_block(
    numbers: range | list[int],
    cells: dict[str, list[Any]],
    reasons: Reasons,
    loose: frozenset[str] = frozenset(),
    decimal_signs: Mapping[str, str] | None = None,
    nested: frozenset[str] = frozenset(),
) -> pa.Table:
    """Return a block of rows: `row`, one text column for each role in `cells`, `reason`. Adds to `reasons`.

    Numbers that are not texts get the decimal sign of their role, by default a point. Lists and objects of the roles in
    `nested` become JSON text.
    """
    signs = decimal_signs or {}
    columns = {
        role: _to_text_array(
            [nested_text(value) for value in values] if role in nested else values,
            role,
            role in loose,
            reasons,
            signs.get(role, "."),
        )
        for role, values in cells.items()
    }
    return finish_block(numbers, columns, reasons, loose)


def finish_block(
    numbers: range | list[int], columns: dict[str, Any], reasons: Reasons, loose: frozenset[str] = frozenset()
) -> pa.Table:
    """Return a block of Arrow columns of text or bytes. Adds a reason for missing values and for NUL in a text."""
    for role, column in columns.items():
        if pa.types.is_large_binary(column.type):
            note_reason(reasons, _true_indices(pc.is_null(column)), f"missing {role}")
            continue
        if role in loose:
            column = pc.if_else(pc.equal(column, ""), pa.scalar(None, pa.string()), column)
        elif column.null_count:
            note_reason(reasons, _true_indices(pc.is_null(column)), f"missing {role}")
        has_nul = pc.match_substring(column, "\0")
        if pc.any(has_nul).as_py():
            note_reason(reasons, _true_indices(has_nul), "NUL character")
            column = pc.replace_substring(column, "\0", _REPLACEMENT)
        columns[role] = column
    reason_column = pa.nulls(len(numbers), pa.string())
    if reasons:
        reason_column = pa.array([reasons.get(index) for index in range(len(numbers))], pa.string())
    # Arrow would read the numbers of a `range` one by one.
    row_numbers: Any = np.arange(numbers.start, numbers.stop) if isinstance(numbers, range) else numbers
    return pa.table({"row": pa.array(row_numbers, pa.int64()), **columns, "reason": reason_column})


def nested_text(value: Any) -> Any:
    """Return a list or an object as JSON text, the same for the same value in every format; others are unchanged."""
    if isinstance(value, (list, dict)):
        return json.dumps(value, ensure_ascii=False, separators=(",", ":"), default=str)
    return value


def note_reason(reasons: Reasons, rows: Iterable[int], reason: str) -> None:
    """Set the reason of rows that have none yet."""
    for row in rows:
        reasons.setdefault(row, reason)


def check_columns(columns: dict[str, str], names: list[str], path: str) -> None:
    """Raise `DataError` for a column of `columns` (role -> column) that `names` lacks or holds twice."""
    for role, column in columns.items():
        if column not in names:
            shown = [_printable(name) for name in names[:_SHOWN_NAMES]]
            more = ", ..." if len(names) > len(shown) else ""
            raise DataError(
                f"{path} has no column '{column}'{role_phrase(role)} (it has: {', '.join(shown) or 'none'}{more})",
                _partition_fix(column, path)
                or suggest(column, shown, then=f"{column_fix(role)}, or rename the column in the file"),
            )
        if names.count(column) > 1:
            raise DataError(
                f"{path} has {names.count(column)} columns called '{column}'",
                "rename all of them but the column to read",
            )


def _partition_fix(column: str, path: str) -> str:
    """Return the fix for a column that is in the name of a folder of `path`, above what the spec names; else empty."""
    if f"/{column}=" not in path:
        return ""
    return f"name the folder above `{column}=...`, or a pattern such as `{column}=*`: then its name becomes a column"


def column_fix(role: str) -> str:
    """Return the fix that tells the user how the spec names another column for the role."""
    if role in (GROUP, TIME):
        return "Set `data.split.column: NAME`"
    if role.startswith(FEATURE):
        return "Write the column's exact name in `data.features`"
    return f"Set `data.columns: {{{role}: NAME}}`"


def role_phrase(role: str) -> str:
    """Return " for the ROLE", which messages put after a column's name; empty for a feature."""
    return "" if role.startswith(FEATURE) else f" for the {role}"


def accepts_list(role: str, loose: bool) -> bool:
    """Whether a value of the role may be a list, for example of tags: only for a loose role that is the target."""
    return loose and role not in (GROUP, TIME) and not role.startswith(FEATURE)


def _printable(name: str) -> str:
    """Return the start of a column name, with unprintable characters replaced: a binary file read as text has them."""
    return "".join(letter if letter.isprintable() else _REPLACEMENT for letter in name[:_NAME_CHARS])


def takes_any_type(role: str, loose: bool) -> bool:
    """Whether a value of the role may be a number, true or false, or a date: a label and loose roles."""
    return loose or role == "label"


def not_one_value(role: str, loose: bool, kind: str) -> str:
    """Return the reason for a value that is, for example, "a list"."""
    if not takes_any_type(role, loose):
        return f"{role} is not text"
    needed = "one value or a list" if accepts_list(role, loose) else "one value"
    return f"{role.removeprefix(FEATURE)} holds {kind}; {needed} is needed"


def _to_text_array(values: list[Any], role: str, loose: bool, reasons: Reasons, decimal_sign: str) -> Any:
    try:
        return pa.array(values, pa.string())
    except (pa.ArrowTypeError, UnicodeEncodeError):
        pass  # not all values are text: convert them one by one
    texts = []
    for index, value in enumerate(values):
        text, reason = _to_text(value, role, loose, decimal_sign)
        texts.append(text)
        if reason:
            reasons.setdefault(index, reason)
    return pa.array(texts, pa.string())


def _to_text(value: Any, role: str, loose: bool, decimal_sign: str) -> tuple[str | None, str | None]:
    """Return the value as text, and the reason why it cannot be used, or None."""
    if isinstance(value, str):
        # Lone surrogates come from JSON escapes and from bytes that are not UTF-8.
        text = _SURROGATES.sub(_REPLACEMENT, value)
        return text, None if text == value else "invalid UTF-8"
    if value is not None and not takes_any_type(role, loose):
        return json.dumps(value), f"{role} is not text"
    try:
        if isinstance(value, list) and accepts_list(role, loose):
            return spell_list(value), None
        return spell_value(value, decimal_sign), None
    except NotOneValue as error:
        return json.dumps(value), not_one_value(role, loose, str(error))


def _true_indices(mask: Any) -> list[int]:
    indices: list[int] = pc.indices_nonzero(pc.fill_null(mask, False)).to_pylist()
    return indices
