"""Training rows whose label looks wrong: a simple model, trained on other rows, confidently predicts another label.

Uses out-of-fold probabilities of TF-IDF and logistic regression, with the rule of confident learning (Northcutt, Jiang and
Chuang 2021, "Confident Learning: Estimating Uncertainty in Dataset Labels"): a label counts as confidently predicted
when its probability reaches the mean probability of this label over the rows that have it.
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

MAX_ROWS = 20_000
_MIN_ROWS = 40
_MAX_SHOWN = 30
_N_FOLDS = 4
_MAX_CLASSES = 1_000
# The model has classes x features weights. Many classes get fewer features, so that it trains within a minute.
_MAX_WEIGHTS = 3_000_000
# With fewer distinct texts in a class, the model cannot know it well enough to doubt its rows.
_MIN_TEXTS = 3
_MIN_PROBABILITY = 0.5


@dataclass(frozen=True)
class Suspects:
    """Rows whose label looks wrong."""

    rows: int
    """Number of training rows checked; 0 if nothing could be compared."""
    n_suspects: int
    """Number of rows whose label looks wrong."""
    accuracy: float
    """Accuracy of the simple model on rows it was not trained on: a baseline for the real model."""
    worst: list[dict[str, Any]]
    """{text, label, suggested, probability, label_probability}, most confident first. `probability` is that of the
    suggested label."""
    note: str = ""
    """Why nothing was checked."""


def find_suspects(texts: Sequence[str], labels: Sequence[str], text_groups: np.ndarray) -> Suspects:
    """Return the rows whose label looks wrong, among at most 20,000 rows, sampled by their content.

    `text_groups` has one number per row, equal for equal texts. Rows with the same text and label are in the same fold.
    """
    digests = [hashlib.sha256(f"{text}\0{label}".encode()).digest() for text, label in zip(texts, labels, strict=True)]
    sample = sorted(range(len(texts)), key=digests.__getitem__)[:MAX_ROWS]
    names, target = np.unique([labels[row] for row in sample], return_inverse=True)
    if len(sample) < _MIN_ROWS or len(names) < 2:
        return Suspects(0, 0, 0.0, [], "there are too few training rows")
    if len(names) > _MAX_CLASSES:
        return Suspects(0, 0, 0.0, [], f"there are more than {_MAX_CLASSES:,} classes")
    groups = text_groups[sample]
    probability_BC = out_of_fold_probabilities(
        [texts[row] for row in sample], target, _assign_folds(target, groups), len(names)
    )
    if probability_BC is None:
        return Suspects(0, 0, 0.0, [], "the texts have no words in common")
    rows, suggested = find_doubtful(probability_BC, target, groups)
    of_label = probability_BC[rows, target[rows]]
    of_suggested = probability_BC[rows, suggested]
    worst = [
        {
            "text": texts[sample[rows[index]]],
            "label": str(names[target[rows[index]]]),
            "suggested": str(names[suggested[index]]),
            "probability": float(of_suggested[index]),
            "label_probability": float(of_label[index]),
        }
        for index in np.argsort(of_label - of_suggested, kind="stable")[:_MAX_SHOWN]
    ]
    is_scored = probability_BC.any(axis=1)  # a fold without two classes to learn from has no probabilities
    accuracy = float((probability_BC.argmax(axis=1) == target)[is_scored].mean()) if is_scored.any() else 0.0
    return Suspects(len(sample), len(rows), accuracy, worst)


def _assign_folds(target: np.ndarray, text_groups: np.ndarray) -> np.ndarray:
    """Return the fold of each row: classes are spread evenly, and equal texts of one class stay together.

    The texts of a class are numbered in the order of the rows, which follows their content, so that the order of the
    files does not matter.
    """
    fold = np.zeros(len(target), dtype=np.int64)
    texts_of_class: dict[int, dict[int, int]] = {}
    for row, (label, text) in enumerate(zip(target.tolist(), text_groups.tolist(), strict=True)):
        numbers = texts_of_class.setdefault(label, {})
        fold[row] = (numbers.setdefault(text, len(numbers)) + label) % _N_FOLDS
    return fold


def out_of_fold_probabilities(
    texts: list[str], target: np.ndarray, fold: np.ndarray, n_classes: int
) -> np.ndarray | None:
    """Return float64 probabilities, shape (rows, classes), of each row by a model that was not trained on its fold.

    None if the texts share no words, so that there is nothing to learn from.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression

    n_features = max(1_000, min(30_000, _MAX_WEIGHTS // n_classes))
    vectorizer = TfidfVectorizer(
        ngram_range=(1, 2), min_df=2, sublinear_tf=True, max_features=n_features, dtype=np.float32
    )
    try:
        features = vectorizer.fit_transform(texts)
    except ValueError:  # no word occurs in two texts
        return None
    probability_BC = np.zeros((len(texts), n_classes))
    for number in range(_N_FOLDS):
        held_out = fold == number
        if not held_out.any() or len(np.unique(target[~held_out])) < 2:
            continue
        model = LogisticRegression(C=10.0, max_iter=30, tol=1e-3)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # an approximate optimum is good enough here
            warnings.filterwarnings("ignore", "The number of unique classes", UserWarning)
            model.fit(features[~held_out], target[~held_out])
        probability_BC[np.ix_(held_out, model.classes_)] = model.predict_proba(features[held_out])
    return probability_BC


def find_doubtful(
    probability_BC: np.ndarray, target: np.ndarray, text_groups: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return (rows, suggested classes) of the rows for which the model confidently predicts another class."""
    n_classes = probability_BC.shape[1]
    of_label = probability_BC[np.arange(len(target)), target]
    threshold_C = np.ones(n_classes)
    known_C = np.zeros(n_classes, dtype=bool)
    for label in np.unique(target):
        of_class = target == label
        threshold_C[label] = of_label[of_class].mean()
        known_C[label] = len(np.unique(text_groups[of_class])) >= _MIN_TEXTS
    confident_BC = (probability_BC >= np.maximum(threshold_C, _MIN_PROBABILITY)) & known_C
    suggested = np.where(confident_BC, probability_BC, -1.0).argmax(axis=1)
    rows = np.flatnonzero(confident_BC.any(axis=1) & (suggested != target) & known_C[target])
    return rows, suggested[rows]
