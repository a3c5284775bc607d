"""Checkpoints and best models: which ones stay, which ones are deleted, and failed or damaged writes."""

import threading

import pytest
import torch

from cluster.errors import ResourceError
from trainer.optim.distributed.worker_context import WorkerContext
from trainer.training.checkpoint.background_writer import BackgroundWriter
from trainer.training.checkpoint.best_model import BestModels, has_model, newest_model
from trainer.training.checkpoint.checkpoints import Checkpoints
from trainer.training.checkpoint.train_state import TrainState
from trainer.training.worker import CheckpointingCallback

TENSORS = {"a": torch.ones(3)}


def state(best_epoch):
    return {"position": {"best_epoch": best_epoch}}


def writes(text):
    return lambda folder: (folder / "model").write_text(text)


def test_the_model_that_a_checkpoint_names_stays_until_no_checkpoint_does(tmp_path):
    notices = []
    models, checkpoints = BestModels(tmp_path, BackgroundWriter(notices.append)), Checkpoints(tmp_path, keep=1)
    models.save(1, writes("1"), deferred=False)
    checkpoints.save(10, TENSORS, state(1))
    models.save(2, writes("2"), deferred=False)
    assert has_model(tmp_path, 1) and newest_model(tmp_path).name == "best-000002"
    checkpoints.save(20, TENSORS, state(2))
    models.save(3, writes("3"), deferred=False)
    assert not has_model(tmp_path, 1) and has_model(tmp_path, 2)
    models.delete_older()
    assert not has_model(tmp_path, 2) and newest_model(tmp_path).name == "best-000003" and notices == []


def test_settling_waits_for_the_model(tmp_path):
    models, go = BestModels(tmp_path, BackgroundWriter(lambda text: None)), threading.Event()

    def slow(folder):
        assert go.wait(10)
        writes("1")(folder)

    models.save(1, slow, deferred=True)
    assert newest_model(tmp_path) is None
    go.set()
    models.settle()
    assert has_model(tmp_path, 1)


def test_a_model_that_cannot_be_written_is_reported(tmp_path):
    notices = []
    models = BestModels(tmp_path, BackgroundWriter(notices.append))

    def fails(folder):
        raise RuntimeError("no space")

    models.save(1, fails, deferred=True)
    models.settle()
    assert len(set(notices)) == 1 and "no space" in notices[0]


def test_damaged_checkpoints_are_skipped_and_unreadable_ones_are_an_error(tmp_path, monkeypatch):
    notices, checkpoints = [], Checkpoints(tmp_path, keep=3)
    for step in (10, 20):
        checkpoints.save(step, TENSORS, state(0))
    path = tmp_path / "checkpoints" / "step-00000020" / "state.safetensors"
    content = path.read_bytes()
    path.write_bytes(content[:-4])
    assert checkpoints.load_newest(notices.append).step == 10 and "step 20 is damaged" in notices[0]
    path.write_bytes(content)
    path.unlink()
    path.mkdir()  # reading it raises an OSError, which says nothing about its content
    with pytest.raises(ResourceError, match="step 20 .* cannot be read"):
        checkpoints.load_newest(notices.append)


def test_the_best_metric_is_reset_if_its_model_was_lost(tmp_path):
    callback = CheckpointingCallback(tmp_path, WorkerContext(0, 1, "cpu", 1), lambda metrics: None)
    state = TrainState(epoch=3, best=0.9, best_epoch=2, since_best=1)
    callback.on_begin(state)
    assert (state.best, state.best_epoch, state.since_best) == (None, 0, 0)
    assert "the model of epoch 2" in (tmp_path / "notices.jsonl").read_text()
    callback({"epoch": 3}, writes("3"))
    state = TrainState(epoch=4, best=0.8, best_epoch=3, since_best=1)
    callback.on_begin(state)
    assert (state.best, state.best_epoch, state.since_best) == (0.8, 3, 1)


def test_nothing_is_written_where_the_runs_folder_is_missing(tmp_path):
    run, away = tmp_path / "run", tmp_path / "away"
    run.mkdir()
    notices = []
    models, checkpoints = BestModels(run, BackgroundWriter(notices.append)), Checkpoints(run, keep=2)
    checkpoints.save(1, TENSORS, state(0))
    run.rename(away)  # the storage is not mounted
    with pytest.raises(ResourceError):
        checkpoints.save(2, TENSORS, state(0))
    models.save(1, writes("1"), deferred=True)
    models.settle()
    assert not run.exists() and "the model of epoch 1 could not be written" in notices[0]
    away.rename(run)
    models.settle()  # before the next checkpoint, which names the best epoch
    checkpoints.save(3, TENSORS, state(1))
    assert checkpoints.steps() == [3, 1] and newest_model(run) is not None
