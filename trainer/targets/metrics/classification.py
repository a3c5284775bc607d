"""Metrics of a classifier, from its scores and the true classes. Plain functions of arrays.

Whether a metric is defined depends on the rows alone, never on the predictions, and so do the classes that it is
averaged over: two models on the same rows are always comparable. docs/reference/model-metrics.md has every definition.

To add a metric, add its function to `_METRICS`, its name to `Metric` in trainer/spec/evaluate.py (also to
`LOWER_IS_BETTER` there if a lower value is better) and to `Classes.metric_names` in trainer/targets/classes.py.

Letters in shapes: B rows, C classes.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from functools import cached_property
from typing import Any

import numpy as np

from trainer.targets.metrics.calibration import calibration
from trainer.targets.metrics.label_counts import LabelCounts, count_classes
from trainer.targets.metrics.ranking import areas_under_curves
from trainer.targets.metrics.summary import CLASSES_WITHOUT_ROWS

#: The lowest probability of the true class that the log loss counts, as in scikit-learn: ln of it is -36.
MIN_PROBABILITY = float(np.finfo(np.float64).eps)


class _ScoredRows:
    """The scores and true classes of some rows, and what several metrics share."""

    def __init__(self, scores_BC: np.ndarray, targets_B: np.ndarray, n_bins: int) -> None:
        self.scores_BC, self.targets_B, self.n_bins = scores_BC, targets_B, n_bins
        # Of equal highest scores, the first class is the answer, as in `Classes.answer`.
        self.predicted_B = scores_BC.argmax(axis=1)

    @cached_property
    def counts(self) -> LabelCounts:
        return count_classes(self.predicted_B, self.targets_B, self.scores_BC.shape[1])

    @cached_property
    def areas(self) -> dict[str, float]:
        present = np.flatnonzero(self.counts.has_rows_C)
        return areas_under_curves(self.scores_BC[:, present], self.targets_B[:, None] == present)

    def log_loss(self) -> float:
        true_B = self.scores_BC[np.arange(len(self.targets_B)), self.targets_B]
        return float(-np.log(np.clip(true_B, MIN_PROBABILITY, 1.0)).mean())


# None stands for a metric that is not defined for these rows.
_METRICS: dict[str, Callable[[_ScoredRows], float | None]] = {
    "accuracy": lambda rows: float((rows.predicted_B == rows.targets_B).mean()),
    "macro_f1": lambda rows: rows.counts.macro(rows.counts.f1_C),
    "weighted_f1": lambda rows: rows.counts.weighted(rows.counts.f1_C),
    "macro_precision": lambda rows: rows.counts.macro(rows.counts.precision_C),
    "macro_recall": lambda rows: rows.counts.macro(rows.counts.recall_C),
    "log_loss": _ScoredRows.log_loss,
    "calibration_error": lambda rows: float(calibration(rows.scores_BC, rows.targets_B, rows.n_bins)["error"]),
    "roc_auc": lambda rows: rows.areas.get("roc_auc"),
    "pr_auc": lambda rows: rows.areas.get("pr_auc"),
    CLASSES_WITHOUT_ROWS: lambda rows: rows.counts.n_without_rows or None,
}


def classification_metrics(
    scores_BC: np.ndarray, targets_B: np.ndarray, n_bins: int, names: Collection[str] = tuple(_METRICS)
) -> dict[str, float]:
    """Return the metrics `names`, by default all of them, for finite scores and int ids of the true classes.

    `macro_f1`, `macro_precision` and `macro_recall` are means over the classes that have rows. ROC-AUC and PR-AUC are
    one-vs-rest, averaged over the same classes, and left out if only one class has rows. `classes_without_rows` is left
    out if it is 0. Without rows, the result is empty.
    """
    if not len(targets_B):
        return {}
    rows = _ScoredRows(scores_BC, targets_B, n_bins)
    values = {name: _METRICS[name](rows) for name in names if name in _METRICS}
    return {name: value for name, value in values.items() if value is not None}


def metrics_by_class(scores_BC: np.ndarray, targets_B: np.ndarray, labels: list[str]) -> list[dict[str, Any]]:
    """Return the entries of `LabelCounts.by_label` for each class."""
    return count_classes(scores_BC.argmax(axis=1), targets_B, len(labels)).by_label(labels)


def confusion_matrix(scores_BC: np.ndarray, targets_B: np.ndarray) -> np.ndarray:
    """Return int counts, shape (C, C): row = true class, column = predicted class."""
    n = scores_BC.shape[1]
    return np.bincount(targets_B * n + scores_BC.argmax(axis=1), minlength=n * n).reshape(n, n)
