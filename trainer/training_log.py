"""What a training writes while it runs: one line an epoch, how far it is, and which epoch is the best so far."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping
from pathlib import Path

from cluster.errors import UserError
from cluster.progress import Progress, ProgressFile
from trainer.result import HISTORY
from trainer.spec import RunSpec


class TrainingLog:
    """History and progress of one training in its folder; without a folder (on ranks but the first) nothing is written."""

    def __init__(self, folder: Path | None, spec: RunSpec, n_rows: int) -> None:
        self.folder, self.spec, self.n_rows = folder, spec, n_rows
        self.done = 0
        self.note = ""
        self.epoch = 0
        self.started = time.monotonic()
        self.progress = ProgressFile(folder / "progress" / "train.json" if folder else None)
        if folder:
            # A training that Ray starts again after a worker died begins anew, and so does its history.
            (folder / HISTORY).unlink(missing_ok=True)

    def begin_epoch(self, epoch: int) -> None:
        """Note that an epoch begins."""
        self.epoch = epoch
        self.started = time.monotonic()

    def rows_done(self, count: int) -> None:
        """Note that so many more rows, of all workers together, were trained on."""
        self.done += count
        self.progress.update(self._now())

    def end_epoch(self, figures: Mapping[str, float]) -> None:
        """Write the epoch's line of the history."""
        metric = self.spec.evaluate.metric
        self.note = f"{metric} {figures[metric]:.4f}"
        self.progress.update(self._now(), force=True)
        if self.folder:
            line = {"epoch": self.epoch, "seconds": round(time.monotonic() - self.started, 3), **figures}
            with (self.folder / HISTORY).open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")

    def finish(self) -> None:
        """Early stopping leaves rows undone that nobody waits for any more."""
        self.done = self.n_rows * self.spec.train.epochs
        self.progress.update(self._now(), force=True)

    def _now(self) -> Progress:
        total = self.n_rows * self.spec.train.epochs
        note = f"epoch {self.epoch}/{self.spec.train.epochs}" + (f", {self.note}" if self.note else "")
        return Progress(done=self.done, total=total, unit="rows", note=note)


class Best:
    """The best epoch so far by `evaluate.metric`, and when to stop."""

    def __init__(self, spec: RunSpec) -> None:
        self._metric, self._mode = spec.evaluate.metric, spec.evaluate.mode
        self._patience = spec.train.early_stopping_patience
        self._value: float | None = None
        self._since = 0

    def is_better(self, figures: Mapping[str, float]) -> bool:
        """Take note of an epoch; returns whether it is better than all before. Raises `UserError` without the metric."""
        if self._metric not in figures:
            raise UserError(
                f"evaluate.metric={self._metric} cannot be computed: the validation rows are too few, or too much "
                "alike in what is to be predicted",
                "choose another metric, or more rows",
            )
        value = figures[self._metric]
        better = self._value is None or (value > self._value if self._mode == "max" else value < self._value)
        self._value, self._since = (value, 0) if better else (self._value, self._since + 1)
        return better

    @property
    def is_over(self) -> bool:
        """Whether `train.early_stopping_patience` epochs went by without a better one."""
        return bool(self._since) and self._since == self._patience


def must_be_finite(loss: float, epoch: int) -> None:
    """Raise `UserError` if the loss is no number any more."""
    if not math.isfinite(loss):
        raise UserError(
            f"training diverged: the loss is {loss} in epoch {epoch}",
            "lower train.learning_rate, or raise train.warmup_fraction",
        )
