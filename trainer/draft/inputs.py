"""Choose the task and its inputs from what the tasks declare: their roles, and the kind of their target."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import pyarrow as pa

from cluster.errors import DataError
from trainer.draft.column import Column
from trainer.draft.name_hints import is_text_name
from trainer.draft.target import TargetChoice
from trainer.tasks.base import Task
from trainer.tasks.catalog import TASKS, get_task
from trainer.tasks.draft_options import Doubt

_FEATURE_KINDS = ("boolean", "number", "date", "category")
# Beside a text that is clearly the input, up to this many other columns are left out.
_MAX_SIDE_COLUMNS = 3
_REASONS = {
    "empty": "it has no value",
    "constant": "it is constant",
    "id": "it identifies a row",
    "group": "its values identify something that repeats",
    "part": "it names the part of a row",
    "nested": "no task reads such values",
    "tags": "it holds lists",
    "text": "a task on tables cannot read free text",
    "image": "it holds images",
}


class InputColumns(NamedTuple):
    """The columns that can be inputs, by what they can be."""

    images: list[Column]
    texts: list[Column]
    """The best text first."""
    features: list[Column]
    order: list[str]
    """The names of all columns as the file has them."""
    main: str
    """image, text or features: which of them seems to be the input."""


class TaskChoice(NamedTuple):
    """The task, and what each column is in it."""

    task: Task
    roles: dict[str, str]
    """Role -> column, the target's included."""
    features: dict[str, Column]
    unused: dict[str, str]
    """Column that is left out -> the reason."""
    doubts: list[Doubt]


def choose_task(columns: Sequence[Column], target: TargetChoice, rows: pa.Table, name: str | None = None) -> TaskChoice:
    """Return the task `name`, or the one that fits best, with its inputs.

    `rows` holds the sample's columns. Raises `DataError` if the task, or every task, needs other columns.
    """
    others = [column for column in columns if column is not target.column]
    copies = [column.name for column in others if column.kind in _FEATURE_KINDS and _repeats(rows, column, target)]
    inputs = _input_columns([column for column in others if column.name not in copies], target, name)
    tasks = [get_task(name)] if name else [get_task(known) for known in TASKS]
    fitting = [task for task in tasks if task.target.kind in target.kinds and _fits(task, inputs)]
    if not fitting:
        raise _no_task_error(columns, target, inputs, name)
    task = min(fitting, key=lambda task: _distance(task, target, inputs))
    roles, features = _assign(task, inputs)
    used = {target.column.name, *roles.values(), *features}
    unused = {column.name: _reason(column, task, copies) for column in others if column.name not in used}
    doubts = [*_input_doubts(task, target, inputs, unused), *_copy_doubts(copies, target)]
    assert task.target_role  # as _fits requires
    return TaskChoice(task, {**roles, task.target_role: target.column.name}, features, unused, doubts)


def _input_columns(columns: list[Column], target: TargetChoice, task_name: str | None) -> InputColumns:
    images = [column for column in columns if column.kind == "image"]
    texts = [column for column in columns if column.kind == "text"]
    if task_name and not texts:  # the user says that there is a text: then short words are texts too
        texts = [column for column in columns if column.kind in ("id", "category", "group")]
    texts.sort(key=lambda column: (not is_text_name(column.name), -column.words))
    features = [column for column in columns if column.kind in _FEATURE_KINDS]
    is_text = texts and (
        not features
        or target.kinds[0] == "tags"
        or (is_text_name(texts[0].name) and len(features) <= _MAX_SIDE_COLUMNS)
    )
    main = "image" if images else "text" if is_text else "features"
    return InputColumns(images, texts, features, [column.name for column in columns], main)


def _repeats(rows: pa.Table, column: Column, target: TargetChoice) -> bool:
    """Whether a column is the target in other words: each of its values goes with one value of the target."""
    pairs = rows.select([column.name, target.column.name]).drop_null()
    n_values = len(column.values)
    if not 2 <= n_values == len(target.column.values) <= len(pairs) / 2:
        return False
    return len(pairs.group_by(pairs.column_names).aggregate([])) == n_values


def _input_kind(task: Task) -> str:
    return "features" if task.learns_from_features else "image" if task.binary_roles else "text"


def _fits(task: Task, inputs: InputColumns) -> bool:
    if task.target_role is None:
        return False
    if task.learns_from_features:
        return bool(inputs.features)
    is_known = {task.target_role, *task.binary_roles, *task.text_roles} == set(task.roles)
    enough = len(task.binary_roles) <= len(inputs.images) and len(task.text_roles) <= len(inputs.texts)
    return is_known and enough


def _distance(task: Task, target: TargetChoice, inputs: InputColumns) -> tuple[bool, int, int]:
    """Return how far a task is from what the columns suggest; the smallest is the best."""
    n_texts = len(inputs.texts) if len(inputs.texts) == 2 else 1
    return (
        _input_kind(task) != inputs.main,
        target.kinds.index(task.target.kind),
        abs(len(task.text_roles) - n_texts),
    )


def _assign(task: Task, inputs: InputColumns) -> tuple[dict[str, str], dict[str, Column]]:
    """Return the columns of the input roles, and the features."""
    if task.learns_from_features:
        return {}, {column.name: column for column in inputs.features}
    roles = dict(zip(sorted(task.binary_roles), (column.name for column in inputs.images), strict=False))
    texts = inputs.texts[: len(task.text_roles)]
    ordered = [name for name in inputs.order if name in {column.name for column in texts}]
    return roles | dict(zip(task.text_roles, ordered, strict=True)), {}


def _reason(column: Column, task: Task, copies: list[str]) -> str:
    if column.name in copies:
        return "it is the column to predict in other words"
    if column.kind == "text" and not task.learns_from_features:
        return f"{task.name} reads {len(task.text_roles)} text{'s' if len(task.text_roles) != 1 else ''}"
    return _REASONS.get(column.kind, f"{task.name} reads no further columns")


def _input_doubts(task: Task, target: TargetChoice, inputs: InputColumns, unused: dict[str, str]) -> list[Doubt]:
    """Return the doubts about inputs that the task does not read, with a task that reads them."""
    texts = [column.name for column in inputs.texts if column.name in unused]
    features = [column.name for column in inputs.features if column.name in unused and column.name not in target.rivals]
    doubts = []
    if texts and task.learns_from_features:
        other = _similar_task(task, lambda known: len(known.text_roles) == 1)
        doubts.append(
            Doubt(
                f"the free text in '{texts[0]}' is left out, because a task on tables cannot read it",
                f"if the text matters most: --task {other}" if other else "take numbers or categories out of the text",
            )
        )
    elif texts:
        problem = f"the model reads '{inputs.texts[0].name}' and not '{texts[0]}'"
        doubts.append(Doubt(problem, "if both matter, join them into one column"))
    if features and not task.learns_from_features:
        names = ", ".join(repr(name) for name in features[:4])
        other = _similar_task(task, lambda known: known.learns_from_features)
        problem = f"{names} {'are' if len(features) > 1 else 'is'} left out, because the model reads only the "
        fix = f"if these columns matter more: --task {other}" if other else "no task on tables has such a target"
        doubts.append(Doubt(problem + _input_kind(task), fix))
    return doubts


def _similar_task(task: Task, has_inputs: Callable[[Task], bool]) -> str | None:
    """Return the name of a task with the same kind of target and other inputs, or None."""
    tasks = [get_task(name) for name in TASKS]
    return next((known.name for known in tasks if known.target.kind == task.target.kind and has_inputs(known)), None)


def _copy_doubts(copies: list[str], target: TargetChoice) -> list[Doubt]:
    return [
        Doubt(
            f"'{name}' is left out, because each of its values goes with one value of '{target.column.name}'",
            f"to predict its words instead: --target {name}",
        )
        for name in copies
    ]


def _no_task_error(
    columns: Sequence[Column], target: TargetChoice, inputs: InputColumns, name: str | None
) -> DataError:
    shown = "; ".join(f"'{column.name}': {column.about}" for column in columns[:12])
    if name is None:
        return DataError(
            f"no task fits: '{target.column.name}' would be predicted, and no other column can be an input ({shown})",
            "add a column with a text, an image or values to learn from, or name the target with --target",
        )
    task = get_task(name)
    if task.target.kind not in target.kinds:
        return DataError(
            f"--task={name} predicts a {task.target.kind}, and '{target.column.name}' holds {target.column.about}",
            "name another column with --target, or another task with --task",
        )
    needs = {role: text for role, text in task.roles.items() if role != task.target_role}
    return DataError(
        f"--task={name} needs {', '.join(needs.values()) or 'columns of values'}, and the columns are: {shown}",
        "name another task with --task; `raymill tasks` lists them",
    )
