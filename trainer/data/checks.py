"""Which rows can be used, looked at one by one: what the reader found, missing and empty values, length, labels, steps.

What needs all rows together (duplicates, contradictions, leaks) is in `trainer.data.whole`.
"""

from __future__ import annotations

from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from trainer.steps import Cleaner
from trainer.tasks.base import Task


class Limits(NamedTuple):
    """What the spec says of single values; a prepared row is held to it, a file to predict is not."""

    max_chars: int
    labels: list[str] | None


class Examined(NamedTuple):
    """The rows of a block, told apart."""

    good: pa.Table
    texts: pa.Array
    """The subjects of the good rows after cleaning, ready to be encoded."""
    bad: pa.Table
    """With `reason` filled."""


def examine(task: Task, rows: pa.Table, cleaner: Cleaner, limits: Limits | None = None) -> Examined:
    """Tell usable rows from unusable ones. `rows` has a string column for each role, and `reason` from the reader."""
    reasons = _reasons(task, rows, limits)
    usable = pc.is_null(reasons)
    good = rows.filter(usable)
    texts = good[task.subject].combine_chunks()
    if cleaner:
        cleaned, refused = cleaner(texts.to_pylist())
        texts = pa.array(cleaned, pa.string())
        if any(refused):
            late = pa.array(refused, pa.string())
            reasons = pc.replace_with_mask(_joined(reasons), _joined(usable), late)
            usable, kept = pc.is_null(reasons), pc.is_null(late)
            good, texts = good.filter(kept), texts.filter(kept)
    bad = rows.set_column(rows.schema.get_field_index("reason"), "reason", reasons).filter(pc.invert(usable))
    return Examined(good, texts if isinstance(texts, pa.Array) else texts.combine_chunks(), bad)


def _joined(column: pa.Array | pa.ChunkedArray) -> pa.Array:
    return column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column


def _reasons(task: Task, rows: pa.Table, limits: Limits | None) -> pa.Array:
    """Return for each row the first thing that is wrong with it, or null."""
    found = [rows["reason"]]
    for role in task.roles:
        if role in rows.column_names:
            found += [
                _where(pc.is_null(rows[role]), f"missing {role}"),
                _where(pc.equal(pc.utf8_length(pc.utf8_trim_whitespace(rows[role])), 0), f"empty {role}"),
            ]
    found.append(task.check(rows))
    if limits is not None:
        too_long = pc.greater(pc.utf8_length(rows[task.subject]), limits.max_chars)
        found.append(_where(too_long, f"{task.subject} over {limits.max_chars:,} characters"))
        if limits.labels is not None:
            known = pc.is_in(rows[task.target], value_set=pa.array(limits.labels, pa.string()))
            found.append(_where(pc.invert(known), f"unknown {task.target}"))
    return pc.coalesce(*found)


def _where(condition: pa.Array, reason: str) -> pa.Array:
    return pc.if_else(condition, reason, pa.scalar(None, pa.string()))
