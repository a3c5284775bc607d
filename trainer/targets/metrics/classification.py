"""Metrics of a classifier, from its scores and the true classes. Plain functions of arrays.

To add a metric, return it from `classification_metrics` and add its name to `Metric` in trainer/spec/evaluate.py (also
to `LOWER_IS_BETTER` there if a lower value is better) and to `Classes.metric_names` in trainer/targets/classes.py.

Letters in shapes: B rows, C classes, T distinct thresholds.
"""

from __future__ import annotations

import warnings
from typing import Any, NamedTuple

import numpy as np


def classification_metrics(scores_BC: np.ndarray, targets_B: np.ndarray, n_bins: int) -> dict[str, float]:
    """Return accuracy, F1 scores, precision, recall, ROC-AUC, PR-AUC, log loss and calibration error.

    ROC-AUC and PR-AUC are one-vs-rest, averaged over the classes that occur, and left out if only one class occurs.
    """
    from sklearn.metrics import precision_recall_fscore_support

    predicted_B = scores_BC.argmax(axis=1)
    present = np.unique(targets_B)
    classes = np.unique(np.concatenate([present, predicted_B]))
    macro = precision_recall_fscore_support(targets_B, predicted_B, labels=classes, average="macro", zero_division=0)
    weighted = precision_recall_fscore_support(
        targets_B, predicted_B, labels=classes, average="weighted", zero_division=0
    )
    rows = np.arange(len(targets_B))
    metrics = {
        "accuracy": float((predicted_B == targets_B).mean()),
        "macro_f1": float(macro[2]),
        "weighted_f1": float(weighted[2]),
        "macro_precision": float(macro[0]),
        "macro_recall": float(macro[1]),
        "log_loss": float(-np.log(np.clip(scores_BC[rows, targets_B], 1e-15, 1.0)).mean()),
        "calibration_error": calibration(scores_BC, targets_B, n_bins)["error"],
    }
    if len(present) > 1:
        metrics.update(areas_under_curves(scores_BC[:, present], targets_B[:, None] == present))
    return metrics


def metrics_by_class(scores_BC: np.ndarray, targets_B: np.ndarray, labels: list[str]) -> list[dict[str, Any]]:
    """Return precision, recall, F1 and number of rows of each class."""
    from sklearn.metrics import precision_recall_fscore_support

    columns = precision_recall_fscore_support(
        targets_B, scores_BC.argmax(axis=1), labels=np.arange(len(labels)), average=None, zero_division=0
    )
    return [
        {"label": label, "precision": float(p), "recall": float(r), "f1": float(f), "rows": int(n)}
        for label, p, r, f, n in zip(labels, *columns, strict=True)
    ]


def confusion_matrix(scores_BC: np.ndarray, targets_B: np.ndarray) -> np.ndarray:
    """Return int counts, shape (C, C): row = true class, column = predicted class."""
    n = scores_BC.shape[1]
    return np.bincount(targets_B * n + scores_BC.argmax(axis=1), minlength=n * n).reshape(n, n)


def calibration(scores_BC: np.ndarray, targets_B: np.ndarray, n_bins: int) -> dict[str, Any]:
    """Return the expected calibration error (Guo et al. 2017, equal-width bins) and its non-empty bins."""
    confidence_B = scores_BC.max(axis=1)
    right_B = scores_BC.argmax(axis=1) == targets_B
    bin_B = np.minimum((confidence_B * n_bins).astype(int), n_bins - 1)
    counts = np.bincount(bin_B, minlength=n_bins)
    with warnings.catch_warnings(), np.errstate(invalid="ignore"):
        confidence = np.bincount(bin_B, weights=confidence_B, minlength=n_bins) / counts
        accuracy = np.bincount(bin_B, weights=right_B, minlength=n_bins) / counts
    filled = counts > 0
    error = float((np.abs(confidence - accuracy)[filled] * counts[filled]).sum() / len(targets_B))
    return {
        "error": error,
        "bins": [
            {"confidence": float(c), "accuracy": float(a), "rows": int(n)}
            for c, a, n in zip(confidence[filled], accuracy[filled], counts[filled], strict=True)
        ],
    }


class RankedScores(NamedTuple):
    """Cumulative counts of one class (or tag) against the rest, for ROC and precision-recall curves.

    There is one entry per distinct score, the highest score first.
    """

    hits_T: np.ndarray
    """int64: rows of the class with this score or a higher one."""
    misses_T: np.ndarray
    """int64: other rows with this score or a higher one."""


def rank_scores(hits_B: np.ndarray, scores_B: np.ndarray) -> RankedScores:
    """Return the counts for one class; bool `hits_B` marks its rows. There must be rows of the class and other rows."""
    order = np.argsort(-scores_B, kind="stable")
    last = np.append(np.flatnonzero(np.diff(scores_B[order])), len(order) - 1)  # equal scores share a threshold
    hits_T = np.cumsum(hits_B[order], dtype=np.int64)[last]
    return RankedScores(hits_T, last + 1 - hits_T)


def average_precision(ranked: RankedScores) -> float:
    """Return the mean precision over the rows of the class, each at its own threshold."""
    precision_T = ranked.hits_T / (ranked.hits_T + ranked.misses_T)
    return float((np.diff(ranked.hits_T, prepend=0) * precision_T).sum() / ranked.hits_T[-1])


def areas_under_curves(scores_BC: np.ndarray, hits_BC: np.ndarray) -> dict[str, float]:
    """Return `roc_auc`, and `pr_auc` as average precision; both are means over the columns.

    Every column of `hits_BC` (bool) must hold both True and False.
    """
    ranked_C = [rank_scores(hits_B, score_B) for hits_B, score_B in zip(hits_BC.T, scores_BC.T, strict=True)]
    return {
        "roc_auc": float(np.mean([_area_under_roc(ranked) for ranked in ranked_C])),
        "pr_auc": float(np.mean([average_precision(ranked) for ranked in ranked_C])),
    }


def _area_under_roc(ranked: RankedScores) -> float:
    hits_below_T = ranked.hits_T - 0.5 * np.diff(ranked.hits_T, prepend=0)
    area = np.diff(ranked.misses_T, prepend=0) * hits_below_T
    return float(area.sum() / (ranked.hits_T[-1] * ranked.misses_T[-1]))
