"""The tasks there are, by the name that a spec gives them. A new one is a file here and a line in `TASKS`."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from cluster.errors import SpecError, nearest

if TYPE_CHECKING:
    from trainer.contract import Contract
    from trainer.tasks.base import Task

TASKS = {
    "text-classification": "trainer.tasks.text_classification:TextClassification",
    "text-pair-classification": "trainer.tasks.text_pair_classification:TextPairClassification",
    "text-regression": "trainer.tasks.text_regression:TextRegression",
    "text-multi-label": "trainer.tasks.text_multi_label:TextMultiLabel",
    "image-classification": "trainer.tasks.image_classification:ImageClassification",
    "tabular-classification": "trainer.tasks.tabular_classification:TabularClassification",
    "tabular-regression": "trainer.tasks.tabular_regression:TabularRegression",
}


def get(name: str) -> Task:
    """Return the task called `name`, or the user's own of `module:Class`; raises `SpecError` for one that is not there."""
    if is_own(name):
        from trainer.tasks import own

        return own.load(name)
    if name not in TASKS:
        raise SpecError(f"task='{name}' is not known", nearest(name, TASKS))
    module, _, attribute = TASKS[name].partition(":")
    task: Task = getattr(importlib.import_module(module), attribute)()
    return task


def of(contract: Contract) -> Task:
    """Return the task of a contract; raises `ModelError` where it is the user's own and its source has changed."""
    if is_own(contract.task):
        from trainer.tasks import own

        return own.of(contract)
    return get(contract.task)


def is_own(name: str) -> bool:
    """Whether `name` is `module:Class`, a task of the user's own."""
    return ":" in name
