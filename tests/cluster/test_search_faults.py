"""A search over several machines, one of which is killed: every trial is there once, as if nothing had happened."""

import json
import time

import pytest

from support.local_training import train_in_process
from support.tiny_text import tiny_spec
from support.training_watch import SlowLoss

TRIALS, EPOCHS = 6, 4
TRAIN = {
    "epochs": EPOCHS,
    "batch_size": 12,
    "learning_rate": 1e-3,
    "precision": "fp32",
    "checkpoint": {"every_steps": 5},
    "loss": SlowLoss.SPEC,
}
TUNE = {
    "algorithm": "random",
    "scheduler": "none",
    "trials": TRIALS,
    "space": {"train.learning_rate": {"loguniform": [1e-4, 1e-2]}},
}


def test_a_killed_machine_loses_no_trial_and_repeats_none(scene, tmp_path):
    scene.loss.slow_down()
    command = scene.start("tune", "search", {"cpus_per_worker": 1}, train=TRAIN, tune=TUNE)
    storage = scene.storage("search")
    try:
        # A trial is under way on each machine: kill one after the first of its epochs.
        command.wait_until(lambda: len(list(storage.glob("runs/*/trials/*/history.jsonl"))) >= 3, "three trials")
        writers = {path.parent.name: path.read_text() for path in storage.glob("runs/*/trials/*/writer")}
        scene.ray["m3"].kill()
        scene.loss.hurry()
        assert command.process.wait(300) == 0, command.output
    finally:
        command.terminate()
    assert "Traceback" not in command.output
    (run,) = storage.glob("runs/*")
    trials = {trial.name: trial for trial in run.glob("trials/*")}
    assert sorted(trials) == [f"{number:04d}" for number in range(1, TRIALS + 1)]
    points = {name: json.loads((trial / "values.json").read_text()) for name, trial in trials.items()}
    assert len({json.dumps(point) for point in points.values()}) == TRIALS
    changed = [name for name, writer in writers.items() if (trials[name] / "writer").read_text() != writer]
    assert len(changed) == 1, "another process has taken over the one trial that ran on the killed machine"
    for name, trial in trials.items():
        assert json.loads((trial / "ended.json").read_text())["how"] == "finished", name
        epochs = [json.loads(line) for line in (trial / "history.jsonl").read_text().splitlines()]
        # The same epochs as those of a training with these values, alone.
        train = {**TRAIN, "loss": {}, "learning_rate": points[name]["train.learning_rate"]}
        spec = tiny_spec(scene.base, scene.folder / "data", tmp_path / "storage", train=train)
        alone = train_in_process(spec, tmp_path / name).epochs
        assert [epoch["epoch"] for epoch in epochs] == list(range(1, EPOCHS + 1)), name
        for key in ("train_loss", "log_loss"):
            assert [epoch[key] for epoch in epochs] == pytest.approx([epoch[key] for epoch in alone], abs=1e-5), name


def test_a_command_that_no_longer_reaches_the_head_says_so(scene):
    """It runs on m2, whose link goes down: without a sentence of ours, Ray would end the process after 60 s."""
    scene.loss.slow_down()
    spec = scene.write_spec("cut", {"address": "auto", "cpus_per_worker": 1}, train=TRAIN, tune=TUNE)
    command = scene.ray["m2"].command("python", "-m", "raymill", "tune", spec)
    try:
        command.wait_until(lambda: list(scene.storage("cut").glob("runs/*/trials/*/history.jsonl")), "a trial")
        scene.ray["m2"].link_down()
        began = time.monotonic()
        code = command.process.wait(120)
        scene.report("command cut off from the head: seconds until it ends", time.monotonic() - began)
    finally:
        command.terminate()
    command.wait_for_output()
    assert code == 2, command.output
    assert "the head of the cluster has not answered for" in command.output
    assert "waiting for the head of the cluster" in command.output
    assert "to resume with the trials so far: raymill tune --resume" in command.output
    assert "Traceback" not in command.output
