"""Goals and constraints of a search, applied to metrics: the Pareto front and violated constraints."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from trainer.spec.objective import Constraint, Goal
from trainer.spec.run import RunSpec


def list_goals(spec: RunSpec) -> list[Goal]:
    """Return the goals of a search. The first is `evaluate.metric`, which ranks epochs and trials."""
    primary = Goal(spec.evaluate.metric, spec.evaluate.mode)
    others = spec.tune.objective.goals if spec.tune and spec.tune.objective else []
    return [primary, *[goal for goal in others if goal.name != primary.name]]


def trial_goals(goals: Sequence[Goal]) -> list[Goal]:
    """Return the goals that every trial has a value for: all but the metrics of a load test."""
    return [goal for goal in goals if not goal.is_serving_metric]


def pareto_front(goals: Sequence[Goal], candidates: Sequence[Mapping[str, float]]) -> list[bool]:
    """Return for each candidate, given by its metrics, whether it is on the Pareto front.

    A candidate is on the front if no other candidate is at least as good by every goal and better by one. A missing
    metric counts as the worst value.
    """
    scores = [
        [goal.sign * metrics.get(goal.name, -goal.sign * float("inf")) for goal in goals] for metrics in candidates
    ]

    def dominates(other: list[float], own: list[float]) -> bool:
        return all(a >= b for a, b in zip(other, own, strict=True)) and other != own

    return [not any(dominates(other, own) for other in scores) for own in scores]


def violated_constraints(
    constraints: Sequence[Constraint], metrics: Mapping[str, float], *, ignore_missing: bool = False
) -> list[str]:
    """Return the constraints that `metrics` violate.

    A missing metric violates its constraint, unless `ignore_missing`.
    """
    return [
        str(constraint)
        for constraint in constraints
        if (constraint.name in metrics and not constraint.holds(metrics[constraint.name]))
        or (constraint.name not in metrics and not ignore_missing)
    ]
