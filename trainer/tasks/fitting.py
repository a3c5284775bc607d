"""Create the unfitted contract of a task, and add to it what is learned from the training rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from trainer.contract.contract import Contract, Step
from trainer.spec.run import RunSpec
from trainer.tasks.columns import columns_of

if TYPE_CHECKING:
    from trainer.features.fitted import FittedFeatures
    from trainer.tasks.base import Task


def unfitted_contract(
    task: Task,
    spec: RunSpec,
    steps: Sequence[Step] = (),
    files: Mapping[str, str] | None = None,
    types: Mapping[str, str] | None = None,
) -> Contract:
    """Return a task's contract before anything is learned from the training rows: `fitted` is empty.

    `files` maps each file that the encoder reads to its SHA-256. `types` maps the roles of an input to the types of
    their values; by default every role in `text_roles` is a text.
    """
    columns = columns_of(task, spec)
    input_types = {role: "text" for role in task.text_roles if role in columns} if types is None else types
    return Contract(
        task=spec.task,
        columns=columns,
        types={**input_types, **({task.target_role: task.target.kind} if task.target_role else {})},
        steps=list(steps),
        fitted={},
        files=dict(files or {}),
    )


def fit_target(task: Task, contract: Contract, tally: Mapping[str, int], declared: list[str] | None = None) -> Contract:
    """Return the contract with the fitted target; `declared` is the spec's `data.labels`.

    Raises `DataError` if nothing can be learned.
    """
    fitted = task.target.fit(task.target_role or task.target.kind, tally, declared)
    return contract.model_copy(update={"fitted": {**contract.fitted, **fitted}})


def add_features(task: Task, contract: Contract, features: FittedFeatures) -> Contract:
    """Return the contract with the fitted columns of `data.features`, or unchanged if the task does not use them."""
    if not task.learns_from_features:
        return contract
    fitted = {**contract.fitted, "features": features.model_dump(mode="json")}
    return contract.model_copy(update={"fitted": fitted})
