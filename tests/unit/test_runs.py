"""The folders of runs: what kind of run lies in one, and the lock of the process that works on it."""

import json

import pytest

from cluster.errors import ResourceError, SpecError
from trainer.runs import folder as run_folder
from trainer.runs import resume
from trainer.tasks.resolve import load_spec


def test_a_runs_kind_is_what_it_did_whatever_it_is_called(tmp_path):
    spec = load_spec(
        {"name": "pre-train-model", "data": {"train": "a.csv"}, "model": {"base": "b"}, "storage": str(tmp_path)}
    )
    folder = run_folder.create_run(spec, "run")
    assert resume.load_for_resume(folder.name, tmp_path, [])[2] == "run"
    (folder / "result.json").write_text(json.dumps({}))
    with pytest.raises(SpecError, match="is finished"):
        resume.load_for_resume(folder.name, tmp_path, [])


def test_a_run_that_still_goes_on_is_left_alone(tmp_path):
    spec = load_spec({"name": "a", "data": {"train": "a.csv"}, "model": {"base": "b"}, "storage": str(tmp_path)})
    folder = run_folder.create_run(spec, "train")
    with run_folder.lock_run(folder), pytest.raises(ResourceError, match="still works on"), run_folder.lock_run(folder):
        pass
    with run_folder.lock_run(folder):
        assert folder.is_dir()
