"""Charts about predictions: few and many rows, few and many labels, and any text in labels."""

import re

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, precision_recall_curve, roc_auc_score, roc_curve

from trainer.targets.classes import Classes
from trainer.targets.metrics.ranking import areas_under_curves, average_precision, rank_scores
from trainer.targets.report import ScoredRows, prediction_sections
from trainer.targets.sections import charts
from trainer.targets.sections.curves import curve_sections

RNG = np.random.default_rng(0)


def random_tags(n_rows, n_tags):
    hits = RNG.random((n_rows, n_tags)) < 0.3
    return RNG.random(hits.shape) * 0.6 + 0.4 * hits, hits


@pytest.mark.slow
@pytest.mark.parametrize("n_rows", [1, 2, 600, 3500])
def test_numbers_of_any_many_rows_are_a_small_picture(n_rows):
    true = RNG.normal(150, 70, n_rows)
    predicted = true + RNG.normal(0, 30, n_rows)
    pictures = [
        charts.scatter_chart(predicted, true),
        charts.residual_chart(predicted, true),
        charts.residual_histogram_chart(predicted - true),
    ]
    for svg in pictures:
        assert svg.startswith("<svg") and len(svg) < 400_000
        assert not re.search(r'(src|href)="(?!#|data:)', svg)


def test_predictions_that_are_all_the_same_can_be_drawn():
    true = np.arange(4000.0)
    for svg in (charts.scatter_chart(true * 0, true), charts.residual_histogram_chart(true * 0)):
        assert svg.startswith("<svg")


def test_few_labels_have_a_curve_each_and_many_their_means():
    (few,) = curve_sections(*random_tags(200, 3), ["$a_{$", "_hidden", "<b>"])
    for chart in few.charts:
        assert "$a_{$" in chart.svg and "_hidden" in chart.svg and "&lt;b&gt;" in chart.svg and "macro" not in chart.svg
    (many,) = curve_sections(*random_tags(200, 11), [f"label_{number}" for number in range(11)])
    for chart in many.charts:
        assert "mean of 11 (macro)" in chart.svg and "label_3" not in chart.svg


def test_a_label_of_all_rows_or_none_has_no_curve():
    scores, hits = random_tags(50, 3)
    hits[:, 0], hits[:, 1] = True, False
    (section,) = curve_sections(scores, hits, ["all", "none", "some"])
    assert (
        "some" in section.charts[0].svg
        and ">all<" not in section.charts[0].svg
        and ">none<" not in section.charts[0].svg
    )
    assert curve_sections(scores[:, :2], hits[:, :2], ["all", "none"]) == []


def test_curves_pass_through_the_points_that_scikit_learn_has():
    hits, scores = RNG.random(200) < 0.3, RNG.random(200).round(1)  # with ties
    ranked = rank_scores(hits, scores)
    false_rate, true_rate, _ = roc_curve(hits, scores, drop_intermediate=False)
    np.testing.assert_allclose(charts.roc_points(ranked), [false_rate, true_rate])
    precision, recall, _ = precision_recall_curve(hits, scores)
    ours = charts.precision_recall_points(ranked)
    np.testing.assert_allclose([ours[0][1:], ours[1][1:]], [recall[-2::-1], precision[-2::-1]])
    assert average_precision(ranked) == pytest.approx(average_precision_score(hits, scores))
    area = areas_under_curves(scores[:, None], hits[:, None])["roc_auc"]
    assert area == pytest.approx(roc_auc_score(hits, scores))


@pytest.mark.slow
def test_classes_have_curves_and_the_area_under_them():
    scores = RNG.dirichlet(np.ones(3), 60)
    targets = RNG.integers(0, 3, 60).astype(np.int32)
    rows = ScoredRows(["row"] * 60, scores, targets)
    sections = prediction_sections(Classes(), {"labels": ["x", "y", "z"]}, rows, 15, 3)
    titles = [section.title for section in sections]
    assert "ROC and precision-recall" in titles
    assert 0 < Classes().metrics(scores, targets, 15)["pr_auc"] < 1
