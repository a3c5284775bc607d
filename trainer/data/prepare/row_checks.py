"""Checks of single rows: missing and empty values, length, labels, cleaning steps.

Checks that need all rows together (duplicates, contradictions, leaks) are in `trainer.data.prepare.judge`.
"""

from __future__ import annotations

from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from trainer.contract.contract import Contract
from trainer.steps.cleaner import Cleaner
from trainer.targets.arrays import reason_where
from trainer.tasks.base import Task
from trainer.tasks.roles import input_roles
from trainer.values.columns import canonical_texts, one_array


class RowLimits(NamedTuple):
    """Limits from the spec on single values. They apply to prepared rows, not to files to predict."""

    max_chars: int
    labels: list[str] | None


class CheckedRows(NamedTuple):
    """The rows of a block, separated into usable and bad ones."""

    good: pa.Table
    """Usable rows with their raw values."""
    cleaned: pa.Table
    """Inputs of the usable rows after cleaning, a column for each role: ready to be encoded."""
    bad: pa.Table
    """Bad rows, with `reason` filled in."""


def check_rows(
    task: Task, contract: Contract, rows: pa.Table, cleaner: Cleaner, limits: RowLimits | None = None
) -> CheckedRows:
    """Separate usable rows from bad ones. `rows` has a column for each role, and the reader's `reason`."""
    rows = _canonical_targets(task, contract, rows)
    rows = add_reason(rows, _first_reasons(task, rows, limits))
    cleaned = {role: one_array(rows[role]) for role in input_roles(task, contract)}
    text_roles = [role for role in task.text_roles if role in cleaned]
    for role in text_roles:
        cleaned[role] = canonical_texts(cleaned[role])
    if cleaner:
        usable = pc.is_null(rows["reason"])
        for role in text_roles:
            cleaned[role], reasons = _clean_texts(cleaner, cleaned[role], one_array(usable))
            rows = add_reason(rows, reasons)
    usable = pc.is_null(rows["reason"])
    return CheckedRows(rows.filter(usable), pa.table(cleaned).filter(usable), rows.filter(pc.invert(usable)))


def reject_rows(checked: CheckedRows, reasons: list[str | None] | None) -> CheckedRows:
    """Move good rows with a reason to the bad rows, in row order. `reasons` has one entry per good row."""
    if not reasons or not any(reasons):
        return checked
    late_reasons = pa.array(reasons, pa.string())
    usable = pc.is_null(late_reasons)
    bad = add_reason(checked.good, late_reasons).filter(pc.invert(usable))
    bad = pa.concat_tables([checked.bad, bad.select(checked.bad.column_names)]).sort_by("row")
    return CheckedRows(checked.good.filter(usable), checked.cleaned.filter(usable), bad)


def add_reason(rows: pa.Table, reasons: pa.Array | pa.ChunkedArray) -> pa.Table:
    """Set the reason (null: none) of rows that have no reason yet."""
    return rows.set_column(rows.schema.get_field_index("reason"), "reason", pc.coalesce(rows["reason"], reasons))


def _canonical_targets(task: Task, contract: Contract, rows: pa.Table) -> pa.Table:
    """Return the rows with their targets in the target's canonical spelling."""
    role = task.target_role
    if role is None or role not in rows.column_names:  # files to predict have no targets
        return rows
    values = task.target.canonicalize(contract.fitted, rows[role])
    return rows.set_column(rows.schema.get_field_index(role), role, values)


def _clean_texts(cleaner: Cleaner, texts: pa.Array, usable: pa.Array) -> tuple[pa.Array, pa.Array]:
    """Return all texts, with `usable` texts cleaned, and for each text why a step rejects it, or null."""
    cleaned, reasons = cleaner(texts.take(pc.indices_nonzero(usable)).to_pylist())
    all_texts = pc.replace_with_mask(texts, usable, pa.array(cleaned, pa.string()))
    all_reasons = pc.replace_with_mask(pa.nulls(len(texts), pa.string()), usable, pa.array(reasons, pa.string()))
    return all_texts, all_reasons


def _first_reasons(task: Task, rows: pa.Table, limits: RowLimits | None) -> pa.ChunkedArray:
    """Return for each row the reason of the first check that it fails, or null."""
    reasons = [rows["reason"]]
    for role in task.roles:
        if role not in rows.column_names or (role == task.target_role and task.target.may_be_empty):
            continue
        if role not in task.optional_roles:
            reasons.append(reason_where(pc.is_null(rows[role]), f"missing {role}"))
        reasons.append(reason_where(_is_empty(rows[role]), f"empty {role}"))
    reasons += task.check(rows)
    if limits is not None:
        for role in [role for role in task.text_roles if role in rows.column_names]:
            too_long = pc.greater(pc.utf8_length(rows[role]), limits.max_chars)
            reasons.append(reason_where(too_long, f"{role} over {limits.max_chars:,} characters"))
        if limits.labels is not None and task.target_role:
            reasons.append(task.target.check_declared(task.target_role, rows[task.target_role], limits.labels))
    return pc.coalesce(*reasons)


def _is_empty(values: pa.ChunkedArray) -> pa.ChunkedArray:
    if pa.types.is_string(values.type):
        return pc.equal(pc.utf8_length(pc.utf8_trim_whitespace(values)), 0)
    return pc.equal(pc.binary_length(values), 0)
