"""Progress of work in other processes, as one small file each under the run's folder.

Workers write, the driver reads: no actor to start, it crosses nodes wherever the storage does, and it outlives a crash.
"""

from __future__ import annotations

import contextlib
import json
import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, wait
from pathlib import Path
from threading import Thread
from typing import Any, TypeVar

from pydantic import BaseModel

T = TypeVar("T")

_WRITE_EVERY_S = 0.4
LOOK_EVERY_S = 0.2
# How the names of threads begin that ask Ray things.
WORK = "raymill-work"


class Table(BaseModel):
    """What is shown below a stage's line on a terminal."""

    columns: list[str]
    rows: list[list[Any]]


class Progress(BaseModel):
    """How far one piece of work is."""

    done: float = 0
    """Units finished."""
    total: float = 0
    """Units in all; 0 where that is not known yet."""
    unit: str = "rows"
    note: str = ""
    """What else is worth a glance, as the last validation metric."""
    table: Table | None = None


class ProgressFile:
    """The writing end. Cheap to call every step: it writes at most every 0.4 s."""

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self._next = 0.0

    def update(self, progress: Progress, *, force: bool = False) -> None:
        """Publish `progress`. Losing one is harmless, so nothing is synced and a full disk is not reported here."""
        now = time.monotonic()
        if self.path is None or (now < self._next and not force):
            return
        self._next = now + _WRITE_EVERY_S
        with contextlib.suppress(OSError):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            beside = self.path.with_name(f".{self.path.name}.{os.getpid()}")
            beside.write_text(progress.model_dump_json())
            beside.replace(self.path)


def read_all(folder: Path) -> list[Progress]:
    """Return every progress in `folder`, in order of name."""
    found = []
    for path in sorted(folder.glob("*.json")) if folder.is_dir() else []:
        with contextlib.suppress(OSError, ValueError):
            found.append(Progress.model_validate(json.loads(path.read_bytes())))
    return found


def total_of(parts: list[Progress]) -> Progress:
    """Return the sum of several pieces of work."""
    note = next((part.note for part in reversed(parts) if part.note), "")
    unit = parts[0].unit if parts else "rows"
    return Progress(done=sum(p.done for p in parts), total=sum(p.total for p in parts), unit=unit, note=note)


def run_watched(work: Callable[[], T], look: Callable[[], Any], every_s: float = LOOK_EVERY_S) -> T:
    """Run `work` in a thread and call `look` every so often until it ends, and once more then.

    The calling thread stays free for Ctrl-C: Ray Train and Ray Tune put their own, slower handlers in the main thread
    only (`DataParallelTrainer._register_sigint_handler`, `tune._setup_signal_catching` in ray 2.60).
    """
    outcome: Future[T] = Future()

    def body() -> None:
        try:
            outcome.set_result(work())
        except BaseException as error:
            outcome.set_exception(error)

    thread = Thread(target=body, daemon=True, name=WORK)
    thread.start()
    while not wait([outcome], timeout=every_s).done:
        look()
    thread.join()  # it has nothing left to do
    look()
    return outcome.result()


def work_in_progress() -> list[Thread]:
    """Return the threads of work that was left before its end, which may still ask Ray things."""
    return [thread for thread in threading.enumerate() if thread.name.startswith(WORK)]
