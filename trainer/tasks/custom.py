"""Custom tasks, named `module:Class`.

The module must be the user's own. A model is loaded only if the module's source is the one that it was trained with.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from cluster.errors import SpecError
from cluster.files import write_bytes
from trainer.contract import user_code

if TYPE_CHECKING:
    from trainer.contract.contract import Contract
    from trainer.tasks.base import Task

_KEY = "task"


def load_custom_task(path: str) -> Task:
    """Return the task at `module:Class`. Raises `SpecError` if it is missing, not the user's, or not a task."""
    return _make_task(path, user_code.load_user_object(user_code.find_source(path, _KEY)))


def custom_task_of_contract(contract: Contract) -> Task:
    """Return the task of a contract. Raises `ModelError` if its source is not the one the model was trained with."""
    copy = _copy_name(contract.task)
    source = user_code.find_pinned_source(contract.task, _KEY, contract.files.get(copy), copy)
    return _make_task(contract.task, user_code.load_pinned_object(source))


def pin_task_source(contract: Contract, folder: Path) -> Contract:
    """Return the contract with the digest of its task's source, and write a copy of the source into `folder`."""
    source = user_code.find_source(contract.task, _KEY)
    copy = _copy_name(contract.task)
    write_bytes(folder / copy, source.content)
    return contract.model_copy(update={"files": {**contract.files, copy: source.digest}})


def _make_task(path: str, task_class: object) -> Task:
    from trainer.tasks.base import Task

    if not (isinstance(task_class, type) and issubclass(task_class, Task)):
        raise SpecError(f"task: {path} is not a task", "name a subclass of `trainer.tasks.Task`")
    missing = sorted(getattr(task_class, "__abstractmethods__", ()))
    missing += [name for name in ("roles", "target") if not hasattr(task_class, name)]
    if missing:
        raise SpecError(
            f"task: {path} lacks {', '.join(missing)}", "write them in the class (see docs/reference/task-api.md)"
        )
    task: Task = task_class()
    task.name = path
    return task


def _copy_name(path: str) -> str:
    return f"task_{path.partition(':')[0]}.py"
