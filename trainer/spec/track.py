"""The `track:` section of a spec: where metrics are sent while a training runs."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator

from trainer.spec.section import Positive, SpecSection


class MlflowSpec(SpecSection):
    """An MLflow server or a local store. The credentials come from MLFLOW_TRACKING_USERNAME and
    MLFLOW_TRACKING_PASSWORD."""

    uri: Annotated[str, Field(min_length=1)]
    """Address of the server, for example `http://host:5000`, or `sqlite:////path/to/mlflow.db`."""
    experiment: Annotated[str, Field(min_length=1)] | None = None
    """Name of the experiment. Default: the spec's `name`."""
    register_model: bool = True
    """Whether a registered version is also registered in MLflow."""

    @field_validator("uri")
    @classmethod
    def _check_no_credentials(cls, uri: str) -> str:
        if "@" in uri.partition("://")[2].partition("/")[0]:
            raise ValueError(
                "the address must not hold a name or a password; set MLFLOW_TRACKING_USERNAME and "
                "MLFLOW_TRACKING_PASSWORD"
            )
        return uri


class WandbSpec(SpecSection):
    """Weights & Biases. The key comes from WANDB_API_KEY."""

    project: Annotated[str, Field(min_length=1)] | None = None
    """Name of the project. Default: the spec's `name`."""
    mode: Literal["offline", "online"] = "offline"
    """`offline` writes into the run's folder, for `wandb sync`."""


class TrackSpec(SpecSection):
    """Where metrics are sent besides the run's folder, which always has them, including files for TensorBoard."""

    every_steps: Positive = 10
    """Optimizer steps per record of loss, learning rate, gradient norm, speed and memory."""
    prometheus: bool = False
    """Serve the metrics for Prometheus on a free loopback port while the training runs.
    `<storage>/prometheus/*.json` names the port for `file_sd_configs`. On a cluster, Ray's own exporter has them in any
    case."""
    mlflow: MlflowSpec | None = None
    """Send metrics to MLflow (extra `mlflow`)."""
    wandb: WandbSpec | None = None
    """Record metrics for Weights & Biases (extra `wandb`)."""
