"""All trackers of a run, in addition to the files in its folder: TensorBoard, MLflow, Weights & Biases, Prometheus.

To add a tracker, write a module with a `Tracker` class and a function `start`, and add its name to `start_trackers`.
The keys are `track` in trainer/spec/track.py.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from cluster.errors import error_summary
from trainer.spec.run import RunSpec
from trainer.training.tracking.base import Tracker

if TYPE_CHECKING:
    from trainer.registry.registry import Version


class Trackers:
    """Several trackers as one. A tracker that fails is dropped and reported to `notify`; it never stops a training."""

    def __init__(self, trackers: Sequence[tuple[str, Tracker]], notify: Callable[[str], None] = print) -> None:
        self._trackers, self._notify = list(trackers), notify

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Send the metrics to all trackers."""
        self._for_each(lambda tracker: tracker.log(step, metrics))

    def close(self) -> None:
        """Close all trackers, which send what is still pending."""
        self._for_each(lambda tracker: tracker.close())

    def _for_each(self, call: Callable[[Tracker], None]) -> None:
        for name, tracker in list(self._trackers):
            try:
                call(tracker)
            except Exception as error:  # any exception of a service's library
                self._trackers.remove((name, tracker))
                self._notify(f"{name} gets no more metrics of this run: {error_summary(error)}")


def start_trackers(spec: RunSpec, folder: Path, notify: Callable[[str], None]) -> Trackers:
    """Return the trackers of the run in `folder` that the spec names. A resumed run continues in the same trackers.

    If a tracker is not installed or does not answer, `notify` gets a sentence and the run continues without it.
    """
    names = ["tensorboard", "prometheus"]
    names += [name for name in ("mlflow", "wandb") if getattr(spec.track, name) is not None]
    trackers: list[tuple[str, Tracker]] = []
    for name in names:
        try:
            trackers.append(
                (name, importlib.import_module(f"trainer.training.tracking.{name}").start(spec, folder, notify))
            )
        except Exception as error:  # not installed, not reachable, refused
            notify(f"{name} gets no metrics of this run: {error_summary(error)}")
    return Trackers(trackers, notify)


def publish_run(
    spec: RunSpec, folder: Path, notify: Callable[[str], None], version: Version | None = None, alias: str | None = None
) -> None:
    """Send the files of the finished run in `folder`, and the registered `version` with its `alias`."""
    if spec.track.mlflow is None:
        return
    from trainer.training.tracking import mlflow

    try:
        mlflow.publish_run(spec, folder, notify, version, alias)
    except Exception as error:  # not installed, not reachable, refused
        notify(f"mlflow did not get the files of this run: {error_summary(error)}")
