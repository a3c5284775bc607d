"""What a report says about a model that predicts tags. Letters in shapes: B rows, C tags."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from trainer.charts.section import Column, Section
from trainer.targets.metrics.multilabel import THRESHOLD, by_tag
from trainer.targets.sections.curves import curves

_MOST_SHOWN = 5


def sections(
    labels: list[str], shown: Sequence[str], scores_BC: np.ndarray, targets_BC: np.ndarray, n_worst: int
) -> list[Section]:
    """Return curves, figures by tag, and the `n_worst` rows that have the most confident mistake."""
    true_BC = targets_BC.astype(bool)
    figures = sorted(by_tag(scores_BC, targets_BC, labels), key=lambda row: float(row["f1"]))
    names = ("precision", "recall", "f1")
    return [
        *curves(scores_BC, true_BC, labels),
        Section(
            "By tag",
            columns=[
                Column("tag"),
                *[Column(name, number=True) for name in ("precision", "recall", "F1", "average precision", "rows")],
            ],
            rows=[
                [row["label"], *[f"{row[name]:.3f}" for name in names], _area(row["average_precision"]), row["rows"]]
                for row in figures
            ],
            note=f"A tag is predicted from a score of {THRESHOLD} on.",
        ),
        _mistakes(labels, shown, scores_BC, true_BC, n_worst),
    ]


def _mistakes(
    labels: list[str], shown: Sequence[str], scores_BC: np.ndarray, true_BC: np.ndarray, count: int
) -> Section:
    wrong_BC = (scores_BC >= THRESHOLD) != true_BC
    # How far the worst tag of a row is on the wrong side; it is 0 at most where nothing is wrong.
    off_B = np.where(wrong_BC, np.abs(scores_BC - THRESHOLD), -1.0).max(axis=1)
    wrong = np.flatnonzero(wrong_BC.any(axis=1))
    worst = wrong[np.argsort(-off_B[wrong], kind="stable")][:count]

    def tags(at: int, which_C: np.ndarray) -> str:
        found = np.flatnonzero(which_C)
        found = found[np.argsort(-np.abs(scores_BC[at, found] - THRESHOLD), kind="stable")]
        more = f", and {len(found) - _MOST_SHOWN} more" if len(found) > _MOST_SHOWN else ""
        return ", ".join(f"{labels[tag]} ({scores_BC[at, tag]:.3f})" for tag in found[:_MOST_SHOWN]) + more

    return Section(
        "Most confident mistakes",
        columns=[Column("input"), Column("true tags"), Column("missing"), Column("wrong", wrong=True)],
        rows=[
            [
                shown[at],
                ", ".join(labels[tag] for tag in np.flatnonzero(true_BC[at])),
                tags(at, wrong_BC[at] & true_BC[at]),
                tags(at, wrong_BC[at] & ~true_BC[at]),
            ]
            for at in worst
        ],
        note="The score of a tag stands behind it." if len(worst) else "There are none.",
    )


def _area(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"
