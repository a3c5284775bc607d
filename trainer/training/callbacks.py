"""What a training tells whoever started it after each epoch."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

Save = Callable[[Path], None]


class Frozen:
    """What writes an epoch's model to a folder, also later: training does not change it any more."""

    def __init__(self, write: Save) -> None:
        self._write = write

    def __call__(self, folder: Path) -> None:
        self._write(folder)


class Report(Protocol):
    """What hears of every epoch."""

    def __call__(self, figures: dict[str, Any], save: Save | None, state: Save | None = None) -> None:
        """Take an epoch's figures; if it is the best so far, what writes its model to a folder; and what writes all that the
        training would go on from to one, where there is such a thing."""
