"""Fitting an estimator on prepared rows, judged by the validation rows or by cross-validation. No Ray in here.

With `train.folds` an estimator for each fold and one for all rows are fitted side by side, epoch by epoch: the figures of
an epoch are the mean over the folds, its checkpoint is the estimator of all rows. So history, early stopping and a
search's scheduler see a cross-validation as they see any other training.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from trainer.data.prepared import Prepared
from trainer.features.fitted import Fitted
from trainer.optim.distributed.worker_context import Place
from trainer.runs.environment import write_hardware
from trainer.spec.run import RunSpec
from trainer.tasks.base import Task
from trainer.tasks.estimators.base import Estimator, Goal, Means, Table, goal_of, mean_loss, spread
from trainer.tasks.estimators.catalog import new
from trainer.training.checkpoint import export
from trainer.training.checkpoint.best_model import Best, must_be_finite
from trainer.training.checkpoint.train_state import Position
from trainer.training.folds import folds
from trainer.training.log import TrainingLog

if TYPE_CHECKING:
    from trainer.training.callbacks import Report


# The training loss of an epoch is that of so many rows: to see a model overfit more are not needed.
_ROWS_OF_LOSS = 10_000


class Part(NamedTuple):
    """One estimator's rows."""

    table: Table
    goal: Goal
    judge: Table | None = None
    """The rows it is judged by; none for the estimator of all rows."""
    judge_targets: np.ndarray | None = None
    """As the target's `metrics` takes them."""


def train(task: Task, spec: RunSpec, prepared: Prepared, place: Place, report: Report, folder: Path) -> None:
    """Fit `spec.model` and report every epoch, as `trainer.training.loop.train` does. Every worker calls this alike.

    Raises `UserError` for parameters or rows from which nothing can be learned.
    """
    parts = list(_parts(task, spec, prepared))
    made = [new(spec) for _ in parts]
    means = Means(spec.train, place.threads, place.device, place.rank, place.workers)
    fits = [one.fit(part.table, part.goal, means) for one, part in zip(made, parts, strict=True)]
    judged = [(one, part) for one, part in zip(made, parts, strict=True) if part.judge is not None]
    epochs = spec.train.epochs if made[-1].has_epochs else 1
    log = TrainingLog(folder if place.rank == 0 else None, spec, len(parts[-1].table))
    if place.rank == 0:
        write_hardware(folder, place)
    log.begin(Position())  # an estimator that a worker died over is fitted anew
    best = Best(spec)
    for epoch in range(1, epochs + 1):
        log.begin_epoch(epoch)
        for each in fits:
            next(each)
        found = [_figures(task, spec, prepared, one, part) for one, part in judged]
        figures = _mean(found, spec.evaluate.metric)
        must_be_finite(figures[task.target.loss], epoch)
        better = best.is_better(figures)
        log.rows_done(log.n_rows)
        log.end_epoch(figures)
        reached = {"epoch": epoch, **figures}
        report(reached, functools.partial(_save, task, made[-1], prepared, reached) if better else None)
        if best.is_over:
            break
    log.finish()


def _parts(task: Task, spec: RunSpec, prepared: Prepared) -> Iterator[Part]:
    """Yield the rows of each estimator; the last one is the model that is kept."""
    fitted = Fitted.model_validate(prepared.contract.fitted["features"])
    learn, judge = prepared.part("train"), prepared.part("validation")
    tables = [Table.of(fitted, rows.matrix()) for rows in (learn, judge)]
    weights = prepared.summary["class_weights"]
    if not spec.train.folds:
        goal = goal_of(task.target, prepared.contract, learn.targets, weights)
        yield Part(tables[0], goal, tables[1], judge.targets)
        return
    targets = np.concatenate([learn.targets, judge.targets])
    goal = goal_of(task.target, prepared.contract, targets, weights)
    codes = targets if task.target.has_classes else np.zeros(len(targets), np.int32)
    for fold in folds(prepared, codes, spec.train.folds, spec.train.seed):
        yield Part(
            fold.table.take(fold.learn),
            goal.take(fold.learn),
            fold.table.take(fold.judge),
            targets[fold.judge],
        )
    values, ids = (np.concatenate(both) for both in zip(*((table.values, table.ids) for table in tables), strict=True))
    whole = Table(values, ids, tables[0].sizes)
    yield Part(whole, goal)


def _figures(task: Task, spec: RunSpec, prepared: Prepared, model: Estimator, part: Part) -> dict[str, float]:
    """Return the figures of one estimator on the rows it is judged by, and its loss on those it learned from."""
    assert part.judge is not None and part.judge_targets is not None
    fitted = prepared.contract.fitted
    some = spread(len(part.table), _ROWS_OF_LOSS)
    loss = mean_loss(part.goal.take(some), model.logits(part.table.take(some)))
    scores = task.target.scores(fitted, model.logits(part.judge))
    figures = task.target.metrics(scores, part.judge_targets, spec.evaluate.calibration_bins)
    return {**figures, "train_loss": task.target.in_units(fitted, loss)}


def _mean(found: list[dict[str, float]], metric: str) -> dict[str, float]:
    """Return the mean of the figures that all folds have, and how far the folds are apart in the one that counts."""
    if len(found) == 1:
        return found[0]
    shared = [name for name in found[0] if all(name in figures for figures in found)]
    means = {name: float(np.mean([figures[name] for figures in found])) for name in shared}
    if metric in means:
        means[f"{metric}_std"] = float(np.std([figures[metric] for figures in found]))
    return means


def _save(task: Task, model: Estimator, prepared: Prepared, reached: dict[str, Any], target: Path) -> None:
    export.save(target, task, model, prepared.contract, prepared.folder, reached)
