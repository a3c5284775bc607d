"""The rules that end a whole search: its time budget, which counts all attempts together."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path

from cluster.errors import ResourceError
from cluster.files import read_json, write_json

_FILE, _KEY = "search.json", "seconds"
_WRITE_EVERY_S = 5.0
_MIN_REMAINING_S = 1.0


class TimeBudget:
    """Counts the seconds of a search in a file of the run's folder, so that the budget holds across interruptions."""

    def __init__(self, folder: Path, budget_s: float | None) -> None:
        self._path, self._budget_s = folder / _FILE, budget_s
        self._earlier_s = float(read_json(self._path)[_KEY]) if self._path.is_file() else 0.0
        self._started = self._written = time.monotonic()

    def start(self) -> None:
        """Start counting this attempt."""
        self._started = self._written = time.monotonic()

    def save(self) -> None:
        """Write the elapsed seconds to the file, unless they were written in the last 5 s, or the storage is away."""
        if time.monotonic() - self._written > _WRITE_EVERY_S:
            self._written = time.monotonic()
            with contextlib.suppress(OSError, ResourceError):
                if self._path.parent.is_dir():  # else it would be made in the place of the storage
                    write_json(self._path, {_KEY: round(self.seconds, 1)})

    @property
    def seconds(self) -> float:
        """Seconds of all attempts."""
        return self._earlier_s + time.monotonic() - self._started

    @property
    def is_over(self) -> bool:
        """Whether the budget is used up."""
        return self._budget_s is not None and self.seconds >= self._budget_s

    @property
    def remaining_s(self) -> float | None:
        """Seconds left of the budget, at least 1; None without a budget."""
        return None if self._budget_s is None else max(_MIN_REMAINING_S, self._budget_s - self.seconds)
