"""The target numbers: reading, exact fitting, metrics against scikit-learn, answers."""

import json

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import pearsonr, spearmanr
from sklearn.metrics import mean_absolute_error, r2_score

from cluster.errors import DataError, SpecError
from trainer.targets.numbers import Numbers
from trainer.targets.report import ScoredRows, prediction_sections

TARGET = Numbers()
FINITE = st.floats(-1e12, 1e12, allow_subnormal=False)


def column(*chunks):
    return pa.chunked_array([pa.array(chunk, pa.string()) for chunk in chunks], pa.string())


def add_up(tallies):
    """Return the sum of tallies as the driver makes it, after a round trip through JSON, as in block statistics."""
    total = {}
    for tally in tallies:
        for key, count in json.loads(json.dumps(tally)).items():
            total[key] = total.get(key, 0) + count
    return total


def fitted_to(values):
    return TARGET.fit("value", TARGET.tally(column([repr(float(value)) for value in values])), None)


@pytest.mark.parametrize(
    ("cell", "reason"),
    [
        ("3", None),
        (" 3.5 ", None),
        ("-1e3", None),
        (None, None),
        ("3,5", "value '3,5' is not a number; the decimal sign is a point"),
        ("nan", "value 'nan' is not a number"),
        ("inf", "value 'inf' is infinite"),
        ("1e999", "value '1e999' is infinite"),
        ("x" * 90, f"value '{'x' * 40}...' is not a number"),
    ],
)
def test_what_is_a_number(cell, reason):
    (result,) = TARGET.check("value", column(["1"], [cell]))
    assert result.to_pylist() == [None, reason]
    assert TARGET.encode({}, pa.array([cell], pa.string())).null_count == (reason is not None or cell is None)


@pytest.mark.slow
@settings(deadline=None, max_examples=60)
@given(st.lists(FINITE, min_size=2, max_size=40), st.randoms(use_true_random=False), st.integers(0, 40))
def test_no_order_and_no_cut_into_blocks_changes_what_is_fitted(values, random, cut):
    texts = [repr(value) for value in values]
    total_at_once = TARGET.tally(column(texts))
    random.shuffle(texts)
    parts = [texts[:cut], texts[cut:]]
    random.shuffle(parts)
    assert add_up(TARGET.tally(column(part)) for part in parts) == total_at_once


def test_fitted_are_mean_and_standard_deviation_of_the_training_rows():
    values = np.random.default_rng(0).normal(1e9, 2.0, 1000)
    assert fitted_to(values)["target"] == pytest.approx({"mean": values.mean(), "std": values.std()}, rel=1e-9)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (["7", "7.0"], "value of all 2 training rows is 7"),
        ([], "no training row"),
        (["1e300", "-1e300"], "which float64 cannot square"),
        (["0", "1e-200"], "which float64 cannot square"),
    ],
)
def test_nothing_can_be_learned(values, message):
    with pytest.raises(DataError, match=message):
        TARGET.fit("value", TARGET.tally(column(values)), None)


def test_labels_cannot_be_declared():
    with pytest.raises(SpecError, match="data.labels"):
        TARGET.fit("value", TARGET.tally(column(["1", "2"])), ["1"])
    with pytest.raises(SpecError, match="data.labels"):
        TARGET.check_declared("value", column(["1", "2"]), ["1"])


def test_codes_are_equal_for_equal_numbers_in_every_block():
    spelled = TARGET.codes({}, pa.array(["3", "3.0", "0", "3e0", "-0", "x", None]))
    assert spelled.dtype == np.int32 and spelled.min() == -1
    assert spelled[0] == spelled[1] == spelled[3] and spelled[2] == spelled[4] and list(spelled[5:]) == [-1, -1]
    assert TARGET.codes({}, pa.array(["9", "0", "3"])).tolist()[1:] == [spelled[2], spelled[0]]
    many = TARGET.codes({}, pa.array([str(value) for value in range(20_000)]))
    assert many.min() >= 0 and len(np.unique(many)) > 19_990


@settings(deadline=None, max_examples=60)
@given(st.lists(FINITE, min_size=2, max_size=20).filter(lambda values: np.std(values) > 1e-3))
def test_encoding_and_scoring_bring_numbers_back(values):
    fitted = fitted_to(values)
    encoded = TARGET.encode(fitted, pa.array([repr(value) for value in values]))
    targets = TARGET.array(fitted, pa.chunked_array([encoded]))
    assert targets.dtype == np.float64 and targets.tolist() == values
    logits = TARGET.tensor(fitted, targets)
    assert logits.dtype == torch.float32 and logits.shape == (len(values),)
    scores = TARGET.scores(fitted, logits[:, None].numpy())
    assert scores.shape == (len(values), 1) and scores.dtype == np.float64
    tolerance = 1e-5 * fitted["target"]["std"]
    np.testing.assert_allclose(scores[:, 0], values, atol=tolerance)
    answered = [answer["value"] for answer in TARGET.answer(fitted, scores)]
    np.testing.assert_allclose(answered, values, atol=2 * tolerance)


def test_training_loss_and_validation_loss_have_one_unit():
    rng = np.random.default_rng(0)
    values = rng.normal(150, 77, 400)
    fitted = fitted_to(values)
    logits = rng.normal(size=(400, 1)).astype(np.float32)
    loss = float(TARGET.loss_sum(torch.from_numpy(logits), TARGET.tensor(fitted, values))) / 400
    figures = TARGET.metrics(TARGET.scores(fitted, logits), values, 15)
    assert TARGET.scale_loss(fitted, loss) == pytest.approx(figures[TARGET.loss_metric], rel=1e-5)


def test_metrics_agree_with_other_libraries():
    rng = np.random.default_rng(0)
    true = rng.normal(size=300).round(1)
    predicted = true + rng.normal(size=300).round(1)
    result = TARGET.metrics(predicted[:, None], true, 15)
    assert result["rmse"] ** 2 == pytest.approx(result["mse"]) == pytest.approx(np.mean((true - predicted) ** 2))
    assert result["mae"] == pytest.approx(mean_absolute_error(true, predicted))
    assert result["r2"] == pytest.approx(r2_score(true, predicted))
    assert result["pearson"] == pytest.approx(pearsonr(true, predicted).statistic)
    assert result["spearman"] == pytest.approx(spearmanr(true, predicted).statistic)
    assert set(result) == set(TARGET.metric_names)


def test_the_truth_alone_decides_which_metrics_are_defined():
    one, many = np.ones(5), np.arange(5.0)
    assert set(TARGET.metrics(many[:, None], one, 15)) == {"rmse", "mae", "mse"}
    constant = TARGET.metrics(one[:, None], many, 15)
    assert set(constant) == set(TARGET.metric_names) and constant["pearson"] == constant["spearman"] == 0.0


@pytest.mark.parametrize(("std", "shown"), [(77.0, 152.1335), (0.5, 152.133484), (3e6, 150.0)])
def test_answers_are_rounded_to_the_digits_that_matter(std, shown):
    fitted = {"target": {"mean": 0.0, "std": std}}
    answers = TARGET.answer(fitted, np.array([[152.13348416]]))
    assert answers == [{"value": shown}] and TARGET.labels_to_count(answers[0]) == ["value"]
    columns = TARGET.prediction_columns(answers)
    assert columns["prediction"].to_pylist() == [shown] and columns["score"].to_pylist() == [None]
    empty = TARGET.prediction_columns([])
    assert [kind.type for kind in empty.values()] == [pa.float64(), pa.float64()]
    assert isinstance(TARGET.example(fitted)["value"], float)


def test_the_report_lists_the_largest_errors_first():
    fitted = {"target": {"mean": 0.0, "std": 1.0}}
    scores, targets = np.array([[1.0], [5.0], [-9.0]]), np.array([1.0, 2.0, 1.0])
    charts, worst = prediction_sections(TARGET, fitted, ScoredRows(["a", "b", "c"], scores, targets), 15, 2)
    assert len(charts.charts) == 3
    assert [row[0] for row in worst.rows] == ["c", "b"] and worst.rows[0][3] == "-10.000"
