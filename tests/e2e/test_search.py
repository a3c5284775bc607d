"""Searches from the outside: killed and gone on with, finals that are served, thirty trials that leave nothing behind."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from support.commands import ROOT, RunningCommand, run_raymill, still_running
from support.tiny_text import tiny_spec, write_spec

SPACE = {"train.learning_rate": {"loguniform": [1e-4, 1e-2]}, "train.weight_decay": {"uniform": [0, 0.2]}}
EPOCHS = 25
CLUSTER = {"cpus": 2, "cpus_per_worker": 1}


def spec_of(tiny_base, tiny_data, folder, **sections):
    return write_spec(
        folder / "run.yaml", tiny_spec(tiny_base, tiny_data, folder / "storage", cluster=CLUSTER, **sections)
    )


def lines_of(trial):
    path = trial / "history.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []


def wait_until_under_way(command, folder):
    """Wait for a trial that has ended and one that runs and has a checkpoint; returns the run's folder and both."""
    end = time.monotonic() + 240
    while True:
        for run in folder.glob("storage/runs/*"):
            ended = sorted(path.parent for path in run.glob("trials/*/ended.json"))
            saved = {path.parents[1] for path in run.glob("trials/*/checkpoints/step-*")} - set(ended)
            if ended and saved:
                return run, ended[0], min(saved)
        assert time.monotonic() < end and command.process.poll() is None, command.text
        time.sleep(0.02)


def is_at_work(process):
    """Whether a process may still write to the run's folder; Ray's two agents end later, by themselves."""
    try:
        return bool(still_running([process])) and "Agent" not in process.name()
    except psutil.Error:
        return False


@pytest.mark.parametrize("killed", ["driver", "ray"])
def test_a_killed_search_goes_on_and_may_grow(tiny_base, tiny_data, tmp_path, killed):
    train = {"epochs": EPOCHS, "batch_size": 8, "checkpoint": {"every_steps": 60}}
    tune = {"trials": 4, "space": SPACE, "scheduler": "none"}
    spec = spec_of(tiny_base, tiny_data, tmp_path, train=train, tune=tune)
    command = RunningCommand("-m", "raymill", "tune", spec)
    try:
        run, ended, goes_on = wait_until_under_way(command, tmp_path)
        family = command.family()
        if killed == "driver":
            os.kill(command.process.pid, signal.SIGKILL)
        else:
            for process in [*command.parts("gcs_server"), *command.parts("raylet")]:
                process.kill()
        command.process.wait(timeout=60)
        deadline = time.monotonic() + 60
        while any(is_at_work(process) for process in family):
            assert time.monotonic() < deadline
            time.sleep(0.1)
        finished = lines_of(ended)
        before = {line["epoch"]: line["seconds"] for line in lines_of(goes_on)}
    finally:
        command.end()
    done = run_raymill("tune", "--resume", run, "--set", "tune.trials=5", "--json")
    assert done.code == 0, done
    assert lines_of(ended) == finished
    after = lines_of(goes_on)
    assert [line["epoch"] for line in after] == list(range(1, EPOCHS + 1))
    # Epochs up to its last checkpoint are those of before, to the microsecond: they were not trained again.
    kept = [line["epoch"] for line in after if before.get(line["epoch"]) == line["seconds"]]
    assert kept == list(range(1, len(kept) + 1)) and len(kept) >= 2
    trials = sorted(path.name for path in (run / "trials").iterdir())
    assert trials == ["0001", "0002", "0003", "0004", "0005"]
    figures = json.loads(done.stdout)["metrics"]["validation"]
    assert figures["macro_f1"] == max(line["macro_f1"] for trial in trials for line in lines_of(run / "trials" / trial))
    refused = run_raymill("tune", "--resume", run)
    assert refused.code == 2 and "is finished" in refused.stderr and "tune.trials=" in refused.stderr


def test_finals_are_served_and_constraints_rule_out(tiny_base, tiny_data, tmp_path):
    objective = {"maximize": "macro_f1", "minimize": "serve.p99_ms"}
    tune = {"trials": 3, "space": SPACE, "objective": objective, "finalists": 2, "load": {"seconds": 1}}
    tune["constraints"] = ["serve.p99_ms <= 5000", "model.size_mb <= 50"]
    spec = spec_of(tiny_base, tiny_data, tmp_path, train={"epochs": 2, "batch_size": 16}, tune=tune)
    done = run_raymill("tune", spec, "--json")
    assert done.code == 0, done
    found = json.loads(done.stdout)
    page = Path(found["report"]).read_text(encoding="utf-8")
    assert "Finals" in page and "serve.p99_ms" in page and "Pareto front" in page and "Values that were tried" in page
    assert "on the front" in done.stderr
    # The winner's spec is one that `raymill train` takes as it is.
    again = run_raymill("train", Path(found["run"]) / "best.yaml", "--json")
    assert again.code == 0 and json.loads(again.stdout)["metrics"]["validation"] == found["metrics"]["validation"], (
        again
    )
    impossible = "tune.constraints=['model.size_mb <= 0.001']"
    refused = run_raymill("tune", "--resume", found["run"], "--set", impossible)
    assert refused.code == 2 and "no finalist keeps to model.size_mb <= 0.001" in refused.stderr, refused


MANY = """
import json, sys, psutil, raymill
me = psutil.Process()
raymill.tune(sys.argv[1], overrides=["tune.trials=14"])  # what is imported once, of sampler and importances too
before = {"fds": me.num_fds(), "rss": me.memory_info().rss, "threads": me.num_threads()}
outcome = raymill.tune(sys.argv[1])
after = {"fds": me.num_fds(), "rss": me.memory_info().rss, "threads": me.num_threads()}
children = [p.name() for p in me.children(recursive=True) if p.status() != psutil.STATUS_ZOMBIE]
print(json.dumps({"before": before, "after": after, "children": children, "run": outcome.run}))
"""


def test_thirty_trials_leave_nothing_behind(tiny_base, tiny_data, tmp_path):
    spec = spec_of(
        tiny_base, tiny_data, tmp_path,
        train={"epochs": 2, "batch_size": 16}, tune={"trials": 30, "space": SPACE}, track={"every_steps": 5},
    )  # fmt: skip
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", MANY, str(spec)], capture_output=True, text=True, env=environment, timeout=500
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["children"] == []
    assert found["after"]["fds"] <= found["before"]["fds"] + 3
    assert found["after"]["threads"] <= found["before"]["threads"] + 3
    assert found["after"]["rss"] <= 1.1 * found["before"]["rss"]
    # The trials' own processes, as their figures have it: the last ones against those after a warm-up (measured: 2 %).
    memory = []
    for trial in sorted((Path(found["run"]) / "trials").iterdir()):
        memory.append(json.loads((trial / "metrics.jsonl").read_text().splitlines()[-1])["memory_bytes"])
    assert len(memory) == 30
    assert sum(memory[-6:]) <= 1.1 * sum(memory[4:10])
    assert len(list(Path(found["run"]).glob("tune-*/*/checkpoint_*/model.safetensors"))) == 1
