"""Every metric of every target against scikit-learn and scipy, on random rows of many kinds, and what all metrics obey.

Where a metric differs from scikit-learn's default, the reference below passes the arguments that make them equal;
docs/reference/model-metrics.md lists the differences.
"""

import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import pearsonr, spearmanr
from sklearn import metrics as sk
from sklearn.calibration import calibration_curve

from trainer.targets.classes import Classes
from trainer.targets.numbers import Numbers
from trainer.targets.tags import Tags

BINS = 15
TARGETS = {"class": Classes(), "tags": Tags(), "number": Numbers()}
#: How scores relate to the truth.
STYLES = ("random", "good", "ties", "certain", "constant", "wrong")
CASES = st.tuples(
    st.integers(0, 10**6),  # seed
    st.integers(1, 40),  # rows
    st.integers(2, 7),  # classes or tags
    st.integers(1, 7),  # of which so many have rows, at most
    st.sampled_from(STYLES),
)


def class_case(seed, n_rows, n_classes, n_present, style):
    """Return scores (B, C) and ids (B,)."""
    rng = np.random.default_rng(seed)
    present = rng.permutation(n_classes)[:n_present]
    targets = rng.choice(present, n_rows).astype(np.int32)
    logits = rng.normal(size=(n_rows, n_classes))
    right = np.eye(n_classes)[targets]
    logits = {
        "random": logits,
        "good": logits + 2 * right,
        "ties": logits.round() + right,
        "certain": 800 * logits.round(),
        "constant": np.zeros_like(logits),
        "wrong": logits - 50 * right,
    }[style]
    return TARGETS["class"].scores({}, logits), targets


def tags_case(seed, n_rows, n_tags, n_present, style):
    """Return scores (B, C) and 0/1 targets (B, C); sometimes all rows have a tag, and sometimes no row has any."""
    rng = np.random.default_rng(seed)
    has_tag = rng.permutation(n_tags) < n_present - 1
    targets = ((rng.random((n_rows, n_tags)) < rng.choice([0.3, 1.0])) & has_tag).astype(np.uint8)
    logits = rng.normal(size=targets.shape)
    right = 2.0 * targets - 1
    logits = {
        "random": logits,
        "good": logits + right,
        "ties": logits.round(),
        "certain": 800 * logits.round(),
        "constant": np.full_like(logits, -1.0),
        "wrong": logits - 50 * right,
    }[style]
    return TARGETS["tags"].scores({}, logits), targets


def number_case(seed, n_rows, n_values, n_present, style):
    """Return predictions (B, 1) and numbers (B,) of very different sizes; all are equal if `n_present` is 1."""
    rng = np.random.default_rng(seed)
    scale, offset = rng.choice([1e-120, 1e-3, 1.0, 1e9, 1e120]), rng.choice([0.0, 100.0])
    targets = rng.choice(rng.normal(size=n_values)[:n_present], n_rows) + offset
    predictions = {
        "random": rng.normal(size=n_rows) + offset,
        "good": targets + 0.1 * rng.normal(size=n_rows),
        "ties": targets.round(),
        "certain": targets,
        "constant": np.full(n_rows, offset + 1.0),
        "wrong": offset - targets,
    }[style]
    return scale * predictions[:, None], scale * targets


MAKE = {"class": class_case, "tags": tags_case, "number": number_case}


def class_reference(scores, targets):
    predicted, rows, (_, n_classes) = scores.argmax(1), np.arange(len(targets)), scores.shape
    present = np.unique(targets)
    over_present = {"labels": present, "average": "macro", "zero_division": 0}
    right, confidence = predicted == targets, scores.max(1)
    shares, means = calibration_curve(right, confidence, n_bins=BINS)
    n_in_bin = np.bincount(np.searchsorted(np.linspace(0, 1, BINS + 1)[1:-1], confidence), minlength=BINS)
    expected = {
        "accuracy": sk.accuracy_score(targets, predicted),
        "macro_f1": sk.f1_score(targets, predicted, **over_present),
        "weighted_f1": sk.f1_score(targets, predicted, average="weighted", zero_division=0),
        "macro_precision": sk.precision_score(targets, predicted, **over_present),
        "macro_recall": sk.recall_score(targets, predicted, **over_present),
        "log_loss": sk.log_loss(np.eye(n_classes)[targets], scores),
        "calibration_error": (np.abs(shares - means) * n_in_bin[n_in_bin > 0]).sum() / len(rows),
    }
    assert expected["macro_recall"] == pytest.approx(sk.balanced_accuracy_score(targets, predicted))
    if len(present) > 1:
        columns = [(targets == label, scores[:, label]) for label in present]
        expected["roc_auc"] = np.mean([sk.roc_auc_score(*column) for column in columns])
        expected["pr_auc"] = np.mean([sk.average_precision_score(*column) for column in columns])
    if len(present) < n_classes:
        expected["classes_without_rows"] = n_classes - len(present)
    return expected


def tags_reference(scores, targets):
    predicted, n_tags = scores >= 0.5, targets.shape[1]
    has_rows, has_both = targets.any(0), targets.any(0) & ~targets.all(0)
    expected = {
        "exact_match": sk.accuracy_score(targets, predicted),
        "log_loss": np.mean(
            [
                sk.log_loss(np.eye(2)[column], np.stack([1 - score, score], 1))
                for column, score in zip(targets.T, scores.T, strict=True)
            ]
        ),
    }
    if has_rows.any():
        present = {"labels": np.flatnonzero(has_rows), "zero_division": 0}
        expected["micro_f1"] = sk.f1_score(targets, predicted, average="micro")
        expected["weighted_f1"] = sk.f1_score(targets, predicted, average="weighted", zero_division=0)
        for name, score in (("f1", sk.f1_score), ("precision", sk.precision_score), ("recall", sk.recall_score)):
            expected[f"macro_{name}"] = score(targets, predicted, average="macro", **present)
    if has_both.any():
        columns = targets[:, has_both], scores[:, has_both]
        expected["roc_auc"] = sk.roc_auc_score(*columns, average="macro")
        expected["pr_auc"] = sk.average_precision_score(*columns, average="macro")
    if not has_rows.all():
        expected["tags_without_rows"] = n_tags - has_rows.sum()
    return expected


def number_reference(scores, targets):
    predicted = scores[:, 0]
    expected = {
        "rmse": sk.root_mean_squared_error(targets, predicted),
        "mae": sk.mean_absolute_error(targets, predicted),
        "mse": sk.mean_squared_error(targets, predicted),
    }
    if np.ptp(targets) > 0:
        unit = np.abs(targets).max()  # scikit-learn and scipy square the numbers as they are
        expected["r2"] = sk.r2_score(targets / unit, predicted / unit)
        constant = np.ptp(predicted) == 0
        expected["pearson"] = 0.0 if constant else pearsonr(targets / unit, predicted / unit).statistic
        expected["spearman"] = 0.0 if constant else spearmanr(targets, predicted).statistic
    return expected


REFERENCE = {"class": class_reference, "tags": tags_reference, "number": number_reference}
KINDS = pytest.mark.parametrize("kind", sorted(TARGETS))


@pytest.mark.slow
@KINDS
@settings(deadline=None, max_examples=60)
@given(case=CASES)
def test_metrics_agree_with_scikit_learn(kind, case):
    scores, targets = MAKE[kind](*case)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # scikit-learn warns of what the reference deals with
        expected = REFERENCE[kind](scores, targets)
    metrics = TARGETS[kind].metrics(scores, targets, BINS)
    assert metrics == {name: pytest.approx(value, rel=1e-6, abs=1e-9) for name, value in expected.items()}
    assert set(metrics) <= {*TARGETS[kind].metric_names, "classes_without_rows", "tags_without_rows"}
    assert np.isfinite(list(metrics.values())).all()


@KINDS
@settings(deadline=None, max_examples=40)
@given(case=CASES, styles=st.tuples(st.sampled_from(STYLES), st.sampled_from(STYLES)))
def test_the_rows_alone_decide_what_is_defined(kind, case, styles):
    (scores, targets), (others, same_targets) = (MAKE[kind](*case[:-1], style) for style in styles)
    assert (targets == same_targets).all()
    metrics = TARGETS[kind].metrics(scores, targets, BINS)
    assert metrics.keys() == TARGETS[kind].metrics(others, targets, BINS).keys()
    for name in (*TARGETS[kind].metric_names, "unknown"):
        assert TARGETS[kind].metric(name, scores, targets, BINS) == metrics.get(name)


@KINDS
@settings(deadline=None, max_examples=30)
@given(case=CASES, copies=st.integers(2, 4), seed=st.integers(0, 99))
def test_neither_order_nor_copies_of_all_rows_change_a_metric(kind, case, copies, seed):
    scores, targets = MAKE[kind](*case)
    rows = np.random.default_rng(seed).permutation(np.repeat(np.arange(len(targets)), copies))
    again = TARGETS[kind].metrics(scores[rows], targets[rows], BINS)
    expected = TARGETS[kind].metrics(scores, targets, BINS)
    assert again == {name: pytest.approx(value, rel=1e-6, abs=1e-9) for name, value in expected.items()}


@pytest.mark.parametrize("kind", ["class", "tags"])
@settings(deadline=None, max_examples=30)
@given(case=CASES)
def test_a_label_that_no_row_has_and_no_model_predicts_changes_nothing(kind, case):
    scores, targets = MAKE[kind](*case)
    wider = np.pad(scores, ((0, 0), (0, 1)))
    wider_targets = np.pad(targets, ((0, 0), (0, 1))) if kind == "tags" else targets
    metrics, again = TARGETS[kind].metrics(scores, targets, BINS), TARGETS[kind].metrics(wider, wider_targets, BINS)
    averaged = [name for name in metrics if "without_rows" not in name and (kind == "class" or name != "log_loss")]
    assert {name: again[name] for name in averaged} == {name: pytest.approx(metrics[name]) for name in averaged}


@KINDS
def test_without_rows_nothing_is_defined(kind):
    scores, targets = MAKE[kind](0, 3, 4, 3, "random")
    assert TARGETS[kind].metrics(scores[:0], targets[:0], BINS) == {}


@KINDS
@settings(deadline=None, max_examples=30)
@given(seed=st.integers(0, 10**6), n_rows=st.integers(1, 30), batch=st.integers(1, 8))
def test_the_mean_loss_does_not_depend_on_the_batches(kind, seed, n_rows, batch):
    rng = np.random.default_rng(seed)
    fitted = {"labels": ["a", "b", "c"], "target": {"mean": 3.0, "std": 2.0}}
    target, width = TARGETS[kind], 1 if kind == "number" else 3
    logits = rng.normal(size=(n_rows, width)).astype(np.float32)
    targets = {
        "class": rng.integers(0, 3, n_rows).astype(np.int32),
        "tags": rng.integers(0, 2, (n_rows, 3)).astype(np.uint8),
        "number": rng.normal(3, 2, n_rows),
    }[kind]
    # The last batch is shorter: every row weighs the same.
    total = sum(
        float(
            target.loss_sum(
                torch.from_numpy(logits[start : start + batch]), target.tensor(fitted, targets[start : start + batch])
            )
        )
        for start in range(0, n_rows, batch)
    )
    metrics = target.metrics(target.scores(fitted, logits), targets, BINS)
    assert target.scale_loss(fitted, total / n_rows) == pytest.approx(metrics[target.loss_metric], rel=1e-4, abs=1e-6)
