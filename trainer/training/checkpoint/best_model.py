"""The best epoch so far, early stopping, and the best models in a run's folder, each complete or absent."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from cluster.errors import ResourceError, UserError
from cluster.files import new_folder
from trainer.spec.run import RunSpec
from trainer.training.checkpoint.background_writer import BackgroundWriter
from trainer.training.checkpoint.checkpoints import FOLDER, Checkpoints
from trainer.training.checkpoint.train_state import TrainState

_PREFIX = "best-"
_REMEDY = "lower `train.learning_rate`, or raise `train.warmup_fraction`"


class BestTracker:
    """Tracks the best epoch so far by `evaluate.metric`, and early stopping, in the training's `TrainState`."""

    def __init__(self, spec: RunSpec, state: TrainState | None = None) -> None:
        self._metric, self._mode = spec.evaluate.metric, spec.evaluate.mode
        self._patience = spec.train.patience
        self._state = state or TrainState()

    def record(self, metrics: Mapping[str, float]) -> bool:
        """Record an epoch's metrics; return whether it is the best so far.

        Raises `UserError` if the metric is missing or not finite: it could not be compared with any other.
        """
        if self._metric not in metrics:
            raise UserError(
                f"evaluate.metric={self._metric} cannot be computed: there are too few validation rows, or their "
                "targets are too similar",
                "set another `evaluate.metric`, or give more validation rows",
            )
        value, state = metrics[self._metric], self._state
        if not math.isfinite(value):
            raise UserError(
                f"evaluate.metric={self._metric} is {value} in epoch {state.epoch}", f"{_REMEDY}, or set another metric"
            )
        is_better = state.best is None or (value > state.best if self._mode == "max" else value < state.best)
        if is_better:
            state.best, state.best_epoch, state.since_best = value, state.epoch, 0
        else:
            state.since_best += 1
        return is_better

    @property
    def should_stop(self) -> bool:
        """Whether none of the last `train.early_stopping_patience` epochs was the best so far."""
        return self._patience is not None and self._state.since_best >= self._patience


class BestModels:
    """Saves the best epoch's model in a run's folder.

    A failed write is tried again after the next epoch, and before the next checkpoint.
    """

    def __init__(self, run: Path, writer: BackgroundWriter) -> None:
        self._run, self._writer = run, writer
        self._pending: tuple[int, Callable[[Path], None]] | None = None

    def save(self, epoch: int, write: Callable[[Path], None], *, deferred: bool) -> None:
        """Save the model of `epoch` with `write`: in the background if `deferred`, else now."""
        self._pending = epoch, write
        if deferred:
            self.write_pending()
        else:
            self._write()

    def write_pending(self) -> None:
        """Write the newest model in the background if it is not on storage yet."""
        if self._pending is not None:
            self._writer.submit(f"the model of epoch {self._pending[0]}", self._write)

    def settle(self) -> None:
        """Write the newest model if it is not on storage yet; wait until it is, or until its write has failed."""
        self.write_pending()
        self._writer.wait()

    def delete_older(self) -> None:
        """Delete all models but the newest. Call this when no checkpoint will be resumed any more."""
        for old in _model_folders(self._run)[1:]:
            shutil.rmtree(old, ignore_errors=True)

    def _write(self) -> None:
        pending = self._pending
        if pending is None:
            return
        epoch, write = pending
        final = self._run / FOLDER / f"{_PREFIX}{epoch:06d}"
        shutil.rmtree(final, ignore_errors=True)  # it exists if the run resumed from an earlier checkpoint
        from safetensors import SafetensorError

        try:
            final.parent.mkdir(exist_ok=True)  # not the run's folder: it is missing if the storage is not mounted
            with new_folder(final) as folder:
                write(folder)
        except (OSError, SafetensorError) as error:
            raise ResourceError(
                f"{final} cannot be written: {error}", "check the free space of the storage folder"
            ) from error
        # A run that resumes from a checkpoint needs the model that was the best at that time.
        referenced = Checkpoints(self._run, keep=1).best_epochs()
        for old in _model_folders(self._run)[1:]:
            if _epoch_of(old) not in referenced:
                shutil.rmtree(old, ignore_errors=True)
        if self._pending is pending:  # no later epoch has replaced it meanwhile
            self._pending = None


def newest_model(run: Path) -> Path | None:
    """Return the folder of the best epoch's model, or None if none was saved."""
    return next(iter(_model_folders(run)), None)


def delete_models_from(run: Path, epoch: int) -> None:
    """Delete the models of `epoch` and later: the training resumes before the end of `epoch`."""
    for path in _model_folders(run):
        if _epoch_of(path) >= epoch:
            shutil.rmtree(path, ignore_errors=True)


def has_model(run: Path, epoch: int) -> bool:
    """Return whether the run's folder has the model of `epoch`."""
    return any(_epoch_of(path) == epoch for path in _model_folders(run))


def _epoch_of(path: Path) -> int:
    return int(path.name.removeprefix(_PREFIX))


def _model_folders(run: Path) -> list[Path]:
    """Return the folders of all saved models, the newest first."""
    paths = [path for path in (run / FOLDER).glob(f"{_PREFIX}*") if path.name.removeprefix(_PREFIX).isdigit()]
    return sorted(paths, reverse=True)


def check_finite_scores(scores: np.ndarray, epoch: int) -> None:
    """Raise `UserError` if a validation row has scores that are not finite: no metric of them would mean anything."""
    n_bad = len(scores) - int(np.isfinite(scores).all(axis=1).sum())
    if n_bad:
        raise UserError(
            f"training diverged: the scores of {n_bad:,} of {len(scores):,} validation rows are not finite in epoch {epoch}",
            _REMEDY,
        )


def check_finite_loss(loss: float, epoch: int) -> None:
    """Raise `UserError` if the loss is not finite."""
    if not math.isfinite(loss):
        raise UserError(f"training diverged: the loss is {loss} in epoch {epoch}", _REMEDY)
