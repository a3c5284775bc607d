"""What the columns of the training rows looked like, to hold live traffic against: shares of the same bins.

Kept beside the contract's fitted values, not in them: it does not change a model's input.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from trainer.features import cells, dates, sketch, summary
from trainer.features.categorical import GROUPS, Counts, bucket, by_count
from trainer.features.cells import Rows
from trainer.features.exact import mean, std
from trainer.features.numeric import Moments
from trainer.features.sketch import Sketch
from trainer.features.summary import Summary
from trainer.spec.features import AnyColumn, Boolean, Categorical, Date, Numeric
from trainer.spec.section import Section

N_QUANTILES = 21
_N_BINS = 10
_TOP = 50


class NumericProfile(Section):
    """A column of numbers. Bins: up to and with each edge, above the last, missing."""

    kind: Literal["numeric"] = "numeric"
    name: str
    rules: Numeric
    rows: int
    missing: int
    mean: float | None
    std: float | None
    quantiles: list[float]
    """At 0, 0.05, ... 1; empty where no row has a number."""
    edges: list[float]
    """The deciles, each once."""
    shares: list[float]
    """Share of all rows in each bin."""


class DateProfile(Section):
    """A column of points in time. Bins as for numbers."""

    kind: Literal["date"] = "date"
    name: str
    rules: Date
    rows: int
    missing: int
    first: str
    last: str
    edges: list[float]
    """The deciles in microseconds since 1970, each once."""
    shares: list[float]


class CategoryProfile(Section):
    """A column of categories or of yes and no. Bins: each of `top`, other, missing."""

    kind: Literal["category"] = "category"
    name: str
    rules: Annotated[Categorical | Boolean, Field(discriminator="kind")]
    rows: int
    missing: int
    distinct: int | None
    """How many different ones there are; None where there were too many to count."""
    top: list[str]
    """The most frequent, most frequent first; or, with `grouped`, groups of their hashes."""
    grouped: bool
    shares: list[float]


ColumnProfile = Annotated[NumericProfile | DateProfile | CategoryProfile, Field(discriminator="kind")]


class Profile(Section):
    """All columns of the training rows; `model_dump(mode="json")` is plain JSON."""

    columns: list[ColumnProfile]


def from_summary(columns: Mapping[str, AnyColumn], found: Mapping[str, Summary]) -> Profile:
    """Return the profile of rows from the same summary that columns are fitted from."""
    return Profile(columns=[_profile(name, rules, found[name]) for name, rules in columns.items()])


def _profile(name: str, rules: AnyColumn, found: Summary) -> NumericProfile | DateProfile | CategoryProfile:
    counted = found.rows - found.bad
    if isinstance(rules, Numeric):
        assert isinstance(found.body, Moments)
        total, squares, grid = found.body
        edges = _edges(grid, of_floats=True)
        places = [place / (N_QUANTILES - 1) for place in range(N_QUANTILES)] if grid.total else []
        return NumericProfile(
            name=name,
            rules=rules,
            rows=counted,
            missing=found.missing,
            mean=mean(total, grid.total) + 0.0 if grid.total else None,
            std=std(total, squares, grid.total) if grid.total else None,
            quantiles=[sketch.quantile(grid, place) for place in places],
            edges=edges,
            shares=_shares(grid, edges, found.missing, counted, of_floats=True),
        )
    if isinstance(rules, Date):
        assert isinstance(found.body, Sketch)
        grid, edges = found.body, _edges(found.body, of_floats=False)
        ends = (int(grid.low[0]), int(grid.high[-1])) if grid.total else (0, 0)
        first, last = (dates.written(end) for end in ends)
        shares = _shares(grid, edges, found.missing, counted, of_floats=False)
        return DateProfile(
            name=name,
            rules=rules,
            rows=counted,
            missing=found.missing,
            first=first,
            last=last,
            edges=edges,
            shares=shares,
        )
    assert isinstance(found.body, Counts)
    counts = found.body
    top = [str(group) for group in range(GROUPS)] if counts.grouped else by_count(counts)[:_TOP]
    of_top = [counts.words.get(word, 0) for word in top]
    other = counted - found.missing - sum(of_top)
    return CategoryProfile(
        name=name,
        rules=rules,
        rows=counted,
        missing=found.missing,
        distinct=None if counts.grouped else sum(count > 0 for count in counts.words.values()),
        top=top,
        grouped=counts.grouped,
        shares=[count / max(counted, 1) for count in (*of_top, other, found.missing)],
    )


def bin_counts(profile: Profile, rows: Rows) -> dict[str, list[int]]:
    """Return for each column how many of `rows` fall in each of its bins, in the order of `shares`.

    Cells that cannot be read are in no bin. Counts of several calls add up.
    """
    return {column.name: _bin_counts(column, cells.column(rows, column.name)) for column in profile.columns}


def _bin_counts(column: NumericProfile | DateProfile | CategoryProfile, given: cells.Cells) -> list[int]:
    found = summary.read(column.rules, given)
    present, missing = found.present(), int(found.missing.sum())
    n_bins = len(column.shares) - 1
    if isinstance(column, CategoryProfile):
        places = {word: place for place, word in enumerate(column.top)}
        words = ["false", "true"] if isinstance(column.rules, Boolean) else found.words
        keys = [str(bucket(word, GROUPS)) for word in words] if column.grouped else words
        of_word = np.array([places.get(key, len(places)) for key in keys] or [0], np.int64)
        return [*np.bincount(of_word[present], minlength=n_bins).tolist(), missing]
    bins = np.searchsorted(np.array(column.edges, np.float64), present.astype(np.float64), side="left")
    return [*np.bincount(bins, minlength=n_bins).tolist(), missing]


def _edges(grid: Sketch, *, of_floats: bool) -> list[float]:
    if grid.total == 0:
        return []
    found = {sketch.quantile(grid, place / _N_BINS, of_floats=of_floats) + 0.0 for place in range(1, _N_BINS)}
    return sorted(found)


def _shares(grid: Sketch, edges: list[float], missing: int, rows: int, *, of_floats: bool) -> list[float]:
    up_to = [*sketch.share_up_to(grid, edges, of_floats=of_floats), 1.0] if grid.total else [0.0]
    below = [0.0, *up_to[:-1]]
    there = grid.total / max(rows, 1)
    return [*((high - low) * there for high, low in zip(up_to, below, strict=True)), missing / max(rows, 1)]
