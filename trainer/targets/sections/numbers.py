"""What a report says about a model that predicts a number. Letters in shapes: B rows."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from trainer.charts.section import Chart, Column, Section
from trainer.targets.sections import charts


def sections(
    shown: Sequence[str], predicted_B: np.ndarray, targets_B: np.ndarray, n_worst: int, digits: int
) -> list[Section]:
    """Return charts of predictions and errors, and the `n_worst` rows with the largest errors.

    Numbers are shown with so many `digits` behind the point.
    """
    errors_B = predicted_B - targets_B
    worst = np.argsort(-np.abs(errors_B), kind="stable")[:n_worst]

    def number(value: float) -> str:
        return f"{value:,.{max(0, digits - 2)}f}"

    return [
        Section(
            "Predictions and errors",
            charts=[
                Chart(
                    charts.predicted_against_true(predicted_B, targets_B),
                    "On the dashed line a prediction is right. Darker: more rows.",
                ),
                Chart(
                    charts.residuals(predicted_B, targets_B),
                    "Error is predicted minus true. A slope or a bend is something the model has not learned.",
                ),
                Chart(
                    charts.residual_histogram(errors_B),
                    f"Mean error {number(errors_B.mean())}, half of all rows are within "
                    f"{number(float(np.median(np.abs(errors_B))))}.",
                ),
            ],
        ),
        Section(
            "Largest errors",
            columns=[
                Column("input"),
                Column("true", number=True),
                Column("predicted", number=True, wrong=True),
                Column("error", number=True),
            ],
            rows=[[shown[at], number(targets_B[at]), number(predicted_B[at]), number(errors_B[at])] for at in worst],
        ),
    ]
