"""The header and the rows of a csv or tsv file, as lists of cells.

Uses the standard library's reader: it counts rows exactly and rejects a quote that is never closed. `dialect` says how
cells are separated and quoted.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator
from typing import Any

from cluster.errors import DataError
from trainer.data.readers.dialect import Dialect, without_empty_end
from trainer.data.readers.tab_lines import TabLines

#: Stands for NUL, which Python 3.10's csv reader rejects. Undecodable bytes become \udc80 to \udcff, so no file gives
#: this character.
NUL_SIGN = "\udc00"
# Lines are read in chunks of about this many characters.
_CHUNK_CHARS = 1 << 16
_MAX_CELL_CHARS = 1 << 26
_SHOWN_CHARS = 120
_ESCAPED = re.compile(r"\\(.)", re.DOTALL)
_ESCAPED_SIGNS = {"n": "\\\n", "r": "\\\r", "t": "\\\t"}


class DelimitedRows:
    """Iterates over the rows below the header. Raises `DataError` for quotes that do not match."""

    def __init__(self, stream: io.BufferedReader, path: str, dialect: Dialect) -> None:
        csv.field_size_limit(_MAX_CELL_CHARS)
        self._path, self._n_rows = path, 0
        self.dialect = dialect
        text = io.TextIOWrapper(stream, encoding="utf-8", errors="surrogateescape", newline="")
        self.lines = _Lines(text, dialect)
        self._reader: Any = TabLines(self.lines) if dialect.quotes_whole_cells else _csv_reader(self.lines, dialect)
        self.header: list[str] = []
        self.header = dialect.header or self._read_header()
        self.header_line = "" if dialect.header else self.lines.row_line.rstrip("\r\n")
        """The header as it is written; empty if the spec names the columns."""
        self.width = len(without_empty_end(self.header))
        """Cells of a row: those of the header, without empty ones at its end."""
        if dialect.quotes_whole_cells:
            self._reader.expect(len(self.header))

    def __iter__(self) -> Iterator[list[str]]:
        lines, has_one_cell = self.lines, len(self.header) == 1
        try:
            for cells in self._reader:
                lines.is_row_start = True
                # Lines that are empty, or hold only spaces or the end-of-file sign of DOS, are no rows.
                if len(cells) > 1 or (cells and (has_one_cell or cells[0].strip(" \t\x1a"))):
                    self._n_rows += 1
                    yield cells
        except csv.Error as error:
            raise self._quote_error(str(error)) from error

    def _read_header(self) -> list[str]:
        """Return the cells of the first line that is not empty; [] if there is none."""
        try:
            for cells in self._reader:
                self.lines.is_row_start = True
                if any(cell.strip() for cell in cells):
                    return list(cells)
        except csv.Error as error:
            raise self._quote_error(str(error)) from error
        return []

    def _quote_error(self, message: str) -> DataError:
        where = f"row {self._n_rows + 1}" if self.header else "its header"
        start = self.lines.row_line.rstrip("\r\n")[:_SHOWN_CHARS].replace(NUL_SIGN, "\ufffd")
        fix = (
            'close the quote, and write a quote inside a cell twice: ""; or set `data.format: {quote: none}` if quotes '
        )
        fix += "are part of the text"
        if '\\"' in self.lines.row_line and not self.dialect.escape:
            fix = 'set `data.format: {escape: "\\\\"}`: a backslash stands before the quotes in its cells'
        return DataError(
            f"{self._path}: {where}, which begins at line {self.lines.row_number}, is not valid csv: {message}; it reads {start!r}",
            fix,
        )


class _Lines:
    """The lines of a file with NUL characters replaced. Reads many lines at once: checking each line alone is slow."""

    def __init__(self, text: io.TextIOWrapper, dialect: Dialect) -> None:
        self._text, self._comment = text, dialect.comment
        self._escapes = _Escapes(dialect.separator) if dialect.escape == "\\" else None
        self.number = 0
        """Lines read so far."""
        self.chars = 0
        """Characters read so far, counted in whole chunks of lines."""
        self.has_nul = False
        """Whether a NUL was read so far."""
        self.is_row_start = True
        """Whether the next line is the first of a row. The reader of the rows sets it."""
        self.row_line, self.row_number = "", 0
        """The first line of the row that was read last, and its number."""
        for _ in range(dialect.skip_lines):
            text.readline()
            self.number += 1

    def __iter__(self) -> Iterator[str]:
        while lines := self._text.readlines(_CHUNK_CHARS):
            joined = "".join(lines)
            self.chars += len(joined)
            if "\0" in joined:
                self.has_nul = True
                lines = [line.replace("\0", NUL_SIGN) for line in lines]
            if self._escapes and "\\" in joined:
                lines = [self._escapes.replace(line) for line in lines]
            for line in lines:
                self.number += 1
                if self.is_row_start:
                    if self._comment and line.startswith(self._comment):
                        continue
                    self.is_row_start, self.row_line, self.row_number = False, line, self.number
                yield line


class _Escapes:
    """What a backslash means in exports of databases, beyond that it takes the meaning of the next character away."""

    def __init__(self, separator: str) -> None:
        sign = re.escape(separator)
        self._missing = re.compile(rf"(?<![^{sign}])\\N(?![^{sign}\r\n])")

    def replace(self, line: str) -> str:
        """Return a line with `\\N` as an empty cell, and with line ends and tabs for `\\n`, `\\r` and `\\t`."""
        line = self._missing.sub("", line)
        return _ESCAPED.sub(lambda match: _ESCAPED_SIGNS.get(match[1], match[0]), line)


def _csv_reader(lines: Any, dialect: Dialect) -> Any:
    return csv.reader(
        iter(lines),
        delimiter=dialect.separator,
        quotechar=dialect.quote,
        quoting=csv.QUOTE_MINIMAL if dialect.quote else csv.QUOTE_NONE,
        escapechar=dialect.escape,
        strict=True,
    )
