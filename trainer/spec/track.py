"""The `track:` section of the spec: where figures go while a training runs. Neither torch nor ray is loaded here."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator

from trainer.spec.section import Positive, Section


class Mlflow(Section):
    """An MLflow server, or a local store. Name and password come from MLFLOW_TRACKING_USERNAME and _PASSWORD."""

    uri: Annotated[str, Field(min_length=1)]
    """Address of the server, as `http://host:5000`, or `sqlite:////path/to/mlflow.db`."""
    experiment: Annotated[str, Field(min_length=1)] | None = None
    """Name of the experiment. Default: the spec's `name`."""
    register_model: bool = True
    """Whether a registered version is registered there too."""

    @field_validator("uri")
    @classmethod
    def _has_no_secret(cls, given: str) -> str:
        if "@" in given.partition("://")[2].partition("/")[0]:
            raise ValueError("an address here holds no name or password; set MLFLOW_TRACKING_USERNAME and _PASSWORD")
        return given


class Wandb(Section):
    """Weights & Biases. The key comes from WANDB_API_KEY."""

    project: Annotated[str, Field(min_length=1)] | None = None
    """Name of the project. Default: the spec's `name`."""
    mode: Literal["offline", "online"] = "offline"
    """`offline` writes into the run's folder, for `wandb sync`."""


class Track(Section):
    """Where figures go beside the run's folder, which always has them, with files for TensorBoard."""

    every_steps: Positive = 10
    """Figures of so many optimiser steps together: loss, learning rate, gradient, speed, memory."""
    prometheus: bool = False
    """Serve the figures for Prometheus on a free loopback port while the training runs, which
    `<storage>/prometheus/*.json` names for `file_sd_configs`. On a cluster Ray's own exporter has them anyway."""
    mlflow: Mlflow | None = None
    """Send them to MLflow (extra `mlflow`)."""
    wandb: Wandb | None = None
    """Keep them for Weights & Biases (extra `wandb`)."""
