"""Metrics of a model that predicts tags, from its scores and the true tags. Plain functions of arrays.

Whether a metric is defined depends on the rows alone, never on the predictions, and so do the tags that it is averaged
over. docs/reference/model-metrics.md has every definition.

To add a metric, add its function to `_METRICS`, its name to `Metric` in trainer/spec/evaluate.py (also to
`LOWER_IS_BETTER` there if a lower value is better) and to `Tags.metric_names` in trainer/targets/tags.py.

Letters in shapes: B rows, C tags.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from functools import cached_property
from typing import Any

import numpy as np

from trainer.targets.metrics.classification import MIN_PROBABILITY
from trainer.targets.metrics.label_counts import LabelCounts, count_tags
from trainer.targets.metrics.ranking import areas_under_curves, average_precision, rank_scores
from trainer.targets.metrics.summary import TAGS_WITHOUT_ROWS

#: The lowest score at which a tag is predicted.
THRESHOLD = 0.5


class _ScoredRows:
    """The scores and true tags of some rows, and what several metrics share."""

    def __init__(self, scores_BC: np.ndarray, targets_BC: np.ndarray) -> None:
        self.scores_BC, self.true_BC = scores_BC, targets_BC.astype(bool)
        self.predicted_BC = scores_BC >= THRESHOLD

    @cached_property
    def counts(self) -> LabelCounts:
        return count_tags(self.predicted_BC, self.true_BC)

    @cached_property
    def areas(self) -> dict[str, float]:
        return areas_under_curves(self.scores_BC, self.true_BC)

    def log_loss(self) -> float:
        likelihood_BC = np.where(self.true_BC, self.scores_BC, 1.0 - self.scores_BC)
        return float(-np.log(np.clip(likelihood_BC, MIN_PROBABILITY, 1.0)).mean())

    def micro_f1(self) -> float:
        counts = self.counts
        return float(2.0 * counts.hits_C.sum() / (counts.true_C.sum() + counts.predicted_C.sum()))

    def over_tags(self, compute: Callable[[LabelCounts], float]) -> float | None:
        """Return an average over the tags that have rows; None if no row has a tag."""
        return compute(self.counts) if self.true_BC.any() else None


# None stands for a metric that is not defined for these rows.
_METRICS: dict[str, Callable[[_ScoredRows], float | None]] = {
    "exact_match": lambda rows: float((rows.predicted_BC == rows.true_BC).all(axis=1).mean()),
    "log_loss": _ScoredRows.log_loss,
    "micro_f1": lambda rows: rows.over_tags(lambda counts: rows.micro_f1()),
    "macro_f1": lambda rows: rows.over_tags(lambda counts: counts.macro(counts.f1_C)),
    "weighted_f1": lambda rows: rows.over_tags(lambda counts: counts.weighted(counts.f1_C)),
    "macro_precision": lambda rows: rows.over_tags(lambda counts: counts.macro(counts.precision_C)),
    "macro_recall": lambda rows: rows.over_tags(lambda counts: counts.macro(counts.recall_C)),
    "roc_auc": lambda rows: rows.areas.get("roc_auc"),
    "pr_auc": lambda rows: rows.areas.get("pr_auc"),
    TAGS_WITHOUT_ROWS: lambda rows: rows.counts.n_without_rows or None,
}


def tags_metrics(
    scores_BC: np.ndarray, targets_BC: np.ndarray, names: Collection[str] = tuple(_METRICS)
) -> dict[str, float]:
    """Return the metrics `names`, by default all of them, for finite scores and 0/1 targets.

    `macro_f1`, `macro_precision` and `macro_recall` are means over the tags that some row has; they, `weighted_f1` and
    `micro_f1` are left out if no row has a tag. ROC-AUC and PR-AUC are means over the tags that some rows have and some
    do not. `tags_without_rows` is left out if it is 0. Without rows, the result is empty.
    """
    if not len(targets_BC):
        return {}
    rows = _ScoredRows(scores_BC, targets_BC)
    values = {name: _METRICS[name](rows) for name in names if name in _METRICS}
    return {name: value for name, value in values.items() if value is not None}


def metrics_by_tag(scores_BC: np.ndarray, targets_BC: np.ndarray, labels: list[str]) -> list[dict[str, Any]]:
    """Return the entries of `LabelCounts.by_label` for each tag, with `average_precision`; None if no row has it."""
    true_BC = targets_BC.astype(bool)
    by_tag = count_tags(scores_BC >= THRESHOLD, true_BC).by_label(labels)
    for tag, entry in enumerate(by_tag):
        ranked = rank_scores(true_BC[:, tag], scores_BC[:, tag]) if entry["rows"] else None
        entry["average_precision"] = average_precision(ranked) if ranked else None
    return by_tag
