"""Columns that one task alone recognizes, such as conversations: there is no column to predict to look for."""

from __future__ import annotations

from collections.abc import Sequence

from trainer.data.readers.read import read_blocks
from trainer.draft.column import Column
from trainer.draft.inputs import TaskChoice
from trainer.draft.sample import Sample
from trainer.tasks.catalog import TASKS, get_task
from trainer.tasks.draft_options import ColumnSample

_MAX_CELLS = 50


def recognize_task(sample: Sample, columns: Sequence[Column], name: str | None) -> TaskChoice | None:
    """Return a task that recognizes the columns by itself, or None; `name` is the task that the user named."""
    tasks = [get_task(name)] if name else [get_task(known) for known in TASKS]
    samples: list[ColumnSample] | None = None
    for task in tasks:
        if task.target_role is not None:
            continue
        samples = samples or _column_samples(sample, columns)
        roles = task.recognize(samples)
        if roles:
            used = set(roles.values())
            unused = {
                column.name: "it has no value" if column.kind == "empty" else f"{task.name} has no use for it"
                for column in columns
                if column.name not in used
            }
            return TaskChoice(task, roles, {}, unused, [])
    return None


def _column_samples(sample: Sample, columns: Sequence[Column]) -> list[ColumnSample]:
    nested = [column.name for column in columns if column.kind == "nested"]
    cells = {column.name: list(column.values)[:_MAX_CELLS] for column in columns}
    if nested and not sample.is_folder:
        roles = {f"column {index}": name for index, name in enumerate(nested)}
        everything = frozenset(roles)
        block = next(read_blocks(sample.files[0], roles, everything, nested=everything), None)
        if block is not None:
            cells |= {name: block[role].drop_null().to_pylist()[:_MAX_CELLS] for role, name in roles.items()}
    return [ColumnSample(column.name, column.kind, tuple(cells[column.name])) for column in columns]
