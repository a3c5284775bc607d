"""An elastic training that loses and gains nodes of `ray.cluster_utils.Cluster`: where no machines can be made."""

import os

import pytest

from support.commands import ROOT, RunningCommand, run_raymill
from support.fault_scene import STEPS, TRAIN
from support.namespaces import why_no_machines
from support.tiny_text import tiny_spec, write_spec
from support.training_watch import SlowLoss, assert_same_steps, read_steps, wait_for_steps


@pytest.fixture()
def cluster(tmp_path, monkeypatch):
    if why_no_machines() is None:
        pytest.skip("tests/cluster/test_training_faults.py shows the same on machines; NO_MACHINES=1 runs this test")
    from ray.cluster_utils import Cluster

    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}{os.pathsep}{ROOT}")
    for name, value in {"initial_delay": 1000, "period": 500, "timeout": 1000}.items():
        monkeypatch.setenv(f"RAY_health_check_{name}_ms", str(value))
    monkeypatch.setenv("RAY_health_check_failure_threshold", "3")
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    try:
        yield cluster
    finally:
        cluster.shutdown()


def test_losing_and_gaining_a_node_does_not_change_the_losses(cluster, tiny_base, tiny_data, tmp_path):
    loss, storage = SlowLoss(tmp_path), tmp_path / "storage"
    node = cluster.add_node(num_cpus=1)
    train = {**TRAIN, "loss": SlowLoss.SPEC}
    spec = tiny_spec(tiny_base, tiny_data, storage, train=train, track={"every_steps": 1})
    elastic = {"address": cluster.address, "workers": [1, 2], "cpus_per_worker": 1}
    path = write_spec(tmp_path / "run.yaml", {**spec, "cluster": elastic})
    command = RunningCommand("-m", "raymill", "train", path, cwd=tmp_path)
    try:
        wait_for_steps(command, storage, workers=2, steps=8)
        cluster.remove_node(node, allow_graceful=False)
        wait_for_steps(command, storage, workers=1, steps=8)
        cluster.add_node(num_cpus=1)
        wait_for_steps(command, storage, workers=2, steps=8)
        loss.hurry()
        assert command.process.wait(200) == 0, command.output
    finally:
        command.terminate()
    # The losses are those of a single worker without a cluster.
    (tmp_path / "alone").mkdir()
    spec = {**spec, "storage": str(tmp_path / "alone" / "storage"), "train": TRAIN}
    done = run_raymill("train", write_spec(tmp_path / "alone.yaml", spec))
    assert done.code == 0, done
    expected = read_steps(tmp_path / "alone" / "storage")
    assert len(expected) == STEPS
    assert_same_steps(storage, expected)
