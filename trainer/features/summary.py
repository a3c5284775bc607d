"""What one pass over the rows keeps of each column: parts that merge in any order to the same whole.

A part travels as one row of Arrow for each column: plain numbers and words, no pickle.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from cluster.errors import SpecError
from trainer.features import boolean, categorical, cells, dates, numeric, sketch
from trainer.features.categorical import Counts
from trainer.features.cells import Rows
from trainer.features.numeric import Moments
from trainer.features.sketch import Sketch
from trainer.spec.features import AnyColumn, Boolean, Categorical, Date, Numeric

#: Of numbers, of categories and yes/no ('true', 'false'), of dates.
Body = Moments | Counts | Sketch

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


class Summary(NamedTuple):
    """One column of the rows seen so far."""

    rows: int
    missing: int
    bad: int
    """Rows whose cell cannot be used."""
    example: str
    """The reason of one of them, the first by its text; empty without."""
    body: Body


def of(rows: Rows, columns: Mapping[str, AnyColumn]) -> dict[str, Summary]:
    """Return the summary of each column of `rows`; raises `DataError` for a column that is not there."""
    if not columns:
        raise SpecError("there are no columns to make features of", "name at least one, as age: numeric")
    return {name: _of(rules, cells.column(rows, name)) for name, rules in columns.items()}


def read(rules: AnyColumn, given: cells.Cells) -> cells.Read:
    """Return a column's cells read by the rules of its kind."""
    if isinstance(rules, Numeric):
        return numeric.read(rules, given)
    if isinstance(rules, Categorical):
        return categorical.read(rules, given)
    return boolean.read(rules, given) if isinstance(rules, Boolean) else dates.read(rules, given)


def _of(rules: AnyColumn, given: cells.Cells) -> Summary:
    found = read(rules, given)
    body: Body
    if isinstance(rules, Numeric):
        body = numeric.summarise(found.present())
    elif isinstance(rules, Categorical):
        body = categorical.summarise(found)
    elif isinstance(rules, Boolean):
        no, yes = (int(count) for count in np.bincount(found.present(), minlength=2))
        body = Counts({"false": no, "true": yes}, False)
    else:
        assert isinstance(rules, Date)
        body = sketch.of(found.present())
    example = min(found.bad.values(), default="")
    return Summary(len(found.values), int(found.missing.sum()), len(found.bad), example, body)


def merge(one: Mapping[str, Summary], other: Mapping[str, Summary]) -> dict[str, Summary]:
    """Return the summary of the rows of both; the order does not matter."""
    return {name: _merge(part, other[name]) for name, part in one.items()}


def _merge(one: Summary, other: Summary) -> Summary:
    body: Body
    if isinstance(one.body, Moments) and isinstance(other.body, Moments):
        body = numeric.merge(one.body, other.body)
    elif isinstance(one.body, Counts) and isinstance(other.body, Counts):
        body = categorical.merge(one.body, other.body)
    else:
        assert isinstance(one.body, Sketch) and isinstance(other.body, Sketch)
        body = sketch.merge(one.body, other.body)
    example = min((text for text in (one.example, other.example) if text), default="")
    return Summary(one.rows + other.rows, one.missing + other.missing, one.bad + other.bad, example, body)


def to_arrow(summaries: Mapping[str, Summary]) -> pa.Table:
    """Return one row for each column, by `SCHEMA`."""
    return pa.Table.from_pylist([{"column": name, **_row(part)} for name, part in summaries.items()], SCHEMA)


def from_arrow(table: pa.Table) -> list[dict[str, Summary]]:
    """Return the summaries that `to_arrow` wrote, where several were put one after the other: one dict for each."""
    found: list[dict[str, Summary]] = []
    for at, name in enumerate(table.column("column").to_pylist()):
        if not found or name in found[-1]:
            found.append({})
        found[-1][name] = _from_row(table, at)
    return found


def _row(part: Summary) -> dict[str, object]:
    body = part.body
    about = {"rows": part.rows, "missing": part.missing, "bad": part.bad, "example": part.example}
    if isinstance(body, Counts):
        words = list(body.words)
        about["grouped"] = body.grouped
        return {"about": json.dumps(about), "words": words, "counts": [body.words[word] for word in words]}
    if isinstance(body, Moments):
        about |= {"total": hex(body.total), "squares": hex(body.squares)}
    grid = body.sketch if isinstance(body, Moments) else body
    about["level"] = grid.level
    return {"about": json.dumps(about), "low": grid.low, "high": grid.high, "counts": grid.counts}


def _from_row(table: pa.Table, at: int) -> Summary:
    about = json.loads(table.column("about")[at].as_py())
    base = (about["rows"], about["missing"], about["bad"], about["example"])
    counts = table.column("counts")[at].values
    if "grouped" in about:
        words = dict(zip(table.column("words")[at].as_py(), counts.to_pylist(), strict=True))
        return Summary(*base, Counts(words, about["grouped"]))
    low, high = (table.column(end)[at].values.to_numpy() for end in ("low", "high"))
    grid = Sketch(about["level"], low, high, counts.to_numpy())
    if "total" not in about:
        return Summary(*base, grid)
    return Summary(*base, Moments(int(about["total"], 16), int(about["squares"], 16), grid))
