"""What the estimators of scikit-learn have in common: one fit, probabilities as logits, files by skops.

skops builds an object only of types that it or we name, so that a file cannot bring code; on top of that the loaded
object must be of the very class that its kind has.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from cluster.errors import SpecError, UserError
from trainer.tasks.estimators.base import SMALLEST, Estimator, Goal, Means, Table


class FittedBySklearn(Estimator):
    """An estimator of scikit-learn."""

    needs = "skops"
    file = "model.skops"
    #: Full names of the types that its files may hold beside those that skops knows to be harmless.
    trusted: ClassVar[tuple[str, ...]] = ()

    @abstractmethod
    def classes(self) -> tuple[Any, Any]:
        """Return scikit-learn's classes for classes and for numbers."""

    @abstractmethod
    def settings(self, table: Table, means: Means, *, classes: bool) -> dict[str, Any]:
        """Return the arguments that the class of scikit-learn is made with."""

    def inputs(self, table: Table) -> np.ndarray:
        """Return what the model sees of the rows, float32 of shape (B, any)."""
        return table.codes()

    _model: Any

    def fit(self, table: Table, goal: Goal, means: Means) -> Iterator[None]:
        """Learn from all rows in one step. Raises `UserError` where the rows hold one class only."""
        _limit(means.threads)
        classes = goal.n_classes > 0
        self._n_classes = goal.n_classes
        if classes and len(np.unique(goal.y)) < 2:
            raise UserError(
                f"{self.kind} has rows of one class only to learn from", "use fewer train.folds, or more rows"
            )
        made: Any = self.classes()[0 if classes else 1](**self.settings(table, means, classes=classes))
        try:
            self._model = made.fit(self.inputs(table), goal.y, sample_weight=goal.weights)
        except ValueError as error:
            raise SpecError(f"{self.kind} refuses its parameters or rows: {error}", "change model.params") from error
        self._one_thread()
        yield

    def logits(self, table: Table) -> np.ndarray:
        """Return logarithms of the probabilities, or the numbers."""
        if not self._n_classes:
            return self._model.predict(self.inputs(table)).astype(np.float32).reshape(-1, 1)
        found = np.full((len(table), self._n_classes), SMALLEST)
        # A fold may lack a class.
        found[:, self._model.classes_] = np.clip(self._model.predict_proba(self.inputs(table)), SMALLEST, 1.0)
        return np.log(found).astype(np.float32)

    def to(self, device: str, threads: int) -> Estimator:
        _limit(threads)
        return self

    def _one_thread(self) -> None:
        # Several threads add up trees in the order they end, which changes the last bits.
        if "n_jobs" in self._model.get_params():
            self._model.set_params(n_jobs=1)

    def _save(self, path: Path) -> dict[str, Any]:
        import skops.io

        skops.io.dump(self._model, path)
        return {"n_classes": self._n_classes}

    def _load(self, path: Path, about: dict[str, Any]) -> None:
        import skops.io

        self._n_classes = int(about["n_classes"])
        self._model = skops.io.load(path, trusted=list(self.trusted))
        wanted = self.classes()[0 if self._n_classes else 1]
        if type(self._model) is not wanted:
            raise TypeError(f"{path.name} holds a {type(self._model).__name__}, not a {wanted.__name__}")
        if self._n_classes and not set(self._model.classes_) <= set(range(self._n_classes)):
            raise ValueError(f"{path.name} knows other classes than {self._n_classes}")


def _limit(threads: int) -> None:
    """Keep OpenMP and BLAS in this process to so many threads; by themselves they take every core there is.

    On 2 busy cores gradient boosting in 5 folds took 197 s without this.
    """
    import sklearn.ensemble
    from threadpoolctl import threadpool_limits

    assert sklearn.ensemble  # what is loaded later would not be limited
    threadpool_limits(limits=threads)
