"""The training of language models, on a tiny one: the loop without Ray."""

import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from cluster.errors import ModelError, SpecError, UserError
from support.chat_data import chat_spec, write_chats
from support.gloo_training import train_on_workers
from support.local_training import train_in_process
from support.tiny_causal import write_tiny_causal
from trainer.inference.predictor import Predictor
from trainer.tasks.load_spec import load_spec

pytestmark = pytest.mark.slow

TRAIN = {"epochs": 2, "tokens_per_step": 512, "learning_rate": 5e-3, "precision": "fp32"}


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return write_tiny_causal(tmp_path_factory.mktemp("model") / "base")


@pytest.fixture(scope="module")
def spec_of(base, tmp_path_factory):
    storage = tmp_path_factory.mktemp("storage")
    data = write_chats(storage / "chats.jsonl", 60)

    def make(train=None, **sections):
        spec = chat_spec(base, data, storage)
        return {**spec, "train": {**TRAIN, **(train or {})}, "track": {"every_steps": 1}, **sections}

    return make


@pytest.fixture(scope="module")
def plain(spec_of, tmp_path_factory):
    return train_in_process(spec_of(), tmp_path_factory.mktemp("plain"))


def test_it_learns_and_its_metrics_are_those_of_the_saved_model(plain):
    assert plain.losses[-1] < 0.6 * plain.losses[0]
    best = min(plain.epochs, key=lambda epoch: epoch["log_loss"])
    rows = plain.prepared.part("validation")
    predictor = Predictor(plain.best)
    scores = predictor.scores([rows.inputs(row) for row in range(len(rows))])
    metrics = predictor.task.target.metrics(scores, rows.targets, 15)
    assert metrics["log_loss"] == pytest.approx(best["log_loss"], abs=1e-6)
    assert metrics["perplexity"] == pytest.approx(np.exp(best["log_loss"]))
    assert 0 < metrics["token_accuracy"] <= 1
    for name in ("tokens_per_s", "arithmetic_share", "grad_norm", "memory_bytes"):
        assert plain.steps[-1][name] > 0


def test_the_loss_is_the_one_of_transformers(spec_of, base, tmp_path):
    """The first step, whose rows are all rows: the mean over all learned tokens of the step."""
    from transformers import AutoModelForCausalLM

    training = train_in_process(spec_of({"tokens_per_step": 10**6, "epochs": 1}), tmp_path)
    model, rows = AutoModelForCausalLM.from_pretrained(base), training.prepared.part("train")
    total = count = 0
    for row in map(rows.inputs, range(len(rows))):
        ids, labels = np.where(row < 0, ~row, row), np.where(row < 0, -100, row)
        n_learned = int((labels[1:] >= 0).sum())
        with torch.no_grad():
            loss = model(torch.tensor(ids)[None].long(), labels=torch.tensor(labels)[None].long()).loss
        total, count = total + loss.item() * n_learned, count + n_learned
    assert training.losses == [pytest.approx(total / count, rel=1e-6)]


@pytest.mark.parametrize(
    "train", [{"micro_batch_tokens": 130}, {"gradient_checkpointing": True}, {"offload_activations": True}]
)
def test_passes_and_checkpointing_give_the_same_steps(spec_of, plain, tmp_path, train):
    assert train_in_process(spec_of(train), tmp_path).losses == pytest.approx(plain.losses, abs=1e-5)


def test_two_workers_take_the_same_steps(spec_of, tmp_path):
    short = {"max_steps": 4, "micro_batch_tokens": 200}
    one = train_in_process(spec_of(short), tmp_path / "one")
    specs = [spec_of(short, cluster={"workers": 2, "strategy": strategy}) for strategy in ("ddp", "fsdp")]
    for training in train_on_workers(specs, tmp_path, 2):
        assert training.losses == pytest.approx(one.losses, abs=1e-5)
        assert training.epochs[-1]["log_loss"] == pytest.approx(one.epochs[-1]["log_loss"], abs=1e-4)
        ours, theirs = (load_file(run.best / "model.safetensors") for run in (training, one))
        for name, value in theirs.items():
            torch.testing.assert_close(ours[name], value, rtol=1e-3, atol=1e-3)


KILLED = """
import json, sys
sys.path.insert(0, sys.argv[1])
from pathlib import Path
from support.local_training import train_in_process
train_in_process(json.loads(sys.argv[2]), Path(sys.argv[3]))
"""


def test_a_killed_run_ends_as_if_it_had_not_been(spec_of, tmp_path):
    train = {"epochs": 60, "max_steps": 120, "checkpoint": {"every_steps": 10, "keep": 2}}
    whole = train_in_process(spec_of(train), tmp_path / "whole")
    folder = tmp_path / "killed"
    arguments = [str(Path(__file__).parents[1]), json.dumps(spec_of(train)), str(folder)]
    child = subprocess.Popen([sys.executable, "-c", KILLED, *arguments], cwd=Path(__file__).parents[2])
    try:
        deadline = time.monotonic() + 120
        while len(list(folder.glob("checkpoints/step-*"))) < 2 and child.poll() is None:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        child.send_signal(signal.SIGKILL)
    finally:
        child.kill()
        child.wait()
    assert len((folder / "metrics.jsonl").read_text().splitlines()) < 120, "the training ended before it was killed"
    again = train_in_process(spec_of(train), folder)
    assert again.losses == whole.losses and len(again.losses) == 120
    states = [load_file(run.folder / "checkpoints/step-00000120/state.safetensors") for run in (again, whole)]
    assert all(torch.equal(states[0][name], value) for name, value in states[1].items())


@pytest.mark.parametrize("changes", [{}, {"rslora": True, "alpha": 8}, {"dora": True}, {"targets": ["q_proj", "v_proj"], "modules_to_save": ["embed_tokens"]}])  # fmt: skip
def test_lora(spec_of, base, tmp_path, changes):
    results = {}
    for save in ("merged", "adapter"):
        lora = {"rank": 4, "save": save, **changes}
        spec = spec_of({"learning_rate": 2e-2}, model={"base": str(base), "lora": lora})
        results[save] = train_in_process(spec, tmp_path / save)
    assert results["merged"].losses == results["adapter"].losses
    assert results["merged"].losses[-1] < 0.8 * results["merged"].losses[0]
    rows = results["merged"].prepared.part("validation")
    inputs = [rows.inputs(row) for row in range(len(rows))]
    merged, adapter = (Predictor(run.best).scores(inputs) for run in results.values())
    np.testing.assert_allclose(merged[:, 0], adapter[:, 0], rtol=1e-4)
    assert (results["adapter"].best / "adapter_model.safetensors").is_file()
    # peft itself, on transformers' own model.
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    theirs = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), results["adapter"].best).eval()
    row = rows.inputs(0)
    ids, labels = np.where(row < 0, ~row, row), np.where(row < 0, -100, row)
    with torch.no_grad():
        loss = theirs(input_ids=torch.tensor(ids)[None].long(), labels=torch.tensor(labels)[None].long()).loss
    assert merged[0, 0] / merged[0, 1] == pytest.approx(loss.item(), rel=1e-4)


def test_a_loss_that_is_not_finite_names_step_and_rows(spec_of, base, tmp_path):
    broken = tmp_path / "base"
    shutil.copytree(base, broken)
    weights = load_file(broken / "model.safetensors")
    weights["model.layers.1.mlp.up_proj.weight"][0, 0] = float("nan")
    save_file(weights, broken / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UserError, match=r"the loss is nan at step 1 \(epoch 1\), in the rows chats.jsonl, row \d+"):
        train_in_process(spec_of(model={"base": str(broken)}), tmp_path / "run")


def test_dropout_is_refused(spec_of, tmp_path):
    dropped = write_tiny_causal(tmp_path / "base", attention_dropout=0.1)
    with pytest.raises(ModelError, match=r"attention_dropout=0.1"):
        train_in_process(spec_of(model={"base": str(dropped)}), tmp_path / "run")
    with pytest.raises(SpecError, match=r"model.lora.dropout=0.1"):
        train_in_process(
            spec_of(model={"base": str(dropped), "dropout": 0, "lora": {"dropout": 0.1}}), tmp_path / "run"
        )
    train_in_process(spec_of({"max_steps": 1}, model={"base": str(dropped), "dropout": 0}), tmp_path / "without")


def test_quantized_training_needs_a_gpu(spec_of, base, tmp_path):
    spec = spec_of(model={"base": str(base), "lora": {"rank": 4, "save": "adapter"}, "quantize": "nf4"})
    with pytest.raises(ModelError, match="quantize=nf4 needs a GPU"):
        train_in_process(spec, tmp_path / "run")
    with pytest.raises(SpecError, match=r"quantize: nf4 needs model.lora with `save: adapter`"):
        load_spec(spec_of(model={"base": str(base), "quantize": "nf4"}))


def test_keys_of_other_tasks_are_refused(spec_of):
    for key in ("batch_size", "micro_batch_size"):
        with pytest.raises(SpecError, match=f"train.{key} is set, but text-generation does not use it"):
            load_spec(spec_of({key: 8}))


def test_defaults(spec_of, tmp_path):
    from trainer.data.prepare import prepare as preparing
    from trainer.defaults.resolve import resolve_spec

    spec = spec_of()
    spec.pop("train")
    loaded = load_spec(spec)
    prepared = preparing.prepare_rows(loaded, lambda progress: None, tmp_path / "quarantine.parquet")
    chosen = {key: choice.value for key, choice in resolve_spec(loaded, prepared).choices.items()}
    assert chosen["train.tokens_per_step"] == 1024 and chosen["train.epochs"] == 3
    assert 1e-4 < chosen["train.learning_rate"] < 1e-3 and "train.batch_size" not in chosen


def test_the_plan_counts_memory(spec_of, base):
    from trainer.planning.row_facts import RowFacts
    from trainer.planning.training_memory import worker_memory

    def plan(train=None, **model):
        spec = load_spec(spec_of({"tokens_per_step": 65536, **(train or {})}, model={"base": str(base), **model}))
        memory = worker_memory(spec, RowFacts(longest=128, outputs=3, rows=1000))
        assert not memory.main.unknown
        return memory.main.bytes

    whole = plan()
    assert plan({"micro_batch_tokens": 4096}) < 0.6 * whole
    assert plan({"gradient_checkpointing": True}) < whole
    new = load_spec(
        {**spec_of(), "model": {"config": {"model_type": "llama", "hidden_size": 32, "num_attention_heads": 4}}}
    )
    assert not worker_memory(new, RowFacts(longest=128, outputs=3, rows=1000)).main.unknown
