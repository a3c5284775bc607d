"""The commands in the READMEs of examples/preference and examples/grpo, shortened."""

import json
import shlex
import subprocess
import sys

import pytest

from support.commands import ROOT, run_raymill
from support.tiny_causal import write_tiny_causal


def readme_arguments(example, start):
    """Return the arguments of the README's command that starts with `start`, without the program."""
    readme = (ROOT / "examples" / example / "README.md").read_text(encoding="utf-8")
    (line,) = [line for line in readme.splitlines() if line.startswith(start)]
    return shlex.split(line, comments=True)[1:]


@pytest.fixture
def run(tmp_path):
    def run(example, start, *changes):
        settings = [word for change in changes for word in ("--set", change)]
        arguments = readme_arguments(example, start)
        done = run_raymill(*arguments, *settings, "--storage", tmp_path / "storage", "--json")
        assert done.code == 0, done
        return json.loads(done.stdout)

    return run


def test_pairs(run, tmp_path):
    base = write_tiny_causal(tmp_path / "base")
    outcome = run("preference", "raymill run", f"model.base={base}", "train.epochs=1", "train.tokens_per_step=4096")
    metrics = outcome["metrics"]
    assert 0 <= metrics["test"]["preference_accuracy"] <= 1
    assert {"preference_loss", "reward_accuracy", "reference_accuracy"} <= set(metrics["validation"])


def test_rewards(run, tmp_path):
    subprocess.run([sys.executable, *readme_arguments("grpo", "python")], cwd=ROOT, check=True)
    assert subprocess.run(["git", "status", "--short", "examples/grpo"], cwd=ROOT, capture_output=True).stdout == b""
    worked = run("grpo", "raymill run examples/grpo/sft.yaml", "train.epochs=1")
    assert worked["promoted"]
    base = tmp_path / "storage" / "models" / "sorting" / "versions" / "1"
    short = ("train.max_steps=2", "train.method.rollout.samples=2", "train.method.rollout.prompts=8")
    outcome = run("grpo", "raymill run examples/grpo/run.yaml", f"model.base={base}", *short)
    assert 0 <= outcome["metrics"]["test"]["exact_match"] <= 1
    assert (tmp_path / "storage").joinpath("runs").is_dir()
