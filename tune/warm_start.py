"""What a search begins with: points that the spec gives, and earlier searches and trainings to learn from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cluster.files import read_json
from trainer.runs import folder as run_folder
from trainer.runs.journal import read_history
from trainer.runs.result import TrialRecord
from trainer.spec.run import RunSpec
from trainer.spec.tune import Goal, Tune
from trainer.tasks import resolve
from tune.point import Point
from tune.ray_searcher import learn, trial_name
from tune.sampler import Sampling
from tune.search_space import preparation_of
from tune.trial_store import Records, figures_of

#: Of a search: which prepared rows go with which values.
VARIANTS = "variants.json"


def variants_of(folder: Path) -> dict[str, str]:
    """Return which prepared rows a search went with, by `preparation_of`, as far as they are still there."""
    found: dict[str, str] = read_json(folder / VARIANTS) if (folder / VARIANTS).is_file() else {}
    return {key: place for key, place in found.items() if Path(place).is_dir()}


def points(tune: Tune) -> list[dict[str, Any]]:
    """Return the points that the spec gives, keys in the order of its space."""
    return [{key: point[key] for key in tune.space if key in point} for point in tune.points]


def named(values: Sequence[Mapping[str, Any]], after: int) -> list[Point]:
    """Return points with names that count on from `after`."""
    return [Point(trial_name(after + at), dict(each)) for at, each in enumerate(values, 1)]


def teach(spec: RunSpec, goals: Sequence[Goal], sampling: Sampling, prepared: Mapping[str, str]) -> None:
    """Tell who draws of the trials of `tune.warm_start` that were trained and judged on the very rows of this search."""
    assert spec.tune is not None
    for run in spec.tune.warm_start:
        for trial in trials_of(spec, run, set(prepared.values())):
            if all(goal.name in trial.figures for goal in goals):
                learn(sampling, goals, trial)


def trials_of(spec: RunSpec, run: str, prepared: set[str]) -> list[TrialRecord]:
    """Return an earlier run's trials, or the training that it is; none if it had other rows.

    Raises `SpecError` for a run that is not there.
    """
    folder = run_folder.find(run, Path(spec.storage))
    then = run_folder.spec_of(folder)
    if then.tune is not None:
        rows_of, records = variants_of(folder), Records(folder, spec)
        names = [
            name
            for name in records.names(finals=False)  # whose figures are read only where they are of the same rows
            if records.has_ended(name) and rows_of.get(preparation_of(records.point(name).values)) in prepared
        ]
        return [records.read(name) for name in names]
    if str(run_folder.prepared_of(folder)) not in prepared:
        return []
    history = read_history(folder)
    if not history:
        return []
    assert spec.tune is not None
    raw = resolve.resolved(then)
    values = {key: value for key in spec.tune.space if (value := _at(raw, key)) is not None}
    figures = figures_of(history, spec)
    metric, seconds = figures[spec.evaluate.metric], figures["train.seconds"]
    return [TrialRecord(folder.name, values, metric, len(history), seconds, history, figures=figures)]


def _at(raw: Any, key: str) -> Any:
    for part in key.split("."):
        raw = raw.get(part) if isinstance(raw, dict) else None
    return raw
