"""A working directory with the user's own trainer.py, serve.py, tune.py and cluster/: raymill trains and serves from it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from cluster.ports import free_port
from support.commands import RunningCommand
from support.ray_head import RAY, ray_head
from support.timing import wait_until
from support.tiny_text import tiny_spec, write_spec

BIN = Path(sys.executable).parent
MODULE = [sys.executable, "-m", "raymill"]
SCRIPT = [BIN / "raymill"]
SEARCH = {"space": {"train.learning_rate": {"choice": [1e-3, 5e-4]}}, "trials": 2}


@pytest.fixture
def folder(tmp_path):
    """The working directory; importing one of its files fails. Some have the names of modules that raymill imports."""
    work = tmp_path / "work"
    (work / "cluster").mkdir(parents=True)
    for name in ("trainer.py", "serve.py", "tune.py", "cluster/__init__.py", "torch.py", "pandas.py", "emoji.py"):
        (work / name).write_text("raise RuntimeError(f'the user\\'s file {__file__} was imported')\n")
    return work


@pytest.fixture
def spec(folder, tiny_base, tiny_data, tmp_path):
    return write_spec(
        folder / "run.yaml",
        tiny_spec(tiny_base, tiny_data, tmp_path / "storage", train={"epochs": 1, "batch_size": 8}),
    )


def run(command, folder, **env):
    words = [str(word) for word in command]
    return subprocess.run(words, capture_output=True, text=True, cwd=folder, env={**os.environ, **env}, timeout=500)


def answers(port):
    """Return whether an endpoint predicts."""
    try:
        answer = httpx.post(f"http://127.0.0.1:{port}/predict", json={"inputs": ["a good hammer"]}, timeout=5)
    except httpx.HTTPError:
        return False
    return answer.status_code == 200 and "label" in answer.json()["predictions"][0]


def end(running, port):
    running.interrupt()
    assert not answers(port)


@pytest.mark.parametrize(
    ("command", "tune"),
    [pytest.param(MODULE, None, id="module"), pytest.param(SCRIPT, SEARCH, id="script", marks=pytest.mark.long)],
)
def test_the_command_line(command, tune, folder, spec, tmp_path):
    search = ["--set", f"tune={json.dumps(tune)}"] if tune else []
    done = run([*command, "run", "run.yaml", "--json", *search], folder)
    assert done.returncode == 0, done.stderr
    port = free_port()
    replicas = 2 if tune else 1  # with a search and two replicas Ray's workers import raymill, too
    running = RunningCommand(*command[1:] if command is MODULE else command, "serve", "tiny", "--replicas", replicas,
                             "--storage", tmp_path / "storage", "--port", port, cwd=folder)  # fmt: skip
    try:
        running.wait_for_line("listening on")
        assert answers(port)
    finally:
        end(running, port)


@pytest.mark.long
def test_a_ray_job(folder, spec, tmp_path):
    """`ray job submit --working-dir .` for a command that trains and one that serves."""
    storage, port = tmp_path / "storage", free_port()
    with ray_head() as head:
        submit = [RAY, "job", "submit", "--address", head.jobs_url, "--working-dir", "."]
        done = run([*submit, "--", "python", "-m", "raymill", "run", "run.yaml", "--json"], folder)
        assert done.returncode == 0, done.stdout + done.stderr
        assert (storage / "models" / "tiny" / "versions" / "1" / "manifest.json").is_file()

        serve = ["python", "-m", "raymill", "serve", "tiny", "--storage", storage, "--port", port]
        done = run([*submit, "--submission-id", "serve", "--no-wait", "--", *serve], folder)
        assert done.returncode == 0, done.stdout + done.stderr
        wait_until(lambda: answers(port), within_s=400, what="the job's endpoint answers")
        done = run([RAY, "job", "stop", "--address", head.jobs_url, "serve"], folder)
        assert done.returncode == 0, done.stdout + done.stderr
        wait_until(lambda: not answers(port), within_s=120, what="the job's endpoint is gone")
