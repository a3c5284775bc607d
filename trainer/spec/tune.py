"""The `tune:` section of the spec: a search over trainings. Neither torch nor ray is loaded here."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import Field, model_validator

from trainer.spec.section import Positive, Section, Seed

#: What serving a finalist costs: milliseconds a request, and inputs a second.
SERVE_FIGURES = ("serve.p50_ms", "serve.p99_ms", "serve.rows_per_s")
#: What else is known of every trial: megabytes of its weights, and seconds of its training.
TRIAL_FIGURES = ("model.size_mb", "train.seconds")
_MORE_IS_BETTER = frozenset({"serve.rows_per_s"})
#: Keys that may change while a training goes on, by which `scheduler: pbt` learns.
CHANGEABLE = (
    "train.learning_rate",
    "train.head_learning_rate",
    "train.layer_decay",
    "train.weight_decay",
    "train.max_grad_norm",
    "train.loss.label_smoothing",
    "train.loss.gamma",
)
_RULE = re.compile(r"^\s*([a-z0-9_.]+)\s*(<=|>=|<|>)\s*(-?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?)\s*$")

Mode = Literal["min", "max"]


class Domain(Section):
    """The values a search may give one key: exactly one kind of them."""

    choice: list[Any] | None = None
    """One of these values."""
    uniform: tuple[float, float] | None = None
    """A float between the two."""
    loguniform: tuple[float, float] | None = None
    """A float between the two, evenly over its logarithm."""
    randint: tuple[int, int] | None = None
    """A whole number from the first to the second, both included."""
    lograndint: tuple[int, int] | None = None
    """The same, evenly over its logarithm."""
    step: Annotated[float, Field(gt=0)] | None = None
    """Of `uniform` and `randint`: only the lower bound and every so much above it."""
    when: dict[str, Any] = Field(default_factory=dict)
    """Searched only where other keys of the space have these values (one, or a list of them), as
    `{train.loss.kind: focal}`; elsewhere the key is as the spec has it."""

    @model_validator(mode="after")
    def _is_one_domain(self) -> Domain:
        given = [(kind, value) for kind, value in self if value is not None and kind not in ("step", "when")]
        if len(given) != 1:
            raise ValueError("give exactly one of choice, uniform, loguniform, randint, lograndint")
        kind, value = given[0]
        if kind == "choice" and not value:
            raise ValueError("choice is empty; list at least one value")
        if kind != "choice" and not value[0] < value[1]:
            raise ValueError(f"{kind}: {list(value)} must rise; put the lower bound first")
        if kind.startswith("log") and value[0] <= 0:
            raise ValueError(f"{kind}: {list(value)} must be above 0")
        if self.step is not None and kind not in ("uniform", "randint"):
            raise ValueError(f"step is for uniform and randint, not for {kind}; take it out")
        if self.step is not None and kind == "randint" and self.step != int(self.step):
            raise ValueError(f"step={self.step} must be a whole number for randint")
        return self

    @property
    def edges(self) -> list[Any]:
        """The values by which the rest of the spec can tell whether this domain makes sense."""
        if self.choice is not None:
            return list(self.choice)
        for bounds in (self.uniform, self.loguniform):
            if bounds is not None:
                low, high = bounds
                # one between shows a key that takes whole numbers only
                return [low, high] if self.step else [low, low + (high - low) * 0.618, high]
        return list(self.randint or self.lograndint or ())

    def allows(self, parent: str, value: Any) -> bool:
        """Whether `when` lets this key be searched where `parent` has `value`."""
        wanted = self.when[parent]
        return value in wanted if isinstance(wanted, list) else bool(value == wanted)


class Goal(NamedTuple):
    """One figure that a search makes large or small."""

    name: str
    mode: Mode

    @property
    def is_served(self) -> bool:
        """Whether it is measured with a replica."""
        return self.name in SERVE_FIGURES

    @property
    def sign(self) -> float:
        """What its values are multiplied by so that more is better."""
        return 1.0 if self.mode == "max" else -1.0


class Rule(NamedTuple):
    """One constraint: a figure, how it compares, and with what."""

    name: str
    sign: str
    bound: float

    def holds(self, value: float) -> bool:
        """Whether a value keeps to it."""
        if self.sign.startswith("<"):
            return value < self.bound or (value == self.bound and "=" in self.sign)
        return value > self.bound or (value == self.bound and "=" in self.sign)

    def __str__(self) -> str:
        return f"{self.name} {self.sign} {self.bound:g}"


class Objective(Section):
    """What a search is for: one figure or several. The first that is a metric picks epochs, trials and the winner."""

    maximize: str | list[str] = Field(default_factory=list)
    """Metrics of the task, or `serve.rows_per_s`."""
    minimize: str | list[str] = Field(default_factory=list)
    """Metrics of the task, `model.size_mb`, `train.seconds`, `serve.p50_ms`, `serve.p99_ms`."""

    @model_validator(mode="after")
    def _has_goals(self) -> Objective:
        names = [goal.name for goal in self.goals]
        if not names:
            raise ValueError("name at least one figure, as maximize: macro_f1")
        twice = {name for name in names if names.count(name) > 1}
        if twice:
            raise ValueError(f"{sorted(twice)[0]} is named twice; name it once")
        for goal in self.goals:
            if goal.name in (*SERVE_FIGURES, *TRIAL_FIGURES):
                right: Mode = "max" if goal.name in _MORE_IS_BETTER else "min"
                if goal.mode != right:
                    raise ValueError(f"{goal.name} should be {'minimized' if right == 'min' else 'maximized'}")
        return self

    @property
    def goals(self) -> list[Goal]:
        """Its figures in order, those to maximize first."""
        modes: tuple[tuple[Mode, str | list[str]], ...] = (("max", self.maximize), ("min", self.minimize))
        return [
            Goal(name, mode) for mode, given in modes for name in ([given] if isinstance(given, str) else list(given))
        ]


class Load(Section):
    """How finalists are asked when what serving them costs is measured."""

    connections: Annotated[int, Field(ge=1, le=256)] = 4
    """Clients that wait for an answer and ask again."""
    seconds: Annotated[float, Field(gt=0, le=600)] = 5.0
    """How long, after a warm-up of a fifth of it."""


class Tune(Section):
    """A search: many trainings, of which the best wins."""

    space: dict[str, Domain]
    """Keys of the spec to search over, as `train.learning_rate: {loguniform: [1e-5, 1e-3]}`."""
    algorithm: Literal["tpe", "optuna", "cmaes", "nsga2", "random", "grid"] = "tpe"
    """Optuna's samplers: `tpe` (`optuna` means the same; of several objectives it is MOTPE), `cmaes` for numbers alone,
    `nsga2` for several objectives, `random`; `grid` tries every combination and needs `choice` throughout."""
    trials: Positive | None = None
    """How many trainings. Default: 10, and for a grid all its combinations."""
    scheduler: Literal["asha", "median", "hyperband", "pbt", "none"] = "asha"
    """Which trainings end early, after `grace_epochs`: those behind after as many epochs (`asha`, or `hyperband`, which
    lets them wait for each other), or worse than the median (`median`). `pbt` has all of them go on at once, and the
    worst take over weights and values from the best, with changes, every `grace_epochs`."""
    grace_epochs: Positive = 1
    """Epochs every trial gets before `scheduler` may stop it; `hyperband` divides by its own rule."""
    objective: Objective | None = None
    """What it is for, as `{maximize: macro_f1, minimize: serve.p99_ms}`. Default: `evaluate.metric`."""
    constraints: list[str] = Field(default_factory=list)
    """What a winner must keep to, as `serve.p99_ms <= 20` or `model.size_mb <= 50`."""
    finalists: Positive | None = None
    """How many of the best are trained with more seeds, and measured in serving. Default: 3 where either is asked for."""
    seeds: Annotated[int, Field(ge=1, le=20)] = 1
    """Seeds that each finalist is trained with; the best on average wins, so that it is not luck."""
    load: Load = Field(default_factory=Load)
    """How serving is measured."""
    points: list[dict[str, Any]] = Field(default_factory=list)
    """Values to try first, as `[{train.learning_rate: 3e-4}]`; keys that are not named are as the spec has them."""
    warm_start: list[str] = Field(default_factory=list)
    """Earlier searches or trainings to learn from: folders, or names of runs."""
    max_concurrent: Positive | None = None
    """Trials at a time. Default: as many as the cluster carries."""
    seed: Seed = 42
    """Seed of the sampler."""
    time_budget_s: Annotated[float, Field(gt=0)] | None = None
    """Seconds after which no more is tried, those before an interruption included. Default: no limit."""

    @model_validator(mode="after")
    def _can_be_searched(self) -> Tune:
        if not self.space:
            raise ValueError(
                "space is empty; name at least one key, as train.learning_rate: {loguniform: [1e-5, 1e-3]}"
            )
        if self.algorithm == "grid":
            open_ended = [key for key, domain in self.space.items() if domain.choice is None]
            if open_ended:
                raise ValueError(f"algorithm: grid needs choice for {open_ended[0]}; list its values or use random")
        for key, domain in self.space.items():
            for parent, wanted in domain.when.items():
                if parent not in self.space or self.space[parent].choice is None:
                    raise ValueError(f"space.{key}.when names {parent}, which is no key of the space with a choice")
                values = wanted if isinstance(wanted, list) else [wanted]
                wrong = [value for value in values if value not in (self.space[parent].choice or [])]
                if wrong:
                    raise ValueError(f"space.{key}.when: {parent} is never {wrong[0]!r}; its choice does not list it")
        if len(self.order) < len(self.space):
            wrong_keys = sorted(set(self.space) - set(self.order))
            raise ValueError(f"space: {' and '.join(wrong_keys)} wait for each other in `when`; take one out")
        return self

    @model_validator(mode="after")
    def _suits_its_scheduler(self) -> Tune:
        if self.scheduler == "pbt":
            if self.algorithm == "grid":
                raise ValueError("scheduler: pbt changes values as it goes, which a grid cannot; use algorithm: random")
            if not any(key in CHANGEABLE and self.space[key].choice is None for key in self.space):
                raise ValueError(
                    f"scheduler: pbt needs a key in the space that may change while training: {', '.join(CHANGEABLE)}"
                )
            if (self.trials or 10) < 2:
                raise ValueError("scheduler: pbt needs at least 2 trials, which learn from each other")
        of_trials = [goal for goal in self.objective.goals if not goal.is_served] if self.objective else []
        if self.algorithm == "cmaes" and len(of_trials) > 1:
            raise ValueError("algorithm: cmaes is for one objective beside serve.*; use tpe or nsga2")
        if self.algorithm == "nsga2" and (self.objective is None or len(self.objective.goals) < 2):
            raise ValueError("algorithm: nsga2 is for several objectives; name them, or use tpe")
        return self

    @model_validator(mode="after")
    def _goals_make_sense(self) -> Tune:
        for text in self.constraints:
            if not _RULE.match(text):
                raise ValueError(
                    f"constraints: {text!r} must be a figure, <= or >=, and a number, as serve.p99_ms <= 20"
                )
        if self.objective and all(goal.name in (*SERVE_FIGURES, *TRIAL_FIGURES) for goal in self.objective.goals):
            raise ValueError("objective needs a metric of the task too, as maximize: macro_f1: epochs are judged by it")
        for point in self.points:
            unknown = [key for key in point if key not in self.space]
            if unknown:
                raise ValueError(f"points: {unknown[0]} is no key of the space; add it there, or take it out")
        return self

    @property
    def order(self) -> list[str]:
        """The keys of the space, each after those that its `when` names; without those that wait for each other."""
        found: list[str] = []
        while True:
            more = [
                key
                for key, domain in self.space.items()
                if key not in found and all(parent in found for parent in domain.when)
            ]
            if not more:
                return found
            found += more

    def is_searched(self, key: str, values: Mapping[str, Any]) -> bool:
        """Whether `key` is searched where the keys before it have `values`."""
        domain = self.space[key]
        return all(parent in values and domain.allows(parent, values[parent]) for parent in domain.when)

    def combinations(self) -> Iterator[dict[str, Any]]:
        """Yield the points of a grid, each once, in the order of the spec."""
        seen = set()
        for values in itertools.product(*[self.space[key].choice or [] for key in self.order]):
            point: dict[str, Any] = {}
            for key, value in zip(self.order, values, strict=True):
                if self.is_searched(key, point):
                    point[key] = value
            if repr(point) not in seen:
                seen.add(repr(point))
                yield {key: point[key] for key in self.space if key in point}

    @property
    def n_trials(self) -> int:
        """How many trainings the search will start, finals aside."""
        if self.algorithm != "grid":
            return self.trials or 10
        combinations = sum(1 for _ in self.combinations())
        return min(self.trials or combinations, combinations)

    @property
    def rules(self) -> list[Rule]:
        """The constraints."""
        found = []
        for text in self.constraints:
            match = _RULE.match(text)
            assert match is not None
            found.append(Rule(match[1], match[2], float(match[3])))
        return found

    @property
    def is_served(self) -> bool:
        """Whether serving is to be measured."""
        named = [goal.name for goal in (self.objective.goals if self.objective else [])]
        return any(name in SERVE_FIGURES for name in [*named, *[rule.name for rule in self.rules]])

    @property
    def n_finalists(self) -> int:
        """How many trials get into the finals; 0 where there are none."""
        if self.seeds == 1 and not self.is_served:
            return 0
        return min(self.finalists or 3, self.n_trials)
