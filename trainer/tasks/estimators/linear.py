"""Linear models of scikit-learn: logistic regression for classes, ridge regression for numbers."""

from __future__ import annotations

from typing import Any

import numpy as np

from trainer.tasks.estimators import params
from trainer.tasks.estimators.base import Means, Table
from trainer.tasks.estimators.sklearn_base import FittedBySklearn


class _Linear(FittedBySklearn):
    def classes(self) -> tuple[Any, Any]:
        from sklearn import linear_model

        return linear_model.LogisticRegression, linear_model.Ridge

    def settings(self, table: Table, means: Means, *, classes: bool) -> dict[str, Any]:
        return self.params.model_dump()

    def inputs(self, table: Table) -> np.ndarray:
        return table.one_hot()


class LogisticRegression(_Linear):
    """Logistic regression with an L2 penalty; several classes share one softmax."""

    kind = "logistic_regression"
    params_type = params.Logistic
    learns_numbers = False


class LinearRegression(_Linear):
    """Least squares with an L2 penalty."""

    kind = "linear_regression"
    params_type = params.Ridge
    learns_classes = False
