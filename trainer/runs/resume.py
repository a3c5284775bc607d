"""Runs that go on, and runs that are repeated: what their folder says, and what may be another now."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from cluster.errors import SpecError
from trainer.runs import environment
from trainer.runs import folder as run_folder
from trainer.runs.journal import RESULT
from trainer.spec.run import RunSpec
from trainer.tasks import resolve

# Keys that leave the result of a training as it is.
_MAY_CHANGE = ("cluster.", "serve.", "track.", "train.checkpoint.", "train.max_failures", "train.max_time_s")
# Of a search: what it looks at next, and how long. Trials that were begun keep their values.
_MAY_CHANGE_IN_A_SEARCH = (
    "tune.space.",
    "tune.trials",
    "tune.points",
    "tune.warm_start",
    "tune.max_concurrent",
    "tune.time_budget_s",
    "tune.constraints",
    "tune.finalists",
    "tune.seeds",
    "tune.load.",
)


def interrupted(run: str, storage: Path, overrides: Iterable[str]) -> tuple[RunSpec, Path, str]:
    """Return the spec, the folder and the kind (train, tune or run) of a run that is to go on.

    Raises `SpecError` for one that is finished or no training or search, and for overrides that would change its result.
    """
    folder = run_folder.find(run, storage)
    given = list(overrides)
    kind = run_folder.kind_of(folder)
    searches = run_folder.spec_of(folder).tune is not None
    may_change = (*_MAY_CHANGE, *(_MAY_CHANGE_IN_A_SEARCH if searches else ()))
    for override in given:
        if not override.startswith(may_change):
            raise SpecError(
                f"--set {override} would make another training of this run",
                f"begin a new one with `raymill train --from {folder.name} --set {override}`",
            )
    if (folder / RESULT).is_file() and not (searches and given and kind == "tune"):
        raise SpecError(
            f"the run {folder.name} is finished",
            f"look at {folder / RESULT}, or {_more(searches and kind == 'tune', folder)}",
        )
    if kind not in ("train", "tune", "run"):
        raise SpecError(
            f"{folder.name} is neither a training nor a search, so it cannot go on", "start it again with its spec"
        )
    spec = resolve.load(folder / run_folder.RESOLVED, given)
    run_folder.save_resolved(spec, folder)
    (folder / RESULT).unlink(missing_ok=True)  # a finished search that goes on is not finished
    return spec, folder, kind


def _more(searches: bool, folder: Path) -> str:
    if searches:
        return f"go on with more trials, as --resume {folder.name} --set tune.trials=40"
    return f"repeat it with --from {folder.name}"


def repetition(run: str, storage: Path, overrides: Iterable[str]) -> tuple[RunSpec, list[str]]:
    """Return the whole spec of an earlier run for a new one, and what is not as it was then, in words."""
    folder = run_folder.find(run, storage)
    # `auto` is measured, and might be measured otherwise today.
    precision = environment.precision_of(folder)
    as_then = [f"train.precision={precision}"] if precision else []
    spec = resolve.load(folder / run_folder.RESOLVED, [*as_then, *overrides])
    return spec, environment.differences(folder)
