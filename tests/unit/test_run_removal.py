"""Remove runs: only from the storage, never a running one, and never what links point to."""

import json

import pytest

import raymill
from cluster.errors import ResourceError, SpecError, UserError
from cluster.files import folder_bytes
from support.run_folders import finish_run, make_older, train_run, write_run
from support.tiny_text import tiny_spec
from trainer.inference.predictor import Predictor
from trainer.registry.register import register_candidate
from trainer.registry.registry import Registry, verify_files
from trainer.runs.folder import lock_run
from trainer.runs.result import RunResult
from trainer.tasks.load_spec import load_spec


def names(storage):
    return {path.name for path in (storage / "runs").iterdir()}


def register(storage, run):
    Registry(storage).register("a", lambda folder: (folder / "lineage.json").write_text(json.dumps({"run": str(run)})))


def test_a_run_is_removed_with_its_bytes(tmp_path):
    folder, other = write_run(tmp_path), write_run(tmp_path)
    (folder / "checkpoints").mkdir()
    (folder / "checkpoints" / "weights").write_bytes(b"x" * 5000)
    size = folder_bytes(folder)
    assert size > 5000
    assert raymill.remove_runs([folder.name], storage=tmp_path, dry_run=True)["bytes"] == size and folder.is_dir()
    result = raymill.remove_runs([folder.name, str(folder)], storage=tmp_path)
    assert result == {
        "removed": [{"run": folder.name, "folder": str(folder), "bytes": size}],
        "bytes": size,
        "skipped": [],
    }
    assert names(tmp_path) == {other.name}


def test_a_running_run_stays(tmp_path):
    running, other = write_run(tmp_path), write_run(tmp_path)
    with lock_run(running):
        with pytest.raises(ResourceError, match="it is running"):
            raymill.remove_runs([other.name, running.name], storage=tmp_path, force=True)
        assert names(tmp_path) == {running.name, other.name}  # nothing is removed if one cannot be removed
        make_older(other, 10)
        make_older(running, 10)
        result = raymill.remove_runs(older_than_days=5, storage=tmp_path, force=True)
    assert [entry["run"] for entry in result["removed"]] == [other.name]
    assert result["skipped"] == [{"run": running.name, "reason": "it is running"}]


def test_the_run_of_a_version_needs_force(tmp_path):
    folder = finish_run(write_run(tmp_path, kind="run"))
    register(tmp_path, folder)
    with pytest.raises(ResourceError, match="a@1 is registered from it") as caught:
        raymill.remove_runs(["last"], storage=tmp_path)
    assert "--force" in caught.value.fix and folder.is_dir()
    raymill.remove_runs(["last"], storage=tmp_path, force=True)
    assert not folder.exists()


def test_a_version_works_without_its_run(tiny_base, tiny_data, tmp_path):
    spec = tiny_spec(tiny_base, tiny_data, tmp_path, train={"epochs": 1, "batch_size": 32, "learning_rate": 1e-3})
    folder = train_run(spec)
    (prepared,) = (tmp_path / "prepared").iterdir()
    result = RunResult(folder / "best-1", load_spec(spec), prepared, {}, [], folder)
    version = register_candidate(result, tmp_path)
    before = Predictor(version.folder).predict(["apple pear"])
    raymill.remove_runs([folder.name], storage=tmp_path, force=True)
    verify_files(version)
    assert Predictor(version.folder).predict(["apple pear"]) == before


def test_nothing_outside_the_storage_is_touched(tmp_path):
    storage, outside = tmp_path / "storage", tmp_path / "outside"
    run = write_run(storage)
    stranger = write_run(outside)
    (outside / "data.csv").write_text("precious")
    (run / "link_to_file").symlink_to(outside / "data.csv")
    (run / "link_to_folder").symlink_to(outside)
    linked = storage / "runs" / stranger.name
    linked.symlink_to(stranger)
    for named in (str(stranger), str(linked), f"{run}/../../../outside/runs/{stranger.name}"):
        with pytest.raises(ResourceError, match="is not removed"):
            raymill.remove_runs([named], storage=storage, force=True)
    for named in (f"{run}/..", f"{run}/../..", str(storage), stranger.name, "", "/"):
        with pytest.raises(SpecError):
            raymill.remove_runs([named], storage=storage, force=True)
    make_older(run, 10)
    make_older(stranger, 10)
    result = raymill.remove_runs(older_than_days=5, storage=storage, force=True)
    assert [entry["run"] for entry in result["removed"]] == [run.name]
    assert not run.exists() and (outside / "data.csv").read_text() == "precious"
    assert (stranger / "resolved.yaml").is_file() and linked.is_symlink()


def test_the_age_counts_from_the_last_change_and_leftovers_go(tmp_path):
    old, resumed, served = write_run(tmp_path), write_run(tmp_path), write_run(tmp_path, kind="serve")
    for folder in (old, resumed, served):
        make_older(folder, 40)
    (resumed / "history.jsonl").write_text("")
    leftover = tmp_path / "runs" / ".a-train-20250101-000000-aaaaaa.0123abcd"
    leftover.mkdir()
    make_older(leftover, 40)
    preview = raymill.remove_runs(older_than_days=30, storage=tmp_path, dry_run=True)
    assert {entry["run"] for entry in preview["removed"]} == {old.name, served.name} and old.is_dir()
    raymill.remove_runs(older_than_days=30, storage=tmp_path)
    assert names(tmp_path) == {resumed.name}


def test_what_to_remove_is_said_once(tmp_path):
    folder = write_run(tmp_path)
    for runs, days in (([], None), ([folder.name], 3), ([], -1), ([], float("nan"))):
        with pytest.raises(UserError):
            raymill.remove_runs(runs, older_than_days=days, storage=tmp_path)
    assert folder.is_dir()
