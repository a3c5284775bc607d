"""examples/shakespeare on its own short text: trained, judged, and continued by the engine."""

import json
import os
import shutil
import subprocess
import sys

import pytest

from support.commands import ROOT, run_raymill
from trainer.generation.engine import GenerationRequest, SamplingParams, complete_all
from trainer.generation.load import load_engine

SMALLER = {
    "train.epochs": 6,
    "train.tokens_per_step": 512,
    "train.sequence_tokens": 64,
    "train.learning_rate": 0.01,
    "data.max_length": 256,
    "data.split.validation": 0.15,
    "model.config.num_hidden_layers": 2,
    "model.config.hidden_size": 64,
    "model.config.max_position_embeddings": 256,
    "model.config.ngram_rows": 1024,
}


@pytest.fixture(scope="module")
def example(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shakespeare")
    for name in ("make_rows.py", "run.yaml", "text.txt"):
        shutil.copy(ROOT / "examples/shakespeare" / name, folder)
    environment = {name: value for name, value in os.environ.items() if name != "SHAKESPEARE"}
    made = [sys.executable, folder / "make_rows.py"]
    subprocess.run(made, capture_output=True, text=True, check=True, env=environment)
    return folder


@pytest.fixture(scope="module")
def outcome(example):
    smaller = [part for key, value in SMALLER.items() for part in ("--set", f"{key}={value}")]
    done = run_raymill("run", example / "run.yaml", "--set", f"storage={example / 'storage'}", *smaller, "--json")
    assert done.code == 0, done
    return json.loads(done.stdout)


def test_the_text_is_cut_once(example):
    text = (example / "text.txt").read_text()
    parts = [json.loads((example / f"rows/{part}.jsonl").read_text())["text"] for part in ("train", "test")]
    assert "".join(parts) == text and len(parts[1]) == pytest.approx(len(text) / 10, abs=1)


def test_it_learns(outcome):
    assert outcome["metrics"]["test"]["log_loss"] < 3.0  # all characters alike: 4.0
    assert outcome["promoted"]


def test_the_engine_continues_it(example, outcome):
    engine = load_engine(example / "storage/models/shakespeare/versions/1")
    tokenizer = engine._tokenizer
    request = GenerationRequest("1", tokenizer.encode("MARA:\n").ids, SamplingParams(max_tokens=40, temperature=0.0))
    (answer,) = complete_all(engine, [request])
    assert answer.finish_reason in ("length", "stop") and answer.text.strip()
