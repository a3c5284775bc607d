"""Roles: the parts that columns play in a task, such as `text`, `label` or `group`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pyarrow as pa

from trainer.contract.contract import Contract

if TYPE_CHECKING:
    from trainer.tasks.base import Task
    from trainer.tasks.rows import RowsView

#: Roles of the columns that `split.column` names; any task may have them.
GROUP, TIME = "group", "time"

#: Prefix of the roles of `data.features`: column `age` has the role `feature.age`.
FEATURE = "feature."


def input_roles(task: Task, contract: Contract) -> list[str]:
    """Return the roles of an input, in order: all roles but the target's."""
    return [role for role in contract.columns if role != task.target_role]


def request_roles(task: Task, contract: Contract) -> list[str]:
    """Return the roles of an input that has no answer: those that files to predict need."""
    return [role for role in input_roles(task, contract) if role not in task.answer_roles]


def target_values(task: Task, rows: pa.Table) -> pa.ChunkedArray:
    """Return the raw targets of rows, string; nulls if the task has no column for them."""
    if task.target_role is None:
        return pa.chunked_array([pa.nulls(len(rows), pa.string())])
    return rows[task.target_role]


def raw_targets(task: Task, rows: RowsView) -> list[str | None]:
    """Return the raw targets of prepared rows; None for each if the task has no column for them."""
    return rows.raw(task.target_role) if task.target_role else [None] * len(rows)


def features_of(rows: pa.Table) -> pa.Table:
    """Return only the columns of `data.features`, under the user's column names."""
    columns = {name.removeprefix(FEATURE): rows[name] for name in rows.column_names if name.startswith(FEATURE)}
    return pa.table(columns)
