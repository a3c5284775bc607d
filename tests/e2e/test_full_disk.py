"""A disk that is full for a while, and checkpoints that are damaged: the run says so, and ends as any other."""

import contextlib
import json
import os
import subprocess
import time

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
    """A file system of 8 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", folder], capture_output=True, text=True)
    if mounted.returncode:
        pytest.skip(f"a small file system cannot be mounted here: {mounted.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


def spec_of(base, data, folder, storage):
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


def wait_until(command, found, what):
    end = time.monotonic() + 240
    while not found():
        assert time.monotonic() < end and command.process.poll() is None, f"no {what}: {command.text}"
        time.sleep(0.05)


def steps_of(run):
    return [json.loads(line)["step"] for line in (run / "metrics.jsonl").read_text().splitlines()]


def test_a_full_disk_is_told_of_and_the_run_goes_on(small_disk, tiny_base, tiny_data, tmp_path):
    command = RunningCommand(
        "-m", "raymill", "train", spec_of(tiny_base, tiny_data, tmp_path, small_disk), cwd=tmp_path
    )
    filler = small_disk / "filler"
    try:
        wait_until(command, lambda: list(small_disk.glob("runs/*/checkpoints/step-*")), "checkpoint")
        with contextlib.suppress(OSError), filler.open("wb", buffering=0) as file:
            while True:
                file.write(b"x" * 4096)
        os.truncate(filler, filler.stat().st_size - 100_000)  # room for lines, not for a checkpoint
        run = next(small_disk.glob("runs/*"))
        kept = sorted(path.name for path in run.glob("checkpoints/step-*"))
        wait_until(command, lambda: command.text.count("could not be written") >= 2, "two notices")
        assert sorted(path.name for path in run.glob("checkpoints/step-*")) == kept
        filler.unlink()
        assert command.process.wait(240) == 0, command.text
        assert "and the run goes on" in command.text and "No space left" in command.text
        assert steps_of(run) == list(range(1, STEPS + 1))
        assert (run / "checkpoints" / f"step-{STEPS:08d}" / "state.json").is_file()
        assert len(list(run.glob("checkpoints/best-*/model.safetensors"))) == 1
        assert not list(run.glob("checkpoints/.*"))
    finally:
        command.end()


def test_damaged_checkpoints_are_left_out(tiny_base, tiny_data, tmp_path):
    path = spec_of(tiny_base, tiny_data, tmp_path, tmp_path / "storage")
    command = RunningCommand("-m", "raymill", "train", path, cwd=tmp_path)
    try:
        wait_until(command, lambda: len(list(tmp_path.glob("storage/runs/*/checkpoints/step-*"))) == 2, "checkpoints")
        for process in [
            *command.family(),
            command.process,
        ]:  # all at once: a worker that is left would save another one
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        command.process.wait(20)
    finally:
        command.end()
    (run,) = tmp_path.glob("storage/runs/*")
    first, second = sorted(run.glob("checkpoints/step-*"))
    tensors = second / "state.safetensors"
    tensors.write_bytes(tensors.read_bytes()[:-100])  # as a disk that lies about what it wrote leaves it
    half = run / "checkpoints" / ".step-00000999.0123abcd"
    half.mkdir()
    done = run_raymill("train", "--resume", run, "--json", cwd=tmp_path)
    assert done.code == 0, done
    step = int(second.name.removeprefix("step-"))
    assert f"the checkpoint of step {step} is damaged" in done.stderr
    assert steps_of(run) == list(range(1, STEPS + 1))
    assert not half.exists()
    assert first.name < second.name
