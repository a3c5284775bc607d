"""Metrics of classes against values by hand or by scikit-learn."""

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, average_precision_score, f1_score, log_loss, roc_auc_score

from cluster.errors import DataError, UserError
from trainer.targets.metrics import classification
from trainer.targets.metrics.calibration import calibration
from trainer.targets.sections.by_label import by_label_section
from trainer.tasks.load_spec import load_spec
from trainer.training.checkpoint.best_model import BestTracker, check_finite_scores
from trainer.training.estimator_loop import _mean

RNG = np.random.default_rng(0)
SCORES = RNG.dirichlet(np.ones(4), size=300)
TARGETS = RNG.integers(0, 4, size=300)


def test_metrics_agree_with_scikit_learn():
    metrics = classification.classification_metrics(SCORES, TARGETS, 15)
    predicted = SCORES.argmax(axis=1)
    assert metrics["accuracy"] == pytest.approx(accuracy_score(TARGETS, predicted))
    assert metrics["macro_f1"] == pytest.approx(f1_score(TARGETS, predicted, average="macro"))
    assert metrics["weighted_f1"] == pytest.approx(f1_score(TARGETS, predicted, average="weighted"))
    assert metrics["log_loss"] == pytest.approx(log_loss(TARGETS, SCORES))
    assert metrics["roc_auc"] == pytest.approx(roc_auc_score(TARGETS, SCORES, multi_class="ovr"))
    by_class = [average_precision_score(label == TARGETS, SCORES[:, label]) for label in range(4)]
    assert metrics["pr_auc"] == pytest.approx(np.mean(by_class))


def test_calibration_by_hand():
    scores = np.array([[0.9, 0.1], [0.9, 0.1], [0.6, 0.4], [0.6, 0.4]])
    calibrated = calibration(scores, np.array([0, 1, 0, 0]), n_bins=10)
    assert calibrated["error"] == pytest.approx(0.5 * abs(0.9 - 0.5) + 0.5 * abs(0.6 - 1.0))
    assert [entry["rows"] for entry in calibrated["bins"]] == [2, 2]


def test_confusion_rows_are_the_truth():
    scores = np.array([[0.9, 0.1, 0], [0.2, 0.8, 0], [0.7, 0.3, 0]])
    assert classification.confusion_matrix(scores, np.array([0, 0, 2])).tolist() == [[1, 1, 0], [0, 0, 0], [1, 0, 0]]


def test_one_class_present_has_no_roc_auc_and_nothing_is_nan():
    metrics = classification.classification_metrics(SCORES[:5], np.zeros(5, int), 15)
    assert "roc_auc" not in metrics
    assert np.isfinite(list(metrics.values())).all()


def test_by_class_names_every_class():
    rows = classification.metrics_by_class(SCORES, np.minimum(TARGETS, 2), ["a", "b", "c", "d"])
    assert [row["label"] for row in rows] == ["a", "b", "c", "d"]
    assert sum(row["rows"] for row in rows) == 300 and rows[3]["rows"] == 0
    assert rows[3]["recall"] is rows[3]["f1"] is None and rows[3]["precision"] == 0.0 and rows[3]["predicted"] > 0
    section = by_label_section("class", rows)
    assert section.rows[-1][:4] == ["d", "0.000", "", ""] and "1 of 4 classes have no rows" in section.note


def test_macro_averages_cover_the_classes_with_rows_whatever_is_predicted():
    # 150 classes, of which 50 have rows. One model is wrong with classes that have rows, the other with classes that
    # have none: they are as often right, and no class counts for one of them only.
    targets = np.repeat(np.arange(50), 6)
    wrong = np.arange(300) % 6 == 0
    figures = []
    for answer_when_wrong in ((targets + 1) % 50, targets + 100):
        scores = np.full((300, 150), 1e-3)
        scores[np.arange(300), np.where(wrong, answer_when_wrong, targets)] = 0.9
        figures.append(classification.classification_metrics(scores, targets, 15))
    assert [metrics["accuracy"] for metrics in figures] == [pytest.approx(5 / 6)] * 2
    assert [metrics["macro_recall"] for metrics in figures] == [pytest.approx(5 / 6)] * 2
    assert figures[1]["macro_f1"] == pytest.approx(10 / 11) and figures[0]["macro_f1"] == pytest.approx(5 / 6)
    assert [metrics["classes_without_rows"] for metrics in figures] == [100, 100]


def test_scores_or_a_metric_that_are_not_finite_end_a_training():
    check_finite_scores(SCORES, 1)
    with pytest.raises(UserError, match="scores of 1 of 2 validation rows are not finite in epoch 3"):
        check_finite_scores(np.array([[0.5, 0.5], [np.nan, 0.5]]), 3)
    spec = load_spec({"name": "a", "data": {"train": "t.csv"}, "model": {"base": "b"}})
    tracker = BestTracker(spec)
    assert tracker.record({"macro_f1": 0.5}) and not tracker.record({"macro_f1": 0.5})
    with pytest.raises(UserError, match="macro_f1 is nan"):
        tracker.record({"macro_f1": float("nan")})
    with pytest.raises(UserError, match="macro_f1 cannot be computed"):
        tracker.record({})


def test_means_over_folds_leave_out_folds_without_rows_and_count_classes_without_rows():
    folds = [{"accuracy": 0.5, "classes_without_rows": 2}, {}, {"accuracy": 0.9, "roc_auc": 0.8}]
    means = _mean(folds, "accuracy")
    assert means == {
        "accuracy": pytest.approx(0.7),
        "accuracy_std": pytest.approx(0.2),
        "classes_without_rows": 1.0,
        "roc_auc": 0.8,
    }
    with pytest.raises(DataError, match="no validation row can be used"):
        _mean([{}, {}], "accuracy")
