"""Which trials of a search get into its finals, and which of them wins."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from trainer.runs.result import Finalist, TrialRecord
from trainer.spec.run import RunSpec
from trainer.spec.tune import Goal
from tune.objectives import broken, front, goals_of
from tune.point import Point
from tune.trial_store import final_name, of_final

# Keys that change what a served model costs: a finalist of each such kind is looked at before a second of any.
_COSTLY = ("model.", "data.")


def ranked(spec: RunSpec, trials: Sequence[TrialRecord]) -> list[TrialRecord]:
    """Return the trials that came to an evaluation, those that keep to every known constraint first, the best first."""
    assert spec.tune is not None
    metric, rules = goals_of(spec)[0], spec.tune.rules
    there = [trial for trial in trials if trial.metric is not None]
    return sorted(
        there,
        key=lambda trial: (len(broken(rules, trial.figures, known=True)), -metric.sign * trial.figures[metric.name]),
    )


def chosen(spec: RunSpec, trials: Sequence[TrialRecord]) -> list[TrialRecord]:
    """Return the finalists: the best, but of every kind that costs another amount to serve one before a second of any."""
    assert spec.tune is not None
    if not spec.tune.is_served:
        return ranked(spec, trials)[: spec.tune.n_finalists]
    rounds: dict[str, int] = {}
    places = []
    for place, trial in enumerate(ranked(spec, trials)):
        kind = repr(sorted((key, value) for key, value in trial.values.items() if key.startswith(_COSTLY)))
        rounds[kind] = rounds.get(kind, 0) + 1
        places.append((rounds[kind], place, trial))
    return [trial for _, _, trial in sorted(places, key=lambda each: each[:2])[: spec.tune.n_finalists]]


def more_seeds(spec: RunSpec, finalists: Sequence[TrialRecord]) -> list[Point]:
    """Return the trainings of the finals: each finalist with every seed it was not trained with yet."""
    assert spec.tune is not None
    seeds = range(spec.train.seed + 1, spec.train.seed + spec.tune.seeds)
    return [
        Point(final_name(trial.name, seed), {**trial.values, "train.seed": seed})
        for trial in finalists
        for seed in seeds
    ]


def judged(
    spec: RunSpec,
    finalists: Sequence[TrialRecord],
    finals: Sequence[TrialRecord],
    served: Mapping[str, Mapping[str, float]],
) -> list[Finalist]:
    """Return the finalists with means over their seeds and, by name, what serving them costs; the best first."""
    assert spec.tune is not None
    goals, rules = goals_of(spec), spec.tune.rules
    names = list(dict.fromkeys([*[goal.name for goal in goals], *[rule.name for rule in rules]]))
    found = []
    for trial in finalists:
        runs = [trial, *[final for final in finals if of_final(final.name) == trial.name and final.state == "finished"]]
        figures = {
            name: statistics.fmean(run.figures[name] for run in runs)
            for name in names
            if all(name in run.figures for run in runs)
        }
        seeds = {seed_of(spec, run): float(run.figures[goals[0].name]) for run in runs}
        found.append((trial.name, seeds, {**figures, **served.get(trial.name, {})}))
    on_front = front(goals, [figures for _, _, figures in found])
    all_of = [
        Finalist(name, seeds, figures, is_on, broken(rules, figures))
        for (name, seeds, figures), is_on in zip(found, on_front, strict=True)
    ]
    return sorted(all_of, key=lambda one: _order(goals, one))


def seed_of(spec: RunSpec, trial: TrialRecord) -> int:
    """Return the seed that a trial was trained with."""
    return int(trial.values.get("train.seed", spec.train.seed))


def best_seed(spec: RunSpec, finalist: Finalist) -> str:
    """Return the name of the training of a finalist whose model is the best on the validation rows."""
    sign = goals_of(spec)[0].sign
    seed = max(finalist.seeds, key=lambda each: sign * finalist.seeds[each])
    first = next(iter(finalist.seeds))
    return finalist.name if seed == first else final_name(finalist.name, seed)


def _order(goals: Sequence[Goal], one: Finalist) -> tuple[Any, ...]:
    """Sort by constraints first, then by the metric; what serving costs decides between equals."""
    values = [-goal.sign * one.figures.get(goal.name, -goal.sign * float("inf")) for goal in goals]
    return (len(one.broken), not one.on_front, *values)
