"""How long a search has been going on, over all its attempts."""

from __future__ import annotations

import time
from pathlib import Path

from cluster.files import read_json, write_json

_FILE, _KEY = "search.json", "seconds"
_WRITE_EVERY_S = 5.0


class Clock:
    """Counts seconds in a file of the run's folder, so that a budget holds over interruptions."""

    def __init__(self, folder: Path, budget_s: float | None) -> None:
        self._path, self._budget_s = folder / _FILE, budget_s
        self._before = float(read_json(self._path)[_KEY]) if self._path.is_file() else 0.0
        self._started = self._written = time.monotonic()

    def start(self) -> None:
        """Begin to count."""
        self._started = self._written = time.monotonic()

    def tick(self) -> None:
        """Write the time down, every few seconds."""
        if time.monotonic() - self._written > _WRITE_EVERY_S:
            self._written = time.monotonic()
            write_json(self._path, {_KEY: round(self.seconds, 1)})

    @property
    def seconds(self) -> float:
        """Those of all attempts."""
        return self._before + time.monotonic() - self._started

    @property
    def is_over(self) -> bool:
        """Whether the budget is used up."""
        return self._budget_s is not None and self.seconds >= self._budget_s

    @property
    def left_s(self) -> float | None:
        """Seconds of the budget that are left, a moment at least; None without one."""
        return None if self._budget_s is None else max(1.0, self._budget_s - self.seconds)
