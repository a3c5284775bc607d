"""The gate says how sure it is on few rows, compares both models in one way, and decides as it would without the note."""

import numpy as np
import pytest
from scipy.stats import binomtest

from cluster.errors import ModelError
from cluster.files import write_json
from trainer.inference import significance
from trainer.inference.evaluate import LabeledRows, check_finite_scores
from trainer.inference.significance import metric_range, paired_p_value
from trainer.pipeline.messages import describe_classes_without_rows
from trainer.registry.certainty import FEW_ROWS, ComparedScores, add_certainty
from trainer.registry.gate import decide_promotion
from trainer.registry.register import _stored_metrics
from trainer.registry.registry import METRICS_FILE, Version
from trainer.spec.evaluate import METRICS_VERSION
from trainer.targets.classes import Classes
from trainer.targets.numbers import Numbers
from trainer.targets.tags import Tags
from trainer.tasks.load_spec import load_spec


def spec_of(metric="accuracy", task="text-classification", **promote):
    data = {"train": "t.csv"}
    return load_spec(
        {
            "name": "a",
            "task": task,
            "data": data,
            "model": {"base": "b"},
            "promote": promote,
            "evaluate": {"metric": metric},
        }
    )


def class_scores(answers, n_classes=3):
    scores = np.full((len(answers), n_classes), 0.05)
    scores[np.arange(len(answers)), answers] = 0.9
    return scores


def answers_with(targets, wrong):
    answers = targets.copy()
    answers[wrong] = (answers[wrong] + 1) % 3
    return class_scores(answers)


def decide(spec, target, targets, candidate, champion):
    bins = spec.evaluate.calibration_bins
    metrics = [None if scores is None else target.metrics(scores, targets, bins) for scores in (candidate, champion)]
    plain = decide_promotion(spec, *metrics, "a@1")
    decision = add_certainty(plain, target, spec.evaluate, ComparedScores(targets, candidate, champion))
    assert (decision.promoted, decision.reason) == (plain.promoted, plain.reason)
    assert decision.evidence.get("note", "") == decision.note
    return decision


@pytest.mark.parametrize(("only_first", "only_second"), [(3, 1), (9, 2), (12, 0), (6, 6), (1, 0)])
def test_for_accuracy_the_paired_test_is_mcnemars_exact_test(only_first, only_second):
    targets = np.arange(200) % 3
    first = answers_with(targets, np.arange(only_second))
    second = answers_with(targets, np.arange(50, 50 + only_first))

    def accuracy(scores):
        return float((scores.argmax(1) == targets).mean())

    p_value = paired_p_value(first, second, accuracy, higher_is_better=True)
    exact = binomtest(only_first, only_first + only_second, 0.5, alternative="greater").pvalue
    assert p_value == pytest.approx(exact, rel=0.35, abs=0.01)
    assert p_value == paired_p_value(first, second, accuracy, higher_is_better=True)
    in_errors = paired_p_value(first, second, lambda scores: 1 - accuracy(scores), higher_is_better=False)
    assert in_errors == p_value


def test_the_range_of_an_accuracy_is_that_of_a_share():
    right = np.arange(100) < 80
    low, high = metric_range(right, lambda values, rows: float(values.mean()))
    assert (low, high) == pytest.approx((0.8 - 1.96 * 0.04, 0.8 + 1.96 * 0.04), abs=0.02)
    assert metric_range(right, lambda values, rows: None) is None


TARGETS = np.arange(90) % 3


@pytest.mark.parametrize(
    ("candidate_wrong", "champion_wrong", "leader", "conclusion"),
    [
        (8, 10, "the candidate would", "the lead may be chance"),
        (0, 30, "the candidate would", "the lead is probably real"),
        (12, 10, "a@1 would", "the lead may be chance"),
        (30, 0, "a@1 would", "the lead is probably real"),
    ],
)
def test_two_models_on_few_rows(candidate_wrong, champion_wrong, leader, conclusion):
    candidate = answers_with(TARGETS, np.arange(candidate_wrong))
    champion = answers_with(TARGETS, np.arange(89, 89 - champion_wrong, -1))
    decision = decide(spec_of(), Classes(), TARGETS, candidate, champion)
    assert decision.promoted is (candidate_wrong < champion_wrong)
    assert decision.note.startswith("There are only 90 held-out rows") and leader in decision.note
    assert conclusion in decision.note
    assert (decision.evidence["p_value"] < 0.05) is ("real" in conclusion) and decision.evidence["rows"] == 90
    loss = decide(spec_of("log_loss"), Classes(), TARGETS, candidate, champion)
    assert loss.promoted is decision.promoted and leader in loss.note


def test_equal_models_and_many_rows():
    scores = answers_with(TARGETS, np.arange(9))
    decision = decide(spec_of(), Classes(), TARGETS, scores, scores)
    assert "both models are equally good" in decision.note and decision.evidence["p_value"] == 1.0
    many = np.arange(FEW_ROWS) % 3
    decision = decide(spec_of(), Classes(), many, class_scores(many), answers_with(many, np.arange(9)))
    assert decision.promoted and not decision.note and decision.evidence["rows"] == FEW_ROWS


@pytest.mark.parametrize("promote", [{}, {"min_value": 0.95}])
def test_one_model_gets_the_range_of_its_metric(promote):
    candidate = answers_with(TARGETS, np.arange(9))
    champion = answers_with(TARGETS, np.arange(20)) if promote else None
    decision = decide(spec_of(**promote), Classes(), TARGETS, candidate, champion)
    low, high = decision.evidence["range_95"]
    assert decision.promoted is not bool(promote) and 0.8 < low < 0.9 < high <= 1.0
    assert f"accuracy is between {low:.4f} and {high:.4f}" in decision.note


def test_nothing_is_said_about_a_decision_without_a_comparison():
    one_class = np.zeros(30, int)
    decision = decide(spec_of("roc_auc"), Classes(), one_class, class_scores(one_class), class_scores(one_class))
    assert "cannot be computed" in decision.reason and not decision.note
    assert not decide(spec_of(enabled=False), Classes(), TARGETS, class_scores(TARGETS), None).note


def test_every_target_and_metric_has_a_note(monkeypatch):
    monkeypatch.setattr(significance, "_SWAPS", 30)
    monkeypatch.setattr(significance, "_SAMPLES", 30)
    rng = np.random.default_rng(0)
    tags = (rng.random((40, 4)) < 0.4).astype(np.uint8)
    numbers = rng.normal(size=40)
    cases = [
        ("text-classification", Classes(), TARGETS, lambda: Classes().scores({}, rng.normal(size=(90, 3)))),
        ("text-multi-label", Tags(), tags, lambda: rng.random((40, 4))),
        ("text-regression", Numbers(), numbers, lambda: rng.normal(size=(40, 1))),
    ]
    for task, target, targets, make in cases:
        for metric in target.metric_names:
            note = decide(spec_of(metric, task), target, targets, make(), make()).note
            assert "paired test" in note or "equally good on them" in note
            assert "bootstrap" in decide(spec_of(metric, task), target, targets, make(), None).note


def test_a_champion_that_answers_with_a_class_of_its_own_is_wrong_there():
    target, ours, theirs = Classes(), {"labels": ["a", "b"]}, {"labels": ["a", "b", "c"]}
    scores = np.array([[0.2, 0.1, 0.7], [0.1, 0.8, 0.1]])
    aligned = target.align_scores(scores, theirs, ours)
    targets = np.array([0, 1])
    assert aligned[:, :2].tolist() == scores[:, :2].tolist()
    assert target.metrics(aligned, targets, 15)["accuracy"] == 0.5
    assert target.align_scores(scores[:, :2], ours, theirs)[:, 2].tolist() == [0.0, 0.0]
    same = decide(spec_of(), target, targets, scores[:, :2], aligned)
    assert same.promoted and "paired test" in same.note


def test_stored_metrics_are_compared_only_if_they_mean_the_same_on_the_same_rows(tmp_path):
    version, rows = Version("a", 1, tmp_path), LabeledRows({}, [], "digest of the rows")
    spec = spec_of().evaluate
    stored = {
        "rows": 5,
        "rows_digest": rows.digest,
        "metrics_version": METRICS_VERSION,
        "calibration_bins": spec.calibration_bins,
        "accuracy": 0.5,
    }

    def read(**changes):
        write_json(tmp_path / METRICS_FILE, {"test": {**stored, **changes}})
        return _stored_metrics(version, rows, spec)

    assert read() == {"accuracy": 0.5}
    assert read(rows_digest="of others") is None and read(calibration_bins=3) is None
    assert read(metrics_version=METRICS_VERSION - 1) is None
    write_json(
        tmp_path / METRICS_FILE, {"test": {"rows_digest": rows.digest, "accuracy": 0.5}}
    )  # of an earlier raymill
    assert _stored_metrics(version, rows, spec) is None


def test_scores_that_are_not_finite_name_the_row():
    scores = np.ones((4, 2))
    check_finite_scores(scores, "a@1")
    scores[2, 1], scores[3, 0] = np.nan, np.inf
    with pytest.raises(ModelError, match="a@1 computes scores that are not finite for 2 of 4 rows; the first is row 3"):
        check_finite_scores(scores, "a@1")


def test_classes_without_rows_are_named_after_preparation():
    summary = {
        "rows": {"train": 6, "validation": 2, "test": 1},
        "rows_by_class": {"a": [2, 1, 1], "b": [2, 1, 0], "c": [2, 0, 0]},
    }
    assert describe_classes_without_rows(summary) == (
        "classes without rows: 1 in validation, 2 in test (of 3); macro metrics leave them out"
    )
    folds = {**summary, "rows": {"train": 6, "validation": 0, "test": 0}}
    assert describe_classes_without_rows(folds) == ""
    assert describe_classes_without_rows({"rows": summary["rows"], "rows_by_class": {}}) == ""
