"""Runs the stages of a run: each in a thread, with a progress line, and with its seconds recorded."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from cluster.console import Console
from cluster.progress import Progress, run_in_thread
from trainer.pipeline.stage_gauges import StageGauges

T = TypeVar("T")


class StageRunner:
    """Runs stages one after the other, and shows their progress on a console and in gauges."""

    def __init__(self, console: Console, gauges: StageGauges) -> None:
        self.console, self.gauges = console, gauges
        self.seconds: dict[str, float] = {}
        """Seconds by stage; a stage that runs twice has the sum."""

    def run(self, name: str, work: Callable[[], T], progress: Callable[[], Progress]) -> T:
        """Run `work` in a thread, show what `progress` returns until it ends, and return its result."""
        started = time.monotonic()
        latest = Progress()
        with self.console.stage(name) as show:

            def poll() -> None:
                nonlocal latest
                latest = progress()
                self.gauges.observe(name, latest, time.monotonic() - started)
                show(latest)

            result = run_in_thread(work, poll, self.console.poll_every_s)
        self.gauges.observe(name, latest, time.monotonic() - started, ended=True)
        self.seconds[name] = round(self.seconds.get(name, 0.0) + time.monotonic() - started, 2)
        return result
