"""A run in MLflow: the spec as parameters, metrics by step, the run's files, and the registered version with its alias.

Only the client is needed (mlflow-skinny). mlflow.json in the run's folder names its MLflow run, so a resumed training
continues the same MLflow run.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from cluster.errors import ModelError
from cluster.files import read_json, write_json
from trainer.registry.registry import Version
from trainer.spec.run import RunSpec
from trainer.training.tracking.queued import QueuedTracker

FILE = "mlflow.json"
# MLflow's limits: the number of parameters in one call, and the length of a value (mlflow.utils.validation).
_PARAMS_PER_CALL, _MAX_PARAM_LENGTH = 100, 500
# Give up on an unresponsive server within seconds. With MLflow's defaults it takes many minutes.
_CLIENT_ENV = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2", "MLFLOW_HTTP_REQUEST_TIMEOUT": "10"}
_FILES = (
    "spec.yaml",
    "resolved.yaml",
    "environment.json",
    "history.jsonl",
    "metrics.jsonl",
    "report.html",
    "result.json",
)
_MODEL = "model"


class MlflowTracker:
    """Sends metrics to one MLflow run."""

    def __init__(self, client: Any, run_id: str) -> None:
        self._client, self._run_id = client, run_id

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Send metrics."""
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        values = [Metric(name, float(value), now, step) for name, value in metrics.items()]
        self._client.log_batch(self._run_id, metrics=values)

    def close(self) -> None:
        """Mark the run as finished."""
        self._client.set_terminated(self._run_id)


def start(spec: RunSpec, folder: Path) -> QueuedTracker:
    """Create or continue the MLflow run of `folder`, and return its tracker.

    Raises `ModelError` if MLflow's client is not installed.
    """
    client = _client(spec)
    return QueuedTracker(MlflowTracker(client, _ensure_run(client, spec, folder)))


def publish_run(spec: RunSpec, folder: Path, version: Version | None = None, alias: str | None = None) -> None:
    """Send the files of the run in `folder`; register `version`, and point `alias` to it."""
    client = _client(spec)
    run_id = _ensure_run(client, spec, folder)
    for name in _FILES:
        if (folder / name).is_file():
            client.log_artifact(run_id, str(folder / name))
    assert spec.track.mlflow is not None
    if version is None or not spec.track.mlflow.register_model:
        return
    client.log_artifacts(run_id, str(version.folder), _MODEL)
    _ensure_model(client, version.name)
    source = f"{client.get_run(run_id).info.artifact_uri}/{_MODEL}"
    tags = {"raymill_version": str(version.number)}
    registered = client.create_model_version(version.name, source, run_id, tags=tags)
    if alias:
        client.set_registered_model_alias(version.name, alias, registered.version)


def _client(spec: RunSpec) -> Any:
    for name, value in _CLIENT_ENV.items():
        os.environ.setdefault(name, value)
    try:
        from mlflow import MlflowClient
    except ImportError as error:
        raise ModelError("track.mlflow needs MLflow's client", "pip install 'raymill[mlflow]'") from error
    assert spec.track.mlflow is not None
    return MlflowClient(tracking_uri=spec.track.mlflow.uri)


def _ensure_run(client: Any, spec: RunSpec, folder: Path) -> str:
    """Return the id of the folder's MLflow run; create the run if there is none."""
    if (folder / FILE).is_file():
        known_id: str = read_json(folder / FILE)["run_id"]
        return known_id
    assert spec.track.mlflow is not None
    name = spec.track.mlflow.experiment or spec.name
    experiment = client.get_experiment_by_name(name)
    experiment_id = experiment.experiment_id if experiment else client.create_experiment(name)
    run_id: str = client.create_run(experiment_id, run_name=folder.name, tags={"raymill_run": str(folder)}).info.run_id
    write_json(folder / FILE, {"run_id": run_id})
    _log_params(client, run_id, spec)
    return run_id


def _log_params(client: Any, run_id: str, spec: RunSpec) -> None:
    from mlflow.entities import Param

    flat = list(_flatten(spec.model_dump(mode="json")))
    params = [Param(key, str(value)[:_MAX_PARAM_LENGTH]) for key, value in flat if value is not None]
    for first in range(0, len(params), _PARAMS_PER_CALL):
        client.log_batch(run_id, params=params[first : first + _PARAMS_PER_CALL])


def _flatten(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            yield from _flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _ensure_model(client: Any, name: str) -> None:
    from mlflow.exceptions import MlflowException

    try:
        client.create_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
