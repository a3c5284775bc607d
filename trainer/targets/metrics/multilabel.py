"""Figures of a model that predicts tags, from its scores and the true tags. Plain functions of arrays.

Letters in shapes: B rows, C tags.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from trainer.targets.metrics.classification import areas, average_precision, ranked

#: A tag is predicted from this score on.
THRESHOLD = 0.5


def tags_metrics(scores_BC: np.ndarray, targets_BC: np.ndarray) -> dict[str, float]:
    """Return the single figures for scores and 0/1 targets: F1s, precision, recall, exact match, log loss, areas.

    Macro and weighted figures are means over the tags that occur, in the truth or among the predictions. They and
    micro_f1 are left out where none does; roc_auc and pr_auc are means over the tags that some rows have and some not.
    """
    predicted_BC, true_BC = scores_BC >= THRESHOLD, targets_BC.astype(bool)
    precision_C, recall_C, f1_C, true_C, predicted_C = _by_tag(predicted_BC, true_BC)
    occur = true_C + predicted_C > 0
    likely_BC = np.clip(np.where(true_BC, scores_BC, 1.0 - scores_BC), 1e-15, 1.0)
    figures = {
        "exact_match": float((predicted_BC == true_BC).all(axis=1).mean()),
        "log_loss": float(-np.log(likely_BC).mean()),
    }
    if occur.any():
        hits = int((predicted_BC & true_BC).sum())
        figures["micro_f1"] = 2.0 * hits / int(true_C.sum() + predicted_C.sum())
        figures["macro_f1"] = float(f1_C[occur].mean())
        figures["weighted_f1"] = float((f1_C * true_C).sum() / max(1, true_C.sum()))
        figures["macro_precision"] = float(precision_C[occur].mean())
        figures["macro_recall"] = float(recall_C[occur].mean())
    both = (true_C > 0) & (true_C < len(true_BC))
    if both.any():
        figures.update(areas(scores_BC[:, both], true_BC[:, both]))
    return figures


def by_tag(scores_BC: np.ndarray, targets_BC: np.ndarray, labels: list[str]) -> list[dict[str, Any]]:
    """Return precision, recall, F1, average precision (None where no row has the tag) and number of rows of each tag."""
    true_BC = targets_BC.astype(bool)
    precision_C, recall_C, f1_C, true_C, _ = _by_tag(scores_BC >= THRESHOLD, true_BC)
    return [
        {
            "label": label,
            "precision": float(precision_C[at]),
            "recall": float(recall_C[at]),
            "f1": float(f1_C[at]),
            "average_precision": average_precision(ranked(true_BC[:, at], scores_BC[:, at])) if true_C[at] else None,
            "rows": int(true_C[at]),
        }
        for at, label in enumerate(labels)
    ]


def _by_tag(predicted_BC: np.ndarray, true_BC: np.ndarray) -> tuple[np.ndarray, ...]:
    """Return precision, recall, F1 (0 where undefined), true rows and predicted rows of each tag."""
    hits_C = (predicted_BC & true_BC).sum(axis=0)
    true_C, predicted_C = true_BC.sum(axis=0), predicted_BC.sum(axis=0)
    return (
        hits_C / np.maximum(1, predicted_C),
        hits_C / np.maximum(1, true_C),
        2.0 * hits_C / np.maximum(1, true_C + predicted_C),
        true_C,
        predicted_C,
    )
