"""The profile of the columns of the training rows: shares of rows per bin, for comparison with live traffic.

Stored beside the contract's fitted values, not in them, because it does not change a model's input.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from trainer.features.categorical import N_HASH_GROUPS, CategoryCounts, hash_bucket, words_by_count
from trainer.features.cells import Cells, TableLike, get_column
from trainer.features.exact import exact_mean, exact_std
from trainer.features.numeric import Moments
from trainer.features.sketch import Sketch, quantile, share_up_to
from trainer.features.summary import ColumnSummary, read_column
from trainer.spec.features import BooleanSpec, CategoricalSpec, DateSpec, FeatureSpec, NumericSpec
from trainer.spec.section import SpecSection
from trainer.values.moments import format_moment

N_QUANTILES = 21
_N_BINS = 10
_N_TOP = 50


class NumericProfile(SpecSection):
    """The profile of a column of numbers. Bins: up to and including each edge, above the last edge, and missing."""

    kind: Literal["numeric"] = "numeric"
    name: str
    rules: NumericSpec
    rows: int
    missing: int
    mean: float | None
    std: float | None
    quantiles: list[float]
    """Quantiles at 0, 0.05, ... 1; empty if no row has a number."""
    edges: list[float]
    """The distinct deciles."""
    shares: list[float]
    """Share of all rows in each bin."""


class DateProfile(SpecSection):
    """The profile of a column of dates and times. Bins as for numbers."""

    kind: Literal["date"] = "date"
    name: str
    rules: DateSpec
    rows: int
    missing: int
    first: str
    last: str
    edges: list[float]
    """The distinct deciles in microseconds since 1970."""
    shares: list[float]


class CategoryProfile(SpecSection):
    """The profile of a column of categories or booleans. Bins: each category of `top`, other, and missing."""

    kind: Literal["category"] = "category"
    name: str
    rules: Annotated[CategoricalSpec | BooleanSpec, Field(discriminator="kind")]
    rows: int
    missing: int
    distinct: int | None
    """Number of different categories; None if there were too many to count."""
    top: list[str]
    """The most frequent categories, most frequent first; if `grouped`, the hash groups of categories."""
    grouped: bool
    shares: list[float]


ColumnProfile = Annotated[NumericProfile | DateProfile | CategoryProfile, Field(discriminator="kind")]


class FeaturesProfile(SpecSection):
    """The profiles of all columns of the training rows; `model_dump(mode="json")` is plain JSON."""

    columns: list[ColumnProfile]


def build_profile(columns: Mapping[str, FeatureSpec], summaries: Mapping[str, ColumnSummary]) -> FeaturesProfile:
    """Return the profile of the training rows, from the same summaries that the columns are fitted from."""
    return FeaturesProfile(columns=[_profile_column(name, rules, summaries[name]) for name, rules in columns.items()])


def _profile_column(name: str, rules: FeatureSpec, summary: ColumnSummary) -> ColumnProfile:
    if isinstance(rules, NumericSpec):
        return _profile_numbers(name, rules, summary)
    if isinstance(rules, DateSpec):
        return _profile_dates(name, rules, summary)
    return _profile_categories(name, rules, summary)


def _profile_numbers(name: str, rules: NumericSpec, summary: ColumnSummary) -> NumericProfile:
    assert isinstance(summary.body, Moments)
    rows = summary.rows - summary.bad
    total, squares, sketch = summary.body
    edges = _find_edges(sketch, as_floats=True)
    shares = [step / (N_QUANTILES - 1) for step in range(N_QUANTILES)] if sketch.total else []
    return NumericProfile(
        name=name,
        rules=rules,
        rows=rows,
        missing=summary.missing,
        mean=exact_mean(total, sketch.total) + 0.0 if sketch.total else None,
        std=exact_std(total, squares, sketch.total) if sketch.total else None,
        quantiles=[quantile(sketch, share) for share in shares],
        edges=edges,
        shares=_bin_shares(sketch, edges, summary.missing, rows, as_floats=True),
    )


def _profile_dates(name: str, rules: DateSpec, summary: ColumnSummary) -> DateProfile:
    assert isinstance(summary.body, Sketch)
    rows, sketch = summary.rows - summary.bad, summary.body
    edges = _find_edges(sketch, as_floats=False)
    ends = (int(sketch.low[0]), int(sketch.high[-1])) if sketch.total else (0, 0)
    first, last = (format_moment(end) for end in ends)
    return DateProfile(
        name=name,
        rules=rules,
        rows=rows,
        missing=summary.missing,
        first=first,
        last=last,
        edges=edges,
        shares=_bin_shares(sketch, edges, summary.missing, rows, as_floats=False),
    )


def _profile_categories(name: str, rules: CategoricalSpec | BooleanSpec, summary: ColumnSummary) -> CategoryProfile:
    assert isinstance(summary.body, CategoryCounts)
    rows, counts = summary.rows - summary.bad, summary.body
    top = [str(group) for group in range(N_HASH_GROUPS)] if counts.grouped else words_by_count(counts)[:_N_TOP]
    top_counts = [counts.words.get(word, 0) for word in top]
    other = rows - summary.missing - sum(top_counts)
    return CategoryProfile(
        name=name,
        rules=rules,
        rows=rows,
        missing=summary.missing,
        distinct=None if counts.grouped else sum(count > 0 for count in counts.words.values()),
        top=top,
        grouped=counts.grouped,
        shares=[count / max(rows, 1) for count in (*top_counts, other, summary.missing)],
    )


def bin_counts(profile: FeaturesProfile, rows: TableLike) -> dict[str, list[int]]:
    """Return for each column the number of `rows` in each of its bins, in the order of `shares`.

    Cells that cannot be read are in no bin. The counts of several calls can be added.
    """
    return {column.name: _count_bins(column, get_column(rows, column.name)) for column in profile.columns}


def _count_bins(column: ColumnProfile, cells: Cells) -> list[int]:
    parsed = read_column(column.rules, cells)
    present, missing = parsed.present_values(), int(parsed.missing.sum())
    n_bins = len(column.shares) - 1
    if isinstance(column, CategoryProfile):
        bin_by_key = {key: number for number, key in enumerate(column.top)}
        words = ["false", "true"] if isinstance(column.rules, BooleanSpec) else parsed.words
        keys = [str(hash_bucket(word, N_HASH_GROUPS)) for word in words] if column.grouped else words
        bin_by_word = np.array([bin_by_key.get(key, len(bin_by_key)) for key in keys] or [0], np.int64)
        return [*np.bincount(bin_by_word[present], minlength=n_bins).tolist(), missing]
    bins = np.searchsorted(np.array(column.edges, np.float64), present.astype(np.float64), side="left")
    return [*np.bincount(bins, minlength=n_bins).tolist(), missing]


def _find_edges(sketch: Sketch, *, as_floats: bool) -> list[float]:
    if sketch.total == 0:
        return []
    return sorted({quantile(sketch, step / _N_BINS, as_floats=as_floats) + 0.0 for step in range(1, _N_BINS)})


def _bin_shares(sketch: Sketch, edges: list[float], missing: int, rows: int, *, as_floats: bool) -> list[float]:
    up_to = [*share_up_to(sketch, edges, as_floats=as_floats), 1.0] if sketch.total else [0.0]
    below = [0.0, *up_to[:-1]]
    present_share = sketch.total / max(rows, 1)
    shares = [(high - low) * present_share for high, low in zip(up_to, below, strict=True)]
    return [*shares, missing / max(rows, 1)]
