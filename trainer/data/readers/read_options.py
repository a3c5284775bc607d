"""Which columns of a file are read for a task, and which kinds of values they may hold."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from trainer.contract.contract import Contract
from trainer.spec.features import FeatureSpec
from trainer.spec.run import RunSpec
from trainer.tasks.base import Task
from trainer.tasks.catalog import task_of_contract
from trainer.tasks.roles import FEATURE, GROUP, TIME
from trainer.tasks.tables.task import fitted_features


class ReadOptions(NamedTuple):
    """What to read from a file: the arguments of `read_blocks` after the file."""

    columns: dict[str, str]
    """Role -> the file's column."""
    loose: frozenset[str] = frozenset()
    """Roles whose values may be of any kind, or missing."""
    binary: frozenset[str] = frozenset()
    """Roles that hold bytes, or the path of a file that holds them."""
    decimal_signs: Mapping[str, str] = {}
    """Role -> the decimal sign in its texts, if it is not a point. Numbers of typed columns are spelled with it."""
    nested: frozenset[str] = frozenset()
    """Roles whose values may be lists and objects too; these are read as JSON text. They are loose roles as well."""


def make_read_options(
    task: Task, columns: dict[str, str], features: Mapping[str, FeatureSpec] | None = None
) -> ReadOptions:
    """Return the read options of a task for the roles in `columns` (role -> the file's column).

    `features` are the rules of the columns that have the role of a feature.
    """
    loose = {role for role in columns if role in (GROUP, TIME) or role.startswith(FEATURE)} | task.nested_roles
    if task.target.accepts_any_type and task.target_role:
        loose.add(task.target_role)
    signs = {FEATURE + name: getattr(rules, "decimal_sign", ".") for name, rules in (features or {}).items()}
    return ReadOptions(
        columns,
        frozenset(loose & columns.keys()),
        task.binary_roles & columns.keys(),
        {role: sign for role, sign in signs.items() if sign != "."},
        task.nested_roles & columns.keys(),
    )


def read_options_of_contract(contract: Contract, columns: dict[str, str]) -> ReadOptions:
    """Return the read options of rows for a trained model: to predict, or to evaluate it."""
    task = task_of_contract(contract)
    return make_read_options(task, columns, fitted_features(contract).rules if task.learns_from_features else {})


def read_options_of_spec(spec: RunSpec, contract: Contract) -> ReadOptions:
    """Return the read options of training data: the columns of the contract, of `data.features` and of the split."""
    split = spec.data.split
    split_column = {} if split.column is None else {GROUP if split.by == "group" else TIME: split.column}
    columns = {**contract.columns, **split_column, **{FEATURE + name: name for name in spec.data.features}}
    return make_read_options(task_of_contract(contract), columns, spec.data.features)
