"""How the cells of a delimited file are separated and quoted, from the spec and from the file's first lines.

The separator is the one of the extension (a comma for csv, a tab for tsv) unless the first lines show another for
certain: the header has several cells with it, and more of the first rows have as many cells as the header. Excel's line
`sep=;` says it outright. Nothing after the first lines changes how a file is read.
"""

from __future__ import annotations

import csv
import io
import itertools
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

from trainer.data.readers.tab_lines import TabLines
from trainer.data.readers.text_stream import HEAD_BYTES
from trainer.spec.format import FormatSpec

#: Separator by format; the formats are those of `data.format`.
SEPARATORS = {"csv": ",", "tsv": "\t"}
_CANDIDATES = (",", ";", "\t", "|")
# Excel writes and reads such a line before the header.
_SEPARATOR_LINE = re.compile(r'\A"?sep=(.)"?(?:\r\n|\r|\n|\Z)', re.IGNORECASE)
_LINE_END = re.compile(r"\r\n|\r|\n")
_SAMPLE_ROWS = 100


class Dialect(NamedTuple):
    """How a delimited file is read."""

    separator: str
    quote: str | None
    """None: no quotes."""
    escape: str | None
    skip_lines: int
    """Lines before the header."""
    comment: str | None
    header: list[str] | None
    """Names of the columns of a file without a header."""
    quotes_whole_cells: bool
    """Whether a quote counts only where it surrounds a whole cell, as in tab-separated files."""


def detect_dialect(head: bytes, file_format: str, reading: FormatSpec) -> Dialect:
    """Return how a file is read that begins with `head`, UTF-8; `file_format` is csv or tsv."""
    text = head.decode("utf-8", errors="replace").replace("\0", "\ufffd")
    if len(head) >= HEAD_BYTES:  # the last line is cut off
        text = text[: max(text.rfind("\n"), text.rfind("\r")) + 1]
    skip_lines = reading.skip_lines
    text = _without_lines(text, skip_lines)
    line = _SEPARATOR_LINE.match(text)
    if line:
        skip_lines += 1
        text = text[line.end() :]
    quote = None if reading.quote == "none" else reading.quote or '"'
    separator = reading.separator or (
        line[1] if line else _detect_separator(text, SEPARATORS[file_format], quote, reading)
    )
    return Dialect(
        separator=separator,
        quote=quote,
        escape=reading.escape_sign,
        skip_lines=skip_lines,
        comment=reading.comment,
        header=reading.header,
        quotes_whole_cells=separator == "\t" and reading.quote is None and reading.escape_sign is None,
    )


def _without_lines(text: str, n_lines: int) -> str:
    for _ in range(n_lines):
        end = _LINE_END.search(text)
        text = text[end.end() :] if end else ""
    return text


def _detect_separator(text: str, own: str, quote: str | None, reading: FormatSpec) -> str:
    """Return the separator of the file that begins with `text`; `own` is that of its extension."""
    if reading.comment:
        lines = text.splitlines(keepends=True)
        text = "".join(line for line in lines if not line.startswith(reading.comment))
    own_fit = _measure_fit(text, own, quote, reading)
    if own_fit.matching == 1:
        return own
    others = {sign: _measure_fit(text, sign, quote, reading) for sign in _CANDIDATES if sign != own}
    matching = {sign: fit.matching for sign, fit in others.items()}
    winner = _only_largest(matching, above=max(0.5, own_fit.matching))
    if winner is None and own_fit.splitting == 0:  # the header has one cell; all rows may be torn with the right one
        winner = _only_largest({sign: fit.splitting for sign, fit in others.items()}, above=0.5)
    return winner or own


def _only_largest(shares: dict[str, float], above: float) -> str | None:
    """Return the separator with the largest share, if it is above `above` and no other has the same."""
    largest = max(shares.values())
    winners = [sign for sign, share in shares.items() if share == largest]
    return winners[0] if len(winners) == 1 and largest > above else None


class _Fit(NamedTuple):
    """How well a separator fits the first rows; both are 0 if the header has one cell."""

    matching: float
    """Share of rows that have as many cells as the header."""
    splitting: float
    """Share of rows that have several cells."""


def _measure_fit(text: str, separator: str, quote: str | None, reading: FormatSpec) -> _Fit:
    rows = _sample_rows(text, separator, quote, reading)
    header = reading.header or (rows.pop(0) if rows else [])
    width = len(without_empty_end(header))
    if width < 2:
        return _Fit(0.0, 0.0)
    fits = [width <= len(row) <= len(header) or len(without_empty_end(row)) == width for row in rows]
    n_rows = max(1, len(rows))
    return _Fit(sum(fits) / n_rows if rows else 1.0, sum(len(row) > 1 for row in rows) / n_rows)


def _sample_rows(text: str, separator: str, quote: str | None, reading: FormatSpec) -> list[list[str]]:
    """Return the first rows, without empty lines."""
    lines = io.StringIO(text, newline="")
    rows: Iterator[list[str]]
    if separator == "\t" and reading.quote is None:
        rows = TabLines(lines)
    else:
        quoting: Any = csv.QUOTE_MINIMAL if quote else csv.QUOTE_NONE
        rows = csv.reader(lines, delimiter=separator, quotechar=quote, quoting=quoting, escapechar=reading.escape_sign)
    try:
        return list(itertools.islice((row for row in rows if row), _SAMPLE_ROWS + 1))
    except csv.Error:  # a cell that is longer than the reader's limit
        return []


def without_empty_end(cells: list[str]) -> list[str]:
    end = len(cells)
    while end and not cells[end - 1].strip():
        end -= 1
    return cells[:end]
