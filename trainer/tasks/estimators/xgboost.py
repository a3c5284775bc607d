"""Gradient boosting of XGBoost, fitted by one worker, or by several that `ray.train.xgboost` connects."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from cluster.errors import SpecError, first_line
from trainer.optim.batch_plan import shard_rows
from trainer.tasks.estimators.base import Estimator, FeatureTable, FitContext, TrainingLabels
from trainer.tasks.estimators.params import XGBoostParams

_MAX_CATEGORIES = 255


class XGBoost(Estimator):
    """Boosted trees. The rounds are divided evenly over `train.epochs` epochs."""

    kind = "xgboost"
    # Not UBJ: given a truncated UBJ file, XGBoost 3.2 uses all memory or ends the process; for JSON it raises an error.
    weights_file = "model.json"
    params_type = XGBoostParams
    needs = "xgboost"
    has_epochs = True
    backend = "xgboost"

    def fit(self, table: FeatureTable, labels: TrainingLabels, context: FitContext) -> Iterator[None]:
        """Learn round by round from this worker's share of the rows."""
        import xgboost

        values = self.params.model_dump()
        n_rounds = values.pop("n_estimators")
        own_rows = shard_rows(np.arange(len(table)), context.rank, context.workers)
        rows = self._matrix(table.take(own_rows), labels.take(own_rows), context.threads)
        self._n_classes = labels.n_classes
        try:
            self._booster = xgboost.Booster(
                {
                    **values,
                    **_objective(labels.n_classes),
                    "tree_method": "hist",
                    "seed": context.train.seed,
                    "nthread": context.threads,
                    "device": context.device,
                    "verbosity": 0,
                },
                [rows],
            )
            first, n_epochs = 0, context.train.n_epochs
            for epoch in range(1, n_epochs + 1):
                end = round(n_rounds * epoch / n_epochs)
                for number in range(first, end):
                    self._booster.update(rows, number)
                first = end
                yield
        except xgboost.core.XGBoostError as error:
            raise SpecError(
                f"xgboost refuses its parameters or rows: {first_line(error)}", "change `model.params`"
            ) from error

    def logits(self, table: FeatureTable) -> np.ndarray:
        """Return XGBoost's margins. For two classes it gives one: the second class's logit, with 0 for the first."""
        margins = self._booster.predict(self._matrix(table), output_margin=True).astype(np.float32)
        if self._n_classes == 2:
            return np.stack([np.zeros_like(margins), margins], axis=1)
        return margins.reshape(len(table), -1)

    def to(self, device: str, threads: int) -> Estimator:
        self._booster.set_param({"device": device, "nthread": threads})
        return self

    def _matrix(self, table: FeatureTable, labels: TrainingLabels | None = None, threads: int = 1) -> Any:
        import xgboost

        types = ["c" if is_category else "q" for is_category in table.are_categories(_MAX_CATEGORIES)]
        return xgboost.DMatrix(
            table.codes(),
            label=None if labels is None else labels.y,
            weight=None if labels is None else labels.weights,
            feature_types=types,
            enable_categorical=True,
            nthread=threads,
        )

    def _save(self, path: Path) -> dict[str, Any]:
        self._booster.save_model(path)
        return {"n_classes": self._n_classes}

    def _load(self, path: Path, description: dict[str, Any]) -> None:
        import xgboost

        self._n_classes = int(description["n_classes"])
        self._booster = xgboost.Booster(model_file=path)
        self.to("cpu", 1)


def _objective(n_classes: int) -> dict[str, Any]:
    if n_classes == 0:
        return {"objective": "reg:squarederror"}
    if n_classes == 2:
        return {"objective": "binary:logistic"}
    return {"objective": "multi:softprob", "num_class": n_classes}
