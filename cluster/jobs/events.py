"""Lines in a job's log that are for programs: progress of a stage, and the result.

A line is a word, a space and one JSON object in ASCII. All other lines are for people.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterator
from typing import IO, Any, Literal, NamedTuple

from pydantic import BaseModel, ValidationError

from cluster.console import Console, Show
from cluster.progress import Progress, ProgressTable

PROGRESS = "raymill-progress"
RESULT = "raymill-result"

# A long stage writes fewer lines: each after a 200th of its time so far, between these limits.
_MIN_INTERVAL_S, _MAX_INTERVAL_S, _SHARE = 1.0, 10.0, 1 / 200


class StageProgress(BaseModel):
    """What a stage reports."""

    stage: str
    seconds: float
    """Since the stage started."""
    progress: Progress | None = None
    """None once the stage has ended."""


class JobEvent(NamedTuple):
    """A line for programs."""

    kind: Literal["progress", "result"]
    value: Any
    """A `StageProgress`, or the result: a JSON object."""


def write_event(stream: IO[str], word: str, value: Any) -> None:
    """Write one line. A log that cannot be written is no reason to end the run."""
    with contextlib.suppress(OSError):
        stream.write(f"{word} {json.dumps(value, allow_nan=False, separators=(',', ':'))}\n")
        stream.flush()


def read_event(line: str) -> JobEvent | None:
    """Return the event in a line of a log, or None for a line that is for people."""
    word, _, text = line.partition(" ")
    try:
        if word == PROGRESS:
            return JobEvent("progress", StageProgress.model_validate_json(text))
        if word == RESULT:
            value = json.loads(text)
            return JobEvent("result", value) if isinstance(value, dict) else None
    except (ValueError, ValidationError):  # a line that was cut, or written by another version
        return None
    return None


class EventConsole(Console):
    """The console of a run in a job: its progress goes to the log as events, its sentences as lines for people."""

    @property
    def poll_every_s(self) -> float:
        """Seconds between two reads of a stage's progress."""
        return _MIN_INTERVAL_S

    @contextlib.contextmanager
    def progress_line(self, name: str, started: float) -> Iterator[Show]:
        """Write events while the block runs. Yields the function that updates the progress."""
        last_written = float("-inf")
        last_table: ProgressTable | None = None

        def write(progress: Progress | None) -> None:
            seconds = round(time.monotonic() - started, 1)
            event = StageProgress(stage=name, seconds=seconds, progress=progress)
            write_event(self.stream, PROGRESS, event.model_dump(mode="json", exclude_defaults=True))

        def show(progress: Progress) -> None:
            nonlocal last_written, last_table
            now = time.monotonic()
            interval = min(_MAX_INTERVAL_S, max(_MIN_INTERVAL_S, (now - started) * _SHARE))
            if now - last_written < interval:
                return
            last_written = now
            is_new = progress.table != last_table
            last_table = progress.table
            write(progress if is_new else progress.model_copy(update={"table": None}))

        write(Progress())
        try:
            yield show
        finally:
            write(None)
