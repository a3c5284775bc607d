"""Blocks of rows from a csv or tsv file."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pyarrow as pa

from cluster.errors import DataError
from trainer.data.readers.blocks import (
    BLOCK_ROWS,
    BLOCK_SIZE,
    SHOWN_CHARS,
    Reasons,
    check_columns,
    note_reason,
    to_block,
)
from trainer.data.readers.delimited_rows import NUL_SIGN, DelimitedRows
from trainer.data.readers.dialect import detect_dialect
from trainer.data.readers.evidence import invalid_text_error
from trainer.data.readers.tab_lines import MAX_LINES
from trainer.data.readers.text_stream import TextStream
from trainer.spec.format import FormatSpec

_SHOWN_LINE_CHARS = 120
_BAD_BYTES = re.compile("[\udc80-\udcff]")
_SEPARATOR_NAMES = {"\t": "a tab", ",": "a comma", ";": "a semicolon"}


def open_delimited(text: TextStream, path: str, file_format: str, reading: FormatSpec) -> DelimitedRows:
    """Return the header and the rows of a csv or tsv file."""
    return DelimitedRows(text.stream, path, detect_dialect(text.head, file_format, reading))


def read_delimited(
    text: TextStream, path: str, columns: dict[str, str], loose: frozenset[str], file_format: str, reading: FormatSpec
) -> Iterator[pa.Table]:
    """Yield the rows below the header. Raises `DataError` for a missing column and for quotes that do not match."""
    source = open_delimited(text, path, file_format, reading)
    if not source.header:
        return
    try:
        check_columns(columns, source.header, path)
    except DataError as error:
        raise _header_error(error, source, path, text.encoding, set(columns.values())) from error
    cell_of_role = {role: source.header.index(column) for role, column in columns.items()}
    rows: list[list[str]] = []
    n_done, first_line, end = 0, source.lines.number, BLOCK_SIZE
    for cells in source:
        rows.append(cells)
        if len(rows) == BLOCK_ROWS or source.lines.chars >= end:
            yield _make_block(rows, n_done + 1, source, cell_of_role, loose, source.lines.number - first_line)
            n_done += len(rows)
            rows.clear()
            first_line, end = source.lines.number, source.lines.chars + BLOCK_SIZE
    if rows:
        yield _make_block(rows, n_done + 1, source, cell_of_role, loose, source.lines.number - first_line)


def _header_error(error: DataError, source: DelimitedRows, path: str, encoding: str, columns: set[str]) -> DataError:
    """Return the error for a missing column. If the header has none of `columns`, it says what the header was taken for."""
    if _BAD_BYTES.search(source.header_line):
        return invalid_text_error(path, encoding) or error
    if columns & set(source.header):
        return error
    sign = source.dialect.separator
    line = source.header_line[:_SHOWN_LINE_CHARS].replace(NUL_SIGN, "\ufffd")
    shown = f"its first line is {line!r}" if line else "`data.format` names its columns"
    return DataError(
        f"{error.problem}; its cells are separated by {_SEPARATOR_NAMES.get(sign, repr(sign))}, and {shown}",
        "if cells are separated by another sign, set `data.format: {separator: ...}`; if the file has no header line, set "
        f"`data.format: {{header: [NAME, ...]}}`; else {error.fix[0].lower()}{error.fix[1:]}",
    )


def _make_block(
    rows: list[list[str]],
    first: int,
    source: DelimitedRows,
    cell_of_role: dict[str, int],
    loose: frozenset[str],
    n_lines: int,
) -> pa.Table:
    """Return the block of `rows`, whose first row has the number `first`, from `n_lines` lines."""
    reasons: Reasons = {}
    _replace_torn_rows(rows, source, next(iter(cell_of_role.values())), reasons)
    cells = {role: [row[index] for row in rows] for role, index in cell_of_role.items()}
    for role in cells:
        if source.lines.has_nul:
            cells[role] = [cell.replace(NUL_SIGN, "\0") for cell in cells[role]]
        if n_lines > len(rows) + MAX_LINES:  # a missing closing quote joins many lines into one cell
            long = [index for index, cell in enumerate(cells[role]) if cell.count("\n") > MAX_LINES]
            note_reason(reasons, long, f"over {MAX_LINES} lines in one cell")
    return to_block(range(first, first + len(rows)), cells, reasons, loose)


def _replace_torn_rows(rows: list[list[str]], source: DelimitedRows, shown_cell: int, reasons: Reasons) -> None:
    """Empty the cells of rows with a wrong number of cells; put the start of the row into the cell `shown_cell`.

    Separators at the end of a row or of the header, with nothing behind them, do not count.
    """
    width, full = source.width, len(source.header)
    if set(map(len, rows)) == {full}:
        return
    for index, row in enumerate(rows):
        if len(row) == full:
            continue
        if width <= len(row) < full or (len(row) > full and not any(row[full:])):
            rows[index] = [*row, *[""] * full][:full]
            continue
        reasons[index] = "wrong number of cells"
        cells = [""] * full
        cells[shown_cell] = source.dialect.separator.join(row)[:SHOWN_CHARS]
        rows[index] = cells
