"""What a training keeps: checkpoints, the best model, and that both belong together."""

import json
import threading

import pytest
import torch

from cluster.errors import ResourceError, SpecError
from trainer.runs import folder as run_folder
from trainer.runs import resume
from trainer.tasks.resolve import load
from trainer.training.checkpoint.background_writer import Background
from trainer.training.checkpoint.best_model import BestModels, is_there, newest
from trainer.training.checkpoint.snapshots import Snapshots

TENSORS = {"a": torch.ones(3)}


def state(best_epoch):
    return {"position": {"best_epoch": best_epoch}}


def writes(text):
    return lambda folder: (folder / "model").write_text(text)


def test_the_model_that_a_checkpoint_names_stays_until_no_checkpoint_does(tmp_path):
    told = []
    models, snapshots = BestModels(tmp_path, Background(told.append)), Snapshots(tmp_path, keep=1)
    models.keep(1, writes("1"), deferred=False)
    snapshots.write(10, TENSORS, state(1))
    models.keep(2, writes("2"), deferred=False)
    assert is_there(tmp_path, 1) and newest(tmp_path).name == "best-000002"
    snapshots.write(20, TENSORS, state(2))
    models.keep(3, writes("3"), deferred=False)
    assert not is_there(tmp_path, 1) and is_there(tmp_path, 2)
    models.keep_only_the_newest()
    assert not is_there(tmp_path, 2) and newest(tmp_path).name == "best-000003" and told == []


def test_settling_waits_for_the_model(tmp_path):
    models, go = BestModels(tmp_path, Background(lambda text: None)), threading.Event()

    def slow(folder):
        assert go.wait(10)
        writes("1")(folder)

    models.keep(1, slow, deferred=True)
    assert newest(tmp_path) is None
    go.set()
    models.settle()
    assert is_there(tmp_path, 1)


def test_a_model_that_no_library_can_write_is_told_of(tmp_path):
    told = []
    models = BestModels(tmp_path, Background(told.append))

    def fails(folder):
        raise RuntimeError("no space")

    models.keep(1, fails, deferred=True)
    models.settle()
    assert len(told) == 1 and "no space" in told[0]


def test_damaged_checkpoints_are_left_out_and_unreadable_ones_are_not_thrown_away(tmp_path, monkeypatch):
    told, snapshots = [], Snapshots(tmp_path, keep=3)
    for step in (10, 20):
        snapshots.write(step, TENSORS, state(0))
    path = tmp_path / "checkpoints" / "step-00000020" / "state.safetensors"
    whole = path.read_bytes()
    path.write_bytes(whole[:-4])
    assert snapshots.newest(told.append).step == 10 and "step 20 is damaged" in told[0]
    path.write_bytes(whole)
    path.unlink()
    path.mkdir()  # whoever reads it gets an OSError that says nothing about its content
    with pytest.raises(ResourceError, match="step 20 .* cannot be read"):
        snapshots.newest(told.append)


def test_a_runs_kind_is_what_it_did_whatever_it_is_called(tmp_path):
    spec = load(
        {"name": "pre-train-model", "data": {"train": "a.csv"}, "model": {"base": "b"}, "storage": str(tmp_path)}
    )
    folder = run_folder.create(spec, "run")
    assert resume.interrupted(folder.name, tmp_path, [])[2] == "run"
    (folder / "result.json").write_text(json.dumps({}))
    with pytest.raises(SpecError, match="is finished"):
        resume.interrupted(folder.name, tmp_path, [])


def test_a_run_that_still_goes_on_is_left_alone(tmp_path):
    spec = load({"name": "a", "data": {"train": "a.csv"}, "model": {"base": "b"}, "storage": str(tmp_path)})
    folder = run_folder.create(spec, "train")
    with run_folder.held(folder), pytest.raises(ResourceError, match="still works on"), run_folder.held(folder):
        pass
    with run_folder.held(folder):
        assert folder.is_dir()
