"""Callbacks that a training calls after every epoch, to report metrics and to save models."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from trainer.training.checkpoint.train_state import TrainState

#: Writes a model, or everything needed to resume, to a folder.
SaveFn = Callable[[Path], None]


class ModelWriter:
    """Writes one epoch's model to a folder. It holds a copy of the weights, so it may run while training continues."""

    def __init__(self, write: SaveFn) -> None:
        self._write = write

    def __call__(self, folder: Path) -> None:
        self._write(folder)


class EpochCallback(ABC):
    """Called after every epoch of a training, on every rank."""

    @abstractmethod
    def __call__(self, metrics: dict[str, Any], save: SaveFn | None, write_state: SaveFn | None = None) -> None:
        """Take the metrics of an epoch.

        `save` writes the epoch's model to a folder; it is None unless the epoch is the best so far. `write_state`
        writes a checkpoint to a folder; it is None for trainings that cannot be resumed. All ranks call `write_state`.
        """

    def on_begin(self, state: TrainState) -> None:  # noqa: B027 (an optional hook)
        """Correct the best metric in `state` before the first step; `state` may come from a checkpoint."""

    def settle(self) -> None:  # noqa: B027 (an optional hook)
        """Wait until the newest model is on storage or its write has failed."""


class FunctionCallback(EpochCallback):
    """After each epoch, calls a function with the metrics and with `save`."""

    def __init__(self, function: Callable[[dict[str, Any], SaveFn | None], None]) -> None:
        self._function = function

    def __call__(self, metrics: dict[str, Any], save: SaveFn | None, write_state: SaveFn | None = None) -> None:
        self._function(metrics, save)
