"""A function of the user's, by its Python path. Its source is stored with the model and its digest is in the contract.

The stored source is there to be read: code is only ever run from the user's own Python path, and only if it is the
source that the model was trained with.
"""

from __future__ import annotations

import importlib
import inspect
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from cluster.errors import ModelError, SpecError
from cluster.files import sha256, write_bytes


class FunctionFailed(Exception):
    """The user's function raised, or returned something that is no text."""


def pin(path: str, folder: Path) -> tuple[dict[str, Any], dict[str, str]]:
    """Return the contract's parameters for the function at `path`, and the copy of its source put into `folder`."""
    function, source = _find(path)
    module = path.partition(":")[0]
    name = f"step_{module}.py"
    write_bytes(folder / name, source.read_bytes())
    if not callable(function):
        raise SpecError(f"data.steps: {path} is no function", "name a function that takes and returns a text")
    digest = sha256(folder / name)
    return {"function": path, "source_sha256": digest}, {name: digest}


def make(params: dict[str, Any]) -> Callable[[str], str | None]:
    """Return the step; raises `ModelError` if the function is not there or its source is not the contract's."""
    path = params["function"]
    try:
        function, source = _find(path)
    except SpecError as error:
        raise ModelError(error.problem, f"put the module on the Python path: {error.fix}") from error
    if sha256(source) != params["source_sha256"]:
        raise ModelError(
            f"{source} is not the source of {path} that the model was trained with",
            f"restore it (the model's folder has a copy, step_{path.partition(':')[0]}.py), or train again",
        )

    def step(text: str) -> str | None:
        try:
            found = function(text)
        except Exception as error:
            raise FunctionFailed(f"{path} raised {type(error).__name__}") from error
        if found is not None and not isinstance(found, str):
            raise FunctionFailed(f"{path} returned {type(found).__name__}, not a text")
        return found

    return step


def _find(path: str) -> tuple[Any, Path]:
    module_name, _, attribute = path.partition(":")
    module = _module(module_name, path)
    if not hasattr(module, attribute):
        raise SpecError(f"data.steps: {module_name} has no function '{attribute}'", "correct the name after the colon")
    source = inspect.getsourcefile(module)
    if source is None:
        raise SpecError(f"data.steps: {module_name} is not written in Python", "name a module with a source file")
    return getattr(module, attribute), Path(source)


def _module(name: str, path: str) -> ModuleType:
    # A console script does not have the working directory on its path; `python -m raymill` and Ray jobs do.
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.append(here)
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not name.startswith(error.name):
            raise SpecError(f"data.steps: {path} cannot be imported: {error}", f"install {error.name}") from error
        raise SpecError(
            f"data.steps: there is no module '{name}' for {path}",
            f"run from the folder that holds {name}.py, or install it",
        ) from error
    except Exception as error:
        raise SpecError(f"data.steps: importing {name} raised {type(error).__name__}: {error}", "repair it") from error
