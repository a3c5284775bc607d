"""A disk that is full for a while, and damaged checkpoints: the run reports them and finishes like any other."""

import contextlib
import json
import os
import subprocess

import psutil
import pytest

from support.commands import RunningCommand, run_raymill
from support.tiny_text import tiny_spec, write_spec

STEPS = 300
SLOW_LOSS = """
import time

import torch


def slow(logits, targets, weights):
    time.sleep(0.03)
    return torch.nn.functional.cross_entropy(logits, targets, reduction="sum")
"""


@pytest.fixture()
def small_disk(tmp_path):
    """The folder of a file system of 8 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", folder], capture_output=True, text=True)
    if mounted.returncode:
        pytest.skip(f"a small file system cannot be mounted here: {mounted.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


def write_slow_spec(base, data, folder, storage):
    (folder / "slow_loss.py").write_text(SLOW_LOSS)
    train = {
        "epochs": 100,
        "max_steps": STEPS,
        "batch_size": 8,
        "learning_rate": 1e-3,
        "precision": "fp32",
        "loss": {"function": "slow_loss:slow"},
        "checkpoint": {"every_steps": 20, "keep": 2},
    }
    return write_spec(folder / "run.yaml", tiny_spec(base, data, storage, train=train, track={"every_steps": 1}))


def steps_of(run):
    return [json.loads(line)["step"] for line in (run / "metrics.jsonl").read_text().splitlines()]


def test_a_full_disk_is_reported_and_the_run_continues(small_disk, tiny_base, tiny_data, tmp_path):
    command = RunningCommand(
        "-m", "raymill", "train", write_slow_spec(tiny_base, tiny_data, tmp_path, small_disk), cwd=tmp_path
    )
    filler = small_disk / "filler"
    try:
        command.wait_until(lambda: list(small_disk.glob("runs/*/checkpoints/step-*")), "checkpoint")
        with contextlib.suppress(OSError), filler.open("wb", buffering=0) as file:
            while True:
                file.write(b"x" * 4096)
        os.truncate(filler, filler.stat().st_size - 100_000)  # room for lines, not for a checkpoint
        run = next(small_disk.glob("runs/*"))
        checkpoints = sorted(path.name for path in run.glob("checkpoints/step-*"))
        command.wait_until(lambda: command.output.count("could not be written") >= 2, "two notices")
        assert sorted(path.name for path in run.glob("checkpoints/step-*")) == checkpoints
        filler.unlink()
        assert command.process.wait(240) == 0, command.output
        assert "and the run continues" in command.output and "No space left" in command.output
        assert steps_of(run) == list(range(1, STEPS + 1))
        assert (run / "checkpoints" / f"step-{STEPS:08d}" / "state.json").is_file()
        assert len(list(run.glob("checkpoints/best-*/model.safetensors"))) == 1
        assert not list(run.glob("checkpoints/.*"))
    finally:
        command.terminate()


def test_damaged_checkpoints_are_skipped(tiny_base, tiny_data, tmp_path):
    path = write_slow_spec(tiny_base, tiny_data, tmp_path, tmp_path / "storage")
    command = RunningCommand("-m", "raymill", "train", path, cwd=tmp_path)
    try:
        command.wait_until(lambda: len(list(tmp_path.glob("storage/runs/*/checkpoints/step-*"))) == 2, "checkpoints")
        # Kill all at once: a worker that lives longer would save another checkpoint.
        for process in [*command.descendants(), command.process]:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        command.process.wait(20)
    finally:
        command.terminate()
    (run,) = tmp_path.glob("storage/runs/*")
    first, second = sorted(run.glob("checkpoints/step-*"))
    tensors = second / "state.safetensors"
    tensors.write_bytes(tensors.read_bytes()[:-100])  # as if the disk had lost a write that it confirmed
    unfinished = run / "checkpoints" / ".step-00000999.0123abcd"
    unfinished.mkdir()
    done = run_raymill("train", "--resume", run, "--json", cwd=tmp_path)
    assert done.code == 0, done
    step = int(second.name.removeprefix("step-"))
    assert f"the checkpoint of step {step} is damaged" in done.stderr
    assert steps_of(run) == list(range(1, STEPS + 1))
    assert not unfinished.exists()
    assert first.name < second.name
