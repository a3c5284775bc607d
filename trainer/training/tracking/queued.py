"""A queue in front of a tracker whose service may be slow, so that no training step waits for it."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from trainer.training.tracking.base import Tracker

_CLOSE_TIMEOUT_S = 30.0


class QueuedTracker:
    """Calls `tracker` on a separate thread. If it raises an exception, the next `log` or `close` raises it."""

    def __init__(self, tracker: Tracker) -> None:
        self._tracker = tracker
        self._work: queue.Queue[Callable[[], None] | None] = queue.Queue()
        self._failure: Exception | None = None
        self._thread = threading.Thread(target=self._run, daemon=True, name="raymill-tracker")
        self._thread.start()

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Queue metrics."""
        if self._failure:
            raise self._failure
        copy = dict(metrics)
        self._work.put(lambda: self._tracker.log(step, copy))

    def close(self) -> None:
        """Wait until everything is sent. Raises `TimeoutError` after half a minute."""
        self._work.put(self._tracker.close)
        self._work.put(None)
        self._thread.join(_CLOSE_TIMEOUT_S)
        if self._failure:
            raise self._failure
        if self._thread.is_alive():
            raise TimeoutError(f"not all metrics were sent within {_CLOSE_TIMEOUT_S:.0f} s")

    def _run(self) -> None:
        while (work := self._work.get()) is not None:
            if self._failure is None:
                try:
                    work()
                except Exception as error:  # any exception of the service's client
                    self._failure = error
