"""Columns of dates and times: parsed as microseconds since 1970 in UTC, encoded by their parts."""

from __future__ import annotations

import contextlib
import datetime as dt
import decimal
import functools
import math
import re
from collections.abc import Callable
from typing import Literal

import numpy as np

from cluster.errors import DataError
from trainer.features.cells import (
    BadCell,
    CellOutcome,
    CellReader,
    Cells,
    ParsedColumn,
    format_cell,
    read_cells,
    reject_missing,
)
from trainer.features.sketch import Sketch, quantile
from trainer.spec.features import CYCLES, DateSpec
from trainer.spec.section import SpecSection
from trainer.values.moment_columns import parse_moments
from trainer.values.moments import EARLIEST, EXAMPLES, LATEST, format_moment, parse_moment, to_microseconds
from trainer.values.numbers import parse_number

_DAY = 86_400_000_000
#: Microseconds in each unit of numbers.
_UNITS = {"s": 1_000_000, "ms": 1000}
# As Arrow spells a time after the year 9999, or before the year 1.
_TOO_LATE = re.compile(r"\s*(?:[0-9]{5,}|-[0-9]{4,})-[0-9]{2}-[0-9]{2}|<value out of range")
_OUTSIDE = "is outside the years 1 to 9999"


def read_dates(rules: DateSpec, cells: Cells) -> ParsedColumn:
    """Return int64 microseconds since 1970 in UTC. Finer fractions are cut off; years are limited to 1 to 9999."""
    is_plain = rules.format is None and rules.unit is None
    reader = CellReader(
        "a date",
        make_date_parser(rules),
        np.int64,
        rules.missing_words,
        parse_column=parse_moments if is_plain else None,
    )
    return reject_missing(read_cells(cells, reader), rules.missing)


def make_date_parser(rules: DateSpec) -> Callable[[str], int | BadCell]:
    """Return the function that reads one text that is not missing, as microseconds since 1970 in UTC."""
    # In a column with a `format`, a date that is not a text is spelled in ISO 8601. A format that begins with the year
    # could read it with day and month swapped.
    reads_iso = rules.format is None or "%Y-" not in rules.format

    def parse(text: str) -> int | BadCell:
        if rules.unit is not None:
            number = parse_number(text)
            if number is not None:
                return _read_number(text, _UNITS[rules.unit])
        if rules.format is not None:
            with contextlib.suppress(ValueError, OverflowError):
                return to_microseconds(dt.datetime.strptime(text.strip(), rules.format))
        moment = parse_moment(text) if reads_iso else None
        if moment is not None:
            return moment
        if _TOO_LATE.match(text):
            return BadCell(f"{format_cell(text)} {_OUTSIDE}")
        if rules.format:
            return BadCell(f"{format_cell(text)} is not a date in the format {rules.format}")
        return BadCell(f"{format_cell(text)} is not a date such as {EXAMPLES}")

    return parse


def _read_number(text: str, unit: int) -> int | BadCell:
    """Return a number of seconds or milliseconds as microseconds, without rounding to a float64 on the way."""
    moment = math.floor(decimal.Decimal(text.strip()) * unit)
    return moment if EARLIEST <= moment <= LATEST else BadCell(f"{format_cell(text)} {_OUTSIDE}")


class FittedDate(SpecSection):
    """A fitted column of dates and times."""

    kind: Literal["date"] = "date"
    name: str
    rules: DateSpec
    first: str
    """The earliest date of the training rows, ISO 8601 in UTC."""
    last: str
    """The latest date of the training rows."""
    fill: str | None
    """Replaces a missing date; None if such a row is rejected."""
    saw_missing: bool = False
    """Whether a training row had no date."""

    @property
    def names(self) -> list[str]:
        """Names of the outputs."""
        names: list[str] = []
        for part in self.rules.parts:
            suffixes = ("_sin", "_cos") if self._is_cyclic(part) else ("",)
            names += [f"{self.name}.{part}{suffix}" for suffix in suffixes]
        return [*names, f"{self.name} is missing"] if self.rules.indicator else names

    def encode(self, cells: Cells, out: np.ndarray) -> CellOutcome:
        """Fill `out`, float32 of shape (n, outputs)."""
        parsed = read_dates(self.rules, cells)
        moments = np.where(parsed.missing, 0 if self.fill is None else _moment(self.fill), parsed.values)
        first, last = _moment(self.first), _moment(self.last)
        column = 0
        for part in self.rules.parts:
            if part == "elapsed":
                out[:, column] = (moments - first) / max(last - first, 1)
            elif self._is_cyclic(part):
                sine, cosine = _circle(CYCLES[part])
                starts_at_1 = part in ("quarter", "month", "day_of_year", "day")
                step = _date_part(part, moments) - starts_at_1
                out[:, column], out[:, column + 1] = sine[step], cosine[step]
                column += 1
            else:
                base = int(self.first[:4]) if part == "year" else 0
                out[:, column] = _date_part(part, moments) - base
            column += 1
        if self.rules.indicator:
            out[:, column] = parsed.missing
        return CellOutcome(parsed.bad, parsed.missing & (not self.saw_missing))

    def _is_cyclic(self, part: str) -> bool:
        return self.rules.cyclic and part in CYCLES


def fit_date(name: str, rules: DateSpec, sketch: Sketch, missing: int) -> FittedDate:
    """Return the fitted column; `missing` counts the training rows without a date. Raises `DataError` if no row has a date."""
    if sketch.total == 0:
        raise DataError(f"column '{name}' has no date in any row", "remove the column")
    first, last = int(sketch.low[0]), int(sketch.high[-1])
    middle = min(max(math.floor(quantile(sketch, 0.5, as_floats=False)), first), last)
    first_text, last_text = format_moment(first), format_moment(last)
    fills = {"median": format_moment(middle), "first": first_text, "last": last_text, "reject": None}
    return FittedDate(
        name=name,
        rules=rules,
        first=first_text,
        last=last_text,
        fill=fills[rules.missing],
        saw_missing=missing > 0,
    )


def _moment(text: str) -> int:
    moment = parse_moment(text)
    assert moment is not None  # `format_moment` wrote it
    return moment


def _date_part(part: str, moments: np.ndarray) -> np.ndarray:
    """Return one part of each moment (int64 microseconds), int64 of the same shape."""
    days, within = moments // _DAY, moments % _DAY
    if part == "weekday":
        return (days + 3) % 7  # 1970-01-01 was a Thursday
    if part == "weekend":
        return ((days + 3) % 7 >= 5).astype(np.int64)
    if part in ("hour", "minute", "second"):
        seconds = within // 1_000_000
        return {"hour": seconds // 3600, "minute": seconds // 60 % 60, "second": seconds % 60}[part]
    dates = days.astype("datetime64[D]")
    years, months = dates.astype("datetime64[Y]"), dates.astype("datetime64[M]")
    if part == "year":
        return years.astype(np.int64) + 1970
    if part == "day":
        return (dates - months).astype(np.int64) + 1
    if part == "day_of_year":
        return (dates - years).astype(np.int64) + 1
    month = months.astype(np.int64) % 12
    return month + 1 if part == "month" else month // 3 + 1


@functools.cache
def _circle(steps: int) -> tuple[np.ndarray, np.ndarray]:
    """Return sine and cosine of each step of a cycle: one table, so a batch and a single row agree to the last bit."""
    angles = [2.0 * math.pi * step / steps for step in range(steps)]
    return (
        np.array([math.sin(angle) for angle in angles], np.float32),
        np.array([math.cos(angle) for angle in angles], np.float32),
    )
