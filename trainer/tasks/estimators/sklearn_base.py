"""The base class of scikit-learn's estimators. They are fitted in one step; by default, skops saves them.

skops creates only objects whose types skops or raymill lists, so a file cannot bring its own code. In addition, the
loaded object must have exactly the class of its kind.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from cluster.errors import SpecError, UserError
from trainer.tasks.estimators.base import SMALLEST_PROBABILITY, Estimator, FeatureTable, FitContext, TrainingLabels
from trainer.tasks.estimators.skops_file import dump_estimator


class SklearnEstimator(Estimator):
    """An estimator of scikit-learn."""

    needs: ClassVar[str | None] = "skops"
    weights_file = "model.skops"
    #: Full names of the types that its files may contain, besides those that skops considers harmless.
    trusted_types: ClassVar[tuple[str, ...]] = ()

    @abstractmethod
    def model_classes(self) -> tuple[Any, Any]:
        """Return scikit-learn's classes: the one that learns classes, and the one that learns numbers."""

    @abstractmethod
    def model_settings(self, table: FeatureTable, context: FitContext, *, classes: bool) -> dict[str, Any]:
        """Return the arguments of scikit-learn's class."""

    def model_inputs(self, table: FeatureTable) -> np.ndarray:
        """Return the inputs of scikit-learn's model, float32 of shape (B, number of inputs)."""
        return table.codes()

    _model: Any

    def fit(self, table: FeatureTable, labels: TrainingLabels, context: FitContext) -> Iterator[None]:
        """Learn from all rows in one step. Raises `UserError` if the rows have only one class."""
        _limit_threads(context.threads)
        classes = labels.n_classes > 0
        self._n_classes = labels.n_classes
        if classes and len(np.unique(labels.y)) < 2:
            raise UserError(
                f"{self.kind} has only rows of one class to learn from", "use fewer `train.folds`, or more rows"
            )
        model: Any = self.model_classes()[0 if classes else 1](**self.model_settings(table, context, classes=classes))
        try:
            self._model = model.fit(self.model_inputs(table), labels.y, sample_weight=labels.weights)
        except ValueError as error:
            raise SpecError(f"{self.kind} refuses its parameters or rows: {error}", "change `model.params`") from error
        self._predict_with_one_thread()
        yield

    def logits(self, table: FeatureTable) -> np.ndarray:
        """Return logarithms of the probabilities, or the numbers."""
        if not self._n_classes:
            return self._model.predict(self.model_inputs(table)).astype(np.float32).reshape(-1, 1)
        # The rows of a fold may lack a class; its score stays at the smallest probability.
        scores_BC = np.full((len(table), self._n_classes), SMALLEST_PROBABILITY)
        predicted = self._model.predict_proba(self.model_inputs(table))
        scores_BC[:, self._model.classes_] = np.clip(predicted, SMALLEST_PROBABILITY, 1.0)
        return np.log(scores_BC).astype(np.float32)

    def to(self, device: str, threads: int) -> Estimator:
        _limit_threads(threads)
        return self

    def _predict_with_one_thread(self) -> None:
        # Several threads add up trees in the order in which they finish, which changes the last bits.
        if "n_jobs" in self._model.get_params():
            self._model.set_params(n_jobs=1)

    def _save(self, path: Path) -> dict[str, Any]:
        dump_estimator(self._model, path)
        return {"n_classes": self._n_classes}

    def _load(self, path: Path, description: dict[str, Any]) -> None:
        import skops.io

        self._n_classes = int(description["n_classes"])
        self._model = skops.io.load(path, trusted=list(self.trusted_types))
        expected = self.model_classes()[0 if self._n_classes else 1]
        if type(self._model) is not expected:
            raise TypeError(f"{path.name} holds a {type(self._model).__name__}, not a {expected.__name__}")
        if self._n_classes:
            self._check_classes(self._model.classes_, path)

    def _check_classes(self, classes: np.ndarray, path: Path) -> None:
        if not set(classes) <= set(range(self._n_classes)):
            raise ValueError(f"{path.name} has other classes than 0 to {self._n_classes - 1}")


def _limit_threads(threads: int) -> None:
    """Limit the threads of OpenMP and BLAS in this process; by default they use every core.

    Without this limit, gradient boosting in 5 folds took 197 s on 2 busy cores.
    """
    import sklearn.ensemble
    from threadpoolctl import threadpool_limits

    assert sklearn.ensemble  # imported first, because the limit does not apply to libraries that are loaded later
    threadpool_limits(limits=threads)
