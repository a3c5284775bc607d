"""Report sections of a model that predicts tags. Letters in shapes: B rows, C tags."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from trainer.charts.section import ReportSection, TableColumn
from trainer.targets.metrics.multilabel import THRESHOLD, metrics_by_tag
from trainer.targets.sections.by_label import by_label_section
from trainer.targets.sections.curves import curve_sections

_MAX_SHOWN = 5


def tag_sections(
    labels: list[str], shown_inputs: Sequence[str], scores_BC: np.ndarray, targets_BC: np.ndarray, n_mistakes: int
) -> list[ReportSection]:
    """Return curves, metrics by tag, and the `n_mistakes` rows with the most confident mistakes."""
    true_BC = targets_BC.astype(bool)
    note = f"A tag is predicted if its score is {THRESHOLD} or more."
    return [
        *curve_sections(scores_BC, true_BC, labels),
        by_label_section("tag", metrics_by_tag(scores_BC, targets_BC, labels), note),
        _mistakes(labels, shown_inputs, scores_BC, true_BC, n_mistakes),
    ]


def _mistakes(
    labels: list[str], shown_inputs: Sequence[str], scores_BC: np.ndarray, true_BC: np.ndarray, count: int
) -> ReportSection:
    wrong_BC = (scores_BC >= THRESHOLD) != true_BC
    # The distance from the threshold of a row's worst tag; below 0 if the row has no mistake.
    distance_B = np.where(wrong_BC, np.abs(scores_BC - THRESHOLD), -1.0).max(axis=1)
    wrong = np.flatnonzero(wrong_BC.any(axis=1))
    worst = wrong[np.argsort(-distance_B[wrong], kind="stable")][:count]

    def list_tags(row: int, selected_C: np.ndarray) -> str:
        tags = np.flatnonzero(selected_C)
        tags = tags[np.argsort(-np.abs(scores_BC[row, tags] - THRESHOLD), kind="stable")]
        more = f", and {len(tags) - _MAX_SHOWN} more" if len(tags) > _MAX_SHOWN else ""
        return ", ".join(f"{labels[tag]} ({scores_BC[row, tag]:.3f})" for tag in tags[:_MAX_SHOWN]) + more

    return ReportSection(
        "Most confident mistakes",
        columns=[
            TableColumn("input"),
            TableColumn("true tags"),
            TableColumn("missing"),
            TableColumn("wrong", wrong=True),
        ],
        rows=[
            [
                shown_inputs[row],
                ", ".join(labels[tag] for tag in np.flatnonzero(true_BC[row])),
                list_tags(row, wrong_BC[row] & true_BC[row]),
                list_tags(row, wrong_BC[row] & ~true_BC[row]),
            ]
            for row in worst
        ],
        note="Each tag's score is in parentheses." if len(worst) else "There are no mistakes.",
    )
