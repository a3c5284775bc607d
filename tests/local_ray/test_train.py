"""Training with Ray Train: it learns, workers agree, and the checkpoint is transformers' own."""

import json

import numpy as np
import pytest
from tiny import tiny_spec

from cluster.errors import UserError
from trainer.data import prepare as preparing
from trainer.fit import fit
from trainer.predictor import Predictor
from trainer.spec_load import load


@pytest.fixture(scope="module")
def storage(tmp_path_factory):
    return tmp_path_factory.mktemp("storage")


def train(spec, folder, cpus=1.0):
    loaded = load(spec)
    prepared = preparing.prepare(loaded, lambda progress: None, folder / "quarantine.parquet")
    folder.mkdir(parents=True, exist_ok=True)
    return fit(loaded, prepared.folder, folder, cpus), prepared


def test_one_worker_and_two_take_the_same_steps(tiny_base, tiny_data, storage, tmp_path):
    one, prepared = train(tiny_spec(tiny_base, tiny_data, storage), tmp_path / "one")
    two, _ = train(tiny_spec(tiny_base, tiny_data, storage, cluster={"workers": 2}), tmp_path / "two")
    assert one.metrics["accuracy"] > 0.9
    for a, b in zip(one.history, two.history, strict=True):
        assert a["train_loss"] == pytest.approx(b["train_loss"], abs=1e-4)
        assert a["log_loss"] == pytest.approx(b["log_loss"], abs=1e-3)

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
    assert np.abs(ours.scores(ours.encode(texts)) - theirs).max() < 1e-5
    assert [json.loads(line)["epoch"] for line in (tmp_path / "one" / "history.jsonl").read_text().splitlines()] == [
        1,
        2,
        3,
        4,
    ]


def test_early_stopping_keeps_the_best_epoch(tiny_base, tiny_data, storage, tmp_path):
    spec = tiny_spec(
        tiny_base,
        tiny_data,
        storage,
        train={"epochs": 8, "batch_size": 16, "learning_rate": 1e-2, "early_stopping_patience": 1},
    )
    result, _ = train(spec, tmp_path / "run")
    values = [epoch["macro_f1"] for epoch in result.history]
    assert len(values) < 8
    assert result.metrics["macro_f1"] == max(values)


def test_a_loss_that_is_no_number_ends_in_the_users_message(tiny_base, tiny_data, storage, tmp_path):
    spec = tiny_spec(
        tiny_base, tiny_data, storage,
        train={"epochs": 1, "batch_size": 16, "learning_rate": 1.0, "max_grad_norm": 1e30, "weight_decay": 1.0},
    )  # fmt: skip
    try:
        result, _ = train(spec, tmp_path / "run")
    except UserError as error:
        assert "lower train.learning_rate" in str(error)
    else:
        assert np.isfinite(result.metrics["log_loss"])
