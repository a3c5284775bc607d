"""The sources of a run's own rewards: stored in its folder when it begins, and compared when it resumes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from cluster.errors import ModelError
from cluster.files import write_bytes
from trainer.contract import user_code
from trainer.rewards.reward import KEY
from trainer.spec.method import SHIPPED_REWARDS, RewardSpec

_PREFIX = "reward_"


def pin_rewards(specs: Sequence[RewardSpec], folder: Path) -> None:
    """Copy the source of each reward of the user's own into `folder`; if there is a copy, compare it.

    Raises `ModelError` if a source has changed since the run began: the steps before and after would learn different
    things.
    """
    for spec in specs:
        if spec.kind in SHIPPED_REWARDS:
            continue
        source = user_code.find_source(spec.kind, KEY)
        copy = folder / f"{_PREFIX}{source.module}.py"
        if not copy.is_file():
            write_bytes(copy, source.content)
        elif copy.read_bytes() != source.content:
            raise ModelError(
                f"{source.file} has changed since this run began, which learns from {spec.kind}",
                f"restore it (the run's folder has a copy, {copy.name}), or start a new run",
            )
