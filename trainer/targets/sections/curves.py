"""The report section with ROC and precision-recall curves."""

from __future__ import annotations

import numpy as np

from trainer.charts.section import ReportChart, ReportSection
from trainer.targets.metrics.ranking import rank_scores
from trainer.targets.sections import charts


def curve_sections(scores_BC: np.ndarray, hits_BC: np.ndarray, labels: list[str]) -> list[ReportSection]:
    """Return ROC and precision-recall curves of scores (B, C) against 0/1 truth.

    Labels that all rows or no rows have are left out. If no label remains, the list is empty.
    """
    n_hits_C = hits_BC.sum(axis=0)
    with_both = np.flatnonzero((n_hits_C > 0) & (n_hits_C < len(hits_BC)))
    if not len(with_both):
        return []
    curves = {labels[label]: rank_scores(hits_BC[:, label], scores_BC[:, label]) for label in with_both}
    pooled = None
    if len(curves) > charts.MAX_CURVES:
        pooled = rank_scores(hits_BC[:, with_both].ravel(), scores_BC[:, with_both].ravel())
    return [
        ReportSection(
            "ROC and precision-recall",
            charts=[
                ReportChart(
                    charts.roc_chart(curves, pooled),
                    "One point per threshold. On the dashed line, scores are no better than chance.",
                ),
                ReportChart(
                    charts.precision_recall_chart(curves, pooled),
                    "Precision is the share of predictions that are right, recall the share of true rows that are "
                    "predicted.",
                ),
            ],
        )
    ]
