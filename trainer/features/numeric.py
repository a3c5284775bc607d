"""Numbers: reading them, and their fitted centre, scale and stand-in for a missing one."""

from __future__ import annotations

import decimal
import math
import re
from typing import Any, Literal, NamedTuple

import numpy as np
import pyarrow as pa

from cluster.errors import DataError
from trainer.features import exact, sketch
from trainer.features.cells import Bad, Cells, Read, as_arrow, missing_test, read_each, refuse_missing, shown
from trainer.spec.features import Numeric
from trainer.spec.section import Section

#: A decimal point, an exponent, and nothing else: no thousands, no comma, no underscore, no hexadecimal.
_NUMBER = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
_FLOAT32_MAX = float(np.finfo(np.float32).max)


class Moments(NamedTuple):
    """What one pass keeps of a column of numbers."""

    total: int
    """Exact sum, in units of `exact`."""
    squares: int
    """Exact sum of squares."""
    sketch: sketch.Sketch


def read(rules: Numeric, cells: Cells) -> Read:
    """Return float64 values. A whole number over 2**53 becomes the nearest float64; infinities are bad.

    A missing word that is a number, as -999, means that number too, however it is written.
    """
    cells = as_arrow(cells)
    if isinstance(cells, pa.Array) and (pa.types.is_integer(cells.type) or pa.types.is_floating(cells.type)):
        values = cells.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False)
        missing = np.isnan(values)
        bad = {int(row): f"{shown(float(values[row]))} is infinite" for row in np.flatnonzero(np.isinf(values))}
        values = np.where(np.isfinite(values), values, 0.0)
    else:
        values, missing, bad, _ = read_each(cells, _number, np.float64, missing_test(rules.missing_words))
    stand_ins = [float(word) for word in rules.missing_words if _NUMBER.fullmatch(word.strip())]
    if stand_ins:
        found = np.isin(values, stand_ins)
        found[list(bad)] = False
        missing = missing | found
        values = np.where(missing, 0.0, values)
    return refuse_missing(Read(values, missing, bad, []), rules.missing)


def _number(value: Any) -> float | Bad:
    if isinstance(value, str):
        text = value.strip()
        if not _NUMBER.fullmatch(text):
            hint = "; the decimal sign is a point" if "," in text else ""
            return Bad(f"{shown(value)} is no number{hint}")
        number = float(text)
    elif isinstance(value, (bool, np.bool_)) or not isinstance(value, (int, float, np.number, decimal.Decimal)):
        return Bad(f"{shown(value)} is no number")
    else:
        try:
            number = float(value)
        except OverflowError:
            number = math.inf
    return number if math.isfinite(number) else Bad(f"{shown(value)} is infinite")


def summarise(values: np.ndarray) -> Moments:
    """Return what one pass keeps of finite float64 `values`, shape (n,)."""
    return Moments(*exact.sums(values), sketch.of(sketch.keys_of(values)))


def merge(one: Moments, other: Moments) -> Moments:
    """Return the moments of the rows of both."""
    return Moments(one.total + other.total, one.squares + other.squares, sketch.merge(one.sketch, other.sketch))


class FittedNumeric(Section):
    """A column of numbers after fitting: output = (value - center) / scale."""

    kind: Literal["numeric"] = "numeric"
    name: str
    rules: Numeric
    center: float
    scale: float
    fill: float | None
    """Stands in for a missing value; None where such a row is refused."""

    @property
    def names(self) -> list[str]:
        """Names of the outputs."""
        return [self.name, f"{self.name} is missing"] if self.rules.indicator else [self.name]

    def encode(self, cells: Cells, out: np.ndarray) -> dict[int, str]:
        """Fill `out`, float32 of shape (n, outputs), and return the reasons of bad rows."""
        found = read(self.rules, cells)
        values = np.where(found.missing, 0.0 if self.fill is None else self.fill, found.values)
        with np.errstate(over="ignore"):  # two far ends of float64: clipped below
            scaled = (values - self.center) / self.scale
        out[:, 0] = np.clip(scaled, -_FLOAT32_MAX, _FLOAT32_MAX)
        if self.rules.indicator:
            out[:, 1] = found.missing
        return found.bad


def fit(name: str, rules: Numeric, moments: Moments) -> FittedNumeric:
    """Return the fitted column; raises `DataError` where there is no number to fit from."""
    found = moments.sketch
    if found.total == 0:
        if rules.missing in ("mean", "median"):
            raise DataError(
                f"column '{name}' has no value in any row, so missing: {rules.missing} has nothing to go by",
                "leave the column out, or set its missing to zero or to a number",
            )
        return FittedNumeric(name=name, rules=rules, center=0.0, scale=1.0, fill=_fill(rules, 0.0, 0.0))
    mean, median = exact.mean(moments.total, found.total), sketch.quantile(found, 0.5)
    center, scale = 0.0, 1.0
    if rules.scale == "standard":
        center, scale = mean, exact.std(moments.total, moments.squares, found.total)
    elif rules.scale == "min_max":
        low, high = sketch.at_rank(found, 0, of_floats=True), sketch.at_rank(found, found.total - 1, of_floats=True)
        center, scale = low, high - low
    elif rules.scale == "robust":
        center, scale = median, sketch.quantile(found, 0.75) - sketch.quantile(found, 0.25)
    if not math.isfinite(scale):
        raise DataError(
            f"column '{name}' spans more than a float64 holds", "check its values, or leave out what cannot be true"
        )
    return FittedNumeric(
        name=name, rules=rules, center=center + 0.0, scale=scale or 1.0, fill=_fill(rules, mean, median)
    )


def _fill(rules: Numeric, mean: float, median: float) -> float | None:
    if isinstance(rules.missing, float):
        return rules.missing + 0.0
    return {"mean": mean + 0.0, "median": median + 0.0, "zero": 0.0, "refuse": None}[rules.missing]
