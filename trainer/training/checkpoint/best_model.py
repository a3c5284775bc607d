"""Which epoch is the best so far, when to stop, and where the best one's model is kept: whole or not there."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

from cluster.errors import ResourceError, UserError
from cluster.files import new_folder
from trainer.spec.run import RunSpec
from trainer.training.checkpoint.background_writer import Background
from trainer.training.checkpoint.snapshots import FOLDER, Snapshots
from trainer.training.checkpoint.train_state import Position

_PREFIX = "best-"


class Best:
    """The best epoch so far by `evaluate.metric`, and when to stop; what is known of it stands in the position."""

    def __init__(self, spec: RunSpec, at: Position | None = None) -> None:
        self._metric, self._mode = spec.evaluate.metric, spec.evaluate.mode
        self._patience = spec.train.early_stopping_patience
        self._at = at or Position()

    def is_better(self, figures: Mapping[str, float]) -> bool:
        """Take note of an epoch; returns whether it is better than all before. Raises `UserError` without the metric."""
        if self._metric not in figures:
            raise UserError(
                f"evaluate.metric={self._metric} cannot be computed: the validation rows are too few, or too much "
                "alike in what is to be predicted",
                "choose another metric, or more rows",
            )
        value, at = figures[self._metric], self._at
        better = at.best is None or (value > at.best if self._mode == "max" else value < at.best)
        if better:
            at.best, at.best_epoch, at.since_best = value, at.epoch, 0
        else:
            at.since_best += 1
        return better

    @property
    def is_over(self) -> bool:
        """Whether `train.early_stopping_patience` epochs went by without a better one."""
        return self._patience is not None and self._at.since_best >= self._patience


class BestModels:
    """Keeps the best epoch's model in a run's folder. One that could not be written is tried again with the next epoch."""

    def __init__(self, run: Path, background: Background) -> None:
        self._run, self._background = run, background
        self._unwritten: tuple[int, Callable[[Path], None]] | None = None

    def keep(self, epoch: int, save: Callable[[Path], None], *, deferred: bool) -> None:
        """Have `save` write the model of `epoch` now, or `deferred` beside the training."""
        self._unwritten = epoch, save
        if deferred:
            self.write_rest()
        else:
            self._write()

    def write_rest(self) -> None:
        """Have the newest model written that is not on storage yet."""
        if self._unwritten is not None:
            self._background.submit(f"the model of epoch {self._unwritten[0]}", self._write)

    def settle(self) -> None:
        """Return when the newest model is on storage, or could not be written."""
        self._background.wait()

    def keep_only_the_newest(self) -> None:
        """Remove the models that only checkpoints need which nothing will go on from."""
        for old in _all(self._run)[1:]:
            shutil.rmtree(old, ignore_errors=True)

    def _write(self) -> None:
        mine = self._unwritten
        if mine is None:
            return
        epoch, save = mine
        final = self._run / FOLDER / f"{_PREFIX}{epoch:06d}"
        shutil.rmtree(final, ignore_errors=True)  # a run that went on from before it makes it again
        from safetensors import SafetensorError

        try:
            with new_folder(final) as folder:
                save(folder)
        except (OSError, SafetensorError) as error:
            raise ResourceError(
                f"{final} cannot be written: {error}", "check the space of the storage folder"
            ) from error
        # A run that goes on from a checkpoint needs the model that was the best then.
        wanted = Snapshots(self._run, keep=1).best_epochs()
        for old in _all(self._run)[1:]:
            if _epoch_of(old) not in wanted:
                shutil.rmtree(old, ignore_errors=True)
        if self._unwritten is mine:  # and not that of a later epoch by now
            self._unwritten = None


def newest(run: Path) -> Path | None:
    """Return the folder of the best epoch's model, or None where none was kept."""
    return next(iter(_all(run)), None)


def forget_from(run: Path, epoch: int) -> None:
    """Remove the models of `epoch` and later: the training goes on from before its end."""
    for path in _all(run):
        if _epoch_of(path) >= epoch:
            shutil.rmtree(path, ignore_errors=True)


def is_there(run: Path, epoch: int) -> bool:
    """Whether the model of `epoch` was kept."""
    return any(_epoch_of(path) == epoch for path in _all(run))


def _epoch_of(path: Path) -> int:
    return int(path.name.removeprefix(_PREFIX))


def _all(run: Path) -> list[Path]:
    found = [path for path in (run / FOLDER).glob(f"{_PREFIX}*") if path.name.removeprefix(_PREFIX).isdigit()]
    return sorted(found, reverse=True)


def must_be_finite(loss: float, epoch: int) -> None:
    """Raise `UserError` if the loss is no number any more."""
    if not math.isfinite(loss):
        raise UserError(
            f"training diverged: the loss is {loss} in epoch {epoch}",
            "lower train.learning_rate, or raise train.warmup_fraction",
        )
