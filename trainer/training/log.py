"""What a training writes while it runs: a line an epoch, a line every few steps, how far it is, and what went wrong on the way."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from cluster.files import append_line, write_bytes
from cluster.progress import Progress, ProgressFile
from trainer.runs import journal
from trainer.runs.journal import HISTORY, METRICS, read_lines, tracked
from trainer.spec.run import RunSpec
from trainer.training.checkpoint.train_state import Position
from trainer.training.tracking import trackers


class TrainingLog:
    """History, figures by step and progress of one training in its folder; without a folder (on ranks but the first)
    nothing is written."""

    def __init__(self, folder: Path | None, spec: RunSpec, n_rows: int, n_steps: int | None = None) -> None:
        self.folder, self.spec, self.n_rows = folder, spec, n_rows
        self._total = n_rows * spec.train.epochs
        self._n_steps = n_steps
        self._tracker = trackers.start(spec, folder, self.notice) if folder else trackers.Trackers([])
        self._done = 0
        self._note = ""
        self._epoch = 1
        self._began = self._stepped = time.monotonic()
        self.progress = ProgressFile(folder / "progress" / "train.json" if folder else None)

    def begin(self, at: Position) -> None:
        """Forget what was written after `at`: the training goes on from there, or begins."""
        self._done = at.rows
        if self.folder:
            _keep(self.folder / HISTORY, lambda line: line["epoch"] < at.epoch)
            _keep(self.folder / METRICS, lambda line: line["step"] <= at.step)
        self._began = self._stepped = time.monotonic()

    def begin_epoch(self, epoch: int) -> None:
        """Note that an epoch begins."""
        self._epoch = epoch
        self._began = time.monotonic()

    def rows_done(self, count: int) -> None:
        """Note that so many more rows, of all workers together, were trained on."""
        self._done += count
        self.progress.update(self._now())

    def steps_done(self, at: Position, figures: Mapping[str, float], *, steps: int, rows: int, tokens: int) -> None:
        """Write a line about the last few steps: `figures` of them, and how fast they were, over all workers."""
        now = time.monotonic()
        seconds, self._stepped = now - self._stepped, now
        line: dict[str, Any] = {
            "step": at.step,
            "epoch": at.epoch,
            **figures,
            "step_time_s": seconds / steps,
            "rows_per_s": rows / seconds,
            **({"tokens_per_s": tokens / seconds} if tokens else {}),
            "memory_bytes": _memory_bytes(),
        }
        self._append(METRICS, line)
        self._tracker.log(*tracked(line))

    def end_epoch(self, figures: Mapping[str, float], at: Position | None = None) -> None:
        """Write the epoch's line of the history."""
        metric = self.spec.evaluate.metric
        self._note = f"{metric} {figures[metric]:.4f}"
        self.progress.update(self._now(), force=True)
        self._append(HISTORY, {"epoch": self._epoch, "seconds": round(time.monotonic() - self._began, 3), **figures})
        step = at.step if at else self._epoch
        self._tracker.log(step, {f"validation/{name}": value for name, value in figures.items()})
        self._stepped = time.monotonic()  # validation is no part of a step's time

    def notice(self, text: str) -> None:
        """Write a sentence that whoever started the run should see."""
        if self.folder:
            journal.notice(self.folder, text)

    def finish(self) -> None:
        """Early stopping leaves rows undone that nobody waits for any more."""
        self._done = self._total
        self.progress.update(self._now(), force=True)
        self._tracker.close()

    def _append(self, name: str, line: Mapping[str, Any]) -> None:
        if self.folder:
            append_line(self.folder / name, json.dumps(line))

    def _now(self) -> Progress:
        note = f"epoch {self._epoch}/{self.spec.train.epochs}" + (f", {self._note}" if self._note else "")
        total = self._total
        if self._n_steps is not None:
            total = min(total, self._n_steps * self.spec.train.batch_size)
        return Progress(done=self._done, total=total, unit="rows", note=note)


def _keep(path: Path, wanted: Any) -> None:
    """Write a file of lines anew with those that are wanted; one that is cut short is not."""
    lines: Iterable[dict[str, Any]] = read_lines(path)
    if path.is_file():
        write_bytes(path, "".join(json.dumps(line) + "\n" for line in lines if wanted(line)).encode())


def _memory_bytes() -> int:
    """Return the memory in use: of the GPU where this process has one, else this process's own."""
    import psutil
    import torch

    if torch.cuda.is_available() and torch.cuda.is_initialized():
        return int(torch.cuda.max_memory_allocated())
    return int(psutil.Process(os.getpid()).memory_info().rss)
