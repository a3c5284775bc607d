"""Training rows whose label looks wrong: a simple model that has not seen the row confidently says another one.

Out-of-fold probabilities of a TF-IDF + logistic regression, and the rule of confident learning (Northcutt, Jiang and
Chuang 2021, "Confident Learning: Estimating Uncertainty in Dataset Labels"): a label counts as confidently predicted
when its probability reaches the mean that rows of this label get themselves.
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

ROWS = 20_000
_SHOWN = 30
_FOLDS = 4
_MOST_CLASSES = 1_000
# The model has classes x features weights: many classes get fewer features, so that the time stays within a minute.
_MOST_WEIGHTS = 3_000_000
# Of a class with fewer different texts the model cannot know enough to doubt a row.
_FEWEST_TEXTS = 3
_LEAST_PROBABILITY = 0.5


@dataclass(frozen=True)
class Suspects:
    """Rows whose label looks wrong."""

    rows: int
    """Training rows that were looked at; 0 if there was nothing to compare."""
    found: int
    """How many look wrong."""
    accuracy: float
    """Share of the rows whose label the simple model says, not having seen them: a baseline for the real one."""
    worst: list[dict[str, Any]]
    """{text, label, suggested, probability, given}: the surest first; `given` is the probability of the given label."""
    note: str = ""
    """Why nothing was looked at."""


def find(texts: Sequence[str], labels: Sequence[str], same_text: np.ndarray) -> Suspects:
    """Return the rows whose label looks wrong, among at most 20,000 that are chosen by their content.

    `same_text` numbers the rows by text: rows with equal numbers are never in training and held out at once.
    """
    digests = [hashlib.sha256(f"{text}\0{label}".encode()).digest() for text, label in zip(texts, labels, strict=True)]
    chosen = sorted(range(len(texts)), key=digests.__getitem__)[:ROWS]
    names, target = np.unique([labels[at] for at in chosen], return_inverse=True)
    if len(chosen) < 40 or len(names) < 2:
        return Suspects(0, 0, 0.0, [], "too few training rows")
    if len(names) > _MOST_CLASSES:
        return Suspects(0, 0, 0.0, [], f"more than {_MOST_CLASSES:,} classes")
    fold = _folds(target, same_text[chosen])
    probability_BC = out_of_fold([texts[at] for at in chosen], target, fold, len(names))
    if probability_BC is None:
        return Suspects(0, 0, 0.0, [], "the texts have no words in common")
    best = probability_BC.argmax(axis=1)
    rows, suggested = doubtful(probability_BC, target, same_text[chosen])
    own = probability_BC[rows, target[rows]]
    their = probability_BC[rows, suggested]
    worst = [
        {
            "text": texts[chosen[rows[at]]],
            "label": str(names[target[rows[at]]]),
            "suggested": str(names[suggested[at]]),
            "probability": float(their[at]),
            "given": float(own[at]),
        }
        for at in np.argsort(own - their, kind="stable")[:_SHOWN]
    ]
    return Suspects(len(chosen), len(rows), float((best == target).mean()), worst)


def _folds(target: np.ndarray, same_text: np.ndarray) -> np.ndarray:
    """Return the fold of each row: classes are spread evenly, and equal texts of one class stay together.

    The texts of a class are counted as they come, which is by content, so that the order of the files does not matter.
    """
    fold = np.zeros(len(target), dtype=np.int64)
    texts_of: dict[int, dict[int, int]] = {}
    for row, (label, text) in enumerate(zip(target.tolist(), same_text.tolist(), strict=True)):
        numbers = texts_of.setdefault(label, {})
        fold[row] = (numbers.setdefault(text, len(numbers)) + label) % _FOLDS
    return fold


def out_of_fold(texts: list[str], target: np.ndarray, fold: np.ndarray, n_classes: int) -> np.ndarray | None:
    """Return float64 probabilities, shape (rows, classes), each row's by a model that was not trained on its fold.

    None where the texts share no words, so that there is nothing to learn from.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression

    most = max(1_000, min(30_000, _MOST_WEIGHTS // n_classes))
    vectorizer = TfidfVectorizer(ngram_range=(1, 2), min_df=2, sublinear_tf=True, max_features=most, dtype=np.float32)
    try:
        features = vectorizer.fit_transform(texts)
    except ValueError:  # no word stands in two texts
        return None
    found = np.zeros((len(texts), n_classes))
    for number in range(_FOLDS):
        held_out = fold == number
        if not held_out.any() or len(np.unique(target[~held_out])) < 2:
            continue
        model = LogisticRegression(C=10.0, max_iter=30, tol=1e-3)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # near the optimum is near enough here
            warnings.filterwarnings("ignore", "The number of unique classes", UserWarning)
            model.fit(features[~held_out], target[~held_out])
        found[np.ix_(held_out, model.classes_)] = model.predict_proba(features[held_out])
    return found


def doubtful(probability_BC: np.ndarray, target: np.ndarray, same_text: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return (rows, suggested classes) where another class than the given one is confidently predicted."""
    n_classes = probability_BC.shape[1]
    own = probability_BC[np.arange(len(target)), target]
    threshold_C = np.ones(n_classes)
    known_C = np.zeros(n_classes, dtype=bool)
    for label in np.unique(target):
        mine = target == label
        threshold_C[label] = own[mine].mean()
        known_C[label] = len(np.unique(same_text[mine])) >= _FEWEST_TEXTS
    confident_BC = (probability_BC >= np.maximum(threshold_C, _LEAST_PROBABILITY)) & known_C
    suggested = np.where(confident_BC, probability_BC, -1.0).argmax(axis=1)
    chosen = confident_BC.any(axis=1) & (suggested != target) & known_C[target]
    rows = np.flatnonzero(chosen)
    return rows, suggested[rows]
