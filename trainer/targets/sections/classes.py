"""Report sections of a model that predicts one class. Letters in shapes: B rows, C classes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from trainer.charts.section import ReportChart, ReportSection, TableColumn
from trainer.targets.metrics.calibration import calibration
from trainer.targets.metrics.classification import confusion_matrix, metrics_by_class
from trainer.targets.sections import charts
from trainer.targets.sections.by_label import by_label_section
from trainer.targets.sections.curves import curve_sections


def class_sections(
    labels: list[str],
    shown_inputs: Sequence[str],
    scores_BC: np.ndarray,
    targets_B: np.ndarray,
    n_bins: int,
    n_mistakes: int,
) -> list[ReportSection]:
    """Return confusion matrix, calibration, curves, metrics by class, and the `n_mistakes` most confident mistakes."""
    return [
        _confusion_and_calibration(labels, scores_BC, targets_B, n_bins),
        *curve_sections(scores_BC, targets_B[:, None] == np.arange(len(labels)), labels),
        by_label_section("class", metrics_by_class(scores_BC, targets_B, labels)),
        _mistakes(labels, shown_inputs, scores_BC, targets_B, n_mistakes),
    ]


def _confusion_and_calibration(
    labels: list[str], scores_BC: np.ndarray, targets_B: np.ndarray, n_bins: int
) -> ReportSection:
    calibrated = calibration(scores_BC, targets_B, n_bins)
    return ReportSection(
        "Confusion matrix and calibration",
        charts=[
            ReportChart(charts.confusion_chart(confusion_matrix(scores_BC, targets_B), labels), grow=2),
            ReportChart(
                charts.calibration_chart(calibrated["bins"]),
                f"Calibration error {calibrated['error']:.4f}: the average distance between a score and the share of "
                "right answers at that score. Larger dots hold more rows.",
            ),
        ],
    )


def _mistakes(
    labels: list[str], shown_inputs: Sequence[str], scores_BC: np.ndarray, targets_B: np.ndarray, count: int
) -> ReportSection:
    predicted_B = scores_BC.argmax(axis=1)
    wrong = np.flatnonzero(predicted_B != targets_B)
    worst = wrong[np.argsort(-scores_BC[wrong, predicted_B[wrong]], kind="stable")][:count]
    return ReportSection(
        "Most confident mistakes",
        columns=[
            TableColumn("input"),
            TableColumn("true"),
            TableColumn("predicted", wrong=True),
            TableColumn("score", number=True),
            TableColumn("score of true", number=True),
        ],
        rows=[
            [
                shown_inputs[row],
                labels[targets_B[row]],
                labels[predicted_B[row]],
                f"{scores_BC[row, predicted_B[row]]:.3f}",
                f"{scores_BC[row, targets_B[row]]:.3f}",
            ]
            for row in worst
        ],
        note="" if len(worst) else "There are no mistakes.",
    )
