"""Resume and repeat runs: load their spec, check which keys may change."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from cluster.errors import SpecError
from trainer.runs.environment import list_differences, read_precision
from trainer.runs.folder import (
    SPEC_FILE,
    base_name,
    find_run,
    list_runs,
    load_run_spec,
    read_prepared_path,
    run_kind,
    save_resolved_spec,
)
from trainer.runs.journal import RESULT
from trainer.spec.differences import flatten_spec
from trainer.spec.renames import check_key
from trainer.spec.run import RunSpec
from trainer.tasks.load_spec import load_spec, resolve_defaults

# Keys that do not change the result of a training.
_CHANGEABLE_KEYS = (
    "cluster.",
    "deploy.",
    "serve.",
    "track.",
    "train.checkpoint.",
    "train.max_failures",
    "train.max_time_s",
)
# The section for manifests says nothing about a run.
_MANIFESTS = "deploy"
# Keys that change what a search tries next and how long it continues. Trials that have started keep their values.
_CHANGEABLE_KEYS_OF_A_SEARCH = (
    "tune.space.",
    "tune.trials",
    "tune.initial_points",
    "tune.warm_start",
    "tune.max_concurrent",
    "tune.time_budget_s",
    "tune.constraints",
    "tune.finalists",
    "tune.seeds",
    "tune.load_test.",
)


def load_for_resume(run: str, storage: Path, overrides: Iterable[str]) -> tuple[RunSpec, Path, str]:
    """Return the spec, the folder and the kind (train, tune or run) of a run to resume.

    Raises `SpecError` if the run is finished, if it is not a training or a search, and for overrides that would change
    its result.
    """
    folder = find_run(run, storage)
    changes = list(overrides)
    kind = run_kind(folder)
    is_search = load_run_spec(folder).tune is not None
    _check_changes(folder, changes, is_search=is_search)
    can_grow = is_search and kind == "tune"  # a finished search may get more trials
    if (folder / RESULT).is_file() and not (can_grow and changes):
        raise SpecError(
            f"the run {folder.name} is finished",
            f"read {folder / RESULT}, or {_how_to_continue(folder, can_grow=can_grow)}",
        )
    if kind not in ("train", "tune", "run"):
        raise SpecError(
            f"{folder.name} is neither a training nor a search, so it cannot be resumed",
            "start a new run with its spec",
        )
    spec = load_run_spec(folder, changes)
    save_resolved_spec(spec, folder)
    (folder / RESULT).unlink(missing_ok=True)  # a finished search that gets more trials is not finished
    return spec, folder, kind


def find_unfinished(spec: RunSpec, kind: str) -> tuple[Path, list[str]] | None:
    """Return the newest run of `spec` under its storage if it was interrupted, and what to override to resume it.

    Keys that do not change the result may differ; the overrides give them the values that `spec` has. None if there is
    no run of the spec, or if the newest one is finished.
    """
    folder = next(runs_of(spec, kind), None)
    if folder is None or (folder / RESULT).is_file():
        return None
    return folder, _changes_since(folder, flatten_spec(resolve_defaults(spec)))


def find_same_run(spec: RunSpec, prepared: Path) -> str | None:
    """Return the name of the newest finished run of `spec` under its storage on these prepared rows, or None."""
    finished = (folder for folder in runs_of(spec, "run") if (folder / RESULT).is_file())
    return next((folder.name for folder in finished if read_prepared_path(folder) == prepared), None)


def runs_of(spec: RunSpec, kind: str) -> Iterator[Path]:
    """Yield the folders of the runs of a spec, newest first. Keys that do not change the result may differ."""
    expected = _of_result(flatten_spec(resolve_defaults(spec)))
    for folder in reversed(list_runs(Path(spec.storage), (kind,))):
        if base_name(folder) != spec.name:
            continue
        try:
            earlier = flatten_spec(resolve_defaults(load_spec(folder / SPEC_FILE)))
        except SpecError:  # of another version of raymill, or a folder without a spec
            continue
        if _of_result(earlier) == expected:
            yield folder


def _of_result(flat: dict[str, Any]) -> dict[str, Any]:
    """Return the keys that change the result of a run."""
    return {
        key: value
        for key, value in flat.items()
        if not key.startswith(_CHANGEABLE_KEYS) and key.partition(".")[0] != _MANIFESTS
    }


def _changes_since(folder: Path, expected: dict[str, Any]) -> list[str]:
    """Return the overrides with which a run is resumed as the spec with the values `expected` says."""
    current = flatten_spec(resolve_defaults(load_run_spec(folder)))
    return [
        f"{key}={json.dumps(value)}"
        for key, value in expected.items()
        if key.startswith(_CHANGEABLE_KEYS) and current.get(key) != value
    ]


def load_for_repeat(run: str, storage: Path, overrides: Iterable[str]) -> tuple[RunSpec, list[str]]:
    """Return the complete spec of an earlier run for a new one, and the differences between then and now in words."""
    folder = find_run(run, storage)
    # `train.precision: auto` measures, and could choose another precision today.
    precision = read_precision(folder)
    precision_override = [f"train.precision={precision}"] if precision else []
    spec = load_run_spec(folder, [*precision_override, *overrides])
    return spec, list_differences(folder)


def _check_changes(folder: Path, changes: Iterable[str], *, is_search: bool) -> None:
    """Raise `SpecError` for an override that would change the result of the run."""
    changeable = (*_CHANGEABLE_KEYS, *(_CHANGEABLE_KEYS_OF_A_SEARCH if is_search else ()))
    for change in changes:
        check_key(change.partition("=")[0].strip())
        if not change.startswith(changeable):
            raise SpecError(
                f"--set {change} would change the result of this run",
                f"start a new run with `raymill train --from {folder.name} --set {change}`",
            )


def _how_to_continue(folder: Path, *, can_grow: bool) -> str:
    if can_grow:
        return f"add trials to it, for example with `--resume {folder.name} --set tune.trials=40`"
    return f"repeat it with `raymill train --from {folder.name}`"
