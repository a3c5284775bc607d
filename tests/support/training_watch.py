"""Watch a training from outside: a loss that holds it open, its steps, and what they must be."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from support.commands import RunningCommand

# Slow enough to take machines away meanwhile, and fast once the file `hurry` exists.
_SLOW_LOSS = """
import pathlib
import time

import torch


def slow(logits, targets, weights):
    if not pathlib.Path({hurry!r}).exists():
        time.sleep({seconds})
    return torch.nn.functional.cross_entropy(logits, targets, reduction="sum")
"""


class SlowLoss:
    """A module in `folder` with the loss `slow_loss:slow`; the folder must be on PYTHONPATH."""

    #: The value of `train.loss`.
    SPEC = {"function": "slow_loss:slow"}  # noqa: RUF012

    def __init__(self, folder: Path, seconds: float = 0.9) -> None:
        self._hurry = folder / "hurry"
        (folder / "slow_loss.py").write_text(_SLOW_LOSS.format(hurry=str(self._hurry), seconds=seconds))

    def hurry(self) -> None:
        """Make it fast from now on."""
        self._hurry.touch()

    def slow_down(self) -> None:
        """Make it slow from now on."""
        self._hurry.unlink(missing_ok=True)


def read_steps(storage: Path) -> list[dict[str, Any]]:
    """Return the complete lines of metrics.jsonl of the runs in a storage folder, one per step."""
    lines = []
    for path in storage.glob("runs/*/metrics.jsonl"):
        for line in path.read_text().splitlines():
            try:
                lines.append(json.loads(line))
            except ValueError:  # it is being written
                break
    return lines


def wait_for_steps(command: RunningCommand, storage: Path, workers: int, steps: int, timeout_s: float = 240) -> None:
    """Wait until the last `steps` steps were all taken by this number of workers."""

    def is_reached() -> bool:
        return [step["workers"] for step in read_steps(storage)[-steps:]] == [workers] * steps

    command.wait_until(is_reached, f"{steps} steps of {workers} workers", timeout_s)


def wait_for_step(command: RunningCommand, storage: Path, after: int, timeout_s: float = 240) -> None:
    """Wait until the step `after` has been followed by another one."""
    command.wait_until(
        lambda: any(step["step"] > after for step in read_steps(storage)), f"a step after {after}", timeout_s
    )


def last_step(storage: Path) -> int:
    """Return the number of the last step that was logged."""
    return max((int(step["step"]) for step in read_steps(storage)), default=0)


def assert_same_steps(storage: Path, expected: list[dict[str, Any]]) -> float:
    """Check that every step is there once, with the losses of `expected` to 1e-5; return the largest difference."""
    steps = read_steps(storage)
    assert [step["step"] for step in steps] == [step["step"] for step in expected]
    losses, of_one = [step["loss"] for step in steps], [step["loss"] for step in expected]
    assert losses == pytest.approx(of_one, abs=1e-5)
    return max(abs(float(loss) - float(other)) for loss, other in zip(losses, of_one, strict=True))
