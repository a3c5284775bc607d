"""A task of the user's own, `module:Class`: only from the user's own modules, and only the source that a model was trained with."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from cluster.errors import ModelError, SpecError
from cluster.files import write_bytes
from trainer import user_module

if TYPE_CHECKING:
    from trainer.contract import Contract
    from trainer.tasks.base import Task

_KEY = "task"


def load(path: str) -> Task:
    """Return the task at `module:Class`; raises `SpecError` if it is not there, not the user's, or no task."""
    from trainer.tasks.base import Task

    made = user_module.load(user_module.find(path, _KEY))
    if not (isinstance(made, type) and issubclass(made, Task)):
        raise SpecError(
            f"task: {path} is no task", "name a class of yours that is a subclass of trainer.tasks.base.Task"
        )
    missing = sorted(getattr(made, "__abstractmethods__", ()))
    if missing:
        raise SpecError(f"task: {path} lacks {', '.join(missing)}", "write these methods (docs/tasks.md)")
    for needed in ("roles", "target"):
        if not hasattr(made, needed):
            raise SpecError(f"task: {path} lacks '{needed}'", "set it in the class (docs/tasks.md)")
    task: Task = made()
    task.name = path
    return task


def pin(contract: Contract, folder: Path) -> Contract:
    """Return the contract with the digest of its task's source, of which `folder` gets a copy to read."""
    source = user_module.find(contract.task, _KEY)
    copy = _copy_of(source.module)
    write_bytes(folder / copy, source.content)
    return contract.model_copy(update={"files": {**contract.files, copy: source.digest}})


def check(contract: Contract) -> None:
    """Raise `ModelError` if the source of the contract's task is not here, or not what the model was trained with."""
    try:
        source = user_module.find(contract.task, _KEY)
    except SpecError as error:
        raise ModelError(error.problem, f"{error.fix} (a change of the source needs another training)") from error
    copy = _copy_of(source.module)
    if contract.files.get(copy) != source.digest:
        raise ModelError(
            f"{source.file} is not the source of {contract.task} that the model was trained with",
            f"restore it (the model's folder has a copy, {copy}), or train again",
        )


def _copy_of(module: str) -> str:
    return f"task_{module}.py"
