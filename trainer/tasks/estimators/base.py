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

#: The file that describes a saved estimator. `Estimator.weights_file` is in the same folder.
ESTIMATOR_FILE = "estimator.json"

#: The probability of a class that an estimator has not seen. It is not 0, so that its logarithm is finite.
SMALLEST_PROBABILITY = 1e-15


@dataclass(frozen=True)
class FeatureTable:
    """Rows of a table, encoded by `trainer.features`."""

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
        """Return a table from the task's model inputs, float32 of shape (B, V + K)."""
        n_values = len(output_names(fitted))
        ids = matrix[:, n_values:].astype(np.int64)
        return cls(np.ascontiguousarray(matrix[:, :n_values]), ids, tuple(embedding_sizes(fitted).values()))

    def take(self, rows: np.ndarray) -> FeatureTable:
        """Return the rows at the indices `rows`."""
        return FeatureTable(self.values[rows], self.ids[rows], self.sizes)

    def one_hot(self) -> np.ndarray:
        """Return float32 of shape (B, V + sum of sizes): the values, then a column of 0 and 1 for each id."""
        parts = [self.values]
        for column, size in enumerate(self.sizes):
            parts.append(np.zeros((len(self), size), np.float32))
            parts[-1][np.arange(len(self)), self.ids[:, column]] = 1.0
        return np.concatenate(parts, axis=1)

    def codes(self) -> np.ndarray:
        """Return float32 of shape (B, V + K), with the ids as numbers after the values."""
        return np.concatenate([self.values, self.ids.astype(np.float32)], axis=1)

    def are_categories(self, max_ids: int) -> list[bool]:
        """Return, for each column of `codes`, whether it holds ids and has at most `max_ids` different ids."""
        return [False] * self.values.shape[1] + [size <= max_ids for size in self.sizes]


class TrainingLabels(NamedTuple):
    """What an estimator learns to predict for the rows of a table."""

    y: np.ndarray
    """int64 class ids or float32 standardized numbers, shape (B,)."""
    n_classes: int
    """C, or 0 if the labels are numbers."""
    weights: np.ndarray | None
    """float32 weights of the rows, shape (B,); None if all rows have the same weight."""

    @property
    def width(self) -> int:
        """The number of outputs of the estimator."""
        return max(1, self.n_classes)

    def take(self, rows: np.ndarray) -> TrainingLabels:
        """Return the labels of the rows at the indices `rows`."""
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
    """Return the mean loss of logits (B, C): cross entropy for classes, squared error for numbers.

    The weights of the rows are ignored.
    """
    if not labels.n_classes:
        return float(np.square(logits[:, 0].astype(np.float64) - labels.y).mean())
    shifted_BC = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    true_B = shifted_BC[np.arange(len(labels.y)), labels.y]
    return float((np.log(np.exp(shifted_BC).sum(axis=1)) - true_B).mean())


def spread_rows(count: int, max_rows: int) -> np.ndarray:
    """Return the indices of at most `max_rows` rows, evenly spread over `count` rows."""
    return np.linspace(0, count - 1, min(count, max_rows)).astype(np.int64)


class FitContext(NamedTuple):
    """The settings and resources of a fit, and this worker's rank among the `workers` that share it."""

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

        Every worker calls this with all rows and uses its share of them. Raises `SpecError` for parameters that the
        library refuses.
        """

    @abstractmethod
    def logits(self, table: FeatureTable) -> np.ndarray:
        """Return float32 logits (B, C), whose softmax gives the probabilities, or standardized numbers (B, 1).

        A row's result does not depend on the other rows, except for its last bits.
        """

    @abstractmethod
    def _save(self, path: Path) -> dict[str, Any]:
        """Write the weights to `path`. Returns what else `_load` needs, as JSON."""

    @abstractmethod
    def _load(self, path: Path, description: dict[str, Any]) -> None:
        """Read what `_save` wrote. May raise any error for a damaged file; `load_estimator` catches it."""

    # ---- May be overridden -----------------------------------------------------------------------------------------

    #: The class of its parameters.
    params_type: ClassVar[type[Params]] = Params
    #: Whether it learns classes, and whether it learns numbers.
    learns_classes: ClassVar[bool] = True
    learns_numbers: ClassVar[bool] = True
    #: The package that it needs from raymill's extra `tabular`; None if it needs no extra.
    needs: ClassVar[str | None] = None
    #: Whether `train.epochs` is its number of epochs. If not, it is fitted in one epoch.
    has_epochs: ClassVar[bool] = False
    #: How several workers communicate while they fit it; "none" if only one worker can fit it.
    backend: ClassVar[Literal["torch", "xgboost", "none"]] = "none"

    def __init__(self, params: Params) -> None:
        self.params = params

    def to(self, device: str, threads: int) -> Estimator:
        """Return the estimator, ready to predict on `device`. `threads` is the number of threads on a CPU."""
        return self

    def save(self, folder: Path) -> None:
        """Write the fitted estimator to `folder`."""
        path = folder / self.weights_file
        description = {"kind": self.kind, "params": self.params.model_dump(mode="json"), **self._save(path)}
        write_json(folder / ESTIMATOR_FILE, {**description, "sha256": file_sha256(path)})
