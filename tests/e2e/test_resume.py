"""A training that is killed and resumed ends exactly like one that never stopped, whichever process was killed."""

import contextlib
import hashlib
import json
import os
import shutil
import signal
from pathlib import Path

import psutil
import pytest

from cluster.processes import end_processes
from support.commands import RunningCommand, run_raymill, still_running
from support.tiny_text import tiny_spec, write_spec

ON_RAY = {"address": "local"}
STEPS, EVERY = 480, 30  # steps, and steps from one checkpoint to the next
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
    """The folder of the tiny model, with dropout in every layer."""
    folder = tmp_path_factory.mktemp("dropping") / "base"
    shutil.copytree(tiny_base, folder)
    config = json.loads((folder / "config.json").read_text())
    config |= {"hidden_dropout_prob": 0.1, "attention_probs_dropout_prob": 0.1}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def write_training_spec(base, data, folder, **sections):
    train = {**TRAIN, **sections.pop("train", {})}
    cluster = {"cpus": 2, "cpus_per_worker": 1, **sections.pop("cluster", {})}
    spec = tiny_spec(base, data, folder / "storage", train=train, cluster=cluster, track={"every_steps": 1}, **sections)
    return write_spec(folder / "run.yaml", spec)


class TrainingResult:
    """The results of a finished training, without what always differs, such as times."""

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

    def assert_equal(self, other) -> None:
        assert self.steps == other.steps
        assert self.epochs == other.epochs
        assert self.state == other.state
        assert self.best == other.best


@pytest.fixture(scope="module")
def uninterrupted(base, tiny_data, tmp_path_factory):
    """The result of a training with one worker, without Ray, that is not interrupted."""
    folder = tmp_path_factory.mktemp("uninterrupted")
    done = run_raymill("train", write_training_spec(base, tiny_data, folder), "--json")
    assert done.code == 0, done
    return TrainingResult(Path(json.loads(done.stdout)["run"]))


def wait_until_saved(command, folder, step):
    """Wait for a checkpoint of `step` or later; return the run's folder."""

    def saved_run():
        checkpoints = sorted(folder.glob("storage/runs/*/checkpoints/step-*"))
        if checkpoints and int(checkpoints[-1].name.removeprefix("step-")) >= step:
            return checkpoints[-1].parents[1]
        return None

    return command.wait_until(saved_run, f"a checkpoint of step {step}")


def find_worker(command, title):
    """Return a running descendant of the command whose command line contains `title`."""
    for process in still_running(command.descendants()):
        with contextlib.suppress(psutil.Error):
            if title in " ".join(process.cmdline()):
                return process
    raise AssertionError(f"no process {title}")


def kill_driver(command):
    """Kill the command itself; its children end on their own, or are ended here."""
    processes = command.descendants()
    os.kill(command.process.pid, signal.SIGKILL)
    command.process.wait(60)
    end_processes(still_running(processes))


def kill_ray(command):
    """Kill the whole local Ray of the command: raylet, GCS, agents, workers."""
    processes = command.descendants()
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    assert command.process.wait(240) != 0, command.output
    end_processes(still_running(processes))


def assert_unfinished(run):
    assert not (run / "result.json").exists()
    assert len((run / "metrics.jsonl").read_text().splitlines()) < STEPS


def test_a_small_run_that_is_killed_resumes_where_it_was(base, tiny_data, uninterrupted, tmp_path):
    command = RunningCommand("-m", "raymill", "train", write_training_spec(base, tiny_data, tmp_path))
    try:
        run = wait_until_saved(command, tmp_path, 2 * EVERY)
        kill_driver(command)
    finally:
        command.terminate()
    assert_unfinished(run)
    done = run_raymill("train", "--resume", run, "--json")
    assert done.code == 0 and json.loads(done.stdout)["run"] == str(run), done
    TrainingResult(run).assert_equal(uninterrupted)
    again = run_raymill("train", "--resume", run.name, "--storage", tmp_path / "storage")
    assert again.code == 2 and "is finished" in again.stderr, again


@pytest.mark.long
def test_a_run_on_ray_goes_on_after_each_of_its_processes_was_killed(base, tiny_data, uninterrupted, tmp_path):
    """First the worker, which is replaced; then the driver; then all of Ray."""
    spec = write_training_spec(base, tiny_data, tmp_path, cluster=ON_RAY)
    command = RunningCommand("-m", "raymill", "train", spec)
    try:
        run = wait_until_saved(command, tmp_path, 2 * EVERY)
        os.kill(find_worker(command, "ray::SingleWorker").pid, signal.SIGKILL)
        command.wait_for_line("the worker died and is replaced")
        wait_until_saved(command, tmp_path, 5 * EVERY)
        kill_driver(command)
    finally:
        command.terminate()
    assert_unfinished(run)
    command = RunningCommand("-m", "raymill", "train", "--resume", run)
    try:
        wait_until_saved(command, tmp_path, 8 * EVERY)
        kill_ray(command)
    finally:
        command.terminate()
    assert_unfinished(run)
    done = run_raymill("train", "--resume", run, "--json")
    assert done.code == 0 and json.loads(done.stdout)["run"] == str(run), done
    TrainingResult(run).assert_equal(uninterrupted)


@pytest.mark.long
def test_two_workers_take_the_steps_of_one_and_one_of_them_may_die(base, tiny_data, uninterrupted, tmp_path):
    (tmp_path / "undisturbed").mkdir(), (tmp_path / "killed").mkdir()
    two = {"cluster": {"workers": 2}}
    done = run_raymill("train", write_training_spec(base, tiny_data, tmp_path / "undisturbed", **two), "--json")
    assert done.code == 0, done
    undisturbed = TrainingResult(Path(json.loads(done.stdout)["run"]))
    assert len(undisturbed.steps) == len(uninterrupted.steps) == STEPS
    for ours, theirs in zip(undisturbed.steps, uninterrupted.steps, strict=True):
        assert ours[:2] == pytest.approx(theirs[:2], abs=1e-5)
    command = RunningCommand("-m", "raymill", "train", write_training_spec(base, tiny_data, tmp_path / "killed", **two))
    try:
        run = wait_until_saved(command, tmp_path / "killed", 2 * EVERY)
        os.kill(find_worker(command, "ray::RayTrainWorker").pid, signal.SIGKILL)
        assert command.process.wait(240) == 0, command.output
        TrainingResult(run).assert_equal(undisturbed)
    finally:
        command.terminate()
