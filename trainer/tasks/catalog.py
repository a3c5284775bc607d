"""The tasks there are, by the name that a spec gives them. A new one is a file here and a line in `TASKS`."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from cluster.errors import SpecError, nearest

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
    "tabular-regression": "trainer.tasks.tables.task:TabularRegression",
}


def get(name: str) -> Task:
    """Return the task called `name`, or the user's own of `module:Class`; raises `SpecError` for one that is not there."""
    if is_own(name):
        from trainer.tasks import custom

        return custom.load(name)
    if name not in TASKS:
        raise SpecError(f"task='{name}' is not known", nearest(name, TASKS))
    module, _, attribute = TASKS[name].partition(":")
    task: Task = getattr(importlib.import_module(module), attribute)()
    return task


def of(contract: Contract) -> Task:
    """Return the task of a contract; raises `ModelError` where it is the user's own and its source has changed."""
    if is_own(contract.task):
        from trainer.tasks import custom

        return custom.of(contract)
    return get(contract.task)


def is_own(name: str) -> bool:
    """Whether `name` is `module:Class`, a task of the user's own."""
    return ":" in name
