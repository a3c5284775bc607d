"""A training that is killed and goes on ends as one that never stopped: the same bits, whoever was killed."""

import contextlib
import hashlib
import json
import os
import shutil
import signal
import time
from pathlib import Path

import psutil
import pytest

from cluster.connect import end_processes
from support.commands import RunningCommand, run_raymill, still_running
from support.tiny_text import tiny_spec, write_spec

STEPS, EVERY = 480, 30
TRAIN = {
    "epochs": 100,
    "max_steps": STEPS,
    "batch_size": 8,
    "learning_rate": 1e-3,
    "precision": "fp32",
    "ema_decay": 0.99,
    "checkpoint": {"every_steps": EVERY, "keep": 3},
}


@pytest.fixture(scope="module")
def base(tiny_base, tmp_path_factory):
    """The tiny model with dropout everywhere."""
    folder = tmp_path_factory.mktemp("dropping") / "base"
    shutil.copytree(tiny_base, folder)
    config = json.loads((folder / "config.json").read_text())
    config |= {"hidden_dropout_prob": 0.1, "attention_probs_dropout_prob": 0.1}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def spec_of(base, data, folder, **sections):
    train = {**TRAIN, **sections.pop("train", {})}
    cluster = {"cpus": 2, "cpus_per_worker": 1, **sections.pop("cluster", {})}
    spec = tiny_spec(base, data, folder / "storage", train=train, cluster=cluster, track={"every_steps": 1}, **sections)
    return write_spec(folder / "run.yaml", spec)


class Result:
    """What a finished training left, without what differs from one to the next by its nature."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
        self.steps = [(line["step"], line["loss"], line["grad_norm"], line["learning_rate"]) for line in lines]
        history = [json.loads(line) for line in (folder / "history.jsonl").read_text().splitlines()]
        self.epochs = [{key: value for key, value in line.items() if key != "seconds"} for line in history]
        last = folder / "checkpoints" / f"step-{STEPS:08d}"
        self.state = hashlib.sha256((last / "state.safetensors").read_bytes()).hexdigest()
        (best,) = (folder / "checkpoints").glob("best-*")
        self.best = best.name, hashlib.sha256((best / "model.safetensors").read_bytes()).hexdigest()

    def must_equal(self, other) -> None:
        assert self.steps == other.steps
        assert self.epochs == other.epochs
        assert self.state == other.state
        assert self.best == other.best


@pytest.fixture(scope="module")
def straight(base, tiny_data, tmp_path_factory):
    """A training with one worker that nothing happens to."""
    folder = tmp_path_factory.mktemp("straight")
    done = run_raymill("train", spec_of(base, tiny_data, folder), "--json")
    assert done.code == 0, done
    return Result(Path(json.loads(done.stdout)["run"]))


def wait_until_saved(command, folder, step):
    """Wait for a checkpoint of `step` or later; returns the run's folder."""
    end = time.monotonic() + 240
    while True:
        found = sorted(folder.glob("storage/runs/*/checkpoints/step-*"))
        if found and int(found[-1].name.removeprefix("step-")) >= step:
            return found[-1].parents[1]
        assert time.monotonic() < end and command.process.poll() is None, command.text
        time.sleep(0.02)


def processes_called(command, name):
    found = []
    for process in still_running(command.family()):
        try:
            if name in " ".join(process.cmdline()):
                found.append(process)
        except psutil.Error:
            continue
    return found


def kill_and_let_it_go_on(command, folder, worker):
    run = wait_until_saved(command, folder, 2 * EVERY)
    victim = processes_called(command, worker)[0]
    os.kill(victim.pid, signal.SIGKILL)
    assert command.process.wait(240) == 0, command.text
    return run


def test_a_worker_that_is_killed_is_replaced_and_nothing_differs(base, tiny_data, straight, tmp_path):
    command = RunningCommand("-m", "raymill", "train", spec_of(base, tiny_data, tmp_path))
    try:
        run = kill_and_let_it_go_on(command, tmp_path, "ray::Alone")
        assert "the worker died and is replaced" in command.text
        Result(run).must_equal(straight)
    finally:
        command.end()


@pytest.mark.parametrize("victim", ["driver", "ray"])
def test_a_run_that_is_killed_goes_on_where_it_was(base, tiny_data, straight, tmp_path, victim):
    command = RunningCommand("-m", "raymill", "train", spec_of(base, tiny_data, tmp_path))
    try:
        run = wait_until_saved(command, tmp_path, 2 * EVERY)
        family = command.family()
        if victim == "driver":
            os.kill(command.process.pid, signal.SIGKILL)
        else:
            for process in family:  # raylet, GCS, agents, workers: all of the local Ray
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()
        assert command.process.wait(240) != 0, command.text
        end_processes(still_running(family))
        assert not (run / "result.json").exists()
        began = len((run / "metrics.jsonl").read_text().splitlines())
        assert began < STEPS
        done = run_raymill("train", "--resume", run, "--json")
        assert done.code == 0 and json.loads(done.stdout)["run"] == str(run), done
        Result(run).must_equal(straight)
        again = run_raymill("train", "--resume", run.name, "--storage", tmp_path / "storage")
        assert again.code == 2 and "is finished" in again.stderr, again
    finally:
        command.end()


def test_two_workers_take_the_steps_of_one_and_one_of_them_may_die(base, tiny_data, straight, tmp_path):
    (tmp_path / "calm").mkdir(), (tmp_path / "killed").mkdir()
    two = {"cluster": {"workers": 2}}
    done = run_raymill("train", spec_of(base, tiny_data, tmp_path / "calm", **two), "--json")
    assert done.code == 0, done
    calm = Result(Path(json.loads(done.stdout)["run"]))
    assert len(calm.steps) == len(straight.steps) == STEPS
    for ours, theirs in zip(calm.steps, straight.steps, strict=True):
        assert ours[:2] == pytest.approx(theirs[:2], abs=1e-5)
    command = RunningCommand("-m", "raymill", "train", spec_of(base, tiny_data, tmp_path / "killed", **two))
    try:
        run = kill_and_let_it_go_on(command, tmp_path / "killed", "ray::RayTrainWorker")
        Result(run).must_equal(calm)
    finally:
        command.end()
