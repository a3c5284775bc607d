"""The interface of an estimator for tables: it is fitted epoch by epoch, gives logits, and is saved without pickle.

Letters in shapes: B rows, V float inputs, K columns of ids, C outputs (classes, or 1 for a number).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple

import numpy as np

from cluster.files import file_sha256, write_json
from trainer.contract.contract import Contract
from trainer.features.fitted import FittedFeatures, embedding_sizes, output_names
from trainer.spec.train import TrainSpec
from trainer.targets.base import Target
from trainer.tasks.estimators.params import Params

#: Describes the saved estimator; its weights lie beside it.
ESTIMATOR_FILE = "estimator.json"

#: The probability of a class that an estimator has not seen; its logarithm is still a number.
SMALLEST_PROBABILITY = 1e-15


@dataclass(frozen=True)
class FeatureTable:
    """Encoded rows, as `trainer.features` makes them."""

    values: np.ndarray
    """float32, shape (B, V)."""
    ids: np.ndarray
    """int64, shape (B, K): indices into lists of categories."""
    sizes: tuple[int, ...]
    """The number of ids of each of the K columns."""

    def __len__(self) -> int:
        return len(self.values)

    @classmethod
    def from_matrix(cls, fitted: FittedFeatures, matrix: np.ndarray) -> FeatureTable:
        """Return model inputs, float32 of shape (B, V + K) as the task's encoder makes them, as a table."""
        n_values = len(output_names(fitted))
        ids = matrix[:, n_values:].astype(np.int64)
        return cls(np.ascontiguousarray(matrix[:, :n_values]), ids, tuple(embedding_sizes(fitted).values()))

    def take(self, rows: np.ndarray) -> FeatureTable:
        """Return the rows with these numbers."""
        return FeatureTable(self.values[rows], self.ids[rows], self.sizes)

    def one_hot(self) -> np.ndarray:
        """Return float32 of shape (B, V + sum of sizes), with one output per id."""
        parts = [self.values]
        for column, size in enumerate(self.sizes):
            parts.append(np.zeros((len(self), size), np.float32))
            parts[-1][np.arange(len(self)), self.ids[:, column]] = 1.0
        return np.concatenate(parts, axis=1)

    def codes(self) -> np.ndarray:
        """Return float32 of shape (B, V + K), with the ids as numbers after the values."""
        return np.concatenate([self.values, self.ids.astype(np.float32)], axis=1)

    def are_categories(self, max_ids: int) -> list[bool]:
        """Return for each column of `codes` whether it holds ids, at most `max_ids` different ones."""
        return [False] * self.values.shape[1] + [size <= max_ids for size in self.sizes]


class TrainingLabels(NamedTuple):
    """What an estimator learns to predict for the rows of a table."""

    y: np.ndarray
    """int64 class ids or float32 standardized numbers, shape (B,)."""
    n_classes: int
    """C; 0 for numbers."""
    weights: np.ndarray | None
    """float32 weights of the rows, shape (B,); None if all rows count alike."""

    @property
    def width(self) -> int:
        """The number of outputs of the estimator."""
        return max(1, self.n_classes)

    def take(self, rows: np.ndarray) -> TrainingLabels:
        """Return the labels of the rows with these numbers."""
        return self._replace(y=self.y[rows], weights=None if self.weights is None else self.weights[rows])


def training_labels(
    target: Target, contract: Contract, targets: np.ndarray, weights_C: list[float] | None = None
) -> TrainingLabels:
    """Return the labels for `targets` of prepared rows; `weights_C` are the weights of the classes."""
    y = target.training_values(contract.fitted, targets)
    if not target.has_classes:
        return TrainingLabels(y, 0, None)
    weights_B = np.asarray(weights_C, np.float32)[y] if weights_C else None
    return TrainingLabels(y, target.width(contract.fitted), weights_B)


def mean_loss(labels: TrainingLabels, logits: np.ndarray) -> float:
    """Return the mean cross entropy, or squared error, of logits (B, C); ignores the weights of rows."""
    if not labels.n_classes:
        return float(np.square(logits[:, 0].astype(np.float64) - labels.y).mean())
    shifted_BC = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    true_B = shifted_BC[np.arange(len(labels.y)), labels.y]
    return float((np.log(np.exp(shifted_BC).sum(axis=1)) - true_B).mean())


def spread_rows(count: int, max_rows: int) -> np.ndarray:
    """Return the numbers of at most `max_rows` of `count` rows, evenly spread."""
    return np.linspace(0, count - 1, min(count, max_rows)).astype(np.int64)


class FitContext(NamedTuple):
    """The settings and resources of a fit, and the worker's rank among those that share it."""

    train: TrainSpec
    """Epochs, seed and, for a network, the optimizer's settings."""
    threads: int = 1
    device: str = "cpu"
    rank: int = 0
    workers: int = 1


class Estimator(ABC):
    """A model for tables. It is created with its parameters, then fitted or loaded once."""

    # ---- Must be written -------------------------------------------------------------------------------------------

    #: Its name in `model.kind`.
    kind: ClassVar[str]
    #: Name of the file with its weights.
    weights_file: ClassVar[str]

    @abstractmethod
    def fit(self, table: FeatureTable, labels: TrainingLabels, context: FitContext) -> Iterator[None]:
        """Learn from all rows. Yields after each epoch; `logits` and `save` may be called then.

        With several workers, all of them call this with all rows, and each uses its share. Raises `SpecError` for
        parameters that the library refuses.
        """

    @abstractmethod
    def logits(self, table: FeatureTable) -> np.ndarray:
        """Return float32 logits (B, C), whose softmax gives the probabilities, or standardized numbers (B, 1).

        A row's result does not depend on the rows beside it, except for the last bits.
        """

    @abstractmethod
    def _save(self, path: Path) -> dict[str, Any]:
        """Write the weights to `path`. Returns what else `_load` needs, as JSON."""

    @abstractmethod
    def _load(self, path: Path, description: dict[str, Any]) -> None:
        """Read what `_save` wrote. Any error about a damaged file may be raised; `load_estimator` catches them."""

    # ---- May be overridden -----------------------------------------------------------------------------------------

    #: The class of its parameters.
    params_type: ClassVar[type[Params]] = Params
    #: Whether it learns classes, and whether it learns numbers.
    learns_classes: ClassVar[bool] = True
    learns_numbers: ClassVar[bool] = True
    #: The package of the extra `tabular` that it needs; None if every installation can use it.
    needs: ClassVar[str | None] = None
    #: Whether it is fitted in `train.epochs` epochs; otherwise in one.
    has_epochs: ClassVar[bool] = False
    #: How workers that fit it together are joined; "none" if only one worker can fit it.
    backend: ClassVar[Literal["torch", "xgboost", "none"]] = "none"

    def __init__(self, params: Params) -> None:
        self.params = params

    def to(self, device: str, threads: int) -> Estimator:
        """Return the estimator ready to predict on `device`; on a CPU, with this number of threads."""
        return self

    def save(self, folder: Path) -> None:
        """Write the fitted estimator to `folder`."""
        path = folder / self.weights_file
        description = {"kind": self.kind, "params": self.params.model_dump(mode="json"), **self._save(path)}
        write_json(folder / ESTIMATOR_FILE, {**description, "sha256": file_sha256(path)})
