"""Right and wrong predictions by label, and what follows from them: precision, recall, F1 and their averages.

Averages cover the labels that some row has. Which labels these are depends on the rows alone, so two models are
averaged over the same labels. A label without rows has no recall and no F1. It counts only where it is predicted: as a
wrong answer for the label that the row has.

Letters in shapes: B rows, C labels (classes or tags).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np


class LabelCounts(NamedTuple):
    """Counts of rows by label."""

    hits_C: np.ndarray
    """int64: rows that have the label and for which it is predicted."""
    true_C: np.ndarray
    """int64: rows that have the label."""
    predicted_C: np.ndarray
    """int64: rows for which the label is predicted."""

    @property
    def has_rows_C(self) -> np.ndarray:
        """Which labels have rows, bool."""
        has_rows: np.ndarray = self.true_C > 0
        return has_rows

    @property
    def n_without_rows(self) -> int:
        """How many labels have no rows."""
        return int((~self.has_rows_C).sum())

    @property
    def precision_C(self) -> np.ndarray:
        """Share of the predictions of each label that are right; 0 for a label that is never predicted."""
        return self.hits_C / np.maximum(1, self.predicted_C)

    @property
    def recall_C(self) -> np.ndarray:
        """Share of the rows of each label for which it is predicted; 0 for a label without rows."""
        return self.hits_C / np.maximum(1, self.true_C)

    @property
    def f1_C(self) -> np.ndarray:
        """Harmonic mean of precision and recall of each label; 0 for a label that is never right."""
        return 2.0 * self.hits_C / np.maximum(1, self.true_C + self.predicted_C)

    def macro(self, values_C: np.ndarray) -> float:
        """Return the mean of values over the labels that have rows; there must be one."""
        return float(values_C[self.has_rows_C].mean())

    def weighted(self, values_C: np.ndarray) -> float:
        """Return the mean of values over the labels, weighted by their rows; there must be one row."""
        return float((values_C * self.true_C).sum() / self.true_C.sum())

    def by_label(self, labels: list[str]) -> list[dict[str, Any]]:
        """Return `label`, `precision`, `recall`, `f1`, `rows` and `predicted` (rows) of each label.

        None stands for a value that is not defined: precision without predictions, recall and F1 without rows.
        """
        columns = (self.precision_C, self.recall_C, self.f1_C, self.true_C, self.predicted_C)
        return [
            {
                "label": label,
                "precision": float(precision) if n_predicted else None,
                "recall": float(recall) if n_rows else None,
                "f1": float(f1) if n_rows else None,
                "rows": int(n_rows),
                "predicted": int(n_predicted),
            }
            for label, precision, recall, f1, n_rows, n_predicted in zip(labels, *columns, strict=True)
        ]


def count_classes(predicted_B: np.ndarray, targets_B: np.ndarray, n_classes: int) -> LabelCounts:
    """Return the counts of rows with one class each, for ids of the predicted and the true classes."""
    return LabelCounts(
        np.bincount(targets_B[predicted_B == targets_B], minlength=n_classes),
        np.bincount(targets_B, minlength=n_classes),
        np.bincount(predicted_B, minlength=n_classes),
    )


def count_tags(predicted_BC: np.ndarray, true_BC: np.ndarray) -> LabelCounts:
    """Return the counts of rows with any number of tags, for bool arrays."""
    return LabelCounts((predicted_BC & true_BC).sum(axis=0), true_BC.sum(axis=0), predicted_BC.sum(axis=0))
