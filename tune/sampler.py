"""Which point a search tries next: Optuna's samplers, asked and told. No Ray here."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from trainer.spec.tune import Domain, Goal, Tune

if TYPE_CHECKING:
    import optuna

# Samplers that search over the keys which all trials have: one that lacks a key would end the search over it.
_BY_ALL_KEYS = ("cmaes", "nsga2")


class Sampling:
    """A study of one search. Of a `choice` Optuna knows the place in the list, so that a value may be a list itself."""

    def __init__(self, tune: Tune, goals: Sequence[Goal], known: int = 0) -> None:
        """`goals` are the figures that every trial has. With `known` points of before, other ones are drawn than those were."""
        import optuna

        optuna.logging.set_verbosity(optuna.logging.ERROR)
        warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
        self._tune, self._goals = tune, list(goals)
        seed = int(np.random.SeedSequence([tune.seed, known]).generate_state(1)[0]) if known else tune.seed
        self._study = optuna.create_study(
            directions=["maximize" if goal.mode == "max" else "minimize" for goal in self._goals],
            sampler=_sampler(tune, seed),
        )
        self._asked: dict[str, optuna.Trial] = {}

    def draw(self, name: str) -> dict[str, Any]:
        """Return the values of a new trial called `name`."""
        trial = self._study.ask()
        self._asked[name] = trial
        values: dict[str, Any] = {}
        for key in self._tune.order:
            if self._tune.is_searched(key, values):
                values[key] = _suggest(trial, key, self._tune.space[key])
        return {key: values[key] for key in self._tune.space if key in values}

    def learn(
        self,
        name: str,
        values: Mapping[str, Any],
        figures: Sequence[float] | None,
        by_epoch: Mapping[int, float] | None = None,
        *,
        stopped: bool = False,
    ) -> None:
        """Take note of what came of a trial, drawn here or not: its `figures` in the order of the goals, None if it failed.

        `stopped` says that it was ended early, so that `by_epoch`, the first goal by epoch, is what is known of it.
        """
        import optuna

        # TPE ranks a trial that was ended early behind all others that got as far or further; other samplers know no such.
        pruned = stopped and bool(by_epoch) and len(self._goals) == 1 and self._tune.algorithm in ("tpe", "optuna")
        state = optuna.trial.TrialState.COMPLETE
        if figures is None:
            state = optuna.trial.TrialState.FAIL
        elif pruned:
            state = optuna.trial.TrialState.PRUNED
        told = list(figures) if figures is not None and not pruned else None
        asked = self._asked.pop(name, None)
        if asked is not None:
            for epoch, value in (by_epoch or {}).items() if len(self._goals) == 1 else ():
                asked.report(value, epoch)
            self._study.tell(asked, told, state=state)
            return
        places = self._places(values)
        if not places or (self._tune.algorithm in _BY_ALL_KEYS and self._lacks(values, places)):
            return
        self._study.add_trial(
            optuna.trial.create_trial(
                state=state,
                values=told,
                params=places,
                distributions={key: _distribution(self._tune.space[key]) for key in places},
                intermediate_values=dict(by_epoch or {}) if len(self._goals) == 1 else {},
            )
        )

    def importance(self) -> dict[str, float]:
        """Return how much of the spread of the first goal each key explains (fANOVA), the most first; empty with few trials."""
        import optuna

        whole = [trial for trial in self._study.trials if trial.values is not None]
        if len(whole) < 5 or len({trial.values[0] for trial in whole}) < 2:
            return {}
        first = optuna.create_study(direction=self._study.directions[0])
        first.add_trials([_of_first_goal(trial) for trial in whole])
        try:
            found = optuna.importance.get_param_importances(
                first, evaluator=optuna.importance.FanovaImportanceEvaluator(seed=0)
            )
        except (ValueError, RuntimeError):  # keys that no two trials share
            return {}
        return {name: float(value) for name, value in found.items()}

    def _lacks(self, values: Mapping[str, Any], places: Mapping[str, Any]) -> bool:
        """Whether a trial has no place in the space for a key that is searched where it was."""
        return any(self._tune.is_searched(key, values) and key not in places for key in self._tune.order)

    def _places(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Return values as Optuna has them, without those that the space does not hold."""
        found: dict[str, Any] = {}
        for key in self._tune.order:
            if key not in values:
                continue
            domain, value = self._tune.space[key], values[key]
            if domain.choice is not None:
                if value in domain.choice:
                    found[key] = domain.choice.index(value)
            elif isinstance(value, (int, float)) and _distribution(domain)._contains(float(value)):
                found[key] = value
        return found


def _of_first_goal(trial: Any) -> Any:
    import optuna

    return optuna.trial.create_trial(value=trial.values[0], params=trial.params, distributions=trial.distributions)


def _sampler(tune: Tune, seed: int) -> Any:
    import optuna

    # So many are drawn at random before a sampler goes by what it has seen.
    first = max(3, min(10, tune.n_trials // 3))
    if tune.algorithm in ("random", "grid"):
        return optuna.samplers.RandomSampler(seed=seed)
    if tune.algorithm == "cmaes":
        return optuna.samplers.CmaEsSampler(seed=seed, n_startup_trials=first, warn_independent_sampling=False)
    if tune.algorithm == "nsga2":
        return optuna.samplers.NSGAIISampler(seed=seed, population_size=max(4, min(50, tune.n_trials // 3)))
    return optuna.samplers.TPESampler(
        seed=seed,
        n_startup_trials=first,
        multivariate=True,
        group=any(domain.when for domain in tune.space.values()),
        constant_liar=True,  # trials run side by side
    )


def _suggest(trial: Any, key: str, domain: Domain) -> Any:
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


def _distribution(domain: Domain) -> Any:
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
