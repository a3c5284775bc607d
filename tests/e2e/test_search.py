"""Searches as commands: killed and resumed, with finals that are served, and thirty trials that leak nothing."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from support.commands import ROOT, RunningCommand, run_raymill, still_running
from support.timing import wait_until
from support.tiny_text import tiny_spec, write_spec

pytestmark = pytest.mark.long

SPACE = {"train.learning_rate": {"loguniform": [1e-4, 1e-2]}, "train.weight_decay": {"uniform": [0, 0.2]}}
EPOCHS = 8
CLUSTER = {"cpus": 2, "cpus_per_worker": 1}


def write_search_spec(tiny_base, tiny_data, folder, **sections):
    return write_spec(
        folder / "run.yaml", tiny_spec(tiny_base, tiny_data, folder / "storage", cluster=CLUSTER, **sections)
    )


def read_epochs(trial):
    path = trial / "history.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []


def find_ended(run):
    return {path.parent for path in run.glob("trials/*/ended.json")}


def wait_until_under_way(command, folder, more_than):
    """Wait until more trials than that have ended and another has a checkpoint; return the run's folder and that trial's."""

    def find_trials():
        for run in folder.glob("storage/runs/*"):
            ended = find_ended(run)
            saved = {path.parents[1] for path in run.glob("trials/*/checkpoints/step-*")} - ended
            if len(ended) > more_than and saved:
                return run, min(saved)
        return None

    return command.wait_until(find_trials, "a trial that has ended and one with a checkpoint")


def may_write(process):
    """Return whether a process may still write to the run's folder. Ray's two agents end later, on their own."""
    try:
        return bool(still_running([process])) and "Agent" not in process.name()
    except psutil.Error:
        return False


def kill(command, victim):
    """Kill the driver, or the two processes that Ray does not work without, and wait until all have ended."""
    processes = command.descendants()
    if victim == "driver":
        os.kill(command.process.pid, signal.SIGKILL)
    else:
        for process in [*command.processes("gcs_server"), *command.processes("raylet")]:
            process.kill()
    command.process.wait(timeout=60)
    wait_until(lambda: not any(may_write(process) for process in processes), within_s=240, what="all have ended")


def test_a_killed_search_resumes_and_may_get_more_trials(tiny_base, tiny_data, tmp_path):
    """The driver is killed, and in the resumed search Ray; the search that resumes then gets one trial more."""
    train = {"epochs": EPOCHS, "batch_size": 8, "checkpoint": {"every_steps": 60}}
    tune = {"trials": 6, "space": SPACE, "scheduler": "none"}
    spec = write_search_spec(tiny_base, tiny_data, tmp_path, train=train, tune=tune)
    ended_before, unfinished_before = {}, {}
    arguments = [spec]
    for victim in ("driver", "ray"):
        command = RunningCommand("-m", "raymill", "tune", *arguments)
        try:
            run, resumed = wait_until_under_way(command, tmp_path, more_than=len(ended_before))
            kill(command, victim)
        finally:
            command.terminate()
        arguments = ["--resume", run]
        ended_before |= {trial: read_epochs(trial) for trial in find_ended(run)}
        unfinished_before[resumed] = {line["epoch"]: line["seconds"] for line in read_epochs(resumed)}
    done = run_raymill("tune", *arguments, "--set", "tune.trials=7", "--json")
    assert done.code == 0, done
    assert all(read_epochs(trial) == epochs for trial, epochs in ended_before.items())
    for trial, before in unfinished_before.items():
        after = read_epochs(trial)
        assert [line["epoch"] for line in after] == list(range(1, EPOCHS + 1))
        # Epochs before its last checkpoint keep their seconds, so they were not trained again.
        reused = [line["epoch"] for line in after if before.get(line["epoch"]) == line["seconds"]]
        assert reused == list(range(1, len(reused) + 1)) and len(reused) >= 2
    trials = sorted(path.name for path in (run / "trials").iterdir())
    assert trials == [f"{number:04d}" for number in range(1, 8)]
    metrics = json.loads(done.stdout)["metrics"]["validation"]
    assert metrics["macro_f1"] == max(
        line["macro_f1"] for trial in trials for line in read_epochs(run / "trials" / trial)
    )
    refused = run_raymill("tune", "--resume", run)
    assert refused.code == 2 and "is finished" in refused.stderr and "tune.trials=" in refused.stderr


def test_finalists_are_served_and_constraints_exclude(tiny_base, tiny_data, tmp_path):
    objective = {"maximize": "macro_f1", "minimize": "serve.p99_ms"}
    tune = {"trials": 2, "space": SPACE, "objective": objective, "finalists": 2, "load_test": {"seconds": 1}}
    tune["constraints"] = ["serve.p99_ms <= 5000", "model.size_mb <= 50"]
    spec = write_search_spec(tiny_base, tiny_data, tmp_path, train={"epochs": 1, "batch_size": 16}, tune=tune)
    done = run_raymill("tune", spec, "--json")
    assert done.code == 0, done
    outcome = json.loads(done.stdout)
    page = Path(outcome["report"]).read_text(encoding="utf-8")
    assert "Finalists" in page and "serve.p99_ms" in page and "Pareto front" in page and "Hyperparameters" in page
    assert "on the front" in done.stderr
    # `raymill train` takes the winner's spec unchanged.
    again = run_raymill("train", Path(outcome["run"]) / "best.yaml", "--json")
    assert again.code == 0 and json.loads(again.stdout)["metrics"]["validation"] == outcome["metrics"]["validation"], (
        again
    )
    impossible = "tune.constraints=['model.size_mb <= 0.001']"
    refused = run_raymill("tune", "--resume", outcome["run"], "--set", impossible)
    assert refused.code == 2 and "no finalist satisfies model.size_mb <= 0.001" in refused.stderr, refused


MEASURE_LEAKS = """
import json, sys, psutil, raymill
me = psutil.Process()
raymill.tune(sys.argv[1], overrides=["tune.trials=14"])  # enough trials to import the sampler and the importances too
before = {"fds": me.num_fds(), "rss": me.memory_info().rss, "threads": me.num_threads()}
outcome = raymill.tune(sys.argv[1])
after = {"fds": me.num_fds(), "rss": me.memory_info().rss, "threads": me.num_threads()}
children = [p.name() for p in me.children(recursive=True) if p.status() != psutil.STATUS_ZOMBIE]
print(json.dumps({"before": before, "after": after, "children": children, "run": outcome.run}))
"""


def test_thirty_trials_leak_nothing(tiny_base, tiny_data, tmp_path):
    spec = write_search_spec(
        tiny_base, tiny_data, tmp_path,
        train={"epochs": 1, "batch_size": 16}, tune={"trials": 30, "space": SPACE}, track={"every_steps": 1},
    )  # fmt: skip
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", MEASURE_LEAKS, str(spec)], capture_output=True, text=True, env=environment, timeout=500
    )
    assert done.returncode == 0, done.stderr
    outcome = json.loads(done.stdout.splitlines()[-1])
    assert outcome["children"] == []
    assert outcome["after"]["fds"] <= outcome["before"]["fds"] + 3
    assert outcome["after"]["threads"] <= outcome["before"]["threads"] + 3
    assert outcome["after"]["rss"] <= 1.1 * outcome["before"]["rss"]
    # The memory of the trials' processes: the last ones against those after a warm-up (2 % more when measured).
    memory = []
    for trial in sorted((Path(outcome["run"]) / "trials").iterdir()):
        memory.append(json.loads((trial / "metrics.jsonl").read_text().splitlines()[-1])["memory_bytes"])
    assert len(memory) == 30
    assert sum(memory[-6:]) <= 1.1 * sum(memory[4:10])
    assert len(list(Path(outcome["run"]).glob("tune-*/*/checkpoint_*/model.safetensors"))) == 1
