"""Metrics of a model that predicts tags, from its scores and the true tags. Plain functions of arrays.

To add a metric, return it from `tags_metrics` and add its name to `Metric` in trainer/spec/evaluate.py (also to
`LOWER_IS_BETTER` there if a lower value is better) and to `Tags.metric_names` in trainer/targets/tags.py.

Letters in shapes: B rows, C tags.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from trainer.targets.metrics.classification import areas_under_curves, average_precision, rank_scores

#: The lowest score at which a tag is predicted.
THRESHOLD = 0.5


def tags_metrics(scores_BC: np.ndarray, targets_BC: np.ndarray) -> dict[str, float]:
    """Return F1 scores, precision, recall, exact match, log loss and areas, for scores and 0/1 targets.

    Macro and weighted metrics are means over the tags that occur, in the truth or in the predictions. They and micro_f1
    are left out if no tag occurs. roc_auc and pr_auc are means over the tags that some rows have and some do not.
    """
    predicted_BC, true_BC = scores_BC >= THRESHOLD, targets_BC.astype(bool)
    precision_C, recall_C, f1_C, true_C, predicted_C = _columns_by_tag(predicted_BC, true_BC)
    occurs_C = true_C + predicted_C > 0
    likelihood_BC = np.clip(np.where(true_BC, scores_BC, 1.0 - scores_BC), 1e-15, 1.0)
    metrics = {
        "exact_match": float((predicted_BC == true_BC).all(axis=1).mean()),
        "log_loss": float(-np.log(likelihood_BC).mean()),
    }
    if occurs_C.any():
        hits = int((predicted_BC & true_BC).sum())
        metrics["micro_f1"] = 2.0 * hits / int(true_C.sum() + predicted_C.sum())
        metrics["macro_f1"] = float(f1_C[occurs_C].mean())
        metrics["weighted_f1"] = float((f1_C * true_C).sum() / max(1, true_C.sum()))
        metrics["macro_precision"] = float(precision_C[occurs_C].mean())
        metrics["macro_recall"] = float(recall_C[occurs_C].mean())
    has_both_C = (true_C > 0) & (true_C < len(true_BC))
    if has_both_C.any():
        metrics.update(areas_under_curves(scores_BC[:, has_both_C], true_BC[:, has_both_C]))
    return metrics


def metrics_by_tag(scores_BC: np.ndarray, targets_BC: np.ndarray, labels: list[str]) -> list[dict[str, Any]]:
    """Return precision, recall, F1, average precision (None if no row has the tag) and number of rows of each tag."""
    true_BC = targets_BC.astype(bool)
    precision_C, recall_C, f1_C, true_C, _ = _columns_by_tag(scores_BC >= THRESHOLD, true_BC)

    def precision_on_average(tag: int) -> float | None:
        return average_precision(rank_scores(true_BC[:, tag], scores_BC[:, tag])) if true_C[tag] else None

    return [
        {
            "label": label,
            "precision": float(precision_C[tag]),
            "recall": float(recall_C[tag]),
            "f1": float(f1_C[tag]),
            "average_precision": precision_on_average(tag),
            "rows": int(true_C[tag]),
        }
        for tag, label in enumerate(labels)
    ]


def _columns_by_tag(predicted_BC: np.ndarray, true_BC: np.ndarray) -> tuple[np.ndarray, ...]:
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
