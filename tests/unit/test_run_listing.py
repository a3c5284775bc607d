"""List runs: their states, their order, and folders that are damaged or from an earlier raymill."""

import json

import pytest

import raymill
from cluster.errors import SpecError
from support.run_folders import finish_run, make_older, write_epochs, write_run
from trainer.registry.registry import Registry
from trainer.runs.folder import find_run, lock_run
from trainer.runs.journal import record_error
from trainer.runs.run_summary import summarize_run


def listed(storage, **options):
    return {run["run"]: run for run in raymill.runs(storage=storage, **options)}


def register(storage, run, name="a"):
    """Register a version whose lineage names the run."""

    def fill(folder):
        (folder / "lineage.json").write_text(json.dumps({"run": str(run)}))
        (folder / "metrics.json").write_text(json.dumps({"test": {"macro_f1": 0.8}}))

    return Registry(storage).register(name, fill)


def test_every_state(tmp_path):
    finished = finish_run(write_run(tmp_path), metrics={"validation": {"macro_f1": 0.5, "accuracy": 0.6}})
    failed, interrupted, running, serving = (write_run(tmp_path, kind=kind) for kind in ("run", "tune", "run", "serve"))
    record_error(failed, ValueError("it broke\nin the second line"))
    write_epochs(interrupted / "trials" / "0001", [0.2, 0.7, 0.4])
    with lock_run(running):
        runs = listed(tmp_path, kind="all")
    assert {name: run["state"] for name, run in runs.items()} == {
        finished.name: "finished",
        failed.name: "failed",
        interrupted.name: "interrupted",
        running.name: "running",
        serving.name: "ended",
    }
    assert (runs[finished.name]["value"], runs[finished.name]["part"]) == (0.5, "validation")
    assert runs[finished.name]["seconds"] == 2.5 and runs[finished.name]["started"].endswith("Z")
    assert runs[failed.name]["error"].startswith("it broke") and runs[failed.name]["can_resume"]
    assert runs[interrupted.name]["value"] == 0.7 and runs[interrupted.name]["can_resume"]
    assert not runs[running.name]["can_resume"] and not runs[serving.name]["can_resume"]
    assert summarize_run(running).state == "interrupted"  # the lock is free again


def test_the_value_is_that_of_the_test_rows_and_the_version_is_named(tmp_path):
    folder = finish_run(
        write_run(tmp_path, kind="run"), metrics={"test": {"macro_f1": 0.8}, "validation": {"macro_f1": 0.9}}
    )
    other = finish_run(write_run(tmp_path, kind="run"))
    version = register(tmp_path, folder)
    runs = listed(tmp_path)
    assert (runs[folder.name]["value"], runs[folder.name]["part"]) == (0.8, "test")
    assert (runs[folder.name]["model"], runs[folder.name]["version"], runs[folder.name]["champion"]) == ("a", 1, False)
    Registry(tmp_path).promote(version)
    assert listed(tmp_path)[folder.name]["champion"] and listed(tmp_path)[folder.name]["aliases"] == ["champion"]
    assert listed(tmp_path)[other.name]["version"] is None
    (tmp_path / "models" / "a" / "aliases.json").write_text("{")
    assert listed(tmp_path)[folder.name]["version"] == 1


def test_damaged_folders_are_listed_with_what_is_wrong(tmp_path):
    without_spec, bad_spec, bad_result, list_result, bad_history = (finish_run(write_run(tmp_path)) for _ in range(5))
    (without_spec / "resolved.yaml").unlink()
    (bad_spec / "resolved.yaml").write_text("a: [1,")
    (bad_result / "result.json").write_bytes(b"\xff{")
    (list_result / "result.json").write_text("[]")
    (bad_history / "result.json").unlink()
    (bad_history / "history.jsonl").write_bytes(b'\xff\n{"epoch": 1}\n')
    runs = listed(tmp_path)
    problems = {name: run["problem"] for name, run in runs.items()}
    assert "resolved.yaml is missing" in problems[without_spec.name]
    assert "resolved.yaml is damaged" in problems[bad_spec.name]
    assert "result.json is damaged" in problems[bad_result.name]
    assert "not a JSON object" in problems[list_result.name]
    assert problems[bad_history.name] == ""
    states = [runs[folder.name]["state"] for folder in (without_spec, bad_spec, bad_result, list_result, bad_history)]
    assert states == ["damaged"] * 4 + ["interrupted"]
    for run in runs:
        assert raymill.show_run(run, storage=tmp_path)["problem"] == problems[run]


def test_a_run_of_an_earlier_raymill_says_so(tmp_path):
    folder = write_run(tmp_path)
    path = folder / "resolved.yaml"
    path.write_text(path.read_text().replace("min_value:", "minimum:"))
    (run,) = raymill.runs(storage=tmp_path)
    assert "`promote.minimum`, now called `promote.min_value`" in run["problem"] and not run["can_resume"]
    assert run["state"] == "interrupted" and raymill.show_run("last", storage=tmp_path)["resume"] is None


def test_filters_and_order(tmp_path):
    names = []
    for name, kind, value, metric in (
        ("a", "train", 0.3, "macro_f1"),
        ("b", "run", 5.0, "log_loss"),
        ("a", "tune", 0.9, "macro_f1"),
        ("b", "train", 2.0, "log_loss"),
        ("a", "prepare", None, "macro_f1"),
    ):
        folder = write_run(tmp_path, name, kind, evaluate={"metric": metric})
        names.append(finish_run(folder, metrics={"validation": {metric: value}} if value else {}).name)
    # Runs of the same second are listed by name.
    assert set(listed(tmp_path)) == set(names[:4])
    assert set(listed(tmp_path, kind="all")) == set(names) and set(listed(tmp_path, kind="tune")) == {names[2]}
    assert set(listed(tmp_path, name="b")) == {names[1], names[3]}
    assert list(listed(tmp_path, sort="metric")) == [names[3], names[1], names[2], names[0]]
    with pytest.raises(SpecError, match="did you mean 'train'"):
        raymill.runs(storage=tmp_path, kind="trian")


def test_no_storage_means_no_runs(tmp_path):
    assert raymill.runs(storage=tmp_path / "nothing") == []


def test_a_run_is_named_by_name_prefix_path_or_last(tmp_path, monkeypatch):
    first = write_run(tmp_path, "first").rename(tmp_path / "runs" / "first-train-20250101-000000-aaaaaa")
    second = write_run(tmp_path, "second").rename(tmp_path / "runs" / "second-run-20250102-000000-bbbbbb")
    serve = write_run(tmp_path, "first", "serve")
    assert find_run(first.name, tmp_path) == find_run(str(first), tmp_path / "other") == first
    assert find_run("sec", tmp_path) == find_run("last", tmp_path) == second
    assert find_run("first-train", tmp_path) == first and find_run("first-serve", tmp_path) == serve
    monkeypatch.chdir(second)
    assert find_run(".", tmp_path) == find_run("../" + second.name, tmp_path) == second
    with pytest.raises(SpecError, match="beginning of 2 runs"):
        find_run("first", tmp_path)
    with pytest.raises(SpecError, match=f"did you mean '{first.name}'"):
        find_run("first-train-20250101-000000-aaaaab", tmp_path)
    with pytest.raises(SpecError, match="did you mean 'second'"):
        find_run("secnod", tmp_path)
    with pytest.raises(SpecError, match="none exists yet"):
        find_run("last", tmp_path / "empty")


def test_an_unfinished_run_took_until_its_last_sign_of_life(tmp_path):
    folder = write_run(tmp_path)
    make_older(folder, days=-1)  # written a day after its start
    assert 86_390 < raymill.runs(storage=tmp_path)[0]["seconds"] < 86_500
