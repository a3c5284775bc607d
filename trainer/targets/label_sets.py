"""Helpers for targets with a fixed set of labels: classes and tags."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from cluster.errors import DataError
from trainer.values.numbers import NUMBER
from trainer.values.words import canonical_word

# A label is part of URLs, metrics and reports; a column with more labels is usually the wrong column.
_MAX_LABELS = 10_000
# More labels with decimals are rarely classes.
_MAX_DECIMALS = 20


def known_labels(role: str, counts: Mapping[str, int], declared: list[str] | None) -> list[str]:
    """Return the sorted labels to learn: the `declared` ones, or else those with `counts` in the training rows.

    Raises `DataError` if a declared label has no rows, or if there are too many labels.
    """
    labels = sorted(set(map(canonical_word, declared)) if declared is not None else counts)
    absent = [label for label in labels if label not in counts]
    if absent:
        raise DataError(
            f"no training row has the label {absent[0]!r}, which data.labels names",
            "add rows with this label, or remove it from `data.labels`",
        )
    if len(labels) > _MAX_LABELS:
        raise DataError(
            f"the {role} column has {len(labels)} different labels; the limit is {_MAX_LABELS}",
            f"check `data.columns.{role}`: the column looks like an id or a text",
        )
    return labels


def check_not_numbers(role: str, labels: Sequence[str]) -> None:
    """Raise `DataError` if the labels look like a number to predict: many of them, most with decimals."""
    numbers = [label for label in labels if NUMBER.fullmatch(label) and "." in label]
    if len(numbers) > max(_MAX_DECIMALS, len(labels) / 2):
        raise DataError(
            f"the {role} column has {len(labels)} different labels, and {len(numbers)} are numbers with decimals, "
            f"for example {numbers[0]}",
            "to predict numbers, set `task: text-regression` or `task: tabular-regression`; "
            "if each number is a class, list them in `data.labels`",
        )


def reorder_scores(scores: np.ndarray, from_labels: Sequence[str], to_labels: Sequence[str]) -> np.ndarray:
    """Return scores, with columns `from_labels`, in the columns `to_labels`; a missing label scores 0."""
    reordered = np.zeros((len(scores), len(to_labels)))
    column_of = {label: column for column, label in enumerate(from_labels)}
    for column, label in enumerate(to_labels):
        if label in column_of:
            reordered[:, column] = scores[:, column_of[label]]
    return reordered
