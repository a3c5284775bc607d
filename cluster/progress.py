"""Progress of work in other processes: one small file per process, in the run's folder.

Workers write the files and the driver reads them. This needs no Ray actor, works on all nodes that share the storage
folder, and survives a crash.
"""

from __future__ import annotations

import contextlib
import json
import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import wait
from pathlib import Path
from threading import Thread
from typing import Any, TypeVar

from pydantic import BaseModel

from cluster.deadline import start_in_thread

T = TypeVar("T")

_WRITE_EVERY_S = 0.4
POLL_EVERY_S = 0.2
# Pauses are this many times as long as the poll before them, up to a limit.
_POLL_PAUSES, _MAX_PAUSE_S = 9, 15.0
#: Name prefix of threads that call Ray.
WORK_THREAD = "raymill-work"


class ProgressTable(BaseModel):
    """A table below a stage's progress line on a terminal."""

    columns: list[str]
    rows: list[list[Any]]


class Progress(BaseModel):
    """How much of one piece of work is done."""

    done: float = 0
    """Finished units."""
    total: float = 0
    """All units; 0 if that is not known yet."""
    unit: str = "rows"
    note: str = ""
    """A short remark, for example the last validation metric."""
    table: ProgressTable | None = None


class ProgressFile:
    """Writes progress to a file. Call `update` at every step: it writes only if 0.4 s have passed since the last write.

    With `path` None it writes nothing.
    """

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self._next_write = 0.0

    def update(self, progress: Progress, *, force: bool = False) -> None:
        """Write `progress` if it is time to, or if `force` is true.

        A lost update is harmless, so the file is not synced to disk and errors of the disk are ignored.
        """
        now = time.monotonic()
        if self.path is None or (now < self._next_write and not force):
            return
        self._next_write = now + _WRITE_EVERY_S
        with contextlib.suppress(OSError):
            self.path.parent.mkdir(exist_ok=True)  # not the run's folder: it is missing if the storage is not mounted
            temporary = self.path.with_name(f".{self.path.name}.{os.getpid()}")
            temporary.write_text(progress.model_dump_json(), encoding="utf-8")
            temporary.replace(self.path)


def read_progress(folder: Path) -> list[Progress]:
    """Return the progress in every file of `folder`, sorted by file name. Files that cannot be read are skipped."""
    parts = []
    with contextlib.suppress(OSError):  # the storage does not answer
        for path in sorted(folder.glob("*.json")):
            with contextlib.suppress(OSError, ValueError):
                parts.append(Progress.model_validate(json.loads(path.read_bytes())))
    return parts


def sum_progress(parts: list[Progress]) -> Progress:
    """Return the total progress of several pieces of work, with the last note that is not empty."""
    note = next((part.note for part in reversed(parts) if part.note), "")
    unit = parts[0].unit if parts else "rows"
    return Progress(done=sum(p.done for p in parts), total=sum(p.total for p in parts), unit=unit, note=note)


def run_in_thread(work: Callable[[], T], poll: Callable[[], Any], every_s: float = POLL_EVERY_S) -> T:
    """Run `work` in a thread and return its result. Call `poll` every `every_s` seconds until it ends, and once after.

    A poll that takes long, because it reads the files of hundreds of trials from a network file system, is made less
    often: it takes a tenth of the time, whatever it costs.

    This keeps Ctrl-C fast. Ray Train and Ray Tune install slower signal handlers of their own if they run in the main
    thread (`DataParallelTrainer._register_sigint_handler`, `tune._setup_signal_catching` in ray 2.60).
    """
    thread, outcome = start_in_thread(work, WORK_THREAD)
    pause_s = every_s
    while not wait([outcome], timeout=pause_s).done:
        started = time.monotonic()
        poll()
        pause_s = max(every_s, min(_MAX_PAUSE_S, _POLL_PAUSES * (time.monotonic() - started)))
    thread.join()  # it ends as soon as the outcome is set
    poll()
    return outcome.result()


def running_work() -> list[Thread]:
    """Return the threads that may still call Ray, for example after an interrupt left their work unfinished."""
    return [thread for thread in threading.enumerate() if thread.name.startswith(WORK_THREAD)]
