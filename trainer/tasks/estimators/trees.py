"""Ensembles of trees of scikit-learn: random forest and histogram gradient boosting."""

from __future__ import annotations

from typing import Any

from trainer.tasks.estimators.base import FeatureTable, FitContext
from trainer.tasks.estimators.params import BoostingParams, ForestParams
from trainer.tasks.estimators.sklearn_base import SklearnEstimator

# scikit-learn accepts at most this many categories in a column; the ids of a column with more are treated as numbers.
_MAX_CATEGORIES = 255


class RandomForest(SklearnEstimator):
    """The average of trees that are each grown on a sample of the rows."""

    kind = "random_forest"
    params_type = ForestParams
    trusted_types = ("sklearn.tree._tree.Tree",)

    def model_classes(self) -> tuple[Any, Any]:
        from sklearn import ensemble

        return ensemble.RandomForestClassifier, ensemble.RandomForestRegressor

    def model_settings(self, table: FeatureTable, context: FitContext, *, classes: bool) -> dict[str, Any]:
        return {**self.params.model_dump(), "random_state": context.train.seed, "n_jobs": context.threads}


class GradientBoosting(SklearnEstimator):
    """Trees on histograms, each fitted to the errors of those before it."""

    kind = "gradient_boosting"
    params_type = BoostingParams
    # scikit-learn uses the last two to handle columns of categories.
    trusted_types = (
        "sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor",
        "functools.partial",
        "sklearn.utils.validation.check_array",
    )

    def model_classes(self) -> tuple[Any, Any]:
        from sklearn import ensemble

        return ensemble.HistGradientBoostingClassifier, ensemble.HistGradientBoostingRegressor

    def model_settings(self, table: FeatureTable, context: FitContext, *, classes: bool) -> dict[str, Any]:
        categories = table.are_categories(_MAX_CATEGORIES)
        return {
            **self.params.model_dump(),
            "random_state": context.train.seed,
            "early_stopping": False,
            "categorical_features": categories if any(categories) else None,
        }
