"""The built-in tasks by name. To add one, write a file in this package and add a line to `TASKS`."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from cluster.errors import SpecError, suggest

if TYPE_CHECKING:
    from trainer.contract.contract import Contract
    from trainer.tasks.base import Task

TASKS = {
    "text-classification": "trainer.tasks.text.tasks:TextClassification",
    "text-pair-classification": "trainer.tasks.text.tasks:TextPairClassification",
    "text-regression": "trainer.tasks.text.tasks:TextRegression",
    "text-multi-label": "trainer.tasks.text.tasks:TextMultiLabel",
    "image-classification": "trainer.tasks.images.task:ImageClassification",
    "tabular-classification": "trainer.tasks.tables.task:TabularClassification",
    "text-generation": "trainer.tasks.generation.task:TextGeneration",
    "tabular-regression": "trainer.tasks.tables.task:TabularRegression",
}


def get_task(name: str) -> Task:
    """Return the built-in task `name`, or the custom task `module:Class`. Raises `SpecError` if it does not exist."""
    if is_custom_task(name):
        from trainer.tasks.custom import load_custom_task

        return load_custom_task(name)
    if name not in TASKS:
        raise SpecError(f"task='{name}' is not a known task", suggest(name, TASKS))
    module, _, attribute = TASKS[name].partition(":")
    task: Task = getattr(importlib.import_module(module), attribute)()
    return task


def task_of_contract(contract: Contract) -> Task:
    """Return the task of a contract. Raises `ModelError` if it is a custom task whose source has changed."""
    if is_custom_task(contract.task):
        from trainer.tasks.custom import custom_task_of_contract

        return custom_task_of_contract(contract)
    return get_task(contract.task)


def is_custom_task(name: str) -> bool:
    """Whether `name` has the form `module:Class`, which names a custom task."""
    return ":" in name
