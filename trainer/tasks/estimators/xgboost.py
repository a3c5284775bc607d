"""Gradient boosting of XGBoost, by one worker or several together (`ray.train.xgboost` joins them)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from cluster.errors import SpecError
from trainer.optim.batch_plan import share
from trainer.tasks.estimators import params
from trainer.tasks.estimators.base import Estimator, Goal, Means, Table

_MOST_CATEGORIES = 255


class XGBoost(Estimator):
    """Boosted trees; an epoch is the `train.epochs`-th part of the rounds."""

    kind = "xgboost"
    # Not UBJ: reading one that is cut short, XGBoost 3.2 takes all memory or ends the process; of JSON it raises.
    file = "model.json"
    params_type = params.XGBoost
    needs = "xgboost"
    has_epochs = True
    backend = "xgboost"

    def fit(self, table: Table, goal: Goal, means: Means) -> Iterator[None]:
        """Learn round by round from this worker's share of the rows."""
        import xgboost

        given = self.params.model_dump()
        rounds = given.pop("n_estimators")
        mine = share(np.arange(len(table)), means.rank, means.workers)
        rows = self._matrix(table.take(mine), goal.take(mine), means.threads)
        self._n_classes = goal.n_classes
        try:
            self._booster = xgboost.Booster(
                {
                    **given,
                    **_objective(goal.n_classes),
                    "tree_method": "hist",
                    "seed": means.train.seed,
                    "nthread": means.threads,
                    "device": means.device,
                    "verbosity": 0,
                },
                [rows],
            )
            done = 0
            for epoch in range(1, means.train.epochs + 1):
                upto = round(rounds * epoch / means.train.epochs)
                for at in range(done, upto):
                    self._booster.update(rows, at)
                done = upto
                yield
        except xgboost.core.XGBoostError as error:
            first = str(error).strip().splitlines()[0]
            raise SpecError(f"xgboost refuses its parameters or rows: {first}", "change model.params") from error

    def logits(self, table: Table) -> np.ndarray:
        """Return margins; of two classes XGBoost has one, the second's over the first."""
        margins = self._booster.predict(self._matrix(table), output_margin=True).astype(np.float32)
        if self._n_classes == 2:
            return np.stack([np.zeros_like(margins), margins], axis=1)
        return margins.reshape(len(table), -1)

    def to(self, device: str, threads: int) -> Estimator:
        self._booster.set_param({"device": device, "nthread": threads})
        return self

    def _matrix(self, table: Table, goal: Goal | None = None, threads: int = 1) -> Any:
        import xgboost

        types = ["c" if is_category else "q" for is_category in table.are_categories(_MOST_CATEGORIES)]
        return xgboost.DMatrix(
            table.codes(),
            label=None if goal is None else goal.y,
            weight=None if goal is None else goal.weights,
            feature_types=types,
            enable_categorical=True,
            nthread=threads,
        )

    def _save(self, path: Path) -> dict[str, Any]:
        self._booster.save_model(path)
        return {"n_classes": self._n_classes}

    def _load(self, path: Path, about: dict[str, Any]) -> None:
        import xgboost

        self._n_classes = int(about["n_classes"])
        self._booster = xgboost.Booster(model_file=path)
        self.to("cpu", 1)


def _objective(n_classes: int) -> dict[str, Any]:
    if n_classes == 0:
        return {"objective": "reg:squarederror"}
    if n_classes == 2:
        return {"objective": "binary:logistic"}
    return {"objective": "multi:softprob", "num_class": n_classes}
