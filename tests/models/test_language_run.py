"""A whole run of a language model without Ray: prepared, trained, gated, registered, and answered from."""

import json

import pytest

import raymill
from support.chat_data import chat_spec, write_chats
from support.tiny_causal import write_tiny_causal
from trainer.inference.golden import verify_golden
from trainer.inference.predictor import Predictor

pytestmark = pytest.mark.slow

TRAIN = {"epochs": 2, "tokens_per_step": 512, "learning_rate": 1e-2}


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    folder = tmp_path_factory.mktemp("language")
    base = write_tiny_causal(folder / "base")
    spec = chat_spec(base, write_chats(folder / "chats.jsonl", 80), folder / "storage")
    return folder, {**spec, "train": TRAIN, "serve": {"engine": "native"}}


@pytest.mark.parametrize("lora", [None, {"rank": 4, "save": "adapter"}])
def test_a_registered_version_passes_its_golden_rows(scene, lora):
    folder, spec = scene
    model = {**spec["model"], **({"lora": lora} if lora else {})}
    name = "lora" if lora else "whole"
    raymill.run({**spec, "name": name, "model": model})
    version = folder / "storage" / "models" / name / "versions" / "1"
    metrics = json.loads((version / "metrics.json").read_text())
    assert 1 < metrics["test"]["perplexity"] < 400
    assert verify_golden(version, Predictor(version)) > 0
    golden = json.loads((version / "golden.json").read_text())["rows"]
    assert all(row["scores"][1] == sum(token >= 0 for token in row["inputs"]) for row in golden)
