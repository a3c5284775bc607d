"""Regression on the rows of a table."""

from __future__ import annotations

from trainer import estimators
from trainer.targets.numbers import Numbers
from trainer.tasks.tabular import TabularTask


class TabularRegression(TabularTask):
    """A row of a table to a number."""

    name = "tabular-regression"
    roles = {"value": "the number of the row; data.features names the columns it is learned from"}  # noqa: RUF012
    target_role = "value"
    target = Numbers()
    models = f"kind: {', '.join(estimators.known(classes=False))}"
