"""The target tags: reading cells, fitting, multi-hot arrays, metrics against scikit-learn, answers, mistakes."""

import json

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, f1_score, log_loss, precision_score, recall_score, roc_auc_score

from cluster.errors import DataError
from cluster.text import is_blank
from trainer.contract.contract import Contract
from trainer.data.prepare.row_checks import check_rows
from trainer.spec.data import DataSpec
from trainer.steps.cleaner import Cleaner
from trainer.targets import tag_cells
from trainer.targets.report import ScoredRows, prediction_sections
from trainer.targets.tags import Tags
from trainer.tasks import catalog as task_catalog
from trainer.values.words import canonical_word

TARGET = Tags()
FITTED = {"labels": ["a", "b", "c"]}
TAG = st.text(min_size=1, max_size=6).map(str.strip).filter(lambda tag: not is_blank(tag))
ROWS = st.lists(st.lists(TAG.map(canonical_word), unique=True, max_size=4), min_size=1, max_size=20)


def column(*chunks):
    return pa.chunked_array([pa.array(chunk, pa.string()) for chunk in chunks], pa.string())


@pytest.mark.parametrize(
    ("cell", "tags"),
    [
        ("red|blue", ["red", "blue"]),
        (" red | dark blue ", ["red", "dark blue"]),
        ('["red", "a|b", " blue "]', ["red", "a|b", "blue"]),
        ("[1, true]", ["1", "true"]),
        ("", []),
        ("  ", []),
        ("[]", []),
        (None, []),
    ],
)
def test_a_cell_of_tags(cell, tags):
    assert tag_cells.split_tags(cell) == tags
    assert TARGET.check("labels", column([cell]))[0].to_pylist() == [None]
    assert json.loads(tag_cells.canonical_tags(cell)) == tags


@pytest.mark.parametrize(
    ("cell", "reason"),
    [
        ("a||b", "an empty tag: 'a||b'"),
        ("a|", "an empty tag: 'a|'"),
        ('["a", ""]', """an empty tag: '["a", ""]'"""),
        ("a|\u200b", r"an empty tag: 'a|\u200b'"),
        ("a|b|a ", "a repeated tag: 'a' in 'a|b|a '"),
        ('["a"', """a value that is not a JSON list of texts: '["a"'"""),
        ("[[1]]", "a value that is not a JSON list of texts: '[[1]]'"),
        ("[null]", "a value that is not a JSON list of texts: '[null]'"),
        ('["\\ud800"]', """a value that is not a JSON list of texts: '["\\\\ud800"]'"""),
        ("[" * 100_000, "a value that is not a JSON list of texts: '" + "[" * 40 + "...'"),
    ],
)
def test_a_cell_that_cannot_be_used(cell, reason):
    assert TARGET.check("labels", column(["a"], [cell]))[0].to_pylist() == [None, f"labels with {reason}"]
    assert TARGET.encode({"labels": ["a", "b"]}, pa.array([cell])).to_pylist() == [None]
    again = TARGET.canonicalize({}, column([cell]))  # a mistake stays a mistake in the canonical spelling
    assert TARGET.check("labels", again)[0][0].as_py()


def test_another_separator_comes_from_the_spec():
    fitted = TARGET.settings(DataSpec(train="t.csv", tag_separator=","))
    result = TARGET.canonicalize(fitted, column(["a, b|c", None], ["a,,b"]))
    assert result.to_pylist() == ['["a", "b|c"]', "[]", '["a", "", "b"]']
    assert TARGET.canonicalize(TARGET.settings(DataSpec(train="t.csv")), column(["a|b"])).to_pylist() == ['["a", "b"]']


@pytest.mark.slow
@settings(deadline=None, max_examples=60)
@given(ROWS, st.randoms(use_true_random=False), st.integers(0, 20))
def test_no_order_and_no_cut_into_blocks_changes_what_is_fitted(rows, random, cut):
    cells = [json.dumps(tags) for tags in rows]
    total_at_once = TARGET.tally(column(cells))
    assert total_at_once[""] == len(rows)
    random.shuffle(cells)
    total = {}
    for part in (cells[cut:], cells[:cut]):
        for tag, count in TARGET.tally(column(part)).items():
            total[tag] = total.get(tag, 0) + count
    assert total == total_at_once


@settings(deadline=None, max_examples=60)
@given(ROWS)
def test_encoding_brings_the_sets_back(rows):
    cells = [json.dumps(tags) for tags in rows]
    labels = sorted({tag for tags in rows for tag in tags})
    encoded = TARGET.encode({"labels": labels}, pa.array(cells))
    assert encoded.type == pa.list_(pa.int32())
    assert [{labels[index] for index in row} for row in encoded.to_pylist()] == [set(tags) for tags in rows]
    if labels:
        hot = TARGET.array({"labels": labels}, pa.chunked_array([encoded.slice(0, 1), encoded.slice(1)]))
        assert hot.dtype == np.uint8 and hot.shape == (len(rows), len(labels))
        assert [{labels[index] for index in np.flatnonzero(row)} for row in hot] == [set(tags) for tags in rows]


def test_fitted_are_the_tags_in_order():
    assert TARGET.fit("labels", TARGET.tally(column(["b|a", "", "c"])), None) == {"labels": ["a", "b", "c"]}
    assert TARGET.fit("labels", TARGET.tally(column(["b", ""])), ["b"]) == {"labels": ["b"]}
    assert TARGET.width({"labels": ["b"]}) == 1


@pytest.mark.parametrize(
    ("cells", "declared", "message"),
    [
        (["", None], None, "no training row has a tag"),
        (["a|b", "b|a"], None, "all training rows have the same tags"),
        (["a", "b"], ["a", "z"], "no training row has the label 'z'"),
    ],
)
def test_nothing_can_be_learned(cells, declared, message):
    with pytest.raises(DataError, match=message):
        TARGET.fit("labels", TARGET.tally(column(cells)), declared)


def test_too_many_tags():
    tally = {**{f"t{index}": 1 for index in range(10_001)}, "": 10_001}
    with pytest.raises(DataError, match="10001 different labels"):
        TARGET.fit("labels", tally, None)


def test_undeclared_tags_make_a_bad_row():
    result = TARGET.check_declared("labels", column(["a|b", "", "a|x"]), ["a", "b"])
    assert result.to_pylist() == [None, None, "unknown tag 'x'"]


def test_codes_are_equal_for_equal_sets_in_every_block():
    first = TARGET.codes(FITTED, pa.array(["a|b", '["b","a"]', "", None, "a", "x", "a||b"], pa.string()))
    assert first.dtype == np.int32 and first[0] == first[1] and first[2] == first[3]
    assert len({*first[[0, 2, 4]]}) == 3 and first[:5].min() >= 0 and list(first[5:]) == [-1, -1]
    assert TARGET.codes(FITTED, pa.array(["c", "b | a"])).tolist()[1] == first[0]


def random_rows(n_rows=300, n_tags=5):
    rng = np.random.default_rng(0)
    targets = (rng.random((n_rows, n_tags)) < 0.3).astype(np.uint8)
    return 1 / (1 + np.exp(-rng.normal(size=targets.shape) - 1.5 * targets + 0.7)), targets


def test_metrics_agree_with_scikit_learn():
    scores, targets = random_rows()
    predicted = scores >= 0.5
    result = TARGET.metrics(scores, targets, 15)
    for average in ("micro", "macro", "weighted"):
        assert result[f"{average}_f1"] == pytest.approx(f1_score(targets, predicted, average=average))
    assert result["macro_precision"] == pytest.approx(precision_score(targets, predicted, average="macro"))
    assert result["macro_recall"] == pytest.approx(recall_score(targets, predicted, average="macro"))
    assert result["exact_match"] == pytest.approx((targets == predicted).all(axis=1).mean())
    assert result["log_loss"] == pytest.approx(log_loss(targets.ravel(), scores.ravel()))
    assert result["roc_auc"] == pytest.approx(roc_auc_score(targets, scores, average="macro"))
    assert result["pr_auc"] == pytest.approx(average_precision_score(targets, scores, average="macro"))
    assert set(result) == set(TARGET.metric_names)


def test_a_tag_that_no_held_out_row_has_is_left_out_of_the_areas():
    scores, targets = random_rows()
    targets[:, 0], targets[:, 1] = 0, 1
    result = TARGET.metrics(scores, targets, 15)
    assert result["roc_auc"] == pytest.approx(roc_auc_score(targets[:, 2:], scores[:, 2:], average="macro"))
    assert result["tags_without_rows"] == 1
    for score in (0.1, 0.9):  # what is defined does not depend on what is predicted
        nothing = TARGET.metrics(np.full((4, 3), score), np.zeros((4, 3), np.uint8), 15)
        assert set(nothing) == {"exact_match", "log_loss", "tags_without_rows"}
        assert nothing["exact_match"] == float(score < 0.5)


def test_training_loss_and_validation_loss_are_the_same():
    _, targets = random_rows()
    logits = np.random.default_rng(1).normal(0, 3, targets.shape).astype(np.float32)
    loss = float(TARGET.loss_sum(torch.from_numpy(logits), TARGET.tensor({}, targets))) / len(targets)
    result = TARGET.metrics(TARGET.scores({}, logits), targets, 15)
    assert TARGET.scale_loss({}, loss) == pytest.approx(result[TARGET.loss_metric], rel=1e-5)
    assert TARGET.scores({}, np.array([[-1e4, 0.0, 1e4]])).tolist() == [[0.0, 0.5, 1.0]]


def test_answers():
    answers = TARGET.answer(FITTED, np.array([[0.6, 0.2, 0.9], [0.1, 0.4999999, 0.2]]))
    assert answers[0] == {"labels": ["c", "a"], "scores": {"a": 0.6, "b": 0.2, "c": 0.9}}
    assert answers[1]["labels"] == []
    assert [TARGET.labels_to_count(answer) for answer in answers] == [["c", "a"], ["(none)"]]
    columns = TARGET.prediction_columns(answers)
    assert columns["prediction"].to_pylist() == ['["c", "a"]', "[]"]
    assert columns["score"].to_pylist() == [0.9, 0.5]
    assert [kind.type for kind in TARGET.prediction_columns([]).values()] == [pa.string(), pa.float64()]
    assert TARGET.example(FITTED)["labels"] == ["a"] and TARGET.example({"labels": ["a"]})["scores"] == {"a": 0.98}
    assert TARGET.align_scores(np.array([[0.7, 0.3]]), {"labels": ["b", "z"]}, FITTED).tolist() == [[0.0, 0.7, 0.0]]


def test_the_report_names_what_is_missing_and_what_is_wrong():
    scores = np.array([[0.9, 0.1, 0.2], [0.45, 0.8, 0.7], [0.4, 0.1, 0.3]])
    targets = np.array([[1, 0, 0], [1, 0, 1], [0, 1, 0]], np.uint8)
    curves, by_tag, mistakes = prediction_sections(TARGET, FITTED, ScoredRows(["x", "y", "z"], scores, targets), 15, 10)
    assert len(curves.charts) == 2 and [row[-1] for row in by_tag.rows] == [1, 2, 1]
    assert mistakes.rows == [["z", "b", "b (0.100)", ""], ["y", "a, c", "a (0.450)", "b (0.800)"]]
    right = prediction_sections(TARGET, FITTED, ScoredRows(["x", "y", "z"], targets * 0.8 + 0.1, targets), 15, 10)
    assert right[-1].note == "There are no mistakes."


def test_all_rows_are_spelled_alike_before_they_are_checked():
    columns, fitted = {"text": "text", "labels": "labels"}, {"tag_separator": ","}
    contract = Contract(task="text-multi-label", columns=columns, types={}, steps=[], fitted=fitted, files={})
    rows = pa.table(
        {
            "row": [1, 2, 3],
            "text": ["a", "b", "c"],
            "labels": pa.array(["x, y", None, "x,,y"]),
            "reason": pa.nulls(3, pa.string()),
        }
    )
    result = check_rows(task_catalog.get_task("text-multi-label"), contract, rows, Cleaner(contract))
    assert result.good["labels"].to_pylist() == ['["x", "y"]', "[]"]
    assert result.bad["reason"].to_pylist() == ["""labels with an empty tag: '["x", "", "y"]'"""]
