"""A run in Weights & Biases, offline unless the spec says otherwise: `wandb sync` sends what lies in the run's folder."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cluster.errors import ModelError
from trainer.runs.journal import figures_so_far
from trainer.spec.run import RunSpec


class Wandb:
    """Gives figures to one W&B run."""

    def __init__(self, run: Any) -> None:
        self._run = run

    def log(self, step: int, figures: Mapping[str, float]) -> None:
        """Give figures; W&B's own process writes or sends them."""
        self._run.log({**figures, "step": step})

    def close(self) -> None:
        """Finish the run."""
        self._run.finish()


def start(spec: RunSpec, folder: Path) -> Wandb:
    """Return a run named like the folder; one that goes on has the same id. Raises `ModelError` without the package."""
    try:
        import wandb
    except ImportError as error:
        raise ModelError("track.wandb needs wandb", "pip install raymill[wandb]") from error
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
    # A run that goes on logs steps again that were logged before it was killed: the figure's own step counts, not W&B's.
    run.define_metric("*", step_metric="step")
    made = Wandb(run)
    # What W&B's process had not written yet was lost with it, if this run was killed: the run's own lines were not.
    for step, figures in figures_so_far(folder):
        made.log(step, figures)
    return made
