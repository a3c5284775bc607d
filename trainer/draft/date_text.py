"""Recognize columns of dates and the format that they are written in."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from trainer.features.cells import BadCell
from trainer.features.dates import make_date_parser
from trainer.spec.features import MISSING_WORDS, DateSpec

_MIN_SHARE = 0.9
_MAX_WORDS = 5
# A quick test, so that free text is not parsed by every format.
_LIKE_DATE = re.compile(
    r"[^\W_]{1,9}[-/. ,]{1,2}[^\W_]{1,9}[-/. ,]{1,2}\d{2,4}\b|\d{4}-\d{2}-\d{2}|\d{4}/\d{1,2}/\d{1,2}"
)
_DAYS = ("%d.%m.%Y", "%m/%d/%Y", "%d/%m/%Y", "%Y/%m/%d", "%d-%m-%Y", "%m-%d-%Y", "%d %b %Y", "%d %B %Y", "%b %d, %Y",
         "%B %d, %Y", "%d-%b-%Y", "%m/%d/%y", "%d.%m.%y")  # fmt: skip
_TIMES = ("", " %H:%M", " %H:%M:%S", " %I:%M %p", " %I:%M:%S %p")
#: Formats that read the same cells, if no day is over 12.
_OTHER_ORDER = {"%m/%d/%Y": "%d/%m/%Y", "%m-%d-%Y": "%d-%m-%Y", "%d-%m-%Y": "%m-%d-%Y"}


class DateForm(NamedTuple):
    """How the dates of a column are written."""

    rules: dict[str, Any]
    """Keys of `DateSpec` that differ from their defaults; empty for ISO 8601."""
    moments: dict[str, int]
    """Cell -> microseconds since 1970."""
    words: list[str]
    """Cells that are not dates: they are read as missing."""
    other_format: str | None
    """Another format that reads the cells too: day and month could be swapped."""


def read_date_form(cells: Mapping[str, int]) -> DateForm | None:
    """Return how the cells (cell -> rows) write dates, or None if they are not dates of one format."""
    n_like = sum(bool(_LIKE_DATE.match(cell.strip())) for cell in cells)
    if n_like < _MIN_SHARE * len(cells):
        return None
    for date_format in (None, *(day + time for time in _TIMES for day in _DAYS)):
        form = _read_by(cells, date_format)
        if form is not None:
            day = re.split(r" %[HI]", date_format or "")[0]
            other = _OTHER_ORDER.get(day)
            other = other + date_format[len(day) :] if other and date_format else None
            is_ambiguous = other is not None and _read_by(cells, other) is not None
            return form._replace(other_format=other if is_ambiguous else None)
    return None


def _read_by(cells: Mapping[str, int], date_format: str | None) -> DateForm | None:
    rules: dict[str, Any] = {"format": date_format} if date_format else {}
    parse = make_date_parser(DateSpec(**rules))
    moments: dict[str, int] = {}
    words: list[str] = []
    n_bad, n_all = 0, sum(cells.values())
    for cell, count in cells.items():
        moment = parse(cell)
        if isinstance(moment, BadCell):
            words.append(cell)
            n_bad += count
            if _LIKE_DATE.match(cell.strip()) or len(words) > _MAX_WORDS or n_bad > (1 - _MIN_SHARE) * n_all:
                return None
        else:
            moments[cell] = moment
    if not moments:
        return None
    if words:
        rules["missing_words"] = [*MISSING_WORDS, *words]
    return DateForm(rules, moments, words, None)
