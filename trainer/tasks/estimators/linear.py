"""Linear models of scikit-learn: logistic regression for classes, ridge regression for numbers."""

from __future__ import annotations

from typing import Any

import numpy as np

from trainer.tasks.estimators.base import FeatureTable, FitContext
from trainer.tasks.estimators.params import LogisticParams, RidgeParams
from trainer.tasks.estimators.sklearn_base import SklearnEstimator


class _Linear(SklearnEstimator):
    def model_classes(self) -> tuple[Any, Any]:
        from sklearn import linear_model

        return linear_model.LogisticRegression, linear_model.Ridge

    def model_settings(self, table: FeatureTable, context: FitContext, *, classes: bool) -> dict[str, Any]:
        return self.params.model_dump()

    def model_inputs(self, table: FeatureTable) -> np.ndarray:
        return table.one_hot()


class LogisticRegression(_Linear):
    """Logistic regression with an L2 penalty; several classes share one softmax."""

    kind = "logistic_regression"
    params_type = LogisticParams
    learns_numbers = False


class LinearRegression(_Linear):
    """Least squares with an L2 penalty."""

    kind = "linear_regression"
    params_type = RidgeParams
    learns_classes = False
