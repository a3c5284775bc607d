"""Run the stages of a run one after the other: each in a thread, with a progress line, its seconds kept."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from cluster.console import Console
from cluster.progress import Progress, run_watched

T = TypeVar("T")


class StageRunner:
    """Runs stages on one console."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.seconds: dict[str, float] = {}
        """Seconds by stage; a stage that ran twice has the sum."""

    def run(self, name: str, work: Callable[[], T], look: Callable[[], Progress]) -> T:
        """Run `work` in a thread and show `look()` until it ends; returns its result."""
        started = time.monotonic()
        with self.console.stage(name) as show:
            result = run_watched(work, lambda: show(look()), self.console.look_every_s)
        self.seconds[name] = round(self.seconds.get(name, 0.0) + time.monotonic() - started, 2)
        return result
