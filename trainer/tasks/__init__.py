"""The tasks there are, by the name that a spec gives them. A new one is a file here and a line in `TASKS`."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from cluster.errors import SpecError, nearest

if TYPE_CHECKING:
    from trainer.tasks.base import Task

TASKS = {
    "text-classification": "trainer.tasks.text_classification:TextClassification",
}


def get(name: str) -> Task:
    """Return the task called `name`; raises `SpecError` for one that is not there."""
    if name not in TASKS:
        raise SpecError(f"task='{name}' is not known", nearest(name, TASKS))
    module, _, attribute = TASKS[name].partition(":")
    task: Task = getattr(importlib.import_module(module), attribute)()
    return task
