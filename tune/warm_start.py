"""Start a search from the spec's initial points, and from the results of earlier searches and trainings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from trainer.runs.folder import find_run, load_run_spec, read_prepared_path
from trainer.runs.journal import read_history
from trainer.runs.result import TrialRecord
from trainer.spec.objective import Goal
from trainer.spec.run import RunSpec
from trainer.spec.section import AUTO
from trainer.spec.tune import TuneSpec
from trainer.tasks import load_spec
from tune.point import Point, trial_name
from tune.ray_searcher import tell_sampler
from tune.sampler import Sampler
from tune.search_space import preparation_key
from tune.trial_store import TrialStore, summarize_history
from tune.variants import read_variants


def initial_points(tune: TuneSpec) -> list[dict[str, Any]]:
    """Return the initial points of the spec, their keys in the order of the space."""
    return [{key: point[key] for key in tune.space if key in point} for point in tune.initial_points]


def number_points(points: Sequence[Mapping[str, Any]], last_number: int) -> list[Point]:
    """Return points with names that continue after `last_number`."""
    return [Point(trial_name(number), dict(values)) for number, values in enumerate(points, last_number + 1)]


def warm_start_sampler(spec: RunSpec, goals: Sequence[Goal], sampler: Sampler, prepared: Mapping[str, str]) -> None:
    """Tell the sampler the results of the trials in `tune.warm_start` that used the prepared rows of this search."""
    assert spec.tune is not None
    for run in spec.tune.warm_start:
        for trial in read_earlier_trials(spec, run, set(prepared.values())):
            if all(goal.name in trial.metrics for goal in goals):
                tell_sampler(sampler, goals, trial)


def read_earlier_trials(spec: RunSpec, run: str, prepared: set[str]) -> list[TrialRecord]:
    """Return the ended trials of an earlier search, or an earlier training as one trial.

    Trials that did not use one of the `prepared` folders are left out.

    Raises `SpecError` if the run does not exist.
    """
    folder = find_run(run, Path(spec.storage))
    earlier = load_run_spec(folder)
    if earlier.tune is not None:
        return _read_search(spec, folder, prepared)
    if str(read_prepared_path(folder)) not in prepared:
        return []
    return _read_training(spec, earlier, folder)


def _read_search(spec: RunSpec, folder: Path, prepared: set[str]) -> list[TrialRecord]:
    variants, store = read_variants(folder), TrialStore(folder, spec)

    def matches(name: str) -> bool:
        return store.has_ended(name) and variants.get(preparation_key(store.read_point(name).values)) in prepared

    # Read metrics only of trials that used the same prepared rows.
    return [store.read(name) for name in store.names(reseeded=False) if matches(name)]


def _read_training(spec: RunSpec, earlier: RunSpec, folder: Path) -> list[TrialRecord]:
    history = read_history(folder)
    if not history:
        return []
    assert spec.tune is not None
    raw = load_spec.resolve_defaults(earlier)
    # A key that the training did not use, such as the rate of boosted trees, is still `auto`.
    values = {key: value for key in spec.tune.space if (value := _value_at(raw, key)) not in (None, AUTO)}
    metrics = summarize_history(history, spec)
    metric, seconds = metrics[spec.evaluate.metric], metrics["train.seconds"]
    return [TrialRecord(folder.name, values, metric, len(history), seconds, history, metrics=metrics)]


def _value_at(raw: Any, key: str) -> Any:
    """Return the value at a dotted key of nested mappings, or None."""
    for part in key.split("."):
        raw = raw.get(part) if isinstance(raw, dict) else None
    return raw
