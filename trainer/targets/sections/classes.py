"""What a report says about a model that predicts one class. Letters in shapes: B rows, C classes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from trainer.charts.section import Chart, Column, Section
from trainer.targets.metrics import classification as figures
from trainer.targets.sections import charts
from trainer.targets.sections.curves import curves


def sections(
    labels: list[str],
    shown: Sequence[str],
    scores_BC: np.ndarray,
    targets_B: np.ndarray,
    n_bins: int,
    n_worst: int,
) -> list[Section]:
    """Return confusion matrix and calibration, curves, figures by class, and the `n_worst` most confident mistakes."""
    found = figures.calibration(scores_BC, targets_B, n_bins)
    by_class = sorted(figures.by_class(scores_BC, targets_B, labels), key=lambda row: float(row["f1"]))
    names = ("precision", "recall", "f1")
    return [
        Section(
            "Confusion matrix and calibration",
            charts=[
                Chart(charts.confusion(figures.confusion(scores_BC, targets_B), labels), grow=2),
                Chart(
                    charts.calibration(found["bins"]),
                    f"Calibration error {found['error']:.4f}: how far a score is, on average, from the share of right "
                    "answers at that score. Larger dots hold more rows.",
                ),
            ],
        ),
        *curves(scores_BC, targets_B[:, None] == np.arange(len(labels)), labels),
        Section(
            "By class",
            columns=[Column("class"), *[Column(name, number=True) for name in ("precision", "recall", "F1", "rows")]],
            rows=[[row["label"], *[f"{row[name]:.3f}" for name in names], row["rows"]] for row in by_class],
        ),
        _mistakes(labels, shown, scores_BC, targets_B, n_worst),
    ]


def _mistakes(
    labels: list[str], shown: Sequence[str], scores_BC: np.ndarray, targets_B: np.ndarray, count: int
) -> Section:
    predicted_B = scores_BC.argmax(axis=1)
    wrong = np.flatnonzero(predicted_B != targets_B)
    worst = wrong[np.argsort(-scores_BC[wrong, predicted_B[wrong]], kind="stable")][:count]
    return Section(
        "Most confident mistakes",
        columns=[
            Column("input"),
            Column("true"),
            Column("predicted", wrong=True),
            Column("score", number=True),
            Column("score of true", number=True),
        ],
        rows=[
            [
                shown[at],
                labels[targets_B[at]],
                labels[predicted_B[at]],
                f"{scores_BC[at, predicted_B[at]]:.3f}",
                f"{scores_BC[at, targets_B[at]]:.3f}",
            ]
            for at in worst
        ],
        note="" if len(worst) else "There are none.",
    )
