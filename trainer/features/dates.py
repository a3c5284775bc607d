"""Columns of dates and times: parsed as microseconds since 1970 in UTC, encoded by their parts."""

from __future__ import annotations

import datetime as dt
import functools
import math
import re
from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import pyarrow as pa

from cluster.errors import DataError
from trainer.features.cells import (
    BadCell,
    Cells,
    ParsedColumn,
    as_arrow,
    format_cell,
    make_missing_test,
    parse_cells,
    reject_missing,
)
from trainer.features.sketch import Sketch, quantile
from trainer.spec.features import CYCLES, DateSpec
from trainer.spec.section import SpecSection

_ISO = re.compile(
    r"([0-9]{4})-([0-9]{2})-([0-9]{2})"
    r"(?:[T ]([0-9]{2}):([0-9]{2})(?::([0-9]{2})(?:\.([0-9]{1,9}))?)?(Z|[+-][0-9]{2}:?[0-9]{2})?)?"
)
_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.timezone.utc)
_MICROSECOND = dt.timedelta(microseconds=1)
_DAY = 86_400_000_000
_EARLIEST = (dt.datetime.min.replace(tzinfo=dt.timezone.utc) - _EPOCH) // _MICROSECOND
_LATEST = (dt.datetime.max.replace(tzinfo=dt.timezone.utc) - _EPOCH) // _MICROSECOND
#: Arrow's units in microseconds, as (multiply by, divide by).
_UNITS = {"s": (1_000_000, 1), "ms": (1000, 1), "us": (1, 1), "ns": (1, 1000)}


def read_dates(rules: DateSpec, cells: Cells) -> ParsedColumn:
    """Return int64 microseconds since 1970 in UTC. Finer fractions are truncated; years are limited to 1 to 9999."""
    cells = as_arrow(cells)
    if isinstance(cells, pa.Array) and (pa.types.is_timestamp(cells.type) or pa.types.is_date(cells.type)):
        return reject_missing(_read_arrow(cells), rules.missing)
    parsed = parse_cells(cells, make_date_parser(rules), np.int64, make_missing_test(rules.missing_words))
    return reject_missing(parsed, rules.missing)


def _read_arrow(cells: pa.Array) -> ParsedColumn:
    """Return the parsed column of an Arrow array. Its type's time zone only affects display: Arrow stores UTC."""
    missing = cells.is_null().to_numpy(zero_copy_only=False)
    if pa.types.is_date32(cells.type):
        numbers, (factor, divisor) = cells.cast(pa.int32()).cast(pa.int64()), (_DAY, 1)
    else:
        numbers, (factor, divisor) = cells.cast(pa.int64()), _UNITS[getattr(cells.type, "unit", "ms")]
    values = numbers.fill_null(0).to_numpy(zero_copy_only=False) // divisor
    outside = (values < _EARLIEST // factor) | (values > _LATEST // factor)
    bad = {int(row): "is outside the years 1 to 9999" for row in np.flatnonzero(outside)}
    return ParsedColumn(np.where(outside, 0, values) * factor, missing, bad, [])


def make_date_parser(rules: DateSpec) -> Callable[[Any], int | BadCell]:
    """Return the function that reads one cell that is not missing, as microseconds since 1970 in UTC."""

    def parse(value: Any) -> int | BadCell:
        try:
            if isinstance(value, str):
                text = value.strip()
                if rules.format is not None:
                    return _to_microseconds(dt.datetime.strptime(text, rules.format))
                return _parse_iso(text)
            if isinstance(value, dt.datetime):
                return _to_microseconds(value)
            if isinstance(value, dt.date):
                return _to_microseconds(dt.datetime(value.year, value.month, value.day))
            is_number = isinstance(value, (int, float, np.number)) and not isinstance(value, (bool, np.bool_))
            if rules.unit and is_number:
                moment = math.floor(value * _UNITS[rules.unit][0])
                if _EARLIEST <= moment <= _LATEST:
                    return moment
                return BadCell(f"{format_cell(value)} is outside the years 1 to 9999")
        except (ValueError, OverflowError):
            pass
        if rules.format and isinstance(value, str):
            return BadCell(f"{format_cell(value)} is not a date in the format {rules.format}")
        return BadCell(f"{format_cell(value)} is not a date such as 2026-03-01 or 2026-03-01T12:00:00Z")

    return parse


def _parse_iso(text: str) -> int:
    match = _ISO.fullmatch(text)
    if not match:
        raise ValueError(text)
    year, month, day, hour, minute, second = (int(part or 0) for part in match.groups()[:6])
    micro = int((match[7] or "").ljust(6, "0")[:6])
    moment = _to_microseconds(dt.datetime(year, month, day, hour, minute, second, micro))
    if match[8] in (None, "Z"):
        return moment
    hours, minutes = int(match[8][1:3]), int(match[8][-2:])
    if hours > 23 or minutes > 59:
        raise ValueError(text)
    moment -= (1 if match[8][0] == "+" else -1) * (hours * 60 + minutes) * 60_000_000
    if not _EARLIEST <= moment <= _LATEST:
        raise ValueError(text)
    return moment


def _to_microseconds(moment: dt.datetime) -> int:
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=dt.timezone.utc)
    return (moment - _EPOCH) // _MICROSECOND


def format_date(microseconds: int) -> str:
    """Return a point in time in ISO 8601, for example 2026-03-01T12:00:00Z."""
    return (_EPOCH + microseconds * _MICROSECOND).isoformat().replace("+00:00", "Z")


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

    @property
    def names(self) -> list[str]:
        """Names of the outputs."""
        names: list[str] = []
        for part in self.rules.parts:
            suffixes = ("_sin", "_cos") if self._is_cyclic(part) else ("",)
            names += [f"{self.name}.{part}{suffix}" for suffix in suffixes]
        return [*names, f"{self.name} is missing"] if self.rules.indicator else names

    def encode(self, cells: Cells, out: np.ndarray) -> dict[int, str]:
        """Fill `out`, float32 of shape (n, outputs), and return the reasons of bad rows."""
        parsed = read_dates(self.rules, cells)
        moments = np.where(parsed.missing, 0 if self.fill is None else _parse_iso(self.fill), parsed.values)
        first, last = _parse_iso(self.first), _parse_iso(self.last)
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
        return parsed.bad

    def _is_cyclic(self, part: str) -> bool:
        return self.rules.cyclic and part in CYCLES


def fit_date(name: str, rules: DateSpec, sketch: Sketch) -> FittedDate:
    """Return the fitted column. Raises `DataError` if no row has a date."""
    if sketch.total == 0:
        raise DataError(f"column '{name}' has no date in any row", "remove the column")
    first, last = int(sketch.low[0]), int(sketch.high[-1])
    middle = min(max(math.floor(quantile(sketch, 0.5, as_floats=False)), first), last)
    fills = {"median": format_date(middle), "first": format_date(first), "last": format_date(last), "reject": None}
    return FittedDate(
        name=name, rules=rules, first=format_date(first), last=format_date(last), fill=fills[rules.missing]
    )


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
