"""An elastic training on a cluster that loses and gains nodes: its steps and losses are those of one worker."""

import json
from pathlib import Path

import pytest

from support.commands import RunningCommand, run_raymill
from support.tiny_text import tiny_spec, write_spec

# A loss that is slow enough to remove and add nodes meanwhile, and fast once the file `hurry` exists.
SLOW_LOSS = """
import pathlib
import time

import torch


def slow(logits, targets, weights):
    if not pathlib.Path({hurry!r}).exists():
        time.sleep(0.4)
    return torch.nn.functional.cross_entropy(logits, targets, reduction="sum")
"""
STEPS, STEPS_PER_PHASE = 240, 8


@pytest.fixture()
def cluster(tmp_path, monkeypatch):
    from ray.cluster_utils import Cluster

    (tmp_path / "slow_loss.py").write_text(SLOW_LOSS.format(hurry=str(tmp_path / "hurry")))
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{Path(__file__).parents[2]}")
    for name, value in {"initial_delay": 1000, "period": 500, "timeout": 1000}.items():
        monkeypatch.setenv(f"RAY_health_check_{name}_ms", str(value))
    monkeypatch.setenv("RAY_health_check_failure_threshold", "3")
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    try:
        yield cluster
    finally:
        cluster.shutdown()


def read_steps(folder):
    """Return the entries of metrics.jsonl of the runs in `folder`, one per step."""
    lines = [json.loads(line) for path in folder.glob("storage/runs/*/metrics.jsonl") for line in path.open()]
    return [line for line in lines if line]


def wait_for_steps(command, folder, workers, steps):
    """Wait until the last `steps` steps were all taken by this number of workers."""

    def is_reached():
        return [step["workers"] for step in read_steps(folder)[-steps:]] == [workers] * steps

    command.wait_until(is_reached, f"{steps} steps of {workers} workers")


def test_losing_and_gaining_a_node_does_not_change_the_losses(cluster, tiny_base, tiny_data, tmp_path):
    train = {
        "epochs": 100,
        "max_steps": STEPS,
        "batch_size": 8,
        "learning_rate": 1e-3,
        "precision": "fp32",
        "loss": {"function": "slow_loss:slow"},
        "checkpoint": {"every_steps": 10},
    }
    node = cluster.add_node(num_cpus=1)
    spec = tiny_spec(tiny_base, tiny_data, tmp_path / "storage", train=train, track={"every_steps": 1})
    elastic = {"address": cluster.address, "workers": [1, 2], "cpus_per_worker": 1}
    path = write_spec(tmp_path / "run.yaml", {**spec, "cluster": elastic})
    command = RunningCommand("-m", "raymill", "train", path, cwd=tmp_path)
    try:
        wait_for_steps(command, tmp_path, workers=2, steps=STEPS_PER_PHASE)
        cluster.remove_node(node, allow_graceful=False)
        wait_for_steps(command, tmp_path, workers=1, steps=STEPS_PER_PHASE)
        cluster.add_node(num_cpus=1)
        wait_for_steps(command, tmp_path, workers=2, steps=STEPS_PER_PHASE)
        (tmp_path / "hurry").touch()
        assert command.process.wait(200) == 0, command.output
    finally:
        command.terminate()
    elastic_steps = read_steps(tmp_path)
    assert [step["step"] for step in elastic_steps] == list(range(1, STEPS + 1))
    # The losses are those of a single worker without a cluster.
    (tmp_path / "alone").mkdir()
    spec = {**spec, "storage": str(tmp_path / "alone" / "storage"), "train": {**train, "loss": {}}}
    done = run_raymill("train", write_spec(tmp_path / "alone.yaml", spec))
    assert done.code == 0, done
    expected = [step["loss"] for step in read_steps(tmp_path / "alone")]
    assert [step["loss"] for step in elastic_steps] == pytest.approx(expected, abs=1e-5)
