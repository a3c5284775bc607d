"""Rows of a csv or tsv file.

The standard library's reader: it keeps the count of rows exact and refuses a quote that is never closed.
"""

from __future__ import annotations

import csv
import io
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

# Characters of whole lines that are looked at together.
_AT_ONCE = 1 << 16
# No message has more lines; a row of a file with an unbalanced quote has.
_MAX_LINES = 1000
_BOM = b"\xef\xbb\xbf"
# Python 3.10's reader refuses a NUL. Undecodable bytes become \udc80 to \udcff, so this one is free to stand for it.
_NUL_SIGN = "\udc00"


def read_delimited(
    stream: io.BufferedReader, path: str, columns: dict[str, str], loose: frozenset[str], delimiter: str = ","
) -> Iterator[pa.Table]:
    """Yield the rows below the header. Raises `DataError` for a missing column and for quotes that do not match."""
    csv.field_size_limit(1 << 26)
    if stream.peek(3)[:3] == _BOM:
        stream.read(3)
    lines = _Lines(io.TextIOWrapper(stream, encoding="utf-8", errors="surrogateescape", newline=""))
    reader = csv.reader(lines, delimiter=delimiter, strict=True)
    header: list[str] = []
    rows: list[list[str]] = []
    done = 0
    try:
        header = next(reader, [])
        check_columns(columns, header, path)
        places = {role: header.index(column) for role, column in columns.items()}
        line, end = reader.line_num, BLOCK_SIZE
        for cells in reader:
            if not cells:  # an empty line is no row
                continue
            rows.append(cells)
            if len(rows) == BLOCK_ROWS or lines.chars >= end:
                yield _block(rows, done + 1, len(header), places, loose, reader.line_num - line, lines.any_nul)
                done += len(rows)
                rows.clear()
                line, end = reader.line_num, lines.chars + BLOCK_SIZE
        if rows:
            yield _block(rows, done + 1, len(header), places, loose, reader.line_num - line, lines.any_nul)
    except csv.Error as error:
        where = f"row {done + len(rows) + 1}" if header else "its header"
        raise DataError(
            f"{path}: {where}, which begins before line {reader.line_num}, is not csv: {error}",
            'close the quote, and write a quote inside a cell twice: ""',
        ) from error


class _Lines:
    """The lines of a file without NUL characters, taken some at a time, because a look at each costs more than all else."""

    def __init__(self, text: io.TextIOWrapper) -> None:
        self._text = text
        self.chars = 0
        """Characters so far, to the end of those taken together."""
        self.any_nul = False
        """Whether there was a NUL so far."""

    def __iter__(self) -> Iterator[str]:
        while lines := self._text.readlines(_AT_ONCE):
            joined = "".join(lines)
            self.chars += len(joined)
            if "\0" in joined:
                self.any_nul = True
                lines = [line.replace("\0", _NUL_SIGN) for line in lines]
            yield from lines


def _block(
    rows: list[list[str]],
    first: int,
    width: int,
    places: dict[str, int],
    loose: frozenset[str],
    n_lines: int,
    any_nul: bool,
) -> pa.Table:
    reasons: Reasons = {}
    if set(map(len, rows)) != {width}:
        first_place = next(iter(places.values()))
        for at, row in enumerate(rows):
            if len(row) != width:
                reasons[at] = "wrong number of cells"
                shown = [""] * width
                shown[first_place] = ",".join(row)[:SHOWN_CHARS]
                rows[at] = shown
    cells = {role: [row[place] for row in rows] for role, place in places.items()}
    for role in cells:
        if any_nul:
            cells[role] = [cell.replace(_NUL_SIGN, "\0") for cell in cells[role]]
        if n_lines > len(rows) + _MAX_LINES:  # an opening quote that found its end far below
            long = [at for at, cell in enumerate(cells[role]) if cell.count("\n") > _MAX_LINES]
            note_reason(reasons, long, f"over {_MAX_LINES} lines in one cell")
    return to_block(range(first, first + len(rows)), cells, reasons, loose)
