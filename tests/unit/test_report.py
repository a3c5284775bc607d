"""The report page: it opens offline and escapes any label and text."""

import re

import numpy as np
import pytest

from trainer.inference.evaluate import compute_evaluation, with_digest
from trainer.registry.gate import GateDecision
from trainer.report.page import ReportPage, write_page
from trainer.report.search_sections import trial_sections
from trainer.report.training_sections import learning_curve_sections
from trainer.runs.result import RunResult, TrialRecord
from trainer.targets.label_sets import reorder_scores
from trainer.targets.sections import charts
from trainer.tasks.load_spec import load_spec

LABELS = ["$a_{$", "<b>", "x\\foo$", "Zoë 🚚"]


def evaluate():
    from trainer.contract.contract import Contract

    contract = Contract(task="text-classification", columns={}, steps=[], fitted={"labels": LABELS}, files={})
    rng = np.random.default_rng(0)
    scores = rng.dirichlet(np.ones(4), size=80)
    labels = [LABELS[n % 4] for n in range(80)]
    rows = with_digest({"text": [f"<script>alert({n})</script> & text" for n in range(80)]}, labels)
    return compute_evaluation(contract, rows, scores, n_bins=10, n_mistakes=5)


def history(n):
    return [
        {"epoch": e, "train_loss": 1 / e, "log_loss": 1.2 / e, "macro_f1": 0.5 + 0.1 * e, "seconds": 1.0}
        for e in range(1, n + 1)
    ]


@pytest.mark.slow
def test_the_page_is_offline_and_escaped(tmp_path):
    spec = load_spec({"name": "a", "data": {"train": "t.csv"}, "model": {"base": "b"}})
    trials = [
        TrialRecord("one", {"train.learning_rate": 1e-4, "model.base": "x<y"}, 0.7, 2, 2.0, history(2)),
        TrialRecord("two", {"train.learning_rate": 2e-4}, 0.8, 3, 3.0, history(3)),
        TrialRecord("three", {}, None, 0, 0.0, [], error="it broke"),
    ]
    result = RunResult(tmp_path, spec, tmp_path, {}, history(3), tmp_path, trials)
    evaluation = evaluate()
    page = ReportPage(
        title="demo <1>",
        subtitle="80 held-out rows",
        metrics=evaluation.metrics,
        main_metric="macro_f1",
        sections=[
            *learning_curve_sections(result, "macro_f1", "log_loss"),
            *trial_sections(result, "macro_f1"),
            *evaluation.sections,
        ],
        lineage={"base_model": "<b>"},
        decision=GateDecision(False, "not <better>", {}),
        spec_text="name: <x>",
    )
    write_page(tmp_path / "report.html", page)
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert text.count("<svg") == 6
    assert "<script" not in text and "&lt;script&gt;alert(" in text
    assert "it broke" in text and "Not promoted" in text and "x&lt;y" in text and "Zoë 🚚" in text
    assert "base model" in text and "name: &lt;x&gt;" in text
    assert not re.search(r'(src|href)="(?!#|data:)', text)  # nothing is fetched
    mistakes = next(section for section in evaluation.sections if "mistakes" in section.title).rows
    assert len(mistakes) == 5 and float(mistakes[0][3]) >= float(mistakes[-1][3])


def test_the_best_trial_is_first_and_highlighted(tmp_path):
    spec = load_spec({"name": "a", "data": {"train": "t.csv"}, "model": {"base": "b"}})
    trials = [
        TrialRecord("one", {"train.learning_rate": 1e-4}, 0.7, 2, 2.0, history(2)),
        TrialRecord("three", {}, None, 0, 0.0, [], error="it broke"),
        TrialRecord("two", {"train.learning_rate": 2e-4}, 0.8, 3, 3.0, history(3)),
    ]
    result = RunResult(tmp_path, spec, tmp_path, {}, history(1), tmp_path, trials)
    (section,) = trial_sections(result, "macro_f1")
    assert [column.name for column in section.columns] == [
        "trial",
        "train.learning_rate",
        "epochs",
        "seconds",
        "macro_f1",
    ]
    assert [row[0] for row in section.rows] == ["two", "one", "three"] and section.rows[-1][-1] == "it broke"
    assert section.rows[0] == ["two", "0.0002", 3, "3.0", "0.8000"]
    page = ReportPage("demo", "", {}, "macro_f1", [section], {})
    write_page(tmp_path / "report.html", page)
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert text.count('<tr class="best"><td class="">two</td>') == text.count('class="best"') == 1
    (section,) = trial_sections(result, "log_loss")
    assert section.rows[0][0] == "one"
    assert learning_curve_sections(result, "macro_f1", "log_loss") == []


def test_many_classes_are_drawn_without_ticks():
    svg = charts.confusion_chart(np.eye(77, dtype=int), [f"label_{n}" for n in range(77)])
    assert "label_3" not in svg and svg.startswith("<svg")


def test_scores_of_a_model_with_other_labels():
    scores = reorder_scores(np.array([[0.7, 0.3]]), ["b", "z"], ["a", "b"])
    assert scores.tolist() == [[0.0, 0.7]]
