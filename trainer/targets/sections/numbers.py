"""Report sections of a model that predicts a number. Letters in shapes: B rows."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from trainer.charts.section import ReportChart, ReportSection, TableColumn
from trainer.targets.sections import charts


def number_sections(
    shown_inputs: Sequence[str], predicted_B: np.ndarray, targets_B: np.ndarray, n_mistakes: int, decimals: int
) -> list[ReportSection]:
    """Return charts of predictions and errors, and the `n_mistakes` rows with the largest errors.

    `decimals` is the number of decimals that matter; the table shows two fewer.
    """
    errors_B = predicted_B - targets_B
    worst = np.argsort(-np.abs(errors_B), kind="stable")[:n_mistakes]

    def as_text(value: float) -> str:
        return f"{value:,.{max(0, decimals - 2)}f}"

    return [
        ReportSection(
            "Predictions and errors",
            charts=[
                ReportChart(
                    charts.scatter_chart(predicted_B, targets_B),
                    "On the dashed line a prediction is right. Darker means more rows.",
                ),
                ReportChart(
                    charts.residual_chart(predicted_B, targets_B),
                    "The error is predicted minus true. A slope or a bend shows something the model has not learned.",
                ),
                ReportChart(
                    charts.residual_histogram_chart(errors_B),
                    f"The mean error is {as_text(errors_B.mean())}; half of all rows are within "
                    f"{as_text(float(np.median(np.abs(errors_B))))}.",
                ),
            ],
        ),
        ReportSection(
            "Largest errors",
            columns=[
                TableColumn("input"),
                TableColumn("true", number=True),
                TableColumn("predicted", number=True, wrong=True),
                TableColumn("error", number=True),
            ],
            rows=[
                [shown_inputs[row], as_text(targets_B[row]), as_text(predicted_B[row]), as_text(errors_B[row])]
                for row in worst
            ],
        ),
    ]
