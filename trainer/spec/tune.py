"""The `tune:` section of a spec: a search over trainings."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from trainer.spec.objective import SERVING_METRICS, TRIAL_METRICS, Constraint, ObjectiveSpec
from trainer.spec.renames import new_key
from trainer.spec.section import Positive, Seed, SpecSection
from trainer.spec.space import DomainSpec, check_conditions, is_key_searched, iterate_grid, order_keys

#: Keys that may change during a training; `scheduler: pbt` searches them.
MUTABLE_KEYS = (
    "train.learning_rate",
    "train.head_learning_rate",
    "train.layerwise_lr_decay",
    "train.weight_decay",
    "train.max_grad_norm",
    "train.loss.label_smoothing",
    "train.loss.gamma",
)
_DEFAULT_TRIALS = 10


class LoadTestSpec(SpecSection):
    """How a finalist is loaded with requests to measure it in serving."""

    connections: Annotated[int, Field(ge=1, le=256)] = 4
    """Number of clients; each waits for an answer before it sends the next request."""
    seconds: Annotated[float, Field(gt=0, le=600)] = 5.0
    """Duration, after a warm-up of a fifth of it."""


class TuneSpec(SpecSection):
    """A search: many trainings (trials), of which the best wins."""

    space: dict[str, DomainSpec]
    """Keys of the spec to search over, for example `train.learning_rate: {loguniform: [1e-5, 1e-3]}`."""
    algorithm: Literal["tpe", "cmaes", "nsga2", "random", "grid"] = "tpe"
    """Sampler of Optuna: `tpe` (MOTPE for several objectives), `cmaes` for numbers only, `nsga2` for several
    objectives, `random`; or `grid`: every combination of a space that has only choices."""
    trials: Positive | None = None
    """Number of trials. Default: 10, and for a grid all its combinations."""
    scheduler: Literal["asha", "median", "hyperband", "pbt", "none"] = "asha"
    """How trials are stopped early, after `grace_epochs`. `asha`: stop those that are behind others after the same
    number of epochs; `hyperband`: the same, but trials wait for each other; `median`: stop those that are worse than
    the median. `pbt`: train all trials at once; every `grace_epochs`, the worst trials take over the weights of the
    best and continue with changed values."""
    grace_epochs: Positive = 1
    """Epochs of every trial before `scheduler` may stop it. `hyperband` has its own rule."""
    objective: ObjectiveSpec | None = None
    """What the search optimizes, for example `{maximize: macro_f1, minimize: serve.p99_ms}`. Default:
    `evaluate.metric`."""
    constraints: list[str] = Field(default_factory=list)
    """Bounds that the winner must satisfy, for example `serve.p99_ms <= 20` or `model.size_mb <= 50`."""
    finalists: Positive | None = None
    """Number of the best trials that are trained with more seeds and load-tested in serving. Default: 3 if `seeds` is
    above 1 or a metric of serving is an objective or a constraint."""
    seeds: Annotated[int, Field(ge=1, le=20)] = 1
    """Number of seeds that each finalist is trained with. The best on average wins, so that luck counts less."""
    load_test: LoadTestSpec = Field(default_factory=LoadTestSpec)
    """How finalists are measured in serving."""
    initial_points: list[dict[str, Any]] = Field(default_factory=list)
    """Values to try first, for example `[{train.learning_rate: 3e-4}]`. Other keys have their values in the spec."""
    warm_start: list[str] = Field(default_factory=list)
    """Earlier searches or trainings that the sampler learns from: folders, or names of runs."""
    max_concurrent: Positive | None = None
    """Maximum number of trials that run at the same time. Default: as many as fit on the cluster."""
    seed: Seed = 42
    """Seed of the sampler."""
    time_budget_s: Annotated[float, Field(gt=0)] | None = None
    """Seconds after which no trial starts, including those before an interruption. Default: no limit."""

    @model_validator(mode="after")
    def _check_space(self) -> TuneSpec:
        if not self.space:
            raise ValueError(
                "space is empty; name at least one key, for example train.learning_rate: {loguniform: [1e-5, 1e-3]}"
            )
        if self.algorithm == "grid":
            ranges = [key for key, domain in self.space.items() if domain.choice is None]
            if ranges:
                raise ValueError(
                    f"algorithm: grid needs choice for {ranges[0]}; list its values or use `algorithm: random`"
                )
        check_conditions(self.space)
        for key in itertools.chain(*self.initial_points):
            if key not in self.space:
                fix = f"it is renamed, use {new_key(key)}" if new_key(key) else "add it to `space`, or remove it"
                raise ValueError(f"initial_points: {key} is not a key of the space; {fix}")
        return self

    @model_validator(mode="after")
    def _check_scheduler(self) -> TuneSpec:
        if self.scheduler != "pbt":
            return self
        if self.algorithm == "grid":
            raise ValueError(
                "scheduler: pbt changes values during a training, which a grid cannot; use `algorithm: random`"
            )
        if not any(key in MUTABLE_KEYS and self.space[key].choice is None for key in self.space):
            raise ValueError(
                "scheduler: pbt needs a range in the space for a key that may change while training: "
                f"{', '.join(MUTABLE_KEYS)}"
            )
        if (self.trials or _DEFAULT_TRIALS) < 2:
            raise ValueError("scheduler: pbt needs at least 2 trials, which learn from each other")
        return self

    @model_validator(mode="after")
    def _check_objective(self) -> TuneSpec:
        for text in self.constraints:
            Constraint.parse(text)
        goals = self.objective.goals if self.objective else []
        if self.algorithm == "cmaes" and len([goal for goal in goals if not goal.is_serving_metric]) > 1:
            raise ValueError("algorithm: cmaes takes one objective besides serve.*; use tpe or nsga2")
        if self.algorithm == "nsga2" and len(goals) < 2:
            raise ValueError("algorithm: nsga2 is for several objectives; name them, or use tpe")
        if goals and all(goal.name in (*SERVING_METRICS, *TRIAL_METRICS) for goal in goals):
            raise ValueError(
                "objective needs a metric of the task too, for example maximize: macro_f1: it chooses the best epoch"
            )
        return self

    @property
    def ordered_keys(self) -> list[str]:
        """The keys of the space, each after those that its `when` names."""
        return order_keys(self.space)

    def is_searched(self, key: str, values: Mapping[str, Any]) -> bool:
        """Return whether `key` is searched while the keys before it have `values`."""
        return is_key_searched(self.space, key, values)

    def grid_points(self) -> Iterator[dict[str, Any]]:
        """Yield the points of a grid, each once, in the order of the spec."""
        return iterate_grid(self.space)

    @property
    def n_trials(self) -> int:
        """Number of trials that the search starts, without the finals."""
        if self.algorithm != "grid":
            return self.trials or _DEFAULT_TRIALS
        combinations = sum(1 for _ in self.grid_points())
        return min(self.trials or combinations, combinations)

    @property
    def parsed_constraints(self) -> list[Constraint]:
        """The constraints, parsed."""
        return [Constraint.parse(text) for text in self.constraints]

    @property
    def measures_serving(self) -> bool:
        """Whether the objective or a constraint names a metric of serving."""
        goals = self.objective.goals if self.objective else []
        names = [*[goal.name for goal in goals], *[constraint.name for constraint in self.parsed_constraints]]
        return any(name in SERVING_METRICS for name in names)

    @property
    def n_finalists(self) -> int:
        """Number of trials in the finals; 0 if there are no finals."""
        if self.seeds == 1 and not self.measures_serving:
            return 0
        return min(self.finalists or 3, self.n_trials)
