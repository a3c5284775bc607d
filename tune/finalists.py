"""Choose the finalists of a search and the winner among them."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from trainer.runs.result import Finalist, TrialRecord
from trainer.spec.objective import Goal
from trainer.spec.run import RunSpec
from tune.objectives import list_goals, pareto_front, violated_constraints
from tune.point import Point
from tune.trial_store import original_name, reseeded_name

# Prefixes of the keys that change the cost of serving a model. Trials that differ in such a key are of different kinds.
_SERVING_COST_KEYS = ("model.", "data.")


def rank_trials(spec: RunSpec, trials: Sequence[TrialRecord]) -> list[TrialRecord]:
    """Return the evaluated trials, sorted by the number of violated constraints, then by the first goal, best first.

    A constraint on a metric that a trial does not have is ignored.
    """
    assert spec.tune is not None
    goal, constraints = list_goals(spec)[0], spec.tune.parsed_constraints

    def order(trial: TrialRecord) -> tuple[int, float]:
        violated = violated_constraints(constraints, trial.metrics, ignore_missing=True)
        return len(violated), -goal.sign * trial.metrics[goal.name]

    return sorted((trial for trial in trials if trial.metric is not None), key=order)


def select_finalists(spec: RunSpec, trials: Sequence[TrialRecord]) -> list[TrialRecord]:
    """Return the best trials. If finalists are served, take the best of each kind before the second best of any kind.

    Trials are of one kind if their models cost the same to serve: if they share every `model.` and `data.` value.
    """
    assert spec.tune is not None
    ranked = rank_trials(spec, trials)
    if not spec.tune.measures_serving:
        return ranked[: spec.tune.n_finalists]
    rounds: dict[str, int] = {}
    order = []
    for rank, trial in enumerate(ranked):
        kind = repr(sorted((key, value) for key, value in trial.values.items() if key.startswith(_SERVING_COST_KEYS)))
        rounds[kind] = rounds.get(kind, 0) + 1
        order.append((rounds[kind], rank))
    return [ranked[rank] for _, rank in sorted(order)[: spec.tune.n_finalists]]


def points_with_more_seeds(spec: RunSpec, finalists: Sequence[TrialRecord]) -> list[Point]:
    """Return a point for each finalist and each of the `tune.seeds` - 1 further seeds."""
    assert spec.tune is not None
    seeds = range(spec.train.seed + 1, spec.train.seed + spec.tune.seeds)
    return [
        Point(reseeded_name(trial.name, seed), {**trial.values, "train.seed": seed})
        for trial in finalists
        for seed in seeds
    ]


def score_finalists(
    spec: RunSpec,
    finalists: Sequence[TrialRecord],
    reseeded: Sequence[TrialRecord],
    serving: Mapping[str, Mapping[str, float]],
) -> list[Finalist]:
    """Return the finalists, the best first, with means over their seeds.

    `reseeded` are their trainings with further seeds; `serving` maps names of trials to the metrics of their load
    tests.
    """
    assert spec.tune is not None
    goals, constraints = list_goals(spec), spec.tune.parsed_constraints
    names = list(dict.fromkeys([*[goal.name for goal in goals], *[constraint.name for constraint in constraints]]))
    runs_of = {trial.name: [trial, *_finished_runs(trial, reseeded)] for trial in finalists}
    metrics = [{**_mean_metrics(runs_of[trial.name], names), **serving.get(trial.name, {})} for trial in finalists]
    is_on_front = pareto_front(goals, metrics)
    scored = [
        Finalist(
            trial.name,
            {seed_of(spec, run): float(run.metrics[goals[0].name]) for run in runs_of[trial.name]},
            values,
            on_front,
            violated_constraints(constraints, values),
        )
        for trial, values, on_front in zip(finalists, metrics, is_on_front, strict=True)
    ]
    return sorted(scored, key=lambda finalist: _order(goals, finalist))


def _finished_runs(trial: TrialRecord, reseeded: Sequence[TrialRecord]) -> list[TrialRecord]:
    return [run for run in reseeded if original_name(run.name) == trial.name and run.state == "finished"]


def _mean_metrics(runs: Sequence[TrialRecord], names: Sequence[str]) -> dict[str, float]:
    """Return the means of the metrics that every run has."""
    return {
        name: statistics.fmean(run.metrics[name] for run in runs)
        for name in names
        if all(name in run.metrics for run in runs)
    }


def seed_of(spec: RunSpec, trial: TrialRecord) -> int:
    """Return the seed that a trial was trained with."""
    return int(trial.values.get("train.seed", spec.train.seed))


def best_run_name(spec: RunSpec, finalist: Finalist) -> str:
    """Return the name of the finalist's training whose model is the best on the validation rows."""
    sign = list_goals(spec)[0].sign
    best_seed = max(finalist.seeds, key=lambda seed: sign * finalist.seeds[seed])
    first_seed = next(iter(finalist.seeds))
    return finalist.name if best_seed == first_seed else reseeded_name(finalist.name, best_seed)


def _order(goals: Sequence[Goal], finalist: Finalist) -> tuple[Any, ...]:
    """Return the sort key: the number of violated constraints, then the Pareto front, then the goals in order."""
    scores = [-goal.sign * finalist.metrics.get(goal.name, -goal.sign * float("inf")) for goal in goals]
    return (len(finalist.violated), not finalist.on_front, *scores)
