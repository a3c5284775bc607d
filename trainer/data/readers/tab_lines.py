"""Read tab-separated lines, where a quote is a character like any other unless it surrounds a whole cell.

Both habits are common: databases and corpora write quotes as they are, Excel and pandas put quotes around cells that
hold a quote, a tab or a line end. Each line decides for itself:

- A cell in quotes, whose inner quotes are all doubled, is unquoted. Other quotes stay.
- A line whose number of cells is not the header's is read as quoted, with the lines after it that its open quote needs.
  Unless that gives the header's number of cells, the line stays as it is: a bad row.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator

_QUOTE = '"'
#: A cell with more lines comes from an unbalanced quote, not from a long message.
MAX_LINES = 1000


class TabLines:
    """The rows of tab-separated lines, like a `csv.reader`: lists of cells, [] for an empty line."""

    def __init__(self, lines: Iterable[str]) -> None:
        self._lines = iter(lines)
        self._waiting: list[str] = []
        self._width = 0
        self.line_num = 0
        """Lines read so far."""

    def __iter__(self) -> Iterator[list[str]]:
        return self

    def __next__(self) -> list[str]:
        line = self._take()
        cells = _split(line)
        if not self._width:
            self._width = len(cells)
        elif _QUOTE in line and self._may_be_quoted(cells):
            cells = self._read_quoted(line) or cells
        return [_unquote(cell) for cell in cells] if _QUOTE in line else cells

    def expect(self, width: int) -> None:
        """Set the number of cells of a row; without it, the first line decides."""
        self._width = width

    def _take(self) -> str:
        line = self._waiting.pop(0) if self._waiting else next(self._lines)
        self.line_num += 1
        return line

    def _may_be_quoted(self, cells: list[str]) -> bool:
        """Whether the line is torn as it is, or ends in an open quote before a line that is torn without it."""
        if len(cells) != self._width:
            return any(cell.startswith(_QUOTE) for cell in cells)
        last = cells[-1]
        if not last.startswith(_QUOTE) or _is_quoted(last) or not self._look_ahead(1):
            return False
        return len(_split(self._waiting[0])) != self._width

    def _read_quoted(self, line: str) -> list[str] | None:
        """Return the cells of the row that begins with `line`, in quotes; None if that is no row."""
        n_quotes, n_more = line.count(_QUOTE), 0
        while n_quotes % 2:  # a quote is open
            if n_more == MAX_LINES or not self._look_ahead(n_more + 1):
                return None
            n_quotes += self._waiting[n_more].count(_QUOTE)
            n_more += 1
        text = "".join([line, *self._waiting[:n_more]])
        try:
            rows = list(csv.reader(io.StringIO(text, newline=""), delimiter="\t", strict=True))
        except csv.Error:
            return None
        if len(rows) != 1 or len(rows[0]) != self._width:
            return None
        del self._waiting[:n_more]
        self.line_num += n_more
        # Quotes that are part of the text are doubled, so that `_unquote` gives them back.
        return [f'"{cell.replace(_QUOTE, _QUOTE * 2)}"' for cell in rows[0]]

    def _look_ahead(self, n_lines: int) -> bool:
        """Read lines until `n_lines` wait; return whether there are as many."""
        while len(self._waiting) < n_lines:
            line = next(self._lines, None)
            if line is None:
                return False
            self._waiting.append(line)
        return True


def _split(line: str) -> list[str]:
    line = line.rstrip("\r\n")
    return line.split("\t") if line else []


def _is_quoted(cell: str) -> bool:
    return len(cell) > 1 and cell[0] == cell[-1] == _QUOTE and _QUOTE not in cell[1:-1].replace(_QUOTE * 2, "")


def _unquote(cell: str) -> str:
    return cell[1:-1].replace(_QUOTE * 2, _QUOTE) if _is_quoted(cell) else cell
