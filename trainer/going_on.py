"""Runs that go on, and runs that are repeated: what their folder says, and what may be another now."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from cluster.errors import SpecError
from trainer import run_environment, run_folder, spec_load
from trainer.result import RESULT
from trainer.spec import RunSpec

# Keys that leave the result of a training as it is.
_MAY_CHANGE = ("cluster.", "serve.", "track.", "train.checkpoint.", "train.max_failures", "train.max_time_s")


def interrupted(run: str, storage: Path, overrides: Iterable[str]) -> tuple[RunSpec, Path, str]:
    """Return the spec, the folder and the kind (train or run) of a run that is to go on.

    Raises `SpecError` for one that is finished or that is no training, and for overrides that would change its result.
    """
    folder = run_folder.find(run, storage)
    given = list(overrides)
    for override in given:
        if not override.startswith(_MAY_CHANGE):
            raise SpecError(
                f"--set {override} would make another training of this run",
                f"begin a new one with `raymill train --from {folder.name} --set {override}`",
            )
    if (folder / RESULT).is_file():
        raise SpecError(
            f"the run {folder.name} is finished", f"look at {folder / RESULT}, or repeat it with --from {folder.name}"
        )
    spec = spec_load.load(folder / run_folder.RESOLVED, given)
    kind = next((kind for kind in ("train", "run") if f"-{kind}-" in folder.name), "")
    if not kind or spec.tune is not None:
        raise SpecError(f"{folder.name} is no training, so it cannot go on", "start it again with its spec")
    return spec, folder, kind


def repetition(run: str, storage: Path, overrides: Iterable[str]) -> tuple[RunSpec, list[str]]:
    """Return the whole spec of an earlier run for a new one, and what is not as it was then, in words."""
    folder = run_folder.find(run, storage)
    # `auto` is measured, and might be measured otherwise today.
    precision = run_environment.precision_of(folder)
    as_then = [f"train.precision={precision}"] if precision else []
    spec = spec_load.load(folder / run_folder.RESOLVED, [*as_then, *overrides])
    return spec, run_environment.differences(folder)
