"""Columns of numbers: parsing, moments in one pass, fitting, scaling."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal, NamedTuple

import numpy as np
import pyarrow as pa

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
from trainer.features.exact import exact_mean, exact_std, exact_sums
from trainer.features.sketch import Sketch, build_sketch, keys_from_floats, merge_sketches, quantile, value_at_rank
from trainer.spec.features import NumericSpec
from trainer.spec.section import SpecSection
from trainer.values.columns import one_array, parse_plain_numbers
from trainer.values.numbers import parse_number

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
    parsed = _read_typed(cells)
    if parsed is None:
        is_plain = not rules.remove and rules.decimal_sign == "."
        parsed = read_cells(
            cells,
            CellReader(
                "a number",
                make_number_parser(rules),
                np.float64,
                rules.missing_words,
                decimal_sign=rules.decimal_sign,
                parse_column=parse_plain_numbers if is_plain else None,
            ),
        )
    missing_numbers = [number for number in map(parse_number, rules.missing_words) if number is not None]
    if missing_numbers:
        stands_for_missing = np.isin(parsed.values, missing_numbers)
        stands_for_missing[list(parsed.bad)] = False
        missing = parsed.missing | stands_for_missing
        parsed = parsed._replace(values=np.where(missing, 0.0, parsed.values), missing=missing)
    return reject_missing(parsed, rules.missing)


def _read_typed(cells: Cells) -> ParsedColumn | None:
    """Return the numbers of a column of integers or float64, as their texts would be read; None for another column."""
    if isinstance(cells, np.ndarray) and cells.ndim == 1 and cells.dtype.kind in "iu":
        cells = pa.array(cells)
    if isinstance(cells, np.ndarray) and cells.ndim == 1 and cells.dtype == np.float64:
        cells = pa.array(cells)
    if not isinstance(cells, (pa.Array, pa.ChunkedArray)):
        return None
    if not (pa.types.is_integer(cells.type) or pa.types.is_float64(cells.type)):
        return None
    values = one_array(cells).cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False)
    bad = {int(row): f"{format_cell(float(values[row]))} is infinite" for row in np.flatnonzero(np.isinf(values))}
    return ParsedColumn(np.where(np.isfinite(values), values, 0.0), np.isnan(values), bad, [])


def make_number_parser(rules: NumericSpec) -> Callable[[str], float | BadCell]:
    """Return the function that reads the text of one cell that is not missing, by the rules of its column."""

    def parse(text: str) -> float | BadCell:
        plain = text
        for unwanted in rules.remove:
            plain = plain.replace(unwanted, "")
        if rules.decimal_sign != ".":
            # A point would be a second decimal sign, so the cell is not a number.
            plain = plain.replace(".", "?").replace(rules.decimal_sign, ".")
        number = parse_number(plain)
        if number is not None and math.isfinite(number):
            return number
        if number is not None or plain.strip().lower().lstrip("+-") in ("inf", "infinity"):
            return BadCell(f"{format_cell(text)} is infinite")
        hint = "; the decimal sign is a point" if "," in text and not rules.remove and rules.decimal_sign == "." else ""
        return BadCell(f"{format_cell(text)} is not a number{hint}")

    return parse


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
    saw_missing: bool = False
    """Whether a training row had no value."""

    @property
    def names(self) -> list[str]:
        """Names of the outputs."""
        return [self.name, f"{self.name} is missing"] if self.rules.indicator else [self.name]

    def encode(self, cells: Cells, out: np.ndarray) -> CellOutcome:
        """Fill `out`, float32 of shape (n, outputs)."""
        parsed = read_numbers(self.rules, cells)
        values = np.where(parsed.missing, 0.0 if self.fill is None else self.fill, parsed.values)
        with np.errstate(over="ignore"):  # the difference may overflow float64; it is clipped below
            scaled = (values - self.center) / self.scale
        out[:, 0] = np.clip(scaled, -_FLOAT32_MAX, _FLOAT32_MAX)
        if self.rules.indicator:
            out[:, 1] = parsed.missing
        return CellOutcome(parsed.bad, parsed.missing & (not self.saw_missing))


def fit_numeric(name: str, rules: NumericSpec, moments: Moments, missing: int) -> FittedNumeric:
    """Return the fitted column; `missing` counts the training rows without a value.

    Raises `DataError` if there is no number to fit from.
    """
    sketch = moments.sketch
    if sketch.total == 0:
        if rules.missing in ("mean", "median"):
            raise DataError(
                f"column '{name}' has no value in any row, so `missing: {rules.missing}` cannot be computed",
                "remove the column, or set its `missing` to zero or to a number",
            )
        fill = _fill_value(rules, 0.0, 0.0)
        return FittedNumeric(name=name, rules=rules, center=0.0, scale=1.0, fill=fill, saw_missing=missing > 0)
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
        name=name,
        rules=rules,
        center=center + 0.0,
        scale=scale or 1.0,
        fill=_fill_value(rules, mean, median),
        saw_missing=missing > 0,
    )


def _fill_value(rules: NumericSpec, mean: float, median: float) -> float | None:
    if isinstance(rules.missing, float):
        return rules.missing + 0.0
    return {"mean": mean + 0.0, "median": median + 0.0, "zero": 0.0, "reject": None}[rules.missing]
