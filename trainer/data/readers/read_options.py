"""TODO docstring."""

from __future__ import annotations

from typing import NamedTuple

from trainer.contract.contract import Contract
from trainer.spec.run import RunSpec
from trainer.tasks import catalog as task_catalog
from trainer.tasks.base import Task
from trainer.tasks.roles import FEATURE, GROUP, TIME


def make_read_options(task: Task, columns: dict[str, str]) -> ReadOptions:
    """Return how the roles in `columns` are read for this task."""
    loose = {role for role in columns if role in (GROUP, TIME) or role.startswith(FEATURE)}
    if task.target.accepts_any_type:
        loose.add(task.target_role)
    return ReadOptions(columns, frozenset(loose & columns.keys()), task.binary_roles & columns.keys())


def read_options_of_spec(spec: RunSpec, contract: Contract) -> ReadOptions:
    """Return all that is read of a row, and how."""
    how = spec.data.split
    extra = {} if how.column is None else {GROUP if how.by == "group" else TIME: how.column}
    columns = {**contract.columns, **extra, **{FEATURE + name: name for name in spec.data.features}}
    return make_read_options(task_catalog.task_of_contract(contract), columns)


class ReadOptions(NamedTuple):
    """What is read of a file, and how: the arguments of `read_blocks` after the file."""

    columns: dict[str, str]
    """Role -> the file's column."""
    loose: frozenset[str] = frozenset()
    """Roles whose values may be of any kind, or missing."""
    binary: frozenset[str] = frozenset()
    """Roles that hold bytes, or the path of a file that holds them."""
