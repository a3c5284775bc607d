"""Training with Ray Train: the model learns, two workers train like one, and transformers reads the checkpoint."""

import json

import numpy as np
import pytest

from cluster.errors import UserError
from support.tiny_text import tiny_spec
from trainer.data.prepare import prepare as preparing
from trainer.defaults.resolve import resolve_spec
from trainer.inference.predictor import Predictor
from trainer.optim.distributed.worker_context import WorkerContext
from trainer.tasks import catalog as task_catalog
from trainer.tasks.load_spec import load_spec
from trainer.training.callbacks import FunctionCallback
from trainer.training.context import TrainContext
from trainer.training.launch import launch_training
from trainer.training.loop import train_model


@pytest.fixture(scope="module")
def storage(tmp_path_factory):
    return tmp_path_factory.mktemp("storage")


def train(spec, folder, cpus=1.0):
    loaded = load_spec(spec)
    prepared = preparing.prepare_rows(loaded, lambda progress: None, folder / "quarantine.parquet")
    folder.mkdir(parents=True, exist_ok=True)
    return launch_training(loaded, prepared.folder, folder, cpus), prepared


def test_one_worker_and_two_take_the_same_steps(tiny_base, tiny_data, storage, tmp_path):
    settings = {"epochs": 6, "batch_size": 8, "learning_rate": 1e-3, "precision": "fp32"}
    one, prepared = train(tiny_spec(tiny_base, tiny_data, storage, train=settings), tmp_path / "one")
    spec = tiny_spec(tiny_base, tiny_data, storage, train=settings, cluster={"workers": 2})
    two, _ = train(spec, tmp_path / "two")
    assert one.metrics["accuracy"] > 0.9
    for epoch_of_one, epoch_of_two in zip(one.history, two.history, strict=True):
        for loss in ("train_loss", "log_loss"):
            assert epoch_of_one[loss] == pytest.approx(epoch_of_two[loss], abs=1e-5)

    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    files = {path.name for path in one.checkpoint.iterdir()}
    assert {"config.json", "model.safetensors", "tokenizer.json", "contract.json"} <= files
    assert not any(name.endswith((".bin", ".pt", ".pkl")) for name in files)
    model = AutoModelForSequenceClassification.from_pretrained(one.checkpoint).eval()
    assert model.config.id2label == {0: "animal", 1: "fruit", 2: "tool"}
    texts = prepared.part("test").raw("text")[:20]
    inputs = AutoTokenizer.from_pretrained(one.checkpoint)(texts, padding=True, return_tensors="pt")
    theirs = model(**inputs).logits.softmax(-1).detach().numpy()
    ours = Predictor(one.checkpoint)
    assert np.abs(ours.scores(ours.encode({"text": texts})) - theirs).max() < 1e-5
    lines = (tmp_path / "one" / "history.jsonl").read_text().splitlines()
    assert [json.loads(line)["epoch"] for line in lines] == [1, 2, 3, 4, 5, 6]


def train_without_ray(spec, folder):
    """Run the same loop without Ray Train; return each epoch's metrics and whether its model was to be saved."""
    loaded = load_spec(spec)
    prepared = preparing.prepare_rows(loaded, lambda progress: None, folder / "quarantine.parquet")
    loaded = resolve_spec(loaded, prepared).spec
    epochs = []
    callback = FunctionCallback(lambda metrics, save: epochs.append((metrics, save)))
    task, worker = task_catalog.get_task("text-classification"), WorkerContext(0, 1, "cpu", 1)
    train_model(TrainContext(task, loaded, prepared, worker, callback, folder))
    return epochs


def test_early_stopping_and_checkpoints_of_better_epochs_only(tiny_base, tiny_data, storage, tmp_path):
    settings = {"epochs": 12, "batch_size": 16, "learning_rate": 5e-3, "early_stopping_patience": 1}
    epochs = train_without_ray(tiny_spec(tiny_base, tiny_data, storage, train=settings), tmp_path)
    values = [metrics["macro_f1"] for metrics, _ in epochs]
    assert len(values) < 12 and values[-1] <= max(values[:-1])
    best = -1.0
    for value, (_, save) in zip(values, epochs, strict=True):
        assert (save is not None) == (value > best)
        best = max(best, value)


def test_the_loss_depends_on_the_seed(tiny_base, tiny_data, storage, tmp_path):
    settings = {"epochs": 1, "batch_size": 16, "learning_rate": 1e-3}
    losses = []
    for number, seed in enumerate((1, 1, 2)):
        (tmp_path / str(number)).mkdir()
        spec = tiny_spec(tiny_base, tiny_data, storage, train={**settings, "seed": seed})
        losses.append(train_without_ray(spec, tmp_path / str(number))[0][0]["train_loss"])
    assert losses[0] == losses[1] != losses[2]


def test_a_loss_that_is_not_a_number_names_the_rows(tiny_base, tiny_data, storage, tmp_path, monkeypatch):
    from trainer.targets.classes import Classes

    loss_sum = Classes.loss_sum
    monkeypatch.setattr(Classes, "loss_sum", lambda *arguments: loss_sum(*arguments) * float("nan"))
    settings = {"epochs": 1, "batch_size": 16, "learning_rate": 1e-3}
    with pytest.raises(UserError, match=r"the loss is nan at step 1 \(epoch 1\), in the rows train.csv, row \d+; "):
        train_without_ray(tiny_spec(tiny_base, tiny_data, storage, train=settings), tmp_path)


def test_sharded_weights_take_the_same_steps_and_are_saved_in_full(tiny_base, tiny_data, storage, tmp_path):
    settings = {"epochs": 2, "batch_size": 8, "learning_rate": 3e-3, "precision": "fp32", "ema_decay": 0.9,
                "checkpoint": {"every_steps": 10}}  # fmt: skip
    spec = tiny_spec(tiny_base, tiny_data, storage, train=settings, track={"every_steps": 1})
    one, prepared = train(spec, tmp_path / "one")
    sharded = {**spec, "cluster": {"workers": 2, "strategy": "fsdp"}}
    two, _ = train(sharded, tmp_path / "two")

    def losses(folder):
        return [json.loads(line)["loss"] for line in (folder / "metrics.jsonl").read_text().splitlines()]

    assert losses(tmp_path / "two") == pytest.approx(losses(tmp_path / "one"), abs=1e-5)
    rows = prepared.part("test")
    inputs = [rows.inputs(row) for row in range(len(rows))]
    ours, theirs = (Predictor(result.checkpoint).scores(inputs) for result in (one, two))
    assert np.abs(ours - theirs).max() < 1e-4
    # A checkpoint of sharded weights holds all of them: one worker can resume from it.
    (tmp_path / "two" / "history.jsonl").unlink()
    again = launch_training(load_spec(spec), prepared.folder, tmp_path / "two", 1.0)
    assert losses(tmp_path / "two") == pytest.approx(losses(tmp_path / "one"), abs=1e-5)
    assert again.metrics["log_loss"] == pytest.approx(one.metrics["log_loss"], abs=1e-4)
