"""Call a user's function, named by its Python path: the step `python` in trainer/spec/steps.py.

The contract holds the digest of the function's source; the model's folder holds a copy for people to read. Only the
user's own module runs, and only if its source is the source that the model was trained with: the digests are compared
before any code of the module runs.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from cluster.errors import first_line
from cluster.files import write_bytes
from cluster.text import is_unicode
from trainer.contract.user_code import find_pinned_source, find_source, load_pinned_object, load_user_object


class CustomStepError(Exception):
    """The user's function raised, or returned something other than a text."""


def pin_function(path: str, folder: Path) -> tuple[dict[str, Any], dict[str, str]]:
    """Return the contract's parameters for the function at `path`; write a copy of its source into `folder`.

    Also returns name -> SHA-256 of the copy.
    """
    source = find_source(path)
    load_user_object(source)
    name = _copy_name(source.module)
    write_bytes(folder / name, source.content)
    return {"function": path, "source_sha256": source.digest}, {name: source.digest}


def make(params: dict[str, Any]) -> Callable[[str], str | None]:
    """Return the step.

    Raises `ModelError` if the function is missing or its source differs from the one pinned in the contract.
    """
    path = str(params.get("function"))
    copy = _copy_name(path.partition(":")[0])
    function = load_pinned_object(find_pinned_source(path, "data.steps", params.get("source_sha256"), copy))

    def step(text: str) -> str | None:
        try:
            result = function(text)
        except (Exception, SystemExit) as error:
            # The message is in quotes: counts of reasons ignore quoted values.
            message = f": '{first_line(error, limit=200)}'" if str(error).strip() else ""
            raise CustomStepError(f"{path} raised {type(error).__name__}{message}") from error
        if result is None:
            return None
        if not isinstance(result, str):
            raise CustomStepError(f"{path} returned {type(result).__name__}, not a text")
        if not is_unicode(result):
            raise CustomStepError(f"{path} returned half of a surrogate pair")
        return result

    return step


def _copy_name(module: str) -> str:
    return f"step_{module}.py"
