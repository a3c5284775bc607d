"""Read the rows of a csv or tsv file.

Uses the standard library's reader: it counts rows exactly and rejects a quote that is never closed.
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

#: Delimiter by format; the formats are those of `data.format` in `trainer.spec.data`.
DELIMITERS = {"csv": ",", "tsv": "\t"}
# Lines are read in chunks of about this many characters.
_CHUNK_CHARS = 1 << 16
# A cell with more lines comes from an unbalanced quote, not from a long message.
_MAX_LINES = 1000
_BOM = b"\xef\xbb\xbf"
# Stands for NUL, which Python 3.10's csv reader rejects. Undecodable bytes become \udc80 to \udcff, so no file
# gives this character.
_NUL_SIGN = "\udc00"


def read_delimited(
    stream: io.BufferedReader, path: str, columns: dict[str, str], loose: frozenset[str], delimiter: str = ","
) -> Iterator[pa.Table]:
    """Yield the rows below the header. Raises `DataError` for a missing column and for quotes that do not match."""
    csv.field_size_limit(1 << 26)
    skip_byte_order_mark(stream)
    lines = _Lines(io.TextIOWrapper(stream, encoding="utf-8", errors="surrogateescape", newline=""))
    reader = csv.reader(lines, delimiter=delimiter, strict=True)
    header: list[str] = []
    rows: list[list[str]] = []
    n_done = 0
    try:
        header = next(reader, [])
        check_columns(columns, header, path)
        cell_of_role = {role: header.index(column) for role, column in columns.items()}
        first_line, end = reader.line_num, BLOCK_SIZE
        for cells in reader:
            if not cells:  # an empty line is not a row
                continue
            rows.append(cells)
            if len(rows) == BLOCK_ROWS or lines.chars >= end:
                n_lines = reader.line_num - first_line
                yield _make_block(rows, n_done + 1, len(header), cell_of_role, loose, n_lines, lines.has_nul)
                n_done += len(rows)
                rows.clear()
                first_line, end = reader.line_num, lines.chars + BLOCK_SIZE
        if rows:
            n_lines = reader.line_num - first_line
            yield _make_block(rows, n_done + 1, len(header), cell_of_role, loose, n_lines, lines.has_nul)
    except csv.Error as error:
        where = f"row {n_done + len(rows) + 1}" if header else "its header"
        raise DataError(
            f"{path}: {where}, which begins before line {reader.line_num}, is not valid csv: {error}",
            'close the quote, and write a quote inside a cell twice: ""',
        ) from error


def skip_byte_order_mark(stream: io.BufferedReader) -> None:
    """Move the stream behind the byte order mark that some editors write at its start."""
    if stream.peek(3)[:3] == _BOM:
        stream.read(3)


class _Lines:
    """The lines of a file with NUL characters replaced. Reads many lines at once: checking each line alone is slow."""

    def __init__(self, text: io.TextIOWrapper) -> None:
        self._text = text
        self.chars = 0
        """Characters read so far, counted in whole chunks of lines."""
        self.has_nul = False
        """Whether a NUL was read so far."""

    def __iter__(self) -> Iterator[str]:
        while lines := self._text.readlines(_CHUNK_CHARS):
            joined = "".join(lines)
            self.chars += len(joined)
            if "\0" in joined:
                self.has_nul = True
                lines = [line.replace("\0", _NUL_SIGN) for line in lines]
            yield from lines


def _make_block(
    rows: list[list[str]],
    first: int,
    width: int,
    cell_of_role: dict[str, int],
    loose: frozenset[str],
    n_lines: int,
    has_nul: bool,
) -> pa.Table:
    """Return the block of `rows`, whose first row has the number `first`; `width` is the header's number of cells."""
    reasons: Reasons = {}
    _replace_torn_rows(rows, width, next(iter(cell_of_role.values())), reasons)
    cells = {role: [row[index] for row in rows] for role, index in cell_of_role.items()}
    for role in cells:
        if has_nul:
            cells[role] = [cell.replace(_NUL_SIGN, "\0") for cell in cells[role]]
        if n_lines > len(rows) + _MAX_LINES:  # a missing closing quote joins many lines into one cell
            long = [index for index, cell in enumerate(cells[role]) if cell.count("\n") > _MAX_LINES]
            note_reason(reasons, long, f"over {_MAX_LINES} lines in one cell")
    return to_block(range(first, first + len(rows)), cells, reasons, loose)


def _replace_torn_rows(rows: list[list[str]], width: int, shown_cell: int, reasons: Reasons) -> None:
    """Empty the cells of rows with a wrong number of cells; put the start of the row into the cell `shown_cell`."""
    if set(map(len, rows)) == {width}:
        return
    for index, row in enumerate(rows):
        if len(row) != width:
            reasons[index] = "wrong number of cells"
            cells = [""] * width
            cells[shown_cell] = ",".join(row)[:SHOWN_CHARS]
            rows[index] = cells
