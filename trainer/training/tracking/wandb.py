"""A run in Weights & Biases, offline by default: `wandb sync` then sends the files in the run's folder."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from cluster.errors import ModelError
from trainer.runs.journal import read_tracked_metrics
from trainer.spec.run import RunSpec


class WandbTracker:
    """Sends metrics to one W&B run."""

    def __init__(self, run: Any) -> None:
        self._run = run

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Hand metrics to W&B's own process, which writes or sends them."""
        self._run.log({**metrics, "step": step})

    def close(self) -> None:
        """Finish the run."""
        self._run.finish()


def start(spec: RunSpec, folder: Path, notify: Callable[[str], None]) -> WandbTracker:
    """Return a W&B run named after the folder; a resumed run has the same id.

    Raises `ModelError` if wandb is not installed.
    """
    try:
        import wandb
    except ImportError as error:
        raise ModelError("track.wandb needs wandb", "pip install 'raymill[wandb]'") from error
    assert spec.track.wandb is not None
    run = wandb.init(
        project=spec.track.wandb.project or spec.name,
        name=folder.name,
        id=folder.name,
        resume="allow",
        dir=str(folder),
        mode=spec.track.wandb.mode,
        config=spec.model_dump(mode="json"),
        settings=wandb.Settings(silent=True, console="off"),
    )
    # A resumed run logs some steps for a second time: plot by our own step, not by W&B's.
    run.define_metric("*", step_metric="step")
    tracker = WandbTracker(run)
    # If the run was killed, W&B lost the metrics that its process had not written yet: send those in the run's files.
    for step, metrics in read_tracked_metrics(folder):
        tracker.log(step, metrics)
    return tracker
