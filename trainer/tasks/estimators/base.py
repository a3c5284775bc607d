"""What every estimator for tables answers: it is fitted epoch by epoch, gives logits, and is saved without pickle.

Letters in shapes: B rows, V float inputs, K columns of ids, C outputs (classes, or 1 for a number).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple

import numpy as np

from cluster.files import sha256, write_json
from trainer.contract.contract import Contract
from trainer.features.fitted import Fitted, names, sizes
from trainer.spec.run import Train
from trainer.targets.base import Target
from trainer.tasks.estimators.params import Params

#: Describes the saved estimator; its weights lie beside it.
FILE = "estimator.json"


#: Stands in for a class that an estimator has not seen; the logarithm of it is still a number.
SMALLEST = 1e-15


@dataclass(frozen=True)
class Table:
    """Encoded rows, as `trainer.features` makes them."""

    values: np.ndarray
    """float32, shape (B, V)."""
    ids: np.ndarray
    """int64, shape (B, K): places in lists of categories."""
    sizes: tuple[int, ...]
    """How many ids each of the K columns has."""

    def __len__(self) -> int:
        return len(self.values)

    @classmethod
    def of(cls, fitted: Fitted, matrix: np.ndarray) -> Table:
        """Return model inputs, float32 of shape (B, V + K) as the task's encoder makes them, as a table."""
        at = len(names(fitted))
        ids = matrix[:, at:].astype(np.int64)
        return cls(np.ascontiguousarray(matrix[:, :at]), ids, tuple(sizes(fitted).values()))

    def take(self, rows: np.ndarray) -> Table:
        """Return some of the rows."""
        return Table(self.values[rows], self.ids[rows], self.sizes)

    def one_hot(self) -> np.ndarray:
        """Return float32 of shape (B, V + sum of sizes): each id as an output of its own."""
        parts = [self.values]
        for column, size in enumerate(self.sizes):
            parts.append(np.zeros((len(self), size), np.float32))
            parts[-1][np.arange(len(self)), self.ids[:, column]] = 1.0
        return np.concatenate(parts, axis=1)

    def codes(self) -> np.ndarray:
        """Return float32 of shape (B, V + K): the ids as numbers after the values."""
        return np.concatenate([self.values, self.ids.astype(np.float32)], axis=1)

    def are_categories(self, most: int) -> list[bool]:
        """Return for each column of `codes` whether it holds at most `most` different ids."""
        return [False] * self.values.shape[1] + [size <= most for size in self.sizes]


class Goal(NamedTuple):
    """What is to be learned of a table's rows."""

    y: np.ndarray
    """int64 class ids or float32 standardised numbers, shape (B,)."""
    n_classes: int
    """C; 0 where numbers are learned."""
    weights: np.ndarray | None
    """float32 weights of the rows, shape (B,); None where all count alike."""

    @property
    def width(self) -> int:
        """How many outputs the estimator has."""
        return max(1, self.n_classes)

    def take(self, rows: np.ndarray) -> Goal:
        """Return the goal of some of the rows."""
        return self._replace(y=self.y[rows], weights=None if self.weights is None else self.weights[rows])


def goal_of(target: Target, contract: Contract, targets: np.ndarray, weights_C: list[float] | None = None) -> Goal:
    """Return what is learned from `targets` as the rows of prepared data have them; `weights_C` weighs the classes."""
    y = target.as_learned(contract.fitted, targets)
    if not target.has_classes:
        return Goal(y, 0, None)
    return Goal(y, target.width(contract.fitted), np.asarray(weights_C, np.float32)[y] if weights_C else None)


def mean_loss(goal: Goal, logits: np.ndarray) -> float:
    """Return the mean cross entropy, or squared error, of logits (B, C); weights of rows do not count."""
    if not goal.n_classes:
        return float(np.square(logits[:, 0].astype(np.float64) - goal.y).mean())
    shifted = logits.astype(np.float64) - logits.max(axis=1, keepdims=True)
    of_true = shifted[np.arange(len(goal.y)), goal.y]
    return float((np.log(np.exp(shifted).sum(axis=1)) - of_true).mean())


def spread(count: int, most: int) -> np.ndarray:
    """Return at most `most` of `count` places, evenly spread."""
    return np.linspace(0, count - 1, min(count, most)).astype(np.int64)


class Means(NamedTuple):
    """What a fit may use, and which share of the rows is its own."""

    train: Train
    """Epochs, seed and, for a network, the optimiser's settings."""
    threads: int = 1
    device: str = "cpu"
    rank: int = 0
    workers: int = 1


class Estimator(ABC):
    """One model for tables. It is made with its parameters, then fitted or loaded once."""

    kind: ClassVar[str]
    #: Name of the file that holds its weights.
    file: ClassVar[str]
    #: Its section of parameters.
    params_type: ClassVar[type[Params]] = Params
    #: Whether it learns classes and numbers.
    learns_classes: ClassVar[bool] = True
    learns_numbers: ClassVar[bool] = True
    #: Package of the extra `tabular` without which it cannot be used; None for what every installation has.
    needs: ClassVar[str | None] = None
    #: Whether it is fitted in `train.epochs` steps; else there is one.
    has_epochs: ClassVar[bool] = False
    #: How several workers that fit it together are joined; "none" where there can be one only.
    backend: ClassVar[Literal["torch", "xgboost", "none"]] = "none"

    def __init__(self, params: Params) -> None:
        self.params = params

    @abstractmethod
    def fit(self, table: Table, goal: Goal, means: Means) -> Iterator[None]:
        """Learn from all rows; yields after each epoch, when `logits` and `save` may be called.

        With several workers all call it with all rows, and each takes its share. Raises `SpecError` for parameters that
        the library refuses.
        """

    @abstractmethod
    def logits(self, table: Table) -> np.ndarray:
        """Return float32 of shape (B, C): softmax gives the probabilities; or standardised numbers, shape (B, 1).

        A row's figures do not depend on the rows beside it, but for the last bits.
        """

    def save(self, folder: Path) -> None:
        """Write the fitted estimator to `folder`."""
        path = folder / self.file
        about = {"kind": self.kind, "params": self.params.model_dump(mode="json"), **self._save(path)}
        write_json(folder / FILE, {**about, "sha256": sha256(path)})

    @abstractmethod
    def _save(self, path: Path) -> dict[str, Any]:
        """Write the weights to `path`; returns what else `_load` needs to know, as JSON."""

    @abstractmethod
    def _load(self, path: Path, about: dict[str, Any]) -> None:
        """Read what `_save` wrote. Whatever is wrong with a file may be raised as it comes: `load` makes one error of it."""

    def to(self, device: str, threads: int) -> Estimator:
        """Return the estimator ready to predict on `device`, on a CPU with so many threads."""
        return self
