"""A training on a cluster whose nodes come and go: with fewer workers and with more again, in the plan's order."""

import json
import time
from pathlib import Path

import pytest

from support.commands import RunningCommand, run_raymill
from support.tiny_text import tiny_spec, write_spec

# So slow that there is time to take a node away, and to bring one, until there is a file that says it may hurry.
SLOW_LOSS = """
import pathlib
import time

import torch


def slow(logits, targets, weights):
    if not pathlib.Path({hurry!r}).exists():
        time.sleep(0.4)
    return torch.nn.functional.cross_entropy(logits, targets, reduction="sum")
"""
STEPS, SEEN = 240, 8


@pytest.fixture()
def cluster(tmp_path, monkeypatch):
    from ray.cluster_utils import Cluster

    (tmp_path / "slow_loss.py").write_text(SLOW_LOSS.format(hurry=str(tmp_path / "hurry")))
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{Path(__file__).parents[2]}")
    for name, value in {"initial_delay": 1000, "period": 500, "timeout": 1000}.items():
        monkeypatch.setenv(f"RAY_health_check_{name}_ms", str(value))
    monkeypatch.setenv("RAY_health_check_failure_threshold", "3")
    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    try:
        yield made
    finally:
        made.shutdown()


def lines_of(folder):
    found = [json.loads(line) for path in folder.glob("storage/runs/*/metrics.jsonl") for line in path.open()]
    return [line for line in found if line]


def wait_for(command, folder, workers, steps):
    """Wait until so many workers have taken so many steps since the last that was seen."""
    end = time.monotonic() + 240
    while True:
        done = [line["step"] for line in lines_of(folder)[-steps:] if line["workers"] == workers]
        if len(done) == steps:
            return
        assert time.monotonic() < end and command.process.poll() is None, command.text
        time.sleep(0.2)


def test_nodes_come_and_go(cluster, tiny_base, tiny_data, tmp_path):
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
        wait_for(command, tmp_path, workers=2, steps=SEEN)
        cluster.remove_node(node, allow_graceful=False)
        wait_for(command, tmp_path, workers=1, steps=SEEN)
        cluster.add_node(num_cpus=1)
        wait_for(command, tmp_path, workers=2, steps=SEEN)
        (tmp_path / "hurry").touch()
        assert command.process.wait(200) == 0, command.text
    finally:
        command.end()
    seen = lines_of(tmp_path)
    assert [line["step"] for line in seen] == list(range(1, STEPS + 1))
    # No node, no worker: the same losses as one worker that nothing happens to.
    (tmp_path / "alone").mkdir()
    spec = {**spec, "storage": str(tmp_path / "alone" / "storage"), "train": {**train, "loss": {}}}
    done = run_raymill("train", write_spec(tmp_path / "alone.yaml", spec))
    assert done.code == 0, done
    alone = lines_of(tmp_path / "alone")
    assert [line["loss"] for line in seen] == pytest.approx([line["loss"] for line in alone], abs=1e-5)
