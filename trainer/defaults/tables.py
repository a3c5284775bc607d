"""The rule for tables: rounds of boosted trees, and the training of a small network."""

from __future__ import annotations

import math

from trainer.data.prepared import Prepared
from trainer.defaults.facts import Choice
from trainer.spec.run import RunSpec
from trainer.spec.section import AUTO
from trainer.spec.train import TrainSpec
from trainer.tasks.base import Task
from trainer.tasks.estimators.catalog import DEFAULT_KIND, get_estimator_class, given_params

# Boosting: rounds for 1,000 rows at the default rate of 0.05; ten times the rows bear about twice the rounds.
_ROUNDS, _ROUNDS_ROWS, _ROUNDS_POWER, _ROUND_BOUNDS = 200, 1_000, 0.3, (100, 800)
#: The parameter with the number of rounds, by kind.
_ROUND_KEYS = {"gradient_boosting": "max_iter", "xgboost": "n_estimators"}
# How often XGBoost is evaluated while its rounds are added, and after how many evaluations without progress it stops.
_EVALUATIONS, _EVALUATION_PATIENCE = 10, 3

# A network: enough steps to learn from nothing, in batches that give at least `_MIN_STEPS` steps in an epoch.
_NETWORK_STEPS, _NETWORK_EPOCHS, _MIN_STEPS = 3_000, (5, 100), 15
_NETWORK_BATCHES = (16, 512)
_NETWORK_RATE = 2e-3
_NETWORK_PATIENCE = 10


def choose_table(spec: RunSpec, task: Task, prepared: Prepared) -> dict[str, Choice]:
    """Return the choices for a table by dotted key. Keys that the estimator does not use stay `auto`."""
    n_rows = int(prepared.summary["rows"]["train"])
    kind = spec.model.kind or DEFAULT_KIND
    choices = {}
    rounds = _ROUND_KEYS.get(kind)
    if rounds and rounds not in given_params(kind, spec.model.params):
        choices[f"model.params.{rounds}"] = choose_rounds(n_rows)
    if get_estimator_class(kind).has_epochs:
        chosen = (
            choose_network(n_rows, spec.train, spec.cluster.max_workers)
            if kind == "mlp"
            else choose_evaluations(spec.train)
        )
        choices |= {f"train.{key}": choice for key, choice in chosen.items()}
    return choices


def choose_rounds(n_rows: int) -> Choice:
    """Return the number of rounds of boosted trees."""
    low, high = _ROUND_BOUNDS
    rounds = _ROUNDS * (max(1, n_rows) / _ROUNDS_ROWS) ** _ROUNDS_POWER
    return Choice(int(round(min(high, max(low, rounds)), -1)), f"{n_rows:,} training rows")


def choose_evaluations(train: TrainSpec) -> dict[str, Choice]:
    """Return how often boosted trees are evaluated, and when they stop."""
    if train.epochs != AUTO:
        return {}
    choices = {"epochs": Choice(_EVALUATIONS, "the rounds are evaluated this many times")}
    if train.early_stopping_patience == AUTO:
        reason = "more rounds rarely help after so many evaluations without progress"
        choices["early_stopping_patience"] = Choice(_EVALUATION_PATIENCE, reason)
    return choices


def choose_network(n_rows: int, train: TrainSpec, workers: int = 1) -> dict[str, Choice]:
    """Return the training of a small network."""
    rows = max(1, n_rows)
    low, high = _NETWORK_BATCHES
    size = 2 ** max(0, int(math.log2(min(rows, max(low, min(high, rows / _MIN_STEPS))))))
    size = math.ceil(size / workers) * workers
    batch = train.batch_size if isinstance(train.batch_size, int) else size
    steps = math.ceil(rows / batch)
    expected = min(_NETWORK_EPOCHS[1], max(_NETWORK_EPOCHS[0], round(_NETWORK_STEPS / steps)))
    choices = {
        "batch_size": Choice(size, f"{rows:,} training rows"),
        "epochs": Choice(expected, f"a new network needs about {_NETWORK_STEPS:,} steps; {steps:,} in an epoch"),
        "learning_rate": Choice(_NETWORK_RATE, "a new network"),
        "warmup_fraction": Choice(0.1, "a tenth of all steps"),
    }
    if train.epochs == AUTO:  # else all epochs are trained
        choices["early_stopping_patience"] = Choice(_NETWORK_PATIENCE, "epochs are short")
    return {key: choice for key, choice in choices.items() if getattr(train, key) == AUTO}
