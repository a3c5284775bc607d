"""Folders of runs: the kind of a run, and the lock of the process that works on it."""

import json

import pytest

from cluster.errors import ResourceError, SpecError
from trainer.runs.folder import create_run, lock_run
from trainer.runs.resume import load_for_resume
from trainer.tasks.load_spec import load_spec


def test_the_kind_of_a_run_does_not_depend_on_its_name(tmp_path):
    spec = load_spec(
        {"name": "pre-train-model", "data": {"train": "a.csv"}, "model": {"base": "b"}, "storage": str(tmp_path)}
    )
    folder = create_run(spec, "run")
    assert load_for_resume(folder.name, tmp_path, [])[2] == "run"
    (folder / "result.json").write_text(json.dumps({}))
    with pytest.raises(SpecError, match="is finished"):
        load_for_resume(folder.name, tmp_path, [])


@pytest.mark.slow
def test_a_run_that_another_process_works_on_cannot_be_locked(tmp_path):
    spec = load_spec({"name": "a", "data": {"train": "a.csv"}, "model": {"base": "b"}, "storage": str(tmp_path)})
    folder = create_run(spec, "train")
    with lock_run(folder), pytest.raises(ResourceError, match="still works on"), lock_run(folder):
        pass
    with lock_run(folder):
        assert folder.is_dir()
