"""Summaries of columns from one pass over the rows. Merging the summaries of blocks in any order gives the same total.

Processes send summaries as one Arrow row per column, with plain numbers and words, not as pickles.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from cluster.errors import SpecError
from trainer.features.boolean import read_booleans
from trainer.features.categorical import CategoryCounts, count_categories, merge_counts, read_categories
from trainer.features.cells import Cells, ParsedColumn, TableLike, get_column
from trainer.features.dates import read_dates
from trainer.features.numeric import Moments, compute_moments, merge_moments, read_numbers
from trainer.features.sketch import Sketch, build_sketch, merge_sketches
from trainer.spec.features import BooleanSpec, CategoricalSpec, DateSpec, FeatureSpec, NumericSpec

#: Moments for numbers, counts for categories and booleans ('true', 'false'), a sketch for dates.
SummaryBody = Moments | CategoryCounts | Sketch

SCHEMA = pa.schema(
    [
        ("column", pa.string()),
        ("about", pa.string()),
        ("low", pa.list_(pa.int64())),
        ("high", pa.list_(pa.int64())),
        ("counts", pa.list_(pa.int64())),
        ("words", pa.list_(pa.string())),
    ]
)


class ColumnSummary(NamedTuple):
    """The summary of one column over the rows seen so far."""

    rows: int
    missing: int
    bad: int
    """Rows whose cell cannot be used."""
    example: str
    """The reason of one bad row, the first in alphabetical order; empty if no row is bad."""
    body: SummaryBody


def summarize_rows(rows: TableLike, columns: Mapping[str, FeatureSpec]) -> dict[str, ColumnSummary]:
    """Return the summary of each column of `rows`. Raises `DataError` for a column that `rows` lacks."""
    if not columns:
        raise SpecError("data.features is empty", "name at least one column, for example `age: numeric`")
    return {name: _summarize_column(rules, get_column(rows, name)) for name, rules in columns.items()}


def read_column(rules: FeatureSpec, cells: Cells) -> ParsedColumn:
    """Return the cells of a column, parsed by the rules of its kind."""
    if isinstance(rules, NumericSpec):
        return read_numbers(rules, cells)
    if isinstance(rules, CategoricalSpec):
        return read_categories(rules, cells)
    return read_booleans(rules, cells) if isinstance(rules, BooleanSpec) else read_dates(rules, cells)


def _summarize_column(rules: FeatureSpec, cells: Cells) -> ColumnSummary:
    parsed = read_column(rules, cells)
    body: SummaryBody
    if isinstance(rules, NumericSpec):
        body = compute_moments(parsed.present_values())
    elif isinstance(rules, CategoricalSpec):
        body = count_categories(parsed)
    elif isinstance(rules, BooleanSpec):
        no, yes = (int(count) for count in np.bincount(parsed.present_values(), minlength=2))
        body = CategoryCounts({"false": no, "true": yes}, False)
    else:
        assert isinstance(rules, DateSpec)
        body = build_sketch(parsed.present_values())
    example = min(parsed.bad.values(), default="")
    return ColumnSummary(len(parsed.values), int(parsed.missing.sum()), len(parsed.bad), example, body)


def merge_summaries(
    first: Mapping[str, ColumnSummary], second: Mapping[str, ColumnSummary]
) -> dict[str, ColumnSummary]:
    """Return the summaries of the combined rows; the order does not matter."""
    return {name: _merge_column(part, second[name]) for name, part in first.items()}


def _merge_column(first: ColumnSummary, second: ColumnSummary) -> ColumnSummary:
    body: SummaryBody
    if isinstance(first.body, Moments) and isinstance(second.body, Moments):
        body = merge_moments(first.body, second.body)
    elif isinstance(first.body, CategoryCounts) and isinstance(second.body, CategoryCounts):
        body = merge_counts(first.body, second.body)
    else:
        assert isinstance(first.body, Sketch) and isinstance(second.body, Sketch)
        body = merge_sketches(first.body, second.body)
    example = min((text for text in (first.example, second.example) if text), default="")
    return ColumnSummary(
        first.rows + second.rows, first.missing + second.missing, first.bad + second.bad, example, body
    )


def summaries_to_arrow(summaries: Mapping[str, ColumnSummary]) -> pa.Table:
    """Return one row for each column, with the schema `SCHEMA`."""
    return pa.Table.from_pylist([{"column": name, **_to_row(part)} for name, part in summaries.items()], SCHEMA)


def summaries_from_arrow(table: pa.Table) -> list[dict[str, ColumnSummary]]:
    """Return the summaries that `summaries_to_arrow` wrote. For concatenated tables, return one dict per table."""
    parts: list[dict[str, ColumnSummary]] = []
    for row, name in enumerate(table.column("column").to_pylist()):
        if not parts or name in parts[-1]:
            parts.append({})
        parts[-1][name] = _from_row(table, row)
    return parts


def _to_row(summary: ColumnSummary) -> dict[str, object]:
    body = summary.body
    about = {"rows": summary.rows, "missing": summary.missing, "bad": summary.bad, "example": summary.example}
    if isinstance(body, CategoryCounts):
        words = list(body.words)
        about["grouped"] = body.grouped
        return {"about": json.dumps(about), "words": words, "counts": [body.words[word] for word in words]}
    if isinstance(body, Moments):
        about |= {"total": hex(body.total), "squares": hex(body.squares)}
    sketch = body.sketch if isinstance(body, Moments) else body
    about["level"] = sketch.level
    return {"about": json.dumps(about), "low": sketch.low, "high": sketch.high, "counts": sketch.counts}


def _from_row(table: pa.Table, row: int) -> ColumnSummary:
    about = json.loads(table.column("about")[row].as_py())
    base = (about["rows"], about["missing"], about["bad"], about["example"])
    counts = table.column("counts")[row].values
    if "grouped" in about:
        words = dict(zip(table.column("words")[row].as_py(), counts.to_pylist(), strict=True))
        return ColumnSummary(*base, CategoryCounts(words, about["grouped"]))
    low, high = (table.column(end)[row].values.to_numpy() for end in ("low", "high"))
    sketch = Sketch(about["level"], low, high, counts.to_numpy())
    if "total" not in about:
        return ColumnSummary(*base, sketch)
    return ColumnSummary(*base, Moments(int(about["total"], 16), int(about["squares"], 16), sketch))
