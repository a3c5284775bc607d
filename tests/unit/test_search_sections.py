"""The sections of a report about a search."""

from pathlib import Path

import pytest

from trainer.report.search_sections import search_sections
from trainer.runs.result import Finalist, RunResult, SearchRecord, TrialRecord
from trainer.tasks.load_spec import load_spec

SPEC = load_spec({"name": "a", "data": {"train": "a.csv"}, "model": {"base": "b"}})


def trial(name, values, f1, state="finished"):
    history = [{"epoch": 1, "seconds": 2.0, "macro_f1": f1}] if f1 is not None else []
    return TrialRecord(name, values, f1, len(history), 2.0, history, state=state)


def result_of(trials, search):
    return RunResult(Path("c"), SPEC, Path("p"), {"macro_f1": 0.5}, [], Path("runs/0002-seed-43"), trials, search)


def test_a_training_has_no_search_sections():
    assert search_sections(result_of([], None), "macro_f1") == []


@pytest.mark.slow
def test_values_of_all_kinds_equal_values_and_failed_trials():
    trials = [
        trial("0001", {"train.learning_rate": 1e-5, "train.loss.kind": "auto", "data.steps": []}, 0.5),
        trial(
            "0002", {"train.learning_rate": 1e-3, "train.loss.kind": "focal", "train.loss.gamma": 2.0}, 0.5, "stopped"
        ),
        trial("0003", {"train.learning_rate": 1e-4, "train.loss.kind": "focal", "train.loss.gamma": 2.0}, 0.5),
        trial("0004", {"train.learning_rate": 1e-4}, None, "failed"),
    ]
    objectives = [("macro_f1", "max"), ("serve.p99_ms", "min")]
    finalists = [
        Finalist("0002", {42: 0.5, 43: 0.6}, {"macro_f1": 0.55, "serve.p99_ms": 9.0}, True, []),
        Finalist("0001", {42: 0.5}, {"macro_f1": 0.5, "serve.p99_ms": 30.0}, False, ["serve.p99_ms <= 20"]),
    ]
    search = SearchRecord(objectives, ["serve.p99_ms <= 20"], {"train.learning_rate": 0.9}, finalists)
    sections = {section.title: section for section in search_sections(result_of(trials, search), "macro_f1")}
    assert list(sections) == ["Hyperparameters", "Search cost", "Hyperparameter importance", "Finalists"]
    table = sections["Finalists"]
    assert table.rows[0][:3] == ["0002", 2, "0.5500 (0.5000 to 0.6000)"] and table.rows[1][-1] == "serve.p99_ms <= 20"
    assert all(chart.svg.startswith("<svg") for section in sections.values() for chart in section.charts)
