"""Show one run, compare several, and their pages."""

import json
import re

import numpy as np
import pytest

import raymill
from cluster.errors import SpecError, UserError
from support.run_folders import finish_run, train_run, write_epochs, write_run
from support.tiny_text import make_text_rows, tiny_spec, write_csv
from trainer.charts.style import line_style
from trainer.report.overlay_charts import Curve, CurvePanel, draw_overlay
from trainer.runs.journal import append_notice
from trainer.spec.evaluate import METRICS_VERSION

EVIL = "<script>alert(1)</script>"


@pytest.fixture(scope="module")
def trained(tiny_base, tiny_data, tmp_path_factory):
    """A storage with three trainings: two on the same rows, the third on other validation rows; the second unfinished."""
    storage = tmp_path_factory.mktemp("runs")
    other_rows = tmp_path_factory.mktemp("rows")
    write_csv(other_rows / "train.csv", make_text_rows(150, seed=7))
    write_csv(other_rows / "test.csv", make_text_rows(30, seed=8))

    def spec(rows, **train):
        train = {"epochs": 3, "batch_size": 32, "learning_rate": 1e-3, **train}
        return tiny_spec(tiny_base, rows, storage, train=train, track={"every_steps": 2})

    folders = [
        train_run(spec(tiny_data)),
        train_run(spec(tiny_data, learning_rate=1e-5, epochs=2), finished=False),
        train_run(spec(other_rows)),
    ]
    environment = json.loads((folders[1] / "environment.json").read_text())
    environment["packages"]["numpy"] = "0.1"
    (folders[1] / "environment.json").write_text(json.dumps({**environment, "python": "3.0"}))
    append_notice(folders[0], f"notice {EVIL}")
    return storage, [folder.name for folder in folders]


def is_offline(text):
    return not re.search(r'(src|href)="(?!#|data:)', text) and "<script" not in text


@pytest.mark.slow
def test_comparing_trainings_on_the_same_rows(trained, tmp_path):
    storage, (first, second, _) = trained
    result = raymill.compare_runs([first, second], storage=storage, html=tmp_path / "page.html")
    json.dumps(result, allow_nan=False)
    assert [run["run"] for run in result["runs"]] == [first, second] and result["metric"] == "macro_f1"
    assert result["rows"]["validation"]["same"] is True and len(set(result["fingerprints"])) <= 2
    assert result["spec"] == {"train.epochs": [3, 2], "train.learning_rate": [0.001, 1e-05]}
    assert result["environment"]["python"][1] == "3.0" and result["environment"]["numpy"] == [np.__version__, "0.1"]
    assert "torch" not in result["environment"]
    loss = result["metrics"]["validation"]["log_loss"]
    assert loss["best"] == [int(np.argmin(loss["values"]))]
    assert result["metrics"]["validation"]["train_loss"]["best"] == []
    assert result["stages"] == {"prepare": [1.0, None], "train": [result["runs"][0]["stages"]["train"], None]}
    assert any(second in note and "Not finished" in note for note in result["notes"])
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert is_offline(page) and page.count('class="top"') == sum(
        len(entry["best"]) for entry in result["metrics"]["validation"].values()
    )
    for text in ("Validation macro_f1", "Training loss", "Validation log_loss", f"1  {first}", "train.learning_rate"):
        assert text in page


@pytest.mark.slow
def test_metrics_on_other_rows_are_not_compared(trained, tmp_path):
    storage, (first, _, third) = trained
    result = raymill.compare_runs([first, third], storage=storage, html=tmp_path / "page.html")
    assert result["rows"]["validation"]["same"] is False
    assert all(entry["best"] == [] for entry in result["metrics"]["validation"].values())
    assert any("cannot be compared" in note for note in result["notes"])
    assert "cannot be compared" in (tmp_path / "page.html").read_text(encoding="utf-8")


def test_metrics_of_another_definition_are_not_compared(tmp_path):
    runs = [finish_run(write_run(tmp_path), metrics={"test": {"macro_f1": value}}) for value in (0.5, 0.7)]
    environments = [run / "environment.json" for run in runs]
    for path, version in zip(environments, (METRICS_VERSION - 1, METRICS_VERSION), strict=True):
        path.write_text(json.dumps({"metrics_version": version}))
    result = raymill.compare_runs(runs, storage=tmp_path)
    assert result["metrics"]["test"]["macro_f1"]["best"] == []
    assert any("An earlier raymill" in note and note.endswith(f"{runs[0].name}.") for note in result["notes"])


def test_rows_that_are_gone_are_said_to_be_unknown(tmp_path):
    values = {"macro_f1": 0.5, "log_loss": 0.3}
    runs = [
        finish_run(write_run(tmp_path), metrics={"validation": {**values, "macro_f1": value}}) for value in (0.5, 0.7)
    ]
    result = raymill.compare_runs(runs, storage=tmp_path)
    assert result["rows"]["validation"]["same"] is None and result["metrics"]["validation"]["macro_f1"]["best"] == [1]
    assert result["metrics"]["validation"]["log_loss"]["best"] == []  # all are equal
    assert any("rows of at least one run are gone" in note for note in result["notes"])
    with pytest.raises(UserError, match="1 is given"):
        raymill.compare_runs([runs[0], str(runs[0])], storage=tmp_path)
    with pytest.raises(SpecError, match="neither a run"):
        raymill.compare_runs([runs[0], "nothing"], storage=tmp_path)


@pytest.mark.slow
def test_showing_a_training(trained, tmp_path):
    storage, (first, second, _) = trained
    shown = raymill.show_run(first, storage=storage, html=tmp_path / "page.html")
    json.dumps(shown, allow_nan=False)
    assert shown["state"] == "finished" and shown["resume"] is None and len(shown["history"]) == 3
    assert shown["spec"]["train.learning_rate"] == 0.001 and "train.weight_decay" not in shown["spec"]
    assert shown["notices"][0]["text"] == f"notice {EVIL}" and shown["environment"]["python"]
    assert shown["lineage"]["prepared_folder"].startswith(str(storage / "prepared"))
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert is_offline(page) and "&lt;script&gt;" in page
    assert all(f"<h2>{title}</h2>" in page for title in ("Run", "Learning curves", "Training by step", "Notices"))
    unfinished = raymill.show_run(second, storage=storage)
    assert unfinished["resume"] == f"raymill train --resume {storage / 'runs' / second}"


def test_showing_a_search_with_a_damaged_trial(tmp_path):
    tune = {"trials": 3, "space": {"train.learning_rate": {"loguniform": [1e-5, 1e-3]}}}
    folder = write_run(tmp_path, kind="tune", tune=tune)
    for name, values in {"0001": [0.4, 0.6], "0002": [0.3, 0.9, 0.8], "0003": []}.items():
        write_epochs(folder / "trials" / name, values)
        (folder / "trials" / name / "values.json").write_text(json.dumps({"train.learning_rate": 1e-4}))
    (folder / "trials" / "0001" / "ended.json").write_text(json.dumps({"how": "finished", "why": ""}))
    (folder / "trials" / "0003" / "values.json").write_text("{")
    shown = raymill.show_run("last", storage=tmp_path, html=tmp_path / "page.html")
    assert [trial["trial"] for trial in shown["trials"]] == ["0002", "0001", "0003"]
    assert [trial["state"] for trial in shown["trials"]] == ["interrupted", "finished", "damaged"]
    assert shown["best_trial"] == "0002" and len(shown["history"]) == 3 and shown["value"] == 0.9
    assert shown["spec"]["tune.trials"] == 3 and "tune.seed" not in shown["spec"]
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert is_offline(page) and "its files are damaged" in page and "--resume" in page


def test_pages_of_damaged_runs_escape_everything(tmp_path):
    folder = finish_run(write_run(tmp_path), metrics={"validation": {EVIL: 0.5}})
    other = write_run(tmp_path, name="b", kind="run")
    (folder / "history.jsonl").write_text('{"epoch": 1, "macro_f1": "x"}\n[1]\n{"epoch": "$2", "macro_f1": NaN}\n')
    (folder / "metrics.jsonl").write_text('{"step": 1, "loss": 1}\n{"step": 2, "loss": "x"}\n')
    (folder / "environment.json").write_text(json.dumps({"packages": {EVIL: "1"}, "command": [EVIL], "git": EVIL}))
    (other / "error.json").write_text(json.dumps({"text": EVIL}))
    raymill.runs(storage=tmp_path, html=tmp_path / "list.html")
    raymill.show_run(folder, storage=tmp_path, html=tmp_path / "one.html")
    raymill.compare_runs([folder, other], storage=tmp_path, html=tmp_path / "two.html")
    for name in ("list", "one", "two"):
        page = (tmp_path / f"{name}.html").read_text(encoding="utf-8")
        assert is_offline(page) and "&lt;script&gt;" in page


def test_the_list_has_a_chart_for_each_model_with_several_runs(tmp_path):
    for name, value in (("a", 0.5), ("a", 0.6), ("b", 0.7)):
        finish_run(write_run(tmp_path, name), metrics={"validation": {"macro_f1": value}})
    raymill.runs(storage=tmp_path, html=tmp_path / "list.html")
    page = (tmp_path / "list.html").read_text(encoding="utf-8")
    assert "a: macro_f1 on validation" in page and "b: macro_f1 on validation" not in page and is_offline(page)


def test_twenty_curves_have_twenty_styles_and_whole_labels():
    assert len({line_style(index) for index in range(20)}) == 20
    curves = [Curve(run, range(5), [run + x for x in range(5)]) for run in range(20)]
    labels = [f"{run + 1}  support_tickets-train-20260301-120000-0000{run:02}" for run in range(20)]
    svg = draw_overlay([CurvePanel("Validation macro_f1", "epoch", curves)], labels)
    width = float(re.search(r'viewBox="0 0 ([\d.]+)', svg)[1])
    starts = dict(re.findall(r'<text [^>]*\bx="([\d.]+)"[^>]*>(\d+  support_[^<]*)<', svg))
    assert set(re.findall(r">(\d+  support_[^<]*)<", svg)) == set(labels)
    # At 5 points a character, every label ends within the picture. There are two columns.
    assert len(starts) == 2 and all(float(x) + 5 * len(label) < width for x, label in starts.items())
