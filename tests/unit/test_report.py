"""The report page: offline, and whatever labels and texts hold."""

import re

import numpy as np

from trainer.inference.evaluate import judge, labelled
from trainer.registry.gate import Decision
from trainer.report import page
from trainer.runs.result import RunResult, TrialRecord
from trainer.targets.base import in_columns_of
from trainer.targets.sections import charts
from trainer.tasks.resolve import load

LABELS = ["$a_{$", "<b>", "x\\foo$", "Zoë 🚚"]


def evaluation():
    from trainer.contract.contract import Contract

    contract = Contract(task="text-classification", columns={}, steps=[], fitted={"labels": LABELS}, files={})
    rng = np.random.default_rng(0)
    scores = rng.dirichlet(np.ones(4), size=80)
    labels = [LABELS[n % 4] for n in range(80)]
    rows = labelled({"text": [f"<script>alert({n})</script> & text" for n in range(80)]}, labels)
    return judge(contract, rows, scores, n_bins=10, n_mistakes=5)


def history(n):
    return [
        {"epoch": e, "train_loss": 1 / e, "log_loss": 1.2 / e, "macro_f1": 0.5 + 0.1 * e, "seconds": 1.0}
        for e in range(1, n + 1)
    ]


def test_the_whole_page(tmp_path):
    spec = load({"name": "a", "data": {"train": "t.csv"}, "model": {"base": "b"}})
    trials = [
        TrialRecord("one", {"train.learning_rate": 1e-4, "model.base": "x<y"}, 0.7, 2, 2.0, history(2)),
        TrialRecord("two", {"train.learning_rate": 2e-4}, 0.8, 3, 3.0, history(3)),
        TrialRecord("three", {}, None, 0, 0.0, [], error="it broke"),
    ]
    result = RunResult(tmp_path, spec, tmp_path, {}, history(3), tmp_path, trials)
    found = evaluation()
    page.write(
        tmp_path / "report.html", title="demo <1>", metric="macro_f1", evaluation=found, lineage={"base": "<b>"},
        result=result, decision=Decision(False, "not <better>", {}), spec_text="name: <x>",
    )  # fmt: skip
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert text.count("<svg") == 6
    assert "<script" not in text and "&lt;script&gt;alert(" in text
    assert "it broke" in text and "Not promoted" in text and "x&lt;y" in text and "Zoë 🚚" in text
    assert not re.search(r'(src|href)="(?!#|data:)', text)  # nothing is fetched
    mistakes = next(section for section in found.sections if "mistakes" in section.title).rows
    assert len(mistakes) == 5 and float(mistakes[0][3]) >= float(mistakes[-1][3])


def test_many_classes_are_drawn_without_ticks():
    svg = charts.confusion(np.eye(77, dtype=int), [f"label_{n}" for n in range(77)])
    assert "label_3" not in svg and svg.startswith("<svg")


def test_scores_of_a_model_with_other_labels():
    found = in_columns_of(np.array([[0.7, 0.3]]), ["b", "z"], ["a", "b"])
    assert found.tolist() == [[0.0, 0.7]]
