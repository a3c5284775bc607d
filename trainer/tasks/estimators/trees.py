"""Ensembles of trees of scikit-learn: random forest and histogram gradient boosting."""

from __future__ import annotations

from typing import Any

from trainer.tasks.estimators import params
from trainer.tasks.estimators.base import Means, Table
from trainer.tasks.estimators.sklearn_base import FittedBySklearn

# More categories of one column scikit-learn does not split by set; beyond, ids are taken as numbers.
_MOST_CATEGORIES = 255


class RandomForest(FittedBySklearn):
    """Trees on samples of the rows, averaged."""

    kind = "random_forest"
    params_type = params.Forest
    trusted = ("sklearn.tree._tree.Tree",)

    def classes(self) -> tuple[Any, Any]:
        from sklearn import ensemble

        return ensemble.RandomForestClassifier, ensemble.RandomForestRegressor

    def settings(self, table: Table, means: Means, *, classes: bool) -> dict[str, Any]:
        return {**self.params.model_dump(), "random_state": means.train.seed, "n_jobs": means.threads}


class GradientBoosting(FittedBySklearn):
    """Trees on histograms, each on what the ones before left over."""

    kind = "gradient_boosting"
    params_type = params.Boosting
    # The last two are how scikit-learn passes on columns of categories.
    trusted = (
        "sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor",
        "functools.partial",
        "sklearn.utils.validation.check_array",
    )

    def classes(self) -> tuple[Any, Any]:
        from sklearn import ensemble

        return ensemble.HistGradientBoostingClassifier, ensemble.HistGradientBoostingRegressor

    def settings(self, table: Table, means: Means, *, classes: bool) -> dict[str, Any]:
        categories = table.are_categories(_MOST_CATEGORIES)
        return {
            **self.params.model_dump(),
            "random_state": means.train.seed,
            "early_stopping": False,
            "categorical_features": categories if any(categories) else None,
        }
