"""Which rows can be used, looked at one by one: what the reader found, missing and empty values, length, labels, steps.

What needs all rows together (duplicates, contradictions, leaks) is in `trainer.data.prepare.judge`.
"""

from __future__ import annotations

from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from trainer.contract.contract import Contract
from trainer.steps.cleaner import Cleaner
from trainer.targets.base import where
from trainer.tasks.base import Task


class Limits(NamedTuple):
    """What the spec says of single values; a prepared row is held to it, a file to predict is not."""

    max_chars: int
    labels: list[str] | None


class Examined(NamedTuple):
    """The rows of a block, told apart."""

    good: pa.Table
    """Raw rows that can be used."""
    subjects: pa.Table
    """The inputs of the good rows, a column for each role, after cleaning: ready to be encoded."""
    bad: pa.Table
    """With `reason` filled."""


def examine(task: Task, contract: Contract, rows: pa.Table, cleaner: Cleaner, limits: Limits | None = None) -> Examined:
    """Tell usable rows from unusable ones. `rows` has a column for each role, and `reason` from the reader."""
    rows = _canonical(task, contract, rows)
    rows = with_reason(rows, _reasons(task, rows, limits))
    subjects = {role: _joined(rows[role]) for role in task.subjects(contract)}
    if cleaner:
        usable = pc.is_null(rows["reason"])
        for role in task.texts:
            subjects[role], refused = _cleaned(cleaner, subjects[role], _joined(usable))
            rows = with_reason(rows, refused)
    usable = pc.is_null(rows["reason"])
    return Examined(rows.filter(usable), pa.table(subjects).filter(usable), rows.filter(pc.invert(usable)))


def refuse(found: Examined, reasons: list[str | None] | None) -> Examined:
    """Move those of the good rows that have one of the `reasons` to the bad ones, in the order of the rows."""
    if not reasons or not any(reasons):
        return found
    late = pa.array(reasons, pa.string())
    kept = pc.is_null(late)
    bad = with_reason(found.good, late).filter(pc.invert(kept))
    bad = pa.concat_tables([found.bad, bad.select(found.bad.column_names)]).sort_by("row")
    return Examined(found.good.filter(kept), found.subjects.filter(kept), bad)


def with_reason(rows: pa.Table, wrong: pa.Array | pa.ChunkedArray) -> pa.Table:
    """Give rows that have no reason yet the one in `wrong`, where there is one."""
    return rows.set_column(rows.schema.get_field_index("reason"), "reason", pc.coalesce(rows["reason"], wrong))


def _canonical(task: Task, contract: Contract, rows: pa.Table) -> pa.Table:
    """Return the rows with their targets in one spelling."""
    role = task.target_role
    if role not in rows.column_names:  # files to predict have none
        return rows
    values = task.target.canonical(contract.fitted, rows[role])
    return rows.set_column(rows.schema.get_field_index(role), role, values)


def _cleaned(cleaner: Cleaner, texts: pa.Array, usable: pa.Array) -> tuple[pa.Array, pa.Array]:
    """Return the usable texts cleaned, the others as they came, and why some must not be used."""
    at = pc.indices_nonzero(usable)
    cleaned, refused = cleaner(texts.take(at).to_pylist())
    found = pc.replace_with_mask(texts, usable, pa.array(cleaned, pa.string()))
    why = pc.replace_with_mask(pa.nulls(len(texts), pa.string()), usable, pa.array(refused, pa.string()))
    return found, why


def _joined(column: pa.Array | pa.ChunkedArray) -> pa.Array:
    if not isinstance(column, pa.ChunkedArray):
        return column
    found = column.combine_chunks()
    return found if isinstance(found, pa.Array) else pa.concat_arrays(found.chunks)


def _reasons(task: Task, rows: pa.Table, limits: Limits | None) -> pa.ChunkedArray:
    """Return for each row the first thing that is wrong with it, or null."""
    found = [rows["reason"]]
    for role in task.roles:
        if role in rows.column_names and not (role == task.target_role and task.target.may_be_empty):
            found += [where(pc.is_null(rows[role]), f"missing {role}"), where(_empty(rows[role]), f"empty {role}")]
    found += task.check(rows)
    if limits is not None:
        for role in task.texts:
            too_long = pc.greater(pc.utf8_length(rows[role]), limits.max_chars)
            found.append(where(too_long, f"{role} over {limits.max_chars:,} characters"))
        if limits.labels is not None:
            found.append(task.target.undeclared(task.target_role, rows[task.target_role], limits.labels))
    return pc.coalesce(*found)


def _empty(values: pa.ChunkedArray) -> pa.ChunkedArray:
    if pa.types.is_string(values.type):
        return pc.equal(pc.utf8_length(pc.utf8_trim_whitespace(values)), 0)
    return pc.equal(pc.binary_length(values), 0)
