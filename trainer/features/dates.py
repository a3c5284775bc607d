"""Points in time: reading them as microseconds since 1970 in UTC, and their parts as outputs."""

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
from trainer.features import sketch
from trainer.features.cells import Bad, Cells, Read, as_arrow, missing_test, read_each, refuse_missing, shown
from trainer.features.sketch import Sketch
from trainer.spec.features import CYCLES, Date
from trainer.spec.section import Section

_ISO = re.compile(
    r"([0-9]{4})-([0-9]{2})-([0-9]{2})"
    r"(?:[T ]([0-9]{2}):([0-9]{2})(?::([0-9]{2})(?:\.([0-9]{1,9}))?)?(Z|[+-][0-9]{2}:?[0-9]{2})?)?"
)
_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.timezone.utc)
_MICROSECOND = dt.timedelta(microseconds=1)
_DAY = 86_400_000_000
_EARLIEST = (dt.datetime.min.replace(tzinfo=dt.timezone.utc) - _EPOCH) // _MICROSECOND
_LATEST = (dt.datetime.max.replace(tzinfo=dt.timezone.utc) - _EPOCH) // _MICROSECOND
#: Arrow's units in microseconds, as (times, divided by).
_UNITS = {"s": (1_000_000, 1), "ms": (1000, 1), "us": (1, 1), "ns": (1, 1000)}


def read(rules: Date, cells: Cells) -> Read:
    """Return int64 microseconds since 1970 in UTC. Finer than that is cut off; only years 1 to 9999 can be read."""
    cells = as_arrow(cells)
    if isinstance(cells, pa.Array) and (pa.types.is_timestamp(cells.type) or pa.types.is_date(cells.type)):
        return refuse_missing(_read_arrow(cells), rules.missing)
    found = read_each(cells, _parser(rules), np.int64, missing_test(rules.missing_words))
    return refuse_missing(found, rules.missing)


def _read_arrow(cells: pa.Array) -> Read:
    """A time zone in the type changes how a time is shown, not which one it is: Arrow keeps UTC."""
    missing = cells.is_null().to_numpy(zero_copy_only=False)
    if pa.types.is_date32(cells.type):
        numbers, (times, divided) = cells.cast(pa.int32()).cast(pa.int64()), (_DAY, 1)
    else:
        numbers, (times, divided) = cells.cast(pa.int64()), _UNITS[getattr(cells.type, "unit", "ms")]
    values = numbers.fill_null(0).to_numpy(zero_copy_only=False) // divided
    outside = (values < _EARLIEST // times) | (values > _LATEST // times)
    bad = {int(row): "lies outside the years 1 to 9999" for row in np.flatnonzero(outside)}
    return Read(np.where(outside, 0, values) * times, missing, bad, [])


def _parser(rules: Date) -> Callable[[Any], int | Bad]:
    def parse(value: Any) -> int | Bad:
        try:
            if isinstance(value, str):
                text = value.strip()
                if rules.format is not None:
                    return _microseconds(dt.datetime.strptime(text, rules.format))
                return _iso(text)
            if isinstance(value, dt.datetime):
                return _microseconds(value)
            if isinstance(value, dt.date):
                return _microseconds(dt.datetime(value.year, value.month, value.day))
            is_number = isinstance(value, (int, float, np.number)) and not isinstance(value, (bool, np.bool_))
            if rules.unit and is_number:
                found = math.floor(value * _UNITS[rules.unit][0])
                if _EARLIEST <= found <= _LATEST:
                    return found
                return Bad(f"{shown(value)} lies outside the years 1 to 9999")
        except (ValueError, OverflowError):
            pass
        how = (
            f"as {rules.format}" if rules.format and isinstance(value, str) else "as 2026-03-01 or 2026-03-01T12:00:00Z"
        )
        return Bad(f"{shown(value)} is no date written {how}")

    return parse


def _iso(text: str) -> int:
    found = _ISO.fullmatch(text)
    if not found:
        raise ValueError(text)
    year, month, day, hour, minute, second = (int(part or 0) for part in found.groups()[:6])
    micro = int((found[7] or "").ljust(6, "0")[:6])
    moment = _microseconds(dt.datetime(year, month, day, hour, minute, second, micro))
    if found[8] in (None, "Z"):
        return moment
    hours, minutes = int(found[8][1:3]), int(found[8][-2:])
    if hours > 23 or minutes > 59:
        raise ValueError(text)
    moment -= (1 if found[8][0] == "+" else -1) * (hours * 60 + minutes) * 60_000_000
    if not _EARLIEST <= moment <= _LATEST:
        raise ValueError(text)
    return moment


def _microseconds(moment: dt.datetime) -> int:
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=dt.timezone.utc)
    return (moment - _EPOCH) // _MICROSECOND


def written(microseconds: int) -> str:
    """Return a point in time as fitted values write it, as 2026-03-01T12:00:00Z."""
    return (_EPOCH + microseconds * _MICROSECOND).isoformat().replace("+00:00", "Z")


class FittedDate(Section):
    """A column of points in time after fitting."""

    kind: Literal["date"] = "date"
    name: str
    rules: Date
    first: str
    """The earliest of the training rows, ISO 8601 in UTC."""
    last: str
    """The latest of the training rows."""
    fill: str | None
    """Stands in for a missing date; None where such a row is refused."""

    @property
    def names(self) -> list[str]:
        """Names of the outputs."""
        found: list[str] = []
        for part in self.rules.parts:
            ends = ("_sin", "_cos") if self._in_a_round(part) else ("",)
            found += [f"{self.name}.{part}{end}" for end in ends]
        return [*found, f"{self.name} is missing"] if self.rules.indicator else found

    def encode(self, cells: Cells, out: np.ndarray) -> dict[int, str]:
        """Fill `out`, float32 of shape (n, outputs), and return the reasons of bad rows."""
        found = read(self.rules, cells)
        moments = np.where(found.missing, 0 if self.fill is None else _iso(self.fill), found.values)
        first, last = _iso(self.first), _iso(self.last)
        at = 0
        for part in self.rules.parts:
            if part == "elapsed":
                out[:, at] = (moments - first) / max(last - first, 1)
            elif self._in_a_round(part):
                sine, cosine = _circle(CYCLES[part])
                step = _part(part, moments) - (part in ("quarter", "month", "day_of_year", "day"))  # these begin with 1
                out[:, at], out[:, at + 1] = sine[step], cosine[step]
                at += 1
            else:
                base = int(self.first[:4]) if part == "year" else 0
                out[:, at] = _part(part, moments) - base
            at += 1
        if self.rules.indicator:
            out[:, at] = found.missing
        return found.bad

    def _in_a_round(self, part: str) -> bool:
        return self.rules.cyclic and part in CYCLES


def fit(name: str, rules: Date, found: Sketch) -> FittedDate:
    """Return the fitted column; raises `DataError` where no row has a date."""
    if found.total == 0:
        raise DataError(f"column '{name}' has no date in any row", "leave the column out")
    first, last = int(found.low[0]), int(found.high[-1])
    middle = min(max(math.floor(sketch.quantile(found, 0.5, of_floats=False)), first), last)
    fill = {"median": written(middle), "first": written(first), "last": written(last), "refuse": None}[rules.missing]
    return FittedDate(name=name, rules=rules, first=written(first), last=written(last), fill=fill)


def _part(part: str, moments: np.ndarray) -> np.ndarray:
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
    """Sine and cosine of each step of a round: one table, so that a batch and a single row agree to the last bit."""
    angles = [2.0 * math.pi * step / steps for step in range(steps)]
    return (
        np.array([math.sin(angle) for angle in angles], np.float32),
        np.array([math.cos(angle) for angle in angles], np.float32),
    )
