"""Preference training and GRPO with a tiny model: references are stored, runs resume with the same bits, rewards rise."""

import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file

from cluster.errors import SpecError
from support.local_training import train_in_process
from support.tiny_causal import write_tiny_causal
from support.tiny_preference import preference_spec
from trainer.report.training_sections import step_sections
from trainer.tasks.catalog import get_task
from trainer.tasks.load_spec import load_spec
from trainer.training.reference import REFERENCE_FILE

pytestmark = pytest.mark.slow

GRPO = {
    "kind": "grpo",
    "rewards": [{"kind": "regex", "pattern": "o"}],
    "rollout": {"prompts": 8, "samples": 4, "max_tokens": 6},
}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_tiny_causal(tmp_path_factory.mktemp("model"))


def weights(training):
    return load_file(training.best / "model.safetensors")


def assert_same_weights(ours, theirs):
    assert ours.keys() == theirs.keys()
    for name, value in ours.items():
        np.testing.assert_array_equal(value, theirs[name], err_msg=name)


@pytest.mark.parametrize("kind", ["dpo", "ipo", "orpo", "simpo", "kto"])
def test_a_model_learns_what_is_preferred(model, tmp_path, kind):
    training = train_in_process(preference_spec(tmp_path, model, kind), tmp_path / "run")
    last = training.epochs[-1]
    assert last["preference_accuracy"] > 0.9 and last["preference_loss"] < training.losses[0]
    if kind == "dpo":  # the model is the reference at first
        assert training.losses[0] == pytest.approx(np.log(2), abs=1e-5)


def test_references_are_stored_and_read_again(model, tmp_path):
    spec = preference_spec(tmp_path, model, "dpo")
    first = train_in_process(spec, tmp_path / "run")
    with safe_open(tmp_path / "run" / REFERENCE_FILE, "numpy") as file:
        stored = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    assert stored["train"].shape == (len(first.prepared.part("train")), 2) and (stored["train"] < 0).all()
    np.testing.assert_array_equal(first.prepared.part("train").targets, stored["train"])
    # Another model's log-probabilities in the file of this run are not used.
    other = write_tiny_causal(tmp_path / "other", seed=1)
    again = train_in_process({**spec, "model": {"base": str(other)}}, tmp_path / "run2")
    assert not np.array_equal(again.prepared.part("train").targets, stored["train"])


@pytest.mark.parametrize("method", ["dpo", "kto", GRPO, {**GRPO, "updates": 2}], ids=["dpo", "kto", "grpo", "updates"])
def test_a_run_that_resumes_gives_the_same_bits(model, tmp_path, method):
    train = {"checkpoint": {"every_steps": 1}, "epochs": 2}
    spec = preference_spec(tmp_path, model, method, train=train)
    whole = train_in_process(spec, tmp_path / "whole")
    # Stopped after three steps, as if killed: what the folder holds then is all that the next process has.
    stopped = {**spec, "train": {**spec["train"], "max_steps": 3}}
    train_in_process(stopped, tmp_path / "parts")
    resumed = train_in_process(spec, tmp_path / "parts")
    assert resumed.losses == whole.losses
    assert_same_weights(weights(resumed), weights(whole))


KILLED = """
import json, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from support.local_training import train_in_process
train_in_process(json.loads(sys.argv[2]), Path(sys.argv[3]))
"""


def test_a_killed_run_samples_the_same_answers_again(model, tmp_path):
    train = {"epochs": 40, "checkpoint": {"every_steps": 7, "keep": 2}}
    spec = preference_spec(tmp_path, model, GRPO, train=train)
    folder = tmp_path / "killed"
    arguments = [str(Path(__file__).parents[1]), json.dumps(spec), str(folder)]
    child = subprocess.Popen([sys.executable, "-c", KILLED, *arguments], cwd=Path(__file__).parents[2])
    try:
        deadline = time.monotonic() + 120
        while len(list(folder.glob("checkpoints/step-*"))) < 2 and child.poll() is None:
            assert time.monotonic() < deadline
            time.sleep(0.01)
    finally:
        child.kill()
        child.wait()
    n_steps = len((folder / "metrics.jsonl").read_text().splitlines())
    spec["train"]["epochs"] = min(40, n_steps // 5 + 3)  # a few more epochs are enough to compare
    whole, again = train_in_process(spec, tmp_path / "whole"), train_in_process(spec, folder)
    assert n_steps < len(again.losses) and again.losses == whole.losses
    lines = [(run.folder / "rollouts.jsonl").read_text() for run in (again, whole)]
    assert lines[0] == lines[1]
    assert_same_weights(weights(again), weights(whole))


def test_sampled_answers_earn_more_and_are_stored(model, tmp_path):
    method = {**GRPO, "rollout": {"prompts": 16, "samples": 8, "max_tokens": 4}}
    train = {"epochs": 4, "learning_rate": 0.003}
    training = train_in_process(preference_spec(tmp_path, model, method, train=train), tmp_path / "run")
    rewards = [line["reward"] for line in training.steps]
    assert np.mean(rewards[-3:]) > np.mean(rewards[:3]) + 0.1
    assert all(0 < line["answer_tokens"] <= 4 for line in training.steps)
    lines = [json.loads(line) for line in (tmp_path / "run" / "rollouts.jsonl").read_text().splitlines()]
    assert len(lines) == len(training.steps)
    answers = lines[0]["answers"]
    assert all(("o" in answer["text"]) == answer["reward"] for answer in answers)
    numbers = [(answer["position"], answer["sample"]) for answer in answers]
    assert numbers == [(position, sample) for position in range(len(answers) // 8) for sample in range(8)]


def test_answers_are_held_to_the_base_of_an_adapter(model, tmp_path):
    method = {**GRPO, "beta": 0.1}
    spec = preference_spec(tmp_path, model, method, train={"max_steps": 3})
    spec["model"]["lora"] = {"rank": 2}
    training = train_in_process(spec, tmp_path / "run")
    assert len(training.losses) == 3 and np.isfinite(training.losses).all()


@pytest.mark.parametrize(
    ("method", "columns", "message"),
    [
        ("dpo", {"prompt": "prompt", "completion": "completion"}, "does not learn from rows"),
        ("sft", {"prompt": "prompt", "chosen": "chosen", "rejected": "rejected"}, "does not learn from rows"),
        ({**GRPO, "beta": 0.1}, {"prompt": "prompt", "completion": "completion"}, "model.lora"),
    ],
)
def test_what_does_not_fit_is_refused_before_anything_runs(model, tmp_path, method, columns, message):
    spec = preference_spec(tmp_path, model, method)
    spec["data"]["columns"] = columns

    with pytest.raises(SpecError, match=message):
        get_task("text-generation").check_spec(load_spec(spec))


def test_the_report_has_rewards_and_answers(model, tmp_path):
    training = train_in_process(preference_spec(tmp_path, model, GRPO), tmp_path / "run")
    _, sampled = step_sections(training.folder)
    assert sampled.title == "Answers sampled in training" and "<svg" in sampled.charts[0].svg
    assert {row[0] for row in sampled.rows} == {"first", "last"}


def test_a_mixture_of_files_is_resumed_with_the_same_bits(model, tmp_path):
    spec = preference_spec(tmp_path, model, "sft", train={"checkpoint": {"every_steps": 1}})
    rows = (tmp_path / "rows.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "first.jsonl").write_text("".join(rows[:30]))
    (tmp_path / "second.jsonl").write_text("".join(rows[30:]))
    spec["data"]["train"] = [str(tmp_path / "first.jsonl"), str(tmp_path / "second.jsonl")]
    spec["train"]["mixture"] = [{"files": "first.jsonl", "to_epoch": 1}, {"files": "second.*", "weight": 2}]
    whole = train_in_process(spec, tmp_path / "whole")
    train_in_process({**spec, "train": {**spec["train"], "max_steps": 3}}, tmp_path / "parts")
    resumed = train_in_process(spec, tmp_path / "parts")
    assert resumed.losses == whole.losses and len(whole.losses) == 2 * (len(whole.losses) // 2)
    spec["train"]["mixture"] = [{"files": "third.jsonl"}]
    with pytest.raises(SpecError, match="fits no file"):
        train_in_process(spec, tmp_path / "third")
