"""A tracker whose service may be slow: figures wait in a queue, and no training step waits for them."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from trainer.training.tracking.base import Tracker

_LAST_WORDS_S = 30.0


class Queued:
    """Gives figures to `tracker` in a thread of its own. What it raises is raised by the next call."""

    def __init__(self, tracker: Tracker) -> None:
        self._tracker = tracker
        self._work: queue.Queue[Callable[[], None] | None] = queue.Queue()
        self._failed: Exception | None = None
        self._thread = threading.Thread(target=self._go_on, daemon=True, name="raymill-tracker")
        self._thread.start()

    def log(self, step: int, figures: Mapping[str, float]) -> None:
        """Take figures."""
        if self._failed:
            raise self._failed
        held = dict(figures)
        self._work.put(lambda: self._tracker.log(step, held))

    def close(self) -> None:
        """Wait until all is sent, for half a minute at most."""
        self._work.put(self._tracker.close)
        self._work.put(None)
        self._thread.join(_LAST_WORDS_S)
        if self._failed:
            raise self._failed
        if self._thread.is_alive():
            raise TimeoutError("not all figures could be sent")

    def _go_on(self) -> None:
        while (work := self._work.get()) is not None:
            if self._failed is None:
                try:
                    work()
                except Exception as error:  # whatever the service's client raises
                    self._failed = error
