"""Choose the next point of a search with Optuna's samplers, by ask and tell. This module does not use Ray.

The names are `tune.algorithm` in trainer/spec/tune.py.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from trainer.spec.objective import Goal
from trainer.spec.space import DomainSpec
from trainer.spec.tune import TuneSpec
from tune.optuna_internals import contains_value

if TYPE_CHECKING:
    import optuna

# These samplers search only over the keys that all trials have: one trial without a key would end the search over it.
_NEED_ALL_KEYS = ("cmaes", "nsga2")
_MIN_TRIALS_FOR_IMPORTANCE = 5


class Sampler:
    """An Optuna study of one search. Optuna sees a `choice` value as its index, because a value may be a list."""

    def __init__(self, tune: TuneSpec, goals: Sequence[Goal], known: int = 0) -> None:
        """`goals` are the goals that every trial has a value for.

        `known` is the number of points that were tried before. The seed depends on it, so that a resumed search samples
        new points.
        """
        import optuna

        optuna.logging.set_verbosity(optuna.logging.ERROR)
        warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
        self._tune, self._goals = tune, list(goals)
        seed = int(np.random.SeedSequence([tune.seed, known]).generate_state(1)[0]) if known else tune.seed
        self._study = optuna.create_study(
            directions=["maximize" if goal.mode == "max" else "minimize" for goal in self._goals],
            sampler=_build_optuna_sampler(tune, seed),
        )
        self._asked: dict[str, optuna.Trial] = {}

    def ask(self, name: str) -> dict[str, Any]:
        """Return the values of a new trial called `name`."""
        trial = self._study.ask()
        self._asked[name] = trial
        values: dict[str, Any] = {}
        for key in self._tune.ordered_keys:
            if self._tune.is_searched(key, values):
                values[key] = _suggest_value(trial, key, self._tune.space[key])
        return {key: values[key] for key in self._tune.space if key in values}

    def tell(
        self,
        name: str,
        values: Mapping[str, Any],
        scores: Sequence[float] | None,
        by_epoch: Mapping[int, float] | None = None,
        *,
        stopped: bool = False,
    ) -> None:
        """Record the result of a trial, whether `ask` returned it or not.

        `scores` are its metrics in the order of the goals, None if it failed. `by_epoch` is the first goal by epoch;
        `stopped` says that the trial was stopped early, so that its later values are unknown.
        """
        is_single = len(self._goals) == 1
        # TPE ranks a pruned trial behind all complete trials. Other samplers do not support pruned trials.
        pruned = stopped and bool(by_epoch) and is_single and self._tune.algorithm == "tpe"
        state = _trial_state(failed=scores is None, pruned=pruned)
        result = list(scores) if scores is not None and not pruned else None
        intermediate = dict(by_epoch or {}) if is_single else {}
        asked = self._asked.pop(name, None)
        if asked is None:
            self._add_trial(values, state, result, intermediate)
            return
        for epoch, value in intermediate.items():
            asked.report(value, epoch)
        self._study.tell(asked, result, state=state)

    def _add_trial(
        self, values: Mapping[str, Any], state: Any, result: list[float] | None, intermediate: dict[int, float]
    ) -> None:
        """Add a trial that `ask` did not return, unless the sampler cannot learn from it."""
        import optuna

        params = self._to_params(values)
        if not params or (self._tune.algorithm in _NEED_ALL_KEYS and self._lacks_a_key(values, params)):
            return
        self._study.add_trial(
            optuna.trial.create_trial(
                state=state,
                values=result,
                params=params,
                distributions={key: _to_distribution(self._tune.space[key]) for key in params},
                intermediate_values=intermediate,
            )
        )

    def importance(self) -> dict[str, float]:
        """Return the share of the first goal's variance that each key explains (fANOVA), the largest first.

        Return {} with fewer than 5 finished trials, or if all of them have the same value.
        """
        import optuna

        finished = [trial for trial in self._study.trials if trial.values is not None]
        if len(finished) < _MIN_TRIALS_FOR_IMPORTANCE or len({trial.values[0] for trial in finished}) < 2:
            return {}
        study = optuna.create_study(direction=self._study.directions[0])
        study.add_trials([_with_first_goal_only(trial) for trial in finished])
        try:
            shares = optuna.importance.get_param_importances(
                study, evaluator=optuna.importance.FanovaImportanceEvaluator(seed=0)
            )
        except (ValueError, RuntimeError):  # no two trials share a key
            return {}
        return {name: float(share) for name, share in shares.items()}

    def _lacks_a_key(self, values: Mapping[str, Any], params: Mapping[str, Any]) -> bool:
        """Return whether `params` lacks a key that the space searches for these `values`."""
        return any(self._tune.is_searched(key, values) and key not in params for key in self._tune.ordered_keys)

    def _to_params(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Return values as Optuna's parameters, without those outside the space."""
        params: dict[str, Any] = {}
        for key in self._tune.ordered_keys:
            if key not in values:
                continue
            domain, value = self._tune.space[key], values[key]
            if domain.choice is not None:
                if value in domain.choice:
                    params[key] = domain.choice.index(value)
            elif isinstance(value, (int, float)) and contains_value(_to_distribution(domain), float(value)):
                params[key] = value
        return params


def _trial_state(*, failed: bool, pruned: bool) -> Any:
    from optuna.trial import TrialState

    if failed:
        return TrialState.FAIL
    return TrialState.PRUNED if pruned else TrialState.COMPLETE


def _with_first_goal_only(trial: Any) -> Any:
    import optuna

    return optuna.trial.create_trial(value=trial.values[0], params=trial.params, distributions=trial.distributions)


def _build_optuna_sampler(tune: TuneSpec, seed: int) -> Any:
    import optuna

    # The number of random points before a sampler uses the results of earlier points.
    n_startup = max(3, min(10, tune.n_trials // 3))
    if tune.algorithm in ("random", "grid"):
        return optuna.samplers.RandomSampler(seed=seed)
    if tune.algorithm == "cmaes":
        return optuna.samplers.CmaEsSampler(seed=seed, n_startup_trials=n_startup, warn_independent_sampling=False)
    if tune.algorithm == "nsga2":
        return optuna.samplers.NSGAIISampler(seed=seed, population_size=max(4, min(50, tune.n_trials // 3)))
    return optuna.samplers.TPESampler(
        seed=seed,
        n_startup_trials=n_startup,
        multivariate=True,
        group=any(domain.when for domain in tune.space.values()),
        constant_liar=True,  # trials run at the same time
    )


def _suggest_value(trial: Any, key: str, domain: DomainSpec) -> Any:
    if domain.choice is not None:
        return domain.choice[trial.suggest_categorical(key, list(range(len(domain.choice))))]
    if domain.uniform is not None:
        return trial.suggest_float(key, *domain.uniform, step=domain.step)
    if domain.loguniform is not None:
        return trial.suggest_float(key, *domain.loguniform, log=True)
    if domain.randint is not None:
        return trial.suggest_int(key, *domain.randint, step=int(domain.step or 1))
    assert domain.lograndint is not None
    return trial.suggest_int(key, *domain.lograndint, log=True)


def _to_distribution(domain: DomainSpec) -> Any:
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if domain.choice is not None:
        return CategoricalDistribution(list(range(len(domain.choice))))
    if domain.uniform is not None:
        return FloatDistribution(*domain.uniform, step=domain.step)
    if domain.loguniform is not None:
        return FloatDistribution(*domain.loguniform, log=True)
    if domain.randint is not None:
        return IntDistribution(*domain.randint, step=int(domain.step or 1))
    assert domain.lograndint is not None
    return IntDistribution(*domain.lograndint, log=True)
