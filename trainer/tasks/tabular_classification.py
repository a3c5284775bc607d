"""Classification of the rows of a table."""

from __future__ import annotations

from trainer import estimators
from trainer.targets.classes import Classes
from trainer.tasks.tabular import TabularTask


class TabularClassification(TabularTask):
    """A row of a table to its class."""

    name = "tabular-classification"
    roles = {"label": "the class of the row; data.features names the columns it is learned from"}  # noqa: RUF012
    target = Classes()
    models = f"kind: {', '.join(estimators.known(classes=True))}"
