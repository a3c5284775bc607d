"""The check of an engine's answers: noise is not held against it, and a bad engine does not pass for lack of rows."""

from types import SimpleNamespace

import numpy as np
import pytest

from serve.engines.benchmark import Benchmark, Candidate, HeldOut
from serve.engines.guard import judge
from trainer.targets.classes import Classes
from trainer.targets.tags import Tags


def class_scores(answers, confidence=0.9):
    """Return scores for two classes with these answers."""
    scores = np.full((len(answers), 2), 1 - confidence)
    scores[np.arange(len(answers)), answers] = confidence
    return scores


def compare(n_rows, fewer_right, more_right=0, also_changed=0, tolerance=0.3):
    """Judge an engine that is right on other rows than the model itself, which is right on three quarters of the rows.

    `also_changed` rows have three equal classes in truth: the answer changes, but it is wrong before and after.
    """
    targets = np.zeros(n_rows, int)
    own = np.zeros(n_rows, int)
    own[: n_rows // 4] = 1
    engine = own.copy()
    engine[:more_right] = 0
    engine[n_rows - fewer_right :] = 1
    changed = engine != own
    changed[more_right : more_right + also_changed] = True
    return judge(
        class_scores(own),
        class_scores(engine),
        changed,
        lambda scores: float((scores.argmax(1) == targets).mean()),
        name="accuracy",
        higher_is_better=True,
        tolerance=tolerance,
    )


@pytest.mark.parametrize(("n_rows", "fewer", "more"), [(300, 1, 0), (300, 2, 0), (300, 3, 1), (1000, 11, 6)])
def test_a_few_rows_more_wrong_are_noise(n_rows, fewer, more):
    verdict = compare(n_rows, fewer, more)
    assert not verdict.refused and verdict.p_value >= 0.05
    assert verdict.own_metric - verdict.metric > 0.0031
    assert verdict.rows == n_rows and verdict.changed == fewer + more
    assert f"{fewer + more} of {n_rows:,} rows change their answer: its loss may be noise" in verdict.conclusion


@pytest.mark.parametrize(("n_rows", "fewer", "more"), [(300, 6, 0), (300, 12, 2), (1000, 18, 4)])
def test_a_loss_that_is_not_noise_is_refused(n_rows, fewer, more):
    verdict = compare(n_rows, fewer, more)
    assert "the loss is real" in verdict.refused and verdict.p_value < 0.05
    assert verdict.refused.startswith("it loses more than serve.max_metric_drop")


def test_few_rows_do_not_let_a_bad_engine_through():
    # Four of 40 rows more wrong: too few for the test, but one row in ten changed its answer.
    verdict = compare(40, 4)
    assert verdict.p_value > 0.05 and "too many rows change their answer" in verdict.refused
    # As many rows right as before, but a quarter of the answers is another one.
    verdict = compare(40, 5, 5)
    assert verdict.metric == verdict.own_metric and "more than 10% of the rows" in verdict.refused
    assert "more than 10% of the rows" in compare(40, 0, also_changed=6).refused


def test_a_loss_within_the_tolerance_passes_even_if_it_is_real():
    verdict = compare(1000, 30, tolerance=5)
    assert not verdict.refused and verdict.p_value is None and "within serve.max_metric_drop" in verdict.conclusion
    better = compare(300, 0, 5)
    assert not better.refused and better.p_value is None and "it loses nothing" in better.conclusion


def test_a_metric_of_which_less_is_better():
    generator = np.random.default_rng(1)
    targets = generator.normal(size=(400, 1))
    own = targets + generator.normal(size=(400, 1))

    def squared_error(scores):
        return float(((scores - targets) ** 2).mean())

    def verdict(scores):
        changed = np.abs(scores - own).max(1) > 0.5
        return judge(own, scores, changed, squared_error, name="mse", higher_is_better=False, tolerance=0.3)

    noise = verdict(own + generator.normal(size=own.shape) * 0.02)
    assert not noise.refused
    worse = verdict(targets + (own - targets) * 1.05)
    assert "the loss is real" in worse.refused and worse.p_value < 0.01


def test_the_verdict_is_the_same_each_time():
    assert compare(300, 3, 1) == compare(300, 3, 1)


def benchmark_on(target, fitted, targets, own, metric):
    """Return a benchmark whose model has the scores `own` on rows with these targets."""
    benchmark = Benchmark.__new__(Benchmark)
    benchmark.predictor = SimpleNamespace(task=SimpleNamespace(target=target), contract=SimpleNamespace(fitted=fitted))
    benchmark._held_out = HeldOut({}, targets, metric, True, 15)
    benchmark._rows, benchmark._own_scores, benchmark.checked = np.arange(len(targets)), own, list(targets)
    return benchmark


def test_a_metric_that_is_not_defined_for_the_checked_rows_leaves_the_scores_to_be_compared():
    own = class_scores(np.zeros(30, int))
    benchmark = benchmark_on(Classes(), {"labels": ["a", "b"]}, np.zeros(30, int), own, "roc_auc")
    assert benchmark.accept_native(Candidate("native", 1, 1, 1)).metric is None
    same = benchmark.check_scores(Candidate("engine", 1, 1, 1), own + 1e-5, 0.3)
    assert not same.refused and "up to rounding" in same.conclusion
    other = benchmark.check_scores(Candidate("engine", 1, 1, 1), own[:, ::-1], 0.3)
    assert "roc_auc is not defined for the 30 held-out rows" in other.refused


def test_another_order_of_the_same_tags_is_not_another_answer():
    targets = np.ones((30, 2), np.uint8)
    own = np.tile([0.8, 0.79], (30, 1))
    benchmark = benchmark_on(Tags(), {"labels": ["a", "b"]}, targets, own, "micro_f1")
    assert benchmark.check_scores(Candidate("engine", 1, 1, 1), own[:, ::-1], 0.3).changed == 0
