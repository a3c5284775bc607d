"""What a search is for, applied to figures: the goals of a spec, the Pareto front, constraints."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from trainer.spec.run import RunSpec
from trainer.spec.tune import Goal, Rule


def goals_of(spec: RunSpec) -> list[Goal]:
    """Return the goals, the metric that epochs and trials are judged by first."""
    primary = Goal(spec.evaluate.metric, spec.evaluate.mode)
    others = spec.tune.objective.goals if spec.tune and spec.tune.objective else []
    return [primary, *[goal for goal in others if goal.name != primary.name]]


def of_every_trial(goals: Sequence[Goal]) -> list[Goal]:
    """Return the goals that are known of every trial, without serving it."""
    return [goal for goal in goals if not goal.is_served]


def front(goals: Sequence[Goal], figures: Sequence[Mapping[str, float]]) -> list[bool]:
    """Return for each whether none of the others is as good by every goal and better by one."""
    values = [[goal.sign * each.get(goal.name, -goal.sign * float("inf")) for goal in goals] for each in figures]

    def beats(other: list[float], mine: list[float]) -> bool:
        return all(a >= b for a, b in zip(other, mine, strict=True)) and other != mine

    return [not any(beats(other, mine) for other in values) for mine in values]


def broken(rules: Sequence[Rule], figures: Mapping[str, float], *, known: bool = False) -> list[str]:
    """Return the constraints that `figures` do not keep to; with `known` only those whose figure is there."""
    return [
        str(rule)
        for rule in rules
        if (rule.name in figures and not rule.holds(figures[rule.name])) or (rule.name not in figures and not known)
    ]
