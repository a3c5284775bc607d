"""Optuna still has every private name that `tune.optuna_internals` uses. A failing test says what to do."""

import optuna
import pytest
from optuna.distributions import BaseDistribution, FloatDistribution, IntDistribution

from tune.optuna_internals import contains_value


def test_contains_value():
    advice = "change optuna_internals.contains_value: compare a value with the distribution's bounds and step"
    if not hasattr(BaseDistribution, "_contains"):
        pytest.fail(f"optuna {optuna.__version__} has no BaseDistribution._contains: {advice}")
    steps = FloatDistribution(0.0, 1.0, step=0.25)
    assert [contains_value(steps, value) for value in (0.0, 0.25, 0.3, 1.25)] == [True, True, False, False], advice
    numbers = IntDistribution(1, 9, log=True)
    assert [contains_value(numbers, value) for value in (0.0, 1.0, 9.0, 10.0)] == [False, True, True, False], advice
