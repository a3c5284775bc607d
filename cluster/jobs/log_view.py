"""Show the log of a job as the same run on this machine would look: sentences, and a live progress line."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from typing import Any

from cluster.console import Console, Show
from cluster.jobs.events import StageProgress, read_event


class LogView:
    """Takes the lines of a log one by one. Events become the progress line of `console`; `write` gets the others."""

    def __init__(self, console: Console, write: Callable[[str], None]) -> None:
        self._console, self._write = console, write
        self._line = contextlib.ExitStack()
        self._stage = ""
        self._show: Show | None = None
        self.result: dict[str, Any] | None = None
        """The job's result, once its line has come."""
        self.progress: StageProgress | None = None
        """The last progress."""

    def show(self, line: str) -> None:
        """Show one line, without its line break."""
        event = read_event(line)
        if event is None:
            self._write(line)
        elif event.kind == "result":
            self.result = event.value
        else:
            self.progress = event.value
            self._update(event.value)

    def close(self) -> None:
        """Remove the progress line."""
        self._line.close()
        self._stage, self._show = "", None

    def _update(self, event: StageProgress) -> None:
        if event.progress is None:
            self.close()
            return
        if event.stage != self._stage:
            self.close()
            started = time.monotonic() - event.seconds
            self._show = self._line.enter_context(self._console.progress_line(event.stage, started))
            self._stage = event.stage
        if self._show is not None:
            self._show(event.progress)
