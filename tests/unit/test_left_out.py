"""What fails alone: the rest goes on, and notices say what was left out."""

import json
from collections import Counter
from types import SimpleNamespace

import pyarrow as pa
import pytest

from cluster.console import Console
from cluster.errors import ResourceError
from trainer.charts.section import ReportSection, sections_or_reason
from trainer.inference import batch_predict
from trainer.pipeline.run import Run
from trainer.report.page import ReportPage, write_page
from trainer.runs.folder import create_run, lock_run
from trainer.runs.journal import RESULT, append_notice, read_notices, record_error
from trainer.spec.run import RunSpec
from tune.point import Point
from tune.trial_notices import notices_of_trials
from tune.trial_store import TrialStore

SPEC = {"name": "x", "data": {"train": "t.csv"}, "evaluate": {"metric": "accuracy"}}


@pytest.fixture
def run(tmp_path):
    spec = RunSpec.model_validate({**SPEC, "storage": str(tmp_path)})
    return Run(spec, Console(), "run", create_run(spec, "run"))


def test_a_section_that_cannot_be_drawn_says_why(tmp_path):
    def broken():
        yield ReportSection("Good")
        raise ValueError("no data to plot\nat all")

    [section] = sections_or_reason("Curves", broken)
    assert section.left_out and section.title == "Curves" and section.note == "Left out: ValueError: no data to plot"
    assert sections_or_reason("Curves", lambda: [ReportSection("Good")]) == [ReportSection("Good")]
    page = ReportPage("t", "s", {"accuracy": 1.0}, "accuracy", [section], {})
    write_page(tmp_path / "report.html", page)
    assert "no data to plot" in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_the_result_has_the_notices_and_only_finite_metrics(run):
    append_notice(run.folder, "a worker left something out")
    metrics = {"test": {"accuracy": 0.5, "roc_auc": float("nan")}, "validation": {"r2": float("-inf"), "accuracy": 1.0}}
    outcome = run.write_outcome(metrics=metrics)
    assert outcome.metrics == {"test": {"accuracy": 0.5}, "validation": {"accuracy": 1.0}}
    assert outcome.notices == [
        "a worker left something out",
        "roc_auc of the test rows is nan and left out of the result",
        "r2 of the validation rows is -inf and left out of the result",
    ]
    run.notice("a tracker did not get a file")
    run.notice("a tracker did not get a file")
    later = run.add_notices(outcome)
    assert later.notices == [*outcome.notices, "a tracker did not get a file"]
    assert json.loads((run.folder / RESULT).read_bytes())["notices"] == later.notices
    assert run.add_notices(later) is later


def test_failed_trials_and_their_notices_are_told_once(run):
    spec = SimpleNamespace(evaluate=run.spec.evaluate)
    store = TrialStore(run.folder, spec)
    for number, rate in enumerate((1e-4, 1.0, 0.9), 1):
        store.start(Point(f"{number:04d}", {"train.learning_rate": rate}))
        append_notice(store.folder(f"{number:04d}"), "mlflow gets no metrics of this run")
    (store.folder("0001") / "history.jsonl").write_text('{"epoch": 1, "seconds": 1, "accuracy": 0.5}\n')
    store.end("0001", "finished")
    for name in ("0002", "0003"):
        store.end(name, "failed", "training diverged: the loss is nan\n  fix: lower it")
    sentences = list(notices_of_trials(run.folder, store))
    assert sentences == [
        "2 of 3 trials failed, and the search went on: 0002, 0003 (train.learning_rate=1.0): training diverged: the loss is nan",
        "in trials 0001, 0002, 0003: mlflow gets no metrics of this run",
    ]
    for sentence in sentences:
        run.notice(sentence)
    assert list(notices_of_trials(run.folder, store)) == [] and read_notices(run.folder) == sentences


def test_the_error_of_a_library_is_the_reason_of_a_failed_trial(run):
    store = TrialStore(run.folder, SimpleNamespace(evaluate=run.spec.evaluate))
    store.start(Point("0001", {"train.seed": 1}))
    assert store.last_error("0001") == ""
    record_error(store.folder("0001"), ValueError("Input contains NaN.\nMore of it"))
    assert store.last_error("0001") == "ValueError: Input contains NaN.\nMore of it"
    store.end("0001", "failed", store.last_error("0001"))
    [sentence] = notices_of_trials(run.folder, store)
    assert sentence.endswith("0001 (train.seed=1): ValueError: Input contains NaN.")


def test_the_reasons_of_bad_rows_are_counted_up_to_a_limit(monkeypatch):
    monkeypatch.setattr(batch_predict, "_MAX_COUNTED", 2)
    reasons = Counter()
    for cells in (["a", None, "b"], ["a", "c", "b", "a"]):
        batch_predict._count_reasons(reasons, pa.chunked_array([pa.array(cells, pa.string())]))
    assert reasons == {"a": 3, "b": 2}


@pytest.mark.slow
def test_a_run_that_is_worked_on_names_the_process(run):
    message = r"process \d+ on .* \(since 20.*Z\) still works on the run"
    with lock_run(run.folder), pytest.raises(ResourceError, match=message), lock_run(run.folder):
        pass
    with lock_run(run.folder):
        pass
