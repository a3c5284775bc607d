"""The `tune.objective:` and `tune.constraints:` keys of a spec: the metrics that a search optimizes or bounds."""

from __future__ import annotations

import re
from typing import Literal, NamedTuple

from pydantic import Field, model_validator

from trainer.spec.section import SpecSection

#: Metrics of serving a finalist: milliseconds per request, and inputs per second.
SERVING_METRICS = ("serve.p50_ms", "serve.p99_ms", "serve.rows_per_s")
#: Metrics that every trial has besides those of its task: megabytes of the weights, and seconds of the training.
TRIAL_METRICS = ("model.size_mb", "train.seconds")
_HIGHER_IS_BETTER = frozenset({"serve.rows_per_s"})
_CONSTRAINT = re.compile(r"^\s*([a-z0-9_.]+)\s*(<=|>=|<|>)\s*(-?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?)\s*$")

Mode = Literal["min", "max"]


class Goal(NamedTuple):
    """A metric that a search minimizes or maximizes."""

    name: str
    mode: Mode

    @property
    def is_serving_metric(self) -> bool:
        """Whether the metric is measured with a replica."""
        return self.name in SERVING_METRICS

    @property
    def sign(self) -> float:
        """1 or -1: a value that is multiplied by the sign is better if it is higher."""
        return 1.0 if self.mode == "max" else -1.0


class Constraint(NamedTuple):
    """A bound on a metric that the winner of a search must satisfy."""

    name: str
    sign: str
    """One of <, <=, > and >=."""
    bound: float

    @classmethod
    def parse(cls, text: str) -> Constraint:
        """Return the constraint that a text such as `serve.p99_ms <= 20` states. Raises `ValueError` for any other."""
        match = _CONSTRAINT.match(text)
        if match is None:
            raise ValueError(
                f"constraints: {text!r} must be a metric, <= or >=, and a number, for example serve.p99_ms <= 20"
            )
        return cls(match[1], match[2], float(match[3]))

    def holds(self, value: float) -> bool:
        """Return whether a value satisfies the constraint."""
        if self.sign.startswith("<"):
            return value < self.bound or (value == self.bound and "=" in self.sign)
        return value > self.bound or (value == self.bound and "=" in self.sign)

    def __str__(self) -> str:
        return f"{self.name} {self.sign} {self.bound:g}"


class ObjectiveSpec(SpecSection):
    """What a search optimizes: one metric or several. The first one that belongs to the task chooses epochs, trials and
    the winner."""

    maximize: str | list[str] = Field(default_factory=list)
    """Metrics of the task, or `serve.rows_per_s`."""
    minimize: str | list[str] = Field(default_factory=list)
    """Metrics of the task, `model.size_mb`, `train.seconds`, `serve.p50_ms`, `serve.p99_ms`."""

    @model_validator(mode="after")
    def _check_goals(self) -> ObjectiveSpec:
        names = [goal.name for goal in self.goals]
        if not names:
            raise ValueError("name at least one metric, for example maximize: macro_f1")
        repeated = sorted({name for name in names if names.count(name) > 1})
        if repeated:
            raise ValueError(f"{repeated[0]} is named twice; name it once")
        for goal in self.goals:
            if goal.name in (*SERVING_METRICS, *TRIAL_METRICS):
                mode: Mode = "max" if goal.name in _HIGHER_IS_BETTER else "min"
                if goal.mode != mode:
                    raise ValueError(f"{goal.name} should be {'minimized' if mode == 'min' else 'maximized'}")
        return self

    @property
    def goals(self) -> list[Goal]:
        """The metrics in order, those to maximize first."""
        modes: tuple[tuple[Mode, str | list[str]], ...] = (("max", self.maximize), ("min", self.minimize))
        return [
            Goal(name, mode) for mode, names in modes for name in ([names] if isinstance(names, str) else list(names))
        ]
