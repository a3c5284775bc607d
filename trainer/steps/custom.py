"""A function of the user's, by its Python path. Its source is stored with the model and its digest is in the contract.

The stored source is there to be read: code is only ever run from the user's own modules, and only if it is the source
that the model was trained with. The digest is compared before anything of the module runs.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from cluster.files import write_bytes
from cluster.text import is_unicode
from trainer.contract import user_code


class FunctionFailed(Exception):
    """The user's function raised, or returned something that is no text."""


def pin(path: str, folder: Path) -> tuple[dict[str, Any], dict[str, str]]:
    """Return the contract's parameters for the function at `path`, and the copy of its source put into `folder`."""
    source = user_code.find(path)
    user_code.load(source)
    name = _copy_of(source.module)
    write_bytes(folder / name, source.content)
    return {"function": path, "source_sha256": source.digest}, {name: source.digest}


def make(params: dict[str, Any]) -> Callable[[str], str | None]:
    """Return the step; raises `ModelError` if the function is not there or its source is not the contract's."""
    path = str(params.get("function"))
    copy = _copy_of(path.partition(":")[0])
    function = user_code.load_pinned(user_code.pinned(path, "data.steps", params.get("source_sha256"), copy))

    def step(text: str) -> str | None:
        try:
            found = function(text)
        except (Exception, SystemExit) as error:
            said = str(error).strip().splitlines()[:1]  # in quotes, so that reasons count by their kind
            words = f": '{said[0][:200]}'" if said else ""
            raise FunctionFailed(f"{path} raised {type(error).__name__}{words}") from error
        if found is None:
            return None
        if not isinstance(found, str):
            raise FunctionFailed(f"{path} returned {type(found).__name__}, not a text")
        if not is_unicode(found):
            raise FunctionFailed(f"{path} returned half of a surrogate pair")
        return found

    return step


def _copy_of(module: str) -> str:
    return f"step_{module}.py"
