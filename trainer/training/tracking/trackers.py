"""Where a run's figures go beside its own folder: TensorBoard, MLflow, Weights & Biases, Prometheus.

A new place is a file with a class that has `log` and `close`, and a line in `start`.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from trainer.spec.run import RunSpec
from trainer.training.tracking.base import Tracker

if TYPE_CHECKING:
    from trainer.registry.registry import Version


class Trackers:
    """Several places as one. One that fails is told of and left out from then on: it never stops a training."""

    def __init__(self, trackers: Sequence[tuple[str, Tracker]], tell: Callable[[str], None] = print) -> None:
        self._trackers, self._tell = list(trackers), tell

    def log(self, step: int, figures: Mapping[str, float]) -> None:
        """Give the figures to all."""
        self._each(lambda tracker: tracker.log(step, figures))

    def close(self) -> None:
        """Have all send what is left."""
        self._each(lambda tracker: tracker.close())

    def _each(self, work: Callable[[Tracker], None]) -> None:
        for name, tracker in list(self._trackers):
            try:
                work(tracker)
            except Exception as error:  # whatever the library of another service raises
                self._trackers.remove((name, tracker))
                self._tell(f"{name} gets no more figures of this run: {_said(error)}")


def start(spec: RunSpec, folder: Path, tell: Callable[[str], None]) -> Trackers:
    """Return the places that the spec names, for the run in `folder`; a run that goes on continues there.

    What is missing or does not answer is told of by `tell`, and the run goes without it.
    """
    wanted = ["tensorboard", "prometheus"]
    wanted += [name for name in ("mlflow", "wandb") if getattr(spec.track, name) is not None]
    made: list[tuple[str, Tracker]] = []
    for name in wanted:
        try:
            made.append((name, importlib.import_module(f"trainer.training.tracking.{name}").start(spec, folder)))
        except Exception as error:  # not installed, not reachable, refused
            tell(f"{name} gets no figures of this run: {_said(error)}")
    return Trackers(made, tell)


def finished(
    spec: RunSpec, folder: Path, tell: Callable[[str], None], version: Version | None = None, alias: str | None = None
) -> None:
    """Send what a finished run left in `folder`, and the registered `version` with the `alias` that means it now."""
    if spec.track.mlflow is None:
        return
    from trainer.training.tracking import mlflow

    try:
        mlflow.finished(spec, folder, version, alias)
    except Exception as error:  # not installed, not reachable, refused
        tell(f"mlflow did not get the files of this run: {_said(error)}")


def _said(error: Exception) -> str:
    """Return an error's kind and first line: a UserError's problem stands there."""
    return f"{type(error).__name__}: {(str(error).strip().splitlines() or [''])[0][:300]}"
