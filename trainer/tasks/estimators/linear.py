"""Linear models of scikit-learn: logistic regression for classes, ridge regression for numbers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from trainer.tasks.estimators.base import FeatureTable, FitContext
from trainer.tasks.estimators.params import LogisticParams, RidgeParams
from trainer.tasks.estimators.sklearn_base import SklearnEstimator

_COEFFICIENTS, _INTERCEPT, _CLASSES = "coefficients", "intercept", "classes"


class _Linear(SklearnEstimator):
    # Coefficients are plain arrays, so their file needs no skops, whose import takes longer than the fit.
    needs = None
    weights_file = "model.safetensors"

    def model_classes(self) -> tuple[Any, Any]:
        from sklearn import linear_model

        return linear_model.LogisticRegression, linear_model.Ridge

    def model_settings(self, table: FeatureTable, context: FitContext, *, classes: bool) -> dict[str, Any]:
        return self.params.model_dump()

    def model_inputs(self, table: FeatureTable) -> np.ndarray:
        return table.one_hot()

    def _save(self, path: Path) -> dict[str, Any]:
        from safetensors.numpy import save_file

        arrays = {_COEFFICIENTS: self._model.coef_, _INTERCEPT: np.atleast_1d(self._model.intercept_)}
        if self._n_classes:
            arrays[_CLASSES] = self._model.classes_.astype(np.int64)
        save_file({name: np.ascontiguousarray(values) for name, values in arrays.items()}, path)
        return {"n_classes": self._n_classes}

    def _load(self, path: Path, description: dict[str, Any]) -> None:
        from safetensors.numpy import load_file

        self._n_classes = int(description["n_classes"])
        arrays = load_file(path)
        model: Any = self.model_classes()[0 if self._n_classes else 1](**self.params.model_dump())
        model.coef_, intercept = arrays[_COEFFICIENTS], arrays[_INTERCEPT]
        model.n_features_in_ = model.coef_.shape[-1]
        if self._n_classes:
            model.classes_, model.intercept_ = arrays[_CLASSES], intercept
            self._check_classes(model.classes_, path)
        else:
            model.intercept_ = intercept[0] if model.coef_.ndim == 1 else intercept
        self._model = model


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
