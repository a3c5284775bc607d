"""Figures against values worked out by hand or by scikit-learn's own functions."""

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, average_precision_score, f1_score, log_loss, roc_auc_score

from trainer.targets.metrics import classification as figures

RNG = np.random.default_rng(0)
SCORES = RNG.dirichlet(np.ones(4), size=300)
TARGETS = RNG.integers(0, 4, size=300)


def test_single_figures_agree_with_scikit_learn():
    found = figures.classification_metrics(SCORES, TARGETS, 15)
    predicted = SCORES.argmax(axis=1)
    assert found["accuracy"] == pytest.approx(accuracy_score(TARGETS, predicted))
    assert found["macro_f1"] == pytest.approx(f1_score(TARGETS, predicted, average="macro"))
    assert found["weighted_f1"] == pytest.approx(f1_score(TARGETS, predicted, average="weighted"))
    assert found["log_loss"] == pytest.approx(log_loss(TARGETS, SCORES))
    assert found["roc_auc"] == pytest.approx(roc_auc_score(TARGETS, SCORES, multi_class="ovr"))
    of_classes = [average_precision_score(label == TARGETS, SCORES[:, label]) for label in range(4)]
    assert found["pr_auc"] == pytest.approx(np.mean(of_classes))


def test_calibration_by_hand():
    scores = np.array([[0.9, 0.1], [0.9, 0.1], [0.6, 0.4], [0.6, 0.4]])
    found = figures.calibration(scores, np.array([0, 1, 0, 0]), n_bins=10)
    assert found["error"] == pytest.approx(0.5 * abs(0.9 - 0.5) + 0.5 * abs(0.6 - 1.0))
    assert [entry["rows"] for entry in found["bins"]] == [2, 2]


def test_confusion_rows_are_the_truth():
    scores = np.array([[0.9, 0.1, 0], [0.2, 0.8, 0], [0.7, 0.3, 0]])
    assert figures.confusion(scores, np.array([0, 0, 2])).tolist() == [[1, 1, 0], [0, 0, 0], [1, 0, 0]]


def test_one_class_present_has_no_roc_auc_and_nothing_is_nan():
    found = figures.classification_metrics(SCORES[:5], np.zeros(5, int), 15)
    assert "roc_auc" not in found
    assert np.isfinite(list(found.values())).all()


def test_by_class_names_every_class():
    rows = figures.by_class(SCORES, np.minimum(TARGETS, 2), ["a", "b", "c", "d"])
    assert [row["label"] for row in rows] == ["a", "b", "c", "d"]
    assert sum(row["rows"] for row in rows) == 300 and rows[3]["rows"] == 0
