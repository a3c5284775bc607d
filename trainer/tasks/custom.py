"""A task of the user's own, `module:Class`: only from the user's own modules, and only the source that a model was trained with."""

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


def load(path: str) -> Task:
    """Return the task at `module:Class`; raises `SpecError` if it is not there, not the user's, or no task."""
    return _task(path, user_code.load(user_code.find(path, _KEY)))


def of(contract: Contract) -> Task:
    """Return the task of a contract; raises `ModelError` if its source is not what the model was trained with."""
    copy = _copy_of(contract.task)
    source = user_code.pinned(contract.task, _KEY, contract.files.get(copy), copy)
    return _task(contract.task, user_code.load_pinned(source))


def pin(contract: Contract, folder: Path) -> Contract:
    """Return the contract with the digest of its task's source, of which `folder` gets a copy to read."""
    source = user_code.find(contract.task, _KEY)
    copy = _copy_of(contract.task)
    write_bytes(folder / copy, source.content)
    return contract.model_copy(update={"files": {**contract.files, copy: source.digest}})


def _task(path: str, made: object) -> Task:
    from trainer.tasks.base import Task

    if not (isinstance(made, type) and issubclass(made, Task)):
        raise SpecError(
            f"task: {path} is no task", "name a class of yours that is a subclass of trainer.tasks.base.Task"
        )
    missing = sorted(getattr(made, "__abstractmethods__", ()))
    missing += [name for name in ("roles", "target") if not hasattr(made, name)]
    if missing:
        raise SpecError(f"task: {path} lacks {', '.join(missing)}", "write them into the class (docs/tasks.md)")
    task: Task = made()
    task.name = path
    return task


def _copy_of(path: str) -> str:
    return f"task_{path.partition(':')[0]}.py"
