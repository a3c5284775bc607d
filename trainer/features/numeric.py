"""Columns of numbers: parsing, moments in one pass, fitting, scaling."""

from __future__ import annotations

import decimal
import math
import re
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

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
from trainer.features.exact import exact_mean, exact_std, exact_sums
from trainer.features.sketch import Sketch, build_sketch, keys_from_floats, merge_sketches, quantile, value_at_rank
from trainer.spec.features import NumericSpec
from trainer.spec.section import SpecSection

#: A decimal point and an exponent are allowed; thousands separators, commas, underscores and hexadecimal are not.
_NUMBER = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
_FLOAT32_MAX = float(np.finfo(np.float32).max)


class Moments(NamedTuple):
    """The exact sums and the quantile sketch of a numeric column."""

    total: int
    """Exact sum, in the units of `trainer.features.exact`."""
    squares: int
    """Exact sum of squares."""
    sketch: Sketch


def read_numbers(rules: NumericSpec, cells: Cells) -> ParsedColumn:
    """Return float64 values. An integer over 2**53 becomes the nearest float64; infinities are bad.

    A number among the `missing_words`, such as -999, matches that number in every spelling.
    """
    cells = as_arrow(cells)
    if isinstance(cells, pa.Array) and (pa.types.is_integer(cells.type) or pa.types.is_floating(cells.type)):
        values = cells.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False)
        missing = np.isnan(values)
        bad = {int(row): f"{format_cell(float(values[row]))} is infinite" for row in np.flatnonzero(np.isinf(values))}
        values = np.where(np.isfinite(values), values, 0.0)
    else:
        values, missing, bad, _ = parse_cells(
            cells, make_number_parser(rules), np.float64, make_missing_test(rules.missing_words)
        )
    missing_numbers = [float(word) for word in rules.missing_words if _NUMBER.fullmatch(word.strip())]
    if missing_numbers:
        stands_for_missing = np.isin(values, missing_numbers)
        stands_for_missing[list(bad)] = False
        missing = missing | stands_for_missing
        values = np.where(missing, 0.0, values)
    return reject_missing(ParsedColumn(values, missing, bad, []), rules.missing)


def make_number_parser(rules: NumericSpec) -> Callable[[Any], float | BadCell]:
    """Return the function that reads one cell that is not missing, by the rules of its column."""
    if not rules.remove and rules.decimal_sign == ".":
        return _parse_number

    def parse(value: Any) -> float | BadCell:
        if not isinstance(value, str):
            return _parse_number(value)
        text = value
        for unwanted in rules.remove:
            text = text.replace(unwanted, "")
        if rules.decimal_sign != ".":
            # A point would be a second decimal sign, so the cell is not a number.
            text = text.replace(".", "?").replace(rules.decimal_sign, ".")
        number = _parse_number(text)
        return BadCell(f"{format_cell(value)} is not a number") if isinstance(number, BadCell) else number

    return parse


def _parse_number(value: Any) -> float | BadCell:
    if isinstance(value, str):
        text = value.strip()
        if not _NUMBER.fullmatch(text):
            hint = "; the decimal sign is a point" if "," in text else ""
            return BadCell(f"{format_cell(value)} is not a number{hint}")
        number = float(text)
    elif isinstance(value, (bool, np.bool_)) or not isinstance(value, (int, float, np.number, decimal.Decimal)):
        return BadCell(f"{format_cell(value)} is not a number")
    else:
        try:
            number = float(value)
        except OverflowError:
            number = math.inf
    return number if math.isfinite(number) else BadCell(f"{format_cell(value)} is infinite")


def compute_moments(values: np.ndarray) -> Moments:
    """Return the moments of finite float64 `values`, shape (n,)."""
    return Moments(*exact_sums(values), build_sketch(keys_from_floats(values)))


def merge_moments(first: Moments, second: Moments) -> Moments:
    """Return the moments of the combined rows."""
    return Moments(
        first.total + second.total, first.squares + second.squares, merge_sketches(first.sketch, second.sketch)
    )


class FittedNumeric(SpecSection):
    """A fitted column of numbers: output = (value - center) / scale."""

    kind: Literal["numeric"] = "numeric"
    name: str
    rules: NumericSpec
    center: float
    scale: float
    fill: float | None
    """Replaces a missing value; None if such a row is rejected."""

    @property
    def names(self) -> list[str]:
        """Names of the outputs."""
        return [self.name, f"{self.name} is missing"] if self.rules.indicator else [self.name]

    def encode(self, cells: Cells, out: np.ndarray) -> dict[int, str]:
        """Fill `out`, float32 of shape (n, outputs), and return the reasons of bad rows."""
        parsed = read_numbers(self.rules, cells)
        values = np.where(parsed.missing, 0.0 if self.fill is None else self.fill, parsed.values)
        with np.errstate(over="ignore"):  # the difference may overflow float64; it is clipped below
            scaled = (values - self.center) / self.scale
        out[:, 0] = np.clip(scaled, -_FLOAT32_MAX, _FLOAT32_MAX)
        if self.rules.indicator:
            out[:, 1] = parsed.missing
        return parsed.bad


def fit_numeric(name: str, rules: NumericSpec, moments: Moments) -> FittedNumeric:
    """Return the fitted column. Raises `DataError` if there is no number to fit from."""
    sketch = moments.sketch
    if sketch.total == 0:
        if rules.missing in ("mean", "median"):
            raise DataError(
                f"column '{name}' has no value in any row, so `missing: {rules.missing}` cannot be computed",
                "remove the column, or set its `missing` to zero or to a number",
            )
        return FittedNumeric(name=name, rules=rules, center=0.0, scale=1.0, fill=_fill_value(rules, 0.0, 0.0))
    mean, median = exact_mean(moments.total, sketch.total), quantile(sketch, 0.5)
    center, scale = 0.0, 1.0
    if rules.scale == "standard":
        center, scale = mean, exact_std(moments.total, moments.squares, sketch.total)
    elif rules.scale == "min_max":
        low, high = (value_at_rank(sketch, rank, as_floats=True) for rank in (0, sketch.total - 1))
        center, scale = low, high - low
    elif rules.scale == "robust":
        center, scale = median, quantile(sketch, 0.75) - quantile(sketch, 0.25)
    if not math.isfinite(scale):
        raise DataError(
            f"column '{name}' spans more than a float64 can hold",
            "check its values, and remove those that cannot be right",
        )
    return FittedNumeric(
        name=name, rules=rules, center=center + 0.0, scale=scale or 1.0, fill=_fill_value(rules, mean, median)
    )


def _fill_value(rules: NumericSpec, mean: float, median: float) -> float | None:
    if isinstance(rules.missing, float):
        return rules.missing + 0.0
    return {"mean": mean + 0.0, "median": median + 0.0, "zero": 0.0, "reject": None}[rules.missing]
