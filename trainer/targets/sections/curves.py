"""The section of a report about how well scores part the rows of a class or tag from the others."""

from __future__ import annotations

import numpy as np

from trainer.charts.section import Chart, Section
from trainer.targets.metrics.classification import ranked
from trainer.targets.sections import charts


def curves(scores_BC: np.ndarray, hits_BC: np.ndarray, labels: list[str]) -> list[Section]:
    """Return ROC and precision-recall of scores (B, C) and 0/1 truth, or nothing where no label parts the rows."""
    n_hits_C = hits_BC.sum(axis=0)
    both = np.flatnonzero((n_hits_C > 0) & (n_hits_C < len(hits_BC)))
    if not len(both):
        return []
    found = {labels[at]: ranked(hits_BC[:, at], scores_BC[:, at]) for at in both}
    pooled = None
    if len(found) > charts.MOST_CURVES:
        pooled = ranked(hits_BC[:, both].ravel(), scores_BC[:, both].ravel())
    return [
        Section(
            "ROC and precision-recall",
            charts=[
                Chart(
                    charts.roc(found, pooled),
                    "Each threshold of a score is a point. On the dashed line scores tell nothing.",
                ),
                Chart(
                    charts.precision_recall(found, pooled),
                    "Of what is found, how much is right, against how much of what there is is found.",
                ),
            ],
        )
    ]
