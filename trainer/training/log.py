"""The log of a training: its history by epoch, its metrics by step, its progress and its notices."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cluster.files import append_line, write_bytes
from cluster.progress import Progress, ProgressFile
from trainer.runs import journal
from trainer.runs.claim import Claim
from trainer.runs.journal import HISTORY, METRICS, read_json_lines, tracked_metrics
from trainer.spec.run import RunSpec
from trainer.training.checkpoint.train_state import TrainState
from trainer.training.tracking.trackers import Trackers, start_trackers

if TYPE_CHECKING:
    from trainer.training.step_window import StepStats


class TrainingLog:
    """Writes history, metrics and progress of one training to its folder, and sends metrics to the trackers.

    Without a folder (on all ranks but the first) it writes nothing. It claims the folder: every method that writes there
    raises `Superseded` once another process has done so.
    """

    def __init__(
        self, folder: Path | None, spec: RunSpec, n_rows: int, share_of_rows: float = 1.0, epochs: int | None = None
    ) -> None:
        """`epochs` is `train.epochs` by default; an estimator that is fitted in one step has 1.

        `share_of_rows` is below 1 if a limit of steps ends the training before its last epoch.
        """
        self.folder, self.spec, self.n_rows = folder, spec, n_rows
        self.claim = Claim(folder) if folder else None
        self._epochs = epochs or spec.train.n_epochs
        self._expected = round(n_rows * self._epochs * share_of_rows)
        self._trackers = start_trackers(spec, folder, self.notice) if folder else Trackers([])
        self.peak_arithmetic: float | None = None
        """Floating-point operations per second of matrix products, of all workers; None: not compared with."""
        self._done = 0
        self._note = ""
        self._epoch = 1
        self._epoch_began = self._last_line = time.monotonic()
        self.progress = ProgressFile(folder / "progress" / "train.json" if folder else None)

    def begin(self, state: TrainState) -> None:
        """Delete all lines after `state`, from which the training begins or resumes."""
        self._done = state.rows
        if self.folder:
            _filter_lines(self.folder / HISTORY, lambda line: line["epoch"] < state.epoch)
            _filter_lines(self.folder / METRICS, lambda line: line["step"] <= state.step)
        self._epoch_began = self._last_line = time.monotonic()

    def begin_epoch(self, epoch: int) -> None:
        """Record that an epoch begins."""
        self._epoch = epoch
        self._epoch_began = time.monotonic()
        self.progress.update(self._progress(), force=True)

    def add_rows(self, count: int) -> None:
        """Record that `count` more rows, on all workers together, were trained on."""
        self._done += count
        self.progress.update(self._progress())

    def log_steps(self, state: TrainState, metrics: Mapping[str, float], stats: StepStats) -> None:
        """Write a line for the steps since the last line: their `metrics`, and their speed over all workers."""
        if self.claim:
            self.claim.check(now=False)
        now = time.monotonic()
        seconds, self._last_line = now - self._last_line, now
        line: dict[str, Any] = {
            "step": state.step,
            "epoch": state.epoch,
            **metrics,
            "step_time_s": seconds / stats.steps,
            "rows_per_s": stats.rows / seconds,
            **({"tokens_per_s": stats.tokens / seconds} if stats.tokens else {}),
            **({"arithmetic_share": stats.arithmetic / seconds / self.peak_arithmetic} if self.peak_arithmetic else {}),
            "memory_bytes": _memory_bytes(),
        }
        self._append(METRICS, line)
        self._trackers.log(*tracked_metrics(line))

    def end_epoch(self, metrics: Mapping[str, float], state: TrainState | None = None) -> None:
        """Write the epoch's line of the history."""
        if self.claim:
            self.claim.check()
        metric = self.spec.evaluate.metric
        self._note = f"{metric} {metrics[metric]:.4f}"
        self.progress.update(self._progress(), force=True)
        seconds = round(time.monotonic() - self._epoch_began, 3)
        self._append(HISTORY, {"epoch": self._epoch, "seconds": seconds, **metrics})
        step = state.step if state else self._epoch
        self._trackers.log(step, {f"validation/{name}": value for name, value in metrics.items()})
        self._last_line = time.monotonic()  # validation does not count as step time

    def notice(self, text: str) -> None:
        """Write a sentence for the user who started the run."""
        if self.folder:
            journal.append_notice(self.folder, text)

    def finish(self) -> None:
        """Set the progress to complete, even if the training stopped early, and close the trackers."""
        self._done = self._expected
        self.progress.update(self._progress(), force=True)
        self._trackers.close()

    def _append(self, name: str, line: Mapping[str, Any]) -> None:
        if self.folder:
            append_line(self.folder / name, json.dumps(line))

    def _progress(self) -> Progress:
        note = f"epoch {self._epoch}/{self._epochs}" + (f", {self._note}" if self._note else "")
        return Progress(done=self._done, total=self._expected, unit="rows", note=note)


def _filter_lines(path: Path, predicate: Callable[[dict[str, Any]], bool]) -> None:
    """Keep the lines of a JSON Lines file that satisfy `predicate`. A truncated line is dropped."""
    lines: Iterable[dict[str, Any]] = read_json_lines(path)
    if path.is_file():
        write_bytes(path, "".join(json.dumps(line) + "\n" for line in lines if predicate(line)).encode())


def _memory_bytes() -> int:
    """Return this process's memory in bytes: the peak on its GPU if it uses one, else its resident memory."""
    import psutil
    import torch

    if torch.cuda.is_available() and torch.cuda.is_initialized():
        return int(torch.cuda.max_memory_allocated())
    return int(psutil.Process(os.getpid()).memory_info().rss)
