"""The loop that fits an estimator on prepared rows, with a validation part or with cross-validation.

It does not use Ray.

With `train.folds`, one estimator per fold and one for all rows are fitted side by side, epoch by epoch. The metrics of
an epoch are the mean over the folds; its checkpoint is the estimator of all rows. So history, early stopping and a
search's scheduler treat a cross-validation like any other training.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np

from cluster.errors import DataError
from trainer.features.fitted import FittedFeatures
from trainer.runs.environment import write_hardware
from trainer.targets.metrics.summary import COUNTS
from trainer.tasks.estimators.base import (
    Estimator,
    FeatureTable,
    FitContext,
    TrainingLabels,
    mean_loss,
    spread_rows,
    training_labels,
)
from trainer.tasks.estimators.catalog import new_estimator
from trainer.training.checkpoint.best_model import BestTracker, check_finite_loss, check_finite_scores
from trainer.training.checkpoint.export import export_model
from trainer.training.checkpoint.train_state import TrainState
from trainer.training.context import TrainContext
from trainer.training.folds import iter_folds
from trainer.training.log import TrainingLog

# The training loss of an epoch is computed on at most this many rows: enough to see a model overfit.
_LOSS_ROWS = 10_000


class EstimatorRows(NamedTuple):
    """The training and validation rows of one estimator."""

    table: FeatureTable
    labels: TrainingLabels
    validation: FeatureTable | None = None
    """None for the estimator of all rows."""
    validation_targets: np.ndarray | None = None
    """As `Target.metrics` takes them."""
    left_out: Mapping[str, str] = MappingProxyType({})
    """Column -> why it is left out of this fold."""


def train_estimator(context: TrainContext) -> None:
    """Fit `spec.model` and report every epoch, as `trainer.training.loop.train_model` does. All ranks call this.

    Raises `UserError` for parameters or rows from which nothing can be learned.
    """
    task, spec, worker = context.task, context.spec, context.worker
    parts = list(_parts(context))
    estimators = [new_estimator(spec) for _ in parts]
    fit_context = FitContext(spec.train, worker.threads, worker.device, worker.rank, worker.workers)
    fits = [
        estimator.fit(part.table, part.labels, fit_context) for estimator, part in zip(estimators, parts, strict=True)
    ]
    validated = [pair for pair in zip(estimators, parts, strict=True) if pair[1].validation is not None]
    epochs = spec.train.n_epochs if estimators[-1].has_epochs else 1
    log = TrainingLog(context.folder if worker.rank == 0 else None, spec, len(parts[-1].table), epochs=epochs)
    if worker.rank == 0:
        write_hardware(context.folder, worker)
    log.begin(TrainState())  # there are no checkpoints: if a worker dies, fitting starts again
    best = BestTracker(spec)
    notices = _describe_left_out([part.left_out for _, part in validated])
    for epoch in range(1, epochs + 1):
        log.begin_epoch(epoch)
        for fit in fits:
            next(fit)
        by_fold = [_compute_metrics(context, estimator, part, epoch) for estimator, part in validated]
        metrics = _mean(by_fold, spec.evaluate.metric)
        if epoch == 1:
            for text in [*notices, *_describe_missing(by_fold)]:
                log.notice(text)
        check_finite_loss(metrics[task.target.loss_metric], epoch)
        is_better = best.record(metrics)
        log.add_rows(log.n_rows)
        log.end_epoch(metrics)
        reached = {"epoch": epoch, **metrics}
        save = functools.partial(_save, context, estimators[-1], reached) if is_better else None
        context.callback(reached, save)
        if best.should_stop:
            break
    log.finish()


def _parts(context: TrainContext) -> Iterator[EstimatorRows]:
    """Yield the rows of each estimator; the last estimator is the model that is saved."""
    spec, prepared, target = context.spec, context.prepared, context.task.target
    features = FittedFeatures.model_validate(prepared.contract.fitted["features"])
    train, validation = prepared.part("train"), prepared.part("validation")
    tables = [FeatureTable.from_matrix(features, rows.matrix()) for rows in (train, validation)]
    weights = prepared.summary["class_weights"]
    if not spec.train.folds:
        labels = training_labels(target, prepared.contract, train.targets, weights)
        yield EstimatorRows(tables[0], labels, tables[1], validation.targets)
        return
    targets = np.concatenate([train.targets, validation.targets])
    labels = training_labels(target, prepared.contract, targets, weights)
    codes = targets if target.has_classes else np.zeros(len(targets), np.int32)
    for fold in iter_folds(prepared, codes, spec.train.folds, spec.train.seed):
        yield EstimatorRows(
            fold.table.take(fold.train),
            labels.take(fold.train),
            fold.table.take(fold.validation),
            targets[fold.validation],
            fold.left_out,
        )
    values, ids = (np.concatenate(pair) for pair in zip(*((table.values, table.ids) for table in tables), strict=True))
    yield EstimatorRows(FeatureTable(values, ids, tables[0].sizes), labels)


def _compute_metrics(context: TrainContext, model: Estimator, part: EstimatorRows, epoch: int) -> dict[str, float]:
    """Return the metrics of one estimator on its validation rows, and its loss on its training rows."""
    assert part.validation is not None and part.validation_targets is not None
    if not len(part.validation_targets):
        return {}
    target, fitted = context.task.target, context.prepared.contract.fitted
    sample = spread_rows(len(part.table), _LOSS_ROWS)
    loss = mean_loss(part.labels.take(sample), model.logits(part.table.take(sample)))
    scores = target.scores(fitted, model.logits(part.validation))
    check_finite_scores(scores, epoch)
    metrics = target.metrics(scores, part.validation_targets, context.spec.evaluate.calibration_bins)
    return {**metrics, "train_loss": target.scale_loss(fitted, loss)}


def _mean(by_fold: list[dict[str, float]], metric: str) -> dict[str, float]:
    """Return the means of the metrics over the folds that have them, and the standard deviation of `metric`.

    A fold without usable rows has no metrics and does not count. Raises `DataError` if no fold has usable rows.
    """
    by_fold = [metrics for metrics in by_fold if metrics]
    if not by_fold:
        raise DataError("no validation row can be used, so no metric is defined", "give more rows, or other features")
    if len(by_fold) == 1:
        return by_fold[0]
    for name in COUNTS:
        if any(name in metrics for metrics in by_fold):
            by_fold = [{name: 0.0, **metrics} for metrics in by_fold]
    values = {name: [metrics[name] for metrics in by_fold if name in metrics] for name in _names(by_fold)}
    means = {name: float(np.mean(known)) for name, known in values.items()}
    if metric in means:
        means[f"{metric}_std"] = float(np.std(values[metric]))
    return means


def _names(by_fold: list[dict[str, float]]) -> list[str]:
    return list(dict.fromkeys(name for metrics in by_fold for name in metrics))


def _describe_left_out(by_fold: list[Mapping[str, str]]) -> list[str]:
    """Return a sentence for each column that some folds leave out."""
    sentences = []
    for name in dict.fromkeys(name for left_out in by_fold for name in left_out):
        folds = [number for number, left_out in enumerate(by_fold, 1) if name in left_out]
        reason = by_fold[folds[0] - 1][name]
        sentences.append(
            f"fold {', '.join(map(str, folds))} of {len(by_fold)} is without the column '{name}', which its training rows "
            f"cannot fit: {reason}"
        )
    return sentences


def _describe_missing(by_fold: list[dict[str, float]]) -> list[str]:
    """Return a sentence for each metric that some folds cannot compute, as if all their rows are of one class."""
    sentences = [
        f"fold {number} has no usable validation row" for number, metrics in enumerate(by_fold, 1) if not metrics
    ]
    by_fold = [metrics for metrics in by_fold if metrics]
    for name in _names(by_fold):
        count = sum(name in metrics for metrics in by_fold)
        if count < len(by_fold) and name not in COUNTS:
            sentences.append(
                f"{name} is the mean of {count} of {len(by_fold)} folds: the validation rows of the others are too few or "
                "too similar for it"
            )
    return sentences


def _save(context: TrainContext, model: Estimator, reached: dict[str, Any], folder: Path) -> None:
    prepared = context.prepared
    export_model(folder, context.task, model, prepared.contract, prepared.folder, reached)
