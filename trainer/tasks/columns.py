"""The columns of a task: which of the user's columns plays which role."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cluster.errors import SpecError, suggest
from trainer.spec.run import RunSpec
from trainer.tasks.roles import FEATURE

if TYPE_CHECKING:
    from trainer.tasks.base import Task


def columns_of(task: Task, spec: RunSpec) -> dict[str, str]:
    """Return the user's column for each role. If the task learns from `data.features`, these columns are included.

    Raises `SpecError` if the spec names a role that the task does not have, or one column twice.
    """
    columns = resolve_columns(task, spec.data.columns)
    if not task.learns_from_features:
        return columns
    if not spec.data.features:
        raise SpecError(
            f"data.features is empty; {task.name} learns from the columns that it names",
            "name the columns with their kinds, for example `features: {age: numeric, country: categorical}`",
        )
    target_column = columns[task.target_role] if task.target_role else None
    if target_column in spec.data.features:
        raise SpecError(
            f"data.features names '{target_column}', which is the column to predict",
            f"remove it from `data.features`, or name another column in `data.columns.{task.target_role}`",
        )
    return {**columns, **{FEATURE + name: name for name in spec.data.features}}


def resolve_columns(task: Task, renamed: dict[str, str]) -> dict[str, str]:
    """Return the column for each role of the task: the one in `renamed`, else the column with the name of the role.

    Raises `SpecError` for a role that the task does not have.
    """
    for role in renamed:
        if role not in task.roles:
            raise SpecError(f"data.columns has '{role}', which {task.name} does not use", suggest(role, task.roles))
    columns = {role: renamed.get(role, role) for role in task.column_roles(renamed)}
    if len(set(columns.values())) < len(columns):
        raise SpecError(f"data.columns={columns} gives one column two roles", "name a different column for each role")
    return columns
